"""Credentials of trackers: which keys of which Secret a tuning pod gets, and what is said where there are none."""

import pytest

from kaito_hera.api import Workspace
from kaito_hera.settings import Settings
from tests import making
from tuning import training_config
from workflows import configs, trackers


def workspace(secret="", **output):
    made = making.tuning()
    made["metadata"]["annotations"] = {"kaito.sh/tracking-secret": secret} if secret else {}
    if output:
        made["tuning"]["output"] = output
    return Workspace.parse(made)


def training(*names):
    return training_config.parse(f"training_config: {{TrainingArguments: {{report_to: {list(names)}}}}}", "qlora")


def test_the_pod_gets_the_keys_that_the_secret_has():
    found = trackers.env(workspace("mine"), training("wandb", "mlflow"))
    assert [each["name"] for each in found] == list(trackers.KEYS)
    assert found[0] == {
        "name": "WANDB_API_KEY",
        "valueFrom": {"secretKeyRef": {"name": "mine", "key": "WANDB_API_KEY", "optional": True}},
    }


@pytest.mark.parametrize(("secret", "names"), [("", ["wandb"]), ("mine", [])])
def test_a_pod_gets_no_key_that_nobody_asked_for(secret, names):
    assert trackers.env(workspace(secret), training(*names)) == ()


def test_each_tracker_needs_its_key():
    field = "metadata.annotations[kaito.sh/tracking-secret]"
    found = trackers.tokens(workspace("mine"), training("mlflow", "wandb", "tensorboard"))
    assert found == ((field, "mine", "MLFLOW_TRACKING_URI"), (field, "mine", "WANDB_API_KEY"))
    assert trackers.tokens(workspace(), training("mlflow")) == ()


@pytest.mark.parametrize(
    ("secret", "names", "said"),
    [
        ("", ["wandb"], "nothing goes to wandb without a Secret; make one with WANDB_API_KEY"),
        ("", ["wandb", "mlflow"], "WANDB_API_KEY and MLFLOW_TRACKING_URI"),
        ("mine", [], "has no effect, since TrainingArguments.report_to names no tracker"),
        ("mine", ["tensorboard"], "none are written"),
    ],
)
def test_what_is_asked_in_vain_is_a_warning(secret, names, said):
    (warning,) = trackers.warnings(workspace(secret), training(*names))
    assert said in warning


def test_what_can_be_done_needs_no_warning():
    assert trackers.warnings(workspace("mine"), training("mlflow")) == ()
    claim = {"volumeSource": {"persistentVolumeClaim": {"claimName": "c"}}}
    assert trackers.warnings(workspace("", **claim), training("tensorboard")) == ()


@pytest.mark.parametrize("data", [None, {"training_config.yaml": "training_config: {}"}], ids=["default", "written"])
def test_it_is_said_with_the_config_that_asks_so(data):
    (warning,) = configs.training(workspace("mine"), Settings(), lambda *_: data).warnings
    assert "has no effect, since TrainingArguments.report_to names no tracker" in warning
