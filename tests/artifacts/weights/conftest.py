import json
import os

import pytest

from artifacts.weights.config import Model
from tests.tuning import servers
from tests.tuning.conftest import entry, write_secret

WEIGHTS = os.urandom(3 << 20)
CONFIG = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 300,
    "max_position_embeddings": 512,
}


@pytest.fixture
def files(tmp_path):
    """A folder with a model's files, and some that are not wanted of it."""
    folder = tmp_path / "model"
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model-00001-of-00002.safetensors").write_bytes(WEIGHTS)
    (folder / "model-00002-of-00002.safetensors").write_bytes(WEIGHTS[:1000])
    for unwanted in ("evil.py", "pytorch_model.bin", "consolidated.safetensors", "onnx/config.json"):
        (folder / unwanted).write_text("no")
    return folder


@pytest.fixture
def registry(tmp_path):
    (tmp_path / "registry").mkdir()
    with servers.Registry(tmp_path / "registry", password=True) as running:
        yield running


@pytest.fixture
def auth(registry, tmp_path):
    return write_secret(tmp_path / "auth.json", {registry.host: entry()})


@pytest.fixture
def model(registry):
    return Model(id="acme/tiny", revision="main", image=f"{registry.host}/team/tiny:1")
