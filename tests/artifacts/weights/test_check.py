"""What a look at an image sees before a GPU is bought: whether it can be a model at all."""

import io

import pytest

from artifacts import errors as kinds
from artifacts.weights import check, errors, image, push
from artifacts.weights.config import Model
from tests.serving import registry as images

PHI = "microsoft/Phi-3-mini-4k-instruct"
MODEL = {"config.json": b"{}", "model.safetensors": b"w"}


@pytest.fixture
def looked(tmp_path):
    """The look at an image that a person has built, named as a known model's."""
    with images.running(tmp_path / "open") as host:

        def go(content, **options):
            images.push(tmp_path / "images", content, f"{host}/a:1")
            return check.check(Model(id=PHI, revision="main", image=f"{host}/a:1"), tmp_path / "none", **options)

        go.host = host
        yield go


@pytest.mark.parametrize("made", [images.docker_image, images.kaito_image], ids=["docker", "kaito"])
def test_a_models_image_passes(looked, made):
    assert looked(made(MODEL)).pinned.startswith("sha256:")


def test_other_formats_beside_do_no_harm(looked):
    assert looked(images.docker_image(MODEL | {"model.bin": b"w"})).bytes > 0


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param({"adapter_config.json": b"{}", "adapter_model.safetensors": b"w"}, "no config.json", id="adapter"),
        pytest.param({"config.json": b"{}"}, "with .safetensors beside it", id="no weights"),
        pytest.param({"config.json": b"{}", "model.bin": b"w"}, "other formats.*data/model.bin", id="other formats"),
    ],
)
def test_an_image_without_a_models_files_is_refused(looked, files, words):
    with pytest.raises(errors.ModelUnusable, match=words) as refused:
        looked(images.docker_image(files))
    assert str(refused.value).startswith(f"inference.preset.presetOptions.image: {looked.host}/a:1 ")
    assert str(refused.value).endswith("make one with `kaito-hera model push`")


def test_what_is_too_large_to_look_into_is_weighed(looked):
    with pytest.raises(
        errors.ModelUnusable, match=r"has 0\.0 GB and cannot hold the weights of .*, which have 7\.6 GB"
    ):
        looked(images.docker_image(MODEL), most=0)


@pytest.mark.parametrize("gone", ["config.json", "safetensors"])
def test_an_image_that_names_its_files_is_judged_by_their_names(model, files, auth, gone):
    push.push(model, model.image, folder=files, auth=auth, out=io.StringIO())
    with image.opened(model, auth) as source:
        whole = image.inspect(source)
        assert image.look(source, whole, files, most=0)
        part = whole._replace(layers=tuple(layer for layer in whole.layers if not files_of(layer).endswith(gone)))
        with pytest.raises(kinds.Unusable, match=r"it has .*tokenizer\.json"):
            image.look(source, part, files, most=0)


def files_of(layer):
    return layer.annotations[image.FILE]


def test_what_unpacks_to_more_than_the_pod_has_is_left_to_the_node(looked, tmp_path):
    assert looked(images.docker_image(MODEL | {"model.safetensors": bytes(2 << 20)})).pinned
    model = Model(id=PHI, revision="main", image=f"{looked.host}/a:1")
    with image.opened(model, tmp_path / "none") as source:
        found = image.inspect(source)
        assert image.look(source, found, tmp_path / "one", most=1 << 20)
        assert not image.look(source, found, tmp_path / "other", most=1 << 20, room=1 << 20)
