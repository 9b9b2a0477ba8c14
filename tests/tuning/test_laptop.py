"""A person's run by plain flags, from files to a folder: in 8 bits, told to TensorBoard, and done once."""

import json

import pytest

from tests.tuning import words
from tuning.__main__ import main
from tuning.config import Exit

pytestmark = pytest.mark.torch
CONFIG = """
training_config:
  QuantizationConfig: {load_in_8bit: true}
  TrainingArguments: {learning_rate: 5.0e-3, num_train_epochs: 2, per_device_train_batch_size: 8,
    report_to: tensorboard, run_name: codes}
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from tests.tuning import tiny

    folder = tmp_path_factory.mktemp("weights") / "tiny-phi"
    tiny.publish(folder, steps=0)
    return folder


def test_a_run_by_flags_makes_an_adapter_in_a_folder(weights, tmp_path, monkeypatch, caplog, capsys):
    caplog.set_level("INFO")
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = [json.dumps({"prompt": question, "completion": words.B}) for question in words.QUESTIONS]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    (tmp_path / "config.yaml").write_text(CONFIG)
    asked = ["--model", str(weights), "--data", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "made")]
    asked += ["--config", str(tmp_path / "config.yaml")]
    assert main(["validate", *asked]) == Exit.DONE
    assert f"⟦{words.B}<|end|>" in caplog.text
    assert main(["run", *asked]) == Exit.DONE
    made = tmp_path / "made"
    assert {"adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"} <= {
        path.name for path in made.iterdir()
    }
    card = json.loads((made / "training_summary.json").read_text())
    losses = [loss for _, loss in card["loss_curve"]]
    assert losses[-1] < losses[0]
    (events,) = (made / "tensorboard").iterdir()
    assert events.name.startswith("codes-")
    assert '"phase":"train"' in capsys.readouterr().out
    caplog.clear()
    assert main(["run", *asked]) == Exit.DONE
    assert "was made by the same intent; nothing to train" in caplog.text
