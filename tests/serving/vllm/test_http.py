"""The application over vLLM's engine: both APIs, adapters by name and summed, forms, and a death that ends it."""

import importlib
import json
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # peft asks for it
]
pytest.importorskip("torch")

from serving import model
from serving.config import ServingConfig
from serving.engine.vllm import start
from serving.service import Loaded
from tests.serving import fakes, tiny
from tests.serving.vllm.test_engine import CONFIG, STUB

ADAPTERS = [{"name": "one", "image": "r/one:1", "strength": 0.5}, {"name": "two", "image": "r/two:1"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = tmp_path_factory.mktemp("vllm")
    base = tiny.checkpoint(root / "base")
    images = {}
    for seed, name in enumerate(("one", "two"), 1):
        tiny.adapter(root / name, base, seed)
        images[f"r/{name}:1"] = (f"sha256:{name}", root / name)
    sys.path.insert(0, str(STUB))
    config = ServingConfig.model_validate(CONFIG)
    chat = model.Chat(importlib.import_module("serving.text.checkpoint").CheckpointTokenizer(base))

    def load():
        return Loaded(start.start(base, config, root / "mixes", 1), chat)

    with fakes.server(
        root, load=load, source=Folders(images), adapters=json.dumps(ADAPTERS), tokenizer=chat.tokenizer
    ) as made:
        made.eventually(lambda: made.get("/health").status_code == 200)
        yield made
    sys.path.remove(str(STUB))
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]


class Folders:
    """Images that lie here as folders."""

    def __init__(self, images):
        self.images = images

    async def pull(self, adapter):
        digest, folder = self.images[adapter.image]
        return fakes.Pulled(digest, Path(folder))

    def keep_only(self, digests):
        pass


def asked(client, **body):
    messages = [{"role": "user", "content": "the quick brown fox"}]
    return client.post("/v1/chat/completions", messages=messages, temperature=0, max_tokens=6, **body)


def engine(client):
    return client.service.loaded.engine


def test_names_choose_the_adapters_and_the_served_name_is_their_sum(client):
    texts = {}
    for name in ("tiny", "one", "two", "acme/tiny"):
        found = asked(client, model=name)
        assert found.status_code == 200, found.text
        texts[name] = found.json()["choices"][0]["message"]["content"]
    assert len(set(texts.values())) == 4
    again = asked(client, model="one", adapter_strength=0.5).json()["choices"][0]["message"]["content"]
    assert again == texts["one"]
    assert asked(client, model="one", adapter_strength=1).json()["choices"][0]["message"]["content"] != texts["one"]


def test_chat_as_kaito_has_it_and_completions_that_stream(client):
    assert client.chat("the quick", max_new_tokens=4, do_sample=False).status_code == 200
    streamed = client.post("/v1/completions", prompt="the quick", max_tokens=3, stream=True, temperature=0)
    assert streamed.text.rstrip().endswith("data: [DONE]")
    both = client.post("/v1/completions", prompt="the quick", max_tokens=3, n=2, seed=5, logprobs=2)
    assert [len(each["logprobs"]["tokens"]) > 0 for each in both.json()["choices"]] == [True, True]


def test_forms_reach_vllm_and_what_it_lacks_is_refused(client):
    assert asked(client, response_format={"type": "json_object"}).status_code == 200
    assert json.loads(engine(client)._llm.seen[-1].params.structured_outputs.json) == {"type": "object"}
    refused = client.chat("the quick", num_beams=3)
    assert refused.status_code == 400
    assert "vllm" in refused.json()["detail"]
    assert asked(client, logit_bias={"5": -100}).status_code == 200


def test_what_it_is_stands_in_models_and_metrics(client):
    told = client.get("/v1/models").json()
    assert "vllm" in json.dumps(told)
    assert {status["state"] for status in told["adapters"]} == {"loaded"}
    assert "vllm:generation_tokens_total" in client.get("/metrics").text


def test_its_death_ends_the_server(client):
    engine(client)._llm.dead = True
    client.eventually(lambda: client.fatal)
    assert "vLLM has died" in str(client.fatal[0])
    assert client.get("/health").status_code == 503
