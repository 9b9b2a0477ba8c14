"""Data in an image of a real registry: of KAITO's make, of docker's, at the top; and every way it can go wrong."""

import json

import pytest

from tests.serving import registry as images
from tests.tuning import servers
from tests.tuning.conftest import entry, write_secret
from tuning.config import Exit, Result
from tuning.data import fetch, folder, inputs, pull
from tuning.errors import DataUnreachable
from tuning.places import Places

ROWS = b'{"text": "x"}\n'


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """A registry where anybody may push, and where skopeo speaks plain HTTP."""
    root = tmp_path_factory.mktemp("images")
    with images.running(root / "public") as host:
        yield host


@pytest.fixture
def there(public, registry, tmp_path, monkeypatch):
    """Pushes an image of these files; its name."""
    for name, value in images.plain_http(tmp_path, public, registry.host).items():
        monkeypatch.setenv(name, value)

    def push(name, image, *, host=public, credentials=""):
        images.push(tmp_path, image, f"{host}/team/{name}:1", credentials=credentials)
        return f"{host}/team/{name}:1"

    return push


def pulled(image, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = pull.patiently(image, scratch, tmp_path / "none")
    assert found.field == f"tuning.input.image ({image})"
    assert len(list(scratch.iterdir())) == 1
    return {file.name: file.path.read_bytes() for file in folder.files(found)}


def test_kaitos_image_has_its_data_in_data(there, tmp_path):
    image = there("kaito", images.kaito_image({"train.jsonl": ROWS, "LICENSE": b"MIT, of sorts"}))
    assert pulled(image, tmp_path) == {"train.jsonl": ROWS}


def test_dockers_image_has_folders_and_layers(there, tmp_path):
    image = there("docker", images.docker_image({"a/1.jsonl": ROWS, "b/2.csv": b"prompt,completion\na,b\n"}))
    assert pulled(image, tmp_path) == {"a/1.jsonl": ROWS, "b/2.csv": b"prompt,completion\na,b\n"}


def test_an_image_without_data_folder_has_it_at_the_top(there, tmp_path):
    image = there("top", images.docker_image({"train.jsonl": ROWS, "sub/other.jsonl": ROWS}, prefix="./"))
    assert pulled(image, tmp_path) == {"train.jsonl": ROWS}


def config_of(config, image, registry):
    return config(f"{registry.host}/team/out:1", input={"image": image})


@pytest.fixture
def check(tuning, config, registry, auth):
    def go(image, pull_auth="none"):
        asked = config_of(config, image, registry)
        return tuning(asked, "validate", "--push-auth", str(auth), "--pull-auth", str(pull_auth))

    return go


def test_a_check_looks_into_a_small_image(there, check):
    assert check(there("good", images.kaito_image({"train.jsonl": ROWS}))).left == Result()
    image = there("bad", images.kaito_image({"notes.txt": b"hello"}))
    done = check(image)
    assert (done.code, done.left.reason) == (Exit.BAD_DATA, "DataInvalid")
    assert done.left.message.startswith(f"tuning.input.image ({image}): no data among notes.txt (starts with b'hello')")


def test_a_check_of_a_large_image_sees_only_that_it_is_there(there, config, registry, tmp_path):
    image = there("large", images.kaito_image({"notes.txt": b"hello"}))
    places = Places(pull_auth=tmp_path / "none")
    looks = inputs.looks(config_of(config, image, registry), places, seconds=30, most=10)
    assert [look().words for look in looks.values()] == ["is there, and so large that it is looked into on the node"]
    assert list(looks) == [f"tuning.input.image ({image})"]


def test_a_check_does_not_unpack_more_than_its_pod_has_room_for(there, config, registry, tmp_path):
    image = there("bomb", images.kaito_image({"train.jsonl": ROWS * (1 << 17)}))
    places, asked = Places(pull_auth=tmp_path / "none"), config_of(config, image, registry)
    (look,) = inputs.looks(asked, places, seconds=30, room=1 << 20).values()
    assert look().words.startswith(
        "is there, and is looked into on the node: tuning.input.image: the image when unpacked is"
    )
    assert "larger than 1,048,576 bytes" in look().words
    (look,) = inputs.looks(asked, places, seconds=30).values()
    assert not look().words.startswith("is there")


def test_a_private_image_needs_a_pull_secret(there, check, registry, tmp_path):
    password = f"{servers.USER}:{servers.PASSWORD}"
    image = there("private", images.kaito_image({"a.jsonl": ROWS}), host=registry.host, credentials=password)
    done = check(image)
    assert (done.code, done.left.reason, done.left.retryable) == (Exit.REGISTRY_AUTH, "PullUnauthorized", False)
    assert f"tuning.input.image: the registry refuses {image} without credentials and none" in done.left.message
    assert done.left.message.endswith("name a pull secret for this registry in tuning.input.imagePullSecrets")
    assert check(image, write_secret(tmp_path / "pull.json", {registry.host: entry()})).left == Result()


@pytest.mark.parametrize(
    ("name", "code", "reason", "words"),
    [
        ("none:1", Exit.BAD_DATA, "DataNotFound", "the registry has no image"),
        ("Upper:1", Exit.BAD_DATA, "DataNotFound", "is not an image reference"),
        ("artifact:1", Exit.BAD_DATA, "DataInvalid", "no container image"),
    ],
)
def test_images_that_cannot_be_had(there, check, public, name, code, reason, words):
    there("artifact", images.artifact({"a.jsonl": ROWS}))
    done = check(f"{public}/team/{name}")
    assert (done.code, done.left.reason, done.left.retryable) == (code, reason, False)
    assert done.left.message.startswith("tuning.input.image: ")
    assert words in done.left.message


def test_a_registry_that_is_away_is_asked_again(check, tmp_path):
    image = f"127.0.0.1:{servers.free_port()}/team/a:1"
    done = check(image)
    assert (done.code, done.left.reason, done.left.retryable) == (Exit.NETWORK, "DataUnreachable", True)
    with pytest.raises(DataUnreachable):
        pull.patiently(image, tmp_path, tmp_path / "none", fetch.Pace(patience=0.2, pause=0.1))


def test_what_is_asked_for_is_one_of_three(config):
    for wrong in ({}, {"urls": ["http://a/b"], "image": "r/a:1"}, {"image": "r/a:1", "volume": "v"}):
        with pytest.raises(ValueError, match="exactly one of urls, image and volume"):
            config("r/a:1", input=wrong)
    for wrong in ({}, {"image": "r/a:1", "volume": "v"}):
        with pytest.raises(ValueError, match="exactly one of image and volume"):
            config("r/a:1", output=wrong)
    assert json.loads(config("r/a:1", input={"image": "r/d:1"}).model_dump_json(exclude_defaults=True))["input"] == {
        "image": "r/d:1"
    }
