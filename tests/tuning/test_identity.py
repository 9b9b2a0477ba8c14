"""What has to be the same for a checkpoint to count: an upgrade between two attempts is none of it."""

from array import array

import pytest

from tests.tuning.conftest import tuning_config
from tuning.data.masks import Encoded
from tuning.run import identity
from tuning.training_config import parse

ROWS = [Encoded(array("i", [1, 2, 3]), array("i", [-100, 2, 3]))]
OTHERS = [Encoded(array("i", [1, 2, 4]), array("i", [-100, 2, 4]))]
SOME = "TrainingArguments: {learning_rate: 0.001, num_train_epochs: 2}, LoraConfig: {r: 4, target_modules: [q_proj]}"


def of(sections="", rows=ROWS, **more):
    training = parse(f"training_config: {{{sections}}}", "qlora")
    return identity(tuning_config("r/x:1", ["https://data/x"], training=training, **more), rows, "cpu")


@pytest.mark.parametrize(
    ("sections", "recorded"),
    [
        ("", "1e718a56fd60b648c723d289b975181234e912f17cb49bb9d216317c474e2dcd"),
        (SOME, "43530a5d84307ca3c2939b636e982c56b65bcfc5f1f7e5c745ac6d2e9d8c8790"),
    ],
)
def test_a_checkpoint_of_an_earlier_release_is_gone_on_from(sections, recorded):
    """Recorded where there was no packing: a new key belongs into `training_sections._NEWER`."""
    assert of(sections) == recorded


def test_what_a_step_depends_on_is_told_apart():
    packed = "TrainingArguments: {packing: true}"
    said = {of(), of(SOME), of(packed), of(rows=OTHERS), of(method="lora"), of(model={"id": "a/b", "revision": "main"})}
    assert len(said) == 6
    assert of("TrainingArguments: {packing: false}") == of()
    assert of("TrainingArguments: {save_strategy: epoch}") == of(), "a warning decides nothing"
