"""Whether KAITO's tuning Job did what the Workspace asks for now: only then its adapter counts."""

import pytest

from kaito_hera import inherited
from kaito_hera.api import Workspace
from tests import making
from tests.apiserver.kaito import tuning_pod

CLAIM = {"persistentVolumeClaim": {"claimName": "data"}}
OUTPUT = {"image": "team.azurecr.io/adapter:1", "imagePushSecret": "push"}
URLS = ["https://example.com/a.parquet", "https://example.com/b.parquet"]
eras = pytest.mark.parametrize("era", ["v0.3", "v0.12"])


def tuning(**changes):
    return {**making.tuning()["tuning"], "input": {"urls": URLS}, **changes}


def edited(before, after, era):
    workspace = Workspace.parse({**making.tuning(), "tuning": after})
    return inherited.edited(tuning_pod(before, era), workspace.tuning)


@eras
@pytest.mark.parametrize(
    "same",
    [
        tuning(),
        tuning(config="mine"),
        tuning(input={"image": "team.azurecr.io/data:1"}),
        tuning(input={"volumeSource": CLAIM}),
    ],
    ids=["urls", "config", "image", "volume"],
)
def test_what_kaito_tuned_is_known_again(same, era):
    assert edited(same, same, era) == []


@eras
@pytest.mark.parametrize(
    ("after", "told"),
    [
        (tuning(input={"urls": URLS[:1]}), ["tuning.input.urls"]),
        (tuning(input={"urls": [*URLS, "https://example.com/c.parquet"]}), ["tuning.input.urls"]),
        (tuning(input={"image": "team.azurecr.io/data:1"}), ["tuning.input.urls", "tuning.input.image"]),
        (tuning(input={"volumeSource": CLAIM}), ["tuning.input.urls", "tuning.input.volumeSource"]),
        (tuning(config="mine"), ["tuning.config"]),
        (tuning(method="lora"), ["tuning.config"]),
        (tuning(preset={"name": "phi-3-mini-128k-instruct"}), ["tuning.preset"]),
        (tuning(preset={"name": "phi-3-mini-4k-instruct", "presetOptions": {"image": "a.io/m:1"}}), ["tuning.preset"]),
        (tuning(output={**OUTPUT, "image": "team.azurecr.io/adapter:12"}), ["tuning.output.image"]),
        (tuning(output={"volumeSource": CLAIM}), ["tuning.output.image"]),
    ],
)
def test_every_edit_since_is_named(after, told, era):
    assert edited(tuning(), after, era) == told


@eras
@pytest.mark.parametrize(("before", "after"), [("data:1", "data:2"), ("data:1", "more/data:1"), ("data:1", "data")])
def test_another_image_of_data_is_another_tuning(before, after, era):
    images = [tuning(input={"image": f"team.azurecr.io/{name}"}) for name in (before, after)]
    assert edited(*images, era) == ["tuning.input.image"]


@pytest.mark.parametrize("short", ["team/adapter", "docker.io/team/adapter", "team/adapter:latest"])
def test_an_image_that_kaito_spelled_out_is_the_same(short):
    spelled = tuning(output={**OUTPUT, "image": "docker.io/team/adapter:latest"})
    assert edited(spelled, tuning(output={**OUTPUT, "image": short}), "v0.12") == []
