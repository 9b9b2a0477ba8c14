"""Docker Secrets in one: two accounts of one registry are told apart by the image that each was named for."""

import json

import pytest

from kaito_hera import dockerconfigs
from tests import making
from tuning.output import credentials

PULL, PUSH, OTHER = {"auth": "cHVsbDp4"}, {"auth": "cHVzaDp4"}, {"auth": "b3RoZXI6eA=="}


def test_secrets_of_different_registries_are_put_together():
    assert dockerconfigs.merged([("a.io/x:1", {"a.io": PULL}), ("b.io/y", {"b.io": PUSH})]) == {
        "a.io": PULL,
        "b.io": PUSH,
    }


def test_secrets_that_say_the_same_are_said_once():
    assert dockerconfigs.merged([("a.io/x:1", {"a.io": PULL}), ("a.io/y:1", {"a.io": PULL})]) == {"a.io": PULL}


def test_two_accounts_of_one_registry_are_each_kept_for_their_image(tmp_path):
    found = dockerconfigs.merged(
        [("a.io/team/data:1", {"a.io": PULL}), ("a.io:443/z", {"a.io": OTHER}), ("a.io/team/adapter:2", {"a.io": PUSH})]
    )
    assert found == {"a.io": PUSH, "a.io/team/data": PULL}
    secret = tmp_path / "config.json"
    secret.write_text(json.dumps({"auths": found}))
    for image, user in (("a.io/team/data:2", "pull"), ("a.io/team/adapter:1", "push"), ("a.io/else:1", "push")):
        assert credentials.find(secret, credentials.parse(image)).username == user


def test_the_first_of_an_images_own_secrets_counts():
    found = dockerconfigs.merged([("a.io/x", {"a.io": PULL}), ("a.io/x", {"a.io": OTHER}), ("", {"a.io": PUSH})])
    assert found == {"a.io": PUSH, "a.io/x": PULL}


@pytest.mark.parametrize("key", ["docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"])
def test_dockers_own_registry_has_many_names(key):
    found = dockerconfigs.merged([("busybox:1", {key: PULL}), ("team/x", {key: PUSH})])
    assert found == {key: PUSH, "docker.io/library/busybox": PULL}


@pytest.mark.parametrize(
    ("field", "image"),
    [
        ("inference.adapters[1].source.imagePullSecrets[0]", "a.io/two:1"),
        ("inference.preset.presetOptions.imagePullSecrets[0]", "a.io/weights:1"),
        ("inference.adapters[9].source.imagePullSecrets[0]", ""),
    ],
)
def test_a_field_says_which_image_its_secrets_are_for(field, image):
    workspace = making.inference()
    adapters = [{"source": {"name": name, "image": f"a.io/{name}:1"}} for name in ("one", "two")]
    preset = {**workspace["inference"]["preset"], "presetOptions": {"image": "a.io/weights:1"}}
    served = {**workspace, "inference": {"preset": preset, "adapters": adapters}}
    assert dockerconfigs.image_of(making.parsed(served), field) == image


def test_tunings_secrets_are_for_its_images():
    workspace = making.tuning()
    asked = {**workspace["tuning"], "input": {"image": "a.io/data:1"}}
    parsed = making.parsed({**workspace, "tuning": asked})
    assert dockerconfigs.image_of(parsed, "tuning.input.imagePullSecrets[0]") == "a.io/data:1"
    assert dockerconfigs.image_of(parsed, "tuning.output.imagePushSecret") == "team.azurecr.io/adapter:1"
