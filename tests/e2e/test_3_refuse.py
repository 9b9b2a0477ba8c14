"""What cannot work is said within a minute, naming field, value and remedy, and no GPU node is ever made."""

import base64
import json

import pytest

from tests.e2e.world import PUSH_SECRET, until

DATA = "https://huggingface.co/datasets/philschmid/dolly-15k-oai-style/resolve/main/data/"
FILE = "train-00000-of-00001-54e3756291ca09c6.parquet"
LOGIN = "https://huggingface.co/datasets/kaito-hera/login-page/resolve/main/data.parquet"

CASES = {
    "data-that-is-not-there": (
        lambda text: text.replace(FILE, "train-of-thought.parquet"),
        None,
        ["tuning.input.urls[0]", "train-of-thought.parquet", "404"],
    ),
    "a-login-page-for-data": (
        lambda text: text.replace(f"{DATA}{FILE}?download=true", LOGIN),
        None,
        ["tuning.input.urls[0]", LOGIN, "web page"],
    ),
    "a-secret-nobody-made": (
        lambda text: text.replace(PUSH_SECRET, "no-such-secret"),
        "SecretNotFound",
        ["tuning.output.imagePushSecret", "no-such-secret", "kubectl"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_before_a_gpu_is_bought(world, namespace, case):
    change, reason, words = CASES[case]
    _refused(world, namespace, change(world.manifest("fine-tuning-phi-3", image=namespace)), reason, words)


def test_what_the_api_server_can_know_is_refused_at_apply(world, namespace):
    text = world.manifest("fine-tuning-phi-3", image=namespace)
    text = text.replace("phi-3-mini-128k-instruct", "phi-3-mini-128k-instrukt")
    with pytest.raises(
        AssertionError, match=r"tuning.preset.name: .phi-3-mini-128k-instrukt.*phi-3-mini-128k-instruct"
    ):
        world.apply(namespace, text)


def test_a_wrong_password_is_told_before_a_gpu_is_bought(world, namespace):
    auths = json.loads(world.machine.registry_auth.read_text())
    for entry in auths["auths"].values():
        entry["password"] = "wrong"
        entry["auth"] = base64.b64encode(f"{entry['username']}:wrong".encode()).decode()
    secret = world.push_secret(namespace, json.dumps(auths))
    world.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
    manifest = world.manifest("fine-tuning-phi-3", image=namespace)
    _refused(world, namespace, manifest, None, ["tuning.output.imagePushSecret", "'kaito'", "password"])


def _refused(world, namespace, manifest, reason, words):
    name = world.apply(namespace, manifest)

    def told():
        condition = world.condition(namespace, name, "PreflightSucceeded")
        return condition if condition["reason"] not in {"", "PreflightPending"} else None

    condition = until(told, what=lambda: world.story(namespace, name), seconds=60)
    assert condition["status"] == "False"
    assert reason in {None, condition["reason"]}
    for word in words:
        assert word in condition["message"], condition
    assert world.pools_ever(namespace) == 0
