"""What we save is read by the oldest peft that KAITO's images have had: `make peft-eras` brings it and runs this.

By its name no suite finds it: they have no peft but ours.
"""

import json
import subprocess
from pathlib import Path

import pytest

from tests.tuning.conftest import ROOT, tuning_config

OLD = ROOT / "build" / "peft-0.11.1" / "bin" / "python"
SHAPE = {"hidden": 32, "layers": 2}


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"r": 4, "lora_alpha": 32, "lora_dropout": 0.1},
        {"use_rslora": True},
        {"target_modules": ["q_proj", "o_proj"]},
        {"exclude_modules": ["o_proj"]},
    ],
    ids=str,
)
def test_peft_0_11_reads_what_we_save(tmp_path, lora):
    import safetensors.torch
    import torch

    from tests.tuning import tiny
    from tuning.training import adapter, model

    config = tuning_config("r.example/a:1", ["https://example.com/a"], training={"lora": lora})
    adapted = model.attach(tiny.model(300, **SHAPE), config.training.lora)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in (each for name, each in adapted.named_parameters() if "lora_B" in name):
            weights.normal_()
    adapter.save(adapted, tmp_path, config)
    saved = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")

    command = [OLD, Path(__file__).with_name("peft_era.py"), tmp_path, "300", *map(str, SHAPE.values())]
    environment = {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["peft"] == "0.11.1"
    assert told["moved"] > 0.1
    assert told["weights"] == pytest.approx({name: float(each.float().sum()) for name, each in saved.items()}, rel=1e-3)
    described = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (told["targets"], told["alpha"]) == (described["target_modules"], described["lora_alpha"])
