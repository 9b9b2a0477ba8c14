"""vLLM behind the Engine protocol, over a stand-in with its recorded signatures and a tiny real model."""

import asyncio
import contextlib
import json
import math
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # peft asks for it
]
torch = pytest.importorskip("torch")

from serving import errors
from serving.config import ServingConfig
from serving.engine.loading import load_model
from serving.engine.protocol import (
    AdapterRefused,
    Delta,
    EngineDown,
    Form,
    Request,
    RequestFailed,
    RequestRefused,
    Sampling,
)
from serving.engine.sequential import SequentialEngine
from serving.engine.vllm import start
from tests.serving import tiny

STUB = Path(__file__).parent / "stub"
CONFIG = {"workspace": "ns/w", "name": "tiny", "model": {"id": "acme/tiny", "revision": "1"}, "runtime": "vllm"}
GREEDY = Sampling(do_sample=False)
PROMPT = (5, 9, 100, 33)


@pytest.fixture(scope="module", autouse=True)
def installed():
    """The stand-in is what `import vllm` finds, in this file alone."""
    sys.path.insert(0, str(STUB))
    yield
    sys.path.remove(str(STUB))
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def own(base, adapters):
    """Our engine with the same adapters: what the answers are held against."""
    engine = SequentialEngine(load_model(base, threads=1), threads=1)
    for name, folder in adapters.items():
        asyncio.run(engine.load_adapter(name, folder))
    yield engine
    asyncio.run(engine.stop())


@pytest.fixture
def engine(base):
    return started(base)


def mixes(base):
    return base.with_name("mixes")


def started(base, gpus=1, **config):
    return start.start(base, ServingConfig.model_validate(CONFIG | config), mixes(base), gpus)


async def answer(engine, count=10, prompt=PROMPT, **options):
    request = Request(tuple(prompt), count, **({"sampling": GREEDY} | options))
    return [delta async for delta in engine.generate(request)]


def tokens(deltas):
    return [token for delta in deltas for token in delta.tokens]


def test_greedy_tokens_are_our_own_engines(engine, own):
    theirs, ours = asyncio.run(answer(engine)), asyncio.run(answer(own))
    assert tokens(theirs) == tokens(ours)
    assert theirs[-1].finish == ours[-1].finish
    assert theirs[0] == Delta(())


def test_what_it_says_of_itself(base):
    info = started(base, context=128, vllm={"max_num_seqs": 7}).info
    assert (info.kind, info.context, info.concurrency, info.stop_ids) == ("vllm", 128, 7, frozenset({0, 4}))
    assert (info.dtype, info.device) == ("float32", "cuda")
    assert info.notes == ("the context is 128 tokens of the model's 512",)
    assert "num_beams" not in info.features


def test_an_answer_ends_at_the_stop_tokens_that_were_asked_for_and_at_no_other(engine, own):
    free = tokens(asyncio.run(answer(engine, stop_ids=frozenset())))
    stop = frozenset({free[3]})
    until = asyncio.run(answer(engine, stop_ids=stop))
    assert tokens(until) == free[: free.index(free[3]) + 1]
    assert until[-1].finish == "stop"
    longer = asyncio.run(answer(engine, stop_ids=stop, min_new_tokens=8))
    assert not stop & set(tokens(longer)[:8])
    assert tokens(longer) == tokens(asyncio.run(answer(own, stop_ids=stop, min_new_tokens=8)))


def test_a_seed_repeats_and_a_bias_counts(engine):
    drawn = Sampling(do_sample=True, temperature=1.5, top_k=0, seed=7)
    first, again = (tokens(asyncio.run(answer(engine, sampling=drawn))) for _ in range(2))
    assert first == again
    other = Sampling(do_sample=True, temperature=1.5, top_k=0, seed=8)
    assert tokens(asyncio.run(answer(engine, sampling=other))) != first
    biased = Sampling(do_sample=False, logit_bias={77: 1000.0})
    assert tokens(asyncio.run(answer(engine, sampling=biased, count=3))) == [77, 77, 77]


def test_log_probabilities_come_best_first_and_without_the_chosen_one_twice(engine):
    biased = Sampling(do_sample=False, logit_bias={77: 1000.0})
    deltas = asyncio.run(answer(engine, sampling=biased, count=2, logprobs=3))
    (first, *_), _ = (delta.logprobs for delta in deltas if delta.tokens)
    assert len(first.top) == 3
    assert [value for _, value in first.top] == sorted((value for _, value in first.top), reverse=True)
    assert 77 not in dict(first.top)
    assert math.isfinite(first.chosen)
    assert first.chosen < first.top[0][1]
    assert asyncio.run(answer(engine, count=1, logprobs=0))[-1].logprobs[0].top == ()


@pytest.mark.parametrize(
    "mix",
    [
        {"one": 1.0},
        {"one": 0.25},
        {"two": 0.5},
        {"patterns": 0.5},
        {"one": 0.5, "two": 1.0, "patterns": 0.25},
        {"one": 0},
    ],
    ids=str,
)
def test_strengths_folded_into_adapters_answer_as_our_engine_does(engine, own, adapters, mix):
    async def both():
        for name in mix:
            await engine.load_adapter(name, adapters[name])
        return [
            await answer(each, adapters=mix, count=6, prompt=prompt)
            for prompt in (PROMPT, list(range(20, 90)))
            for each in (engine, own)
        ]

    theirs, ours, theirs_long, ours_long = map(tokens, asyncio.run(both()))
    assert (theirs, theirs_long) == (ours, ours_long)
    bare = tokens(asyncio.run(answer(own, count=6, prompt=list(range(20, 90)))))
    assert (theirs_long == bare) == (mix == {"one": 0})


def test_mixes_are_made_once_and_given_back(base, adapters, tmp_path):
    engine = started(base)

    async def many():
        await engine.load_adapter("one", adapters["one"])
        for step in range(40):
            await answer(engine, count=1, adapters={"one": (step + 1) / 40})
            await answer(engine, count=1, adapters={"one": 1.0})
        return {Path(one.lora.lora_path) for one in engine._llm.seen}

    folders = asyncio.run(many())
    assert len(folders) == 40
    assert 30 < sum(each.exists() for each in folders) <= 33
    assert len(engine._llm.loaded) == sum(each.exists() for each in folders)
    asyncio.run(engine.unload_adapter("one"))
    assert not any(each.exists() for each in folders)
    assert not engine._llm.loaded
    with pytest.raises(RequestRefused, match="adapter one is not loaded"):
        asyncio.run(answer(engine, adapters={"one": 1.0}))


def test_the_next_process_finds_nothing_of_one_that_died(base, adapters):
    async def mixed():
        engine = started(base)
        await engine.load_adapter("one", adapters["one"])
        await answer(engine, count=1, adapters={"one": 0.5})
        return [Path(one.lora.lora_path) for one in engine._llm.seen]

    made = asyncio.run(mixed())
    assert {folder.parent for folder in made} == {mixes(base)}
    assert all(folder.exists() for folder in made)
    started(base)
    assert not mixes(base).exists()


def test_adapters_that_do_not_fit_are_refused_with_the_way_out(base, adapters, tmp_path):
    other = tiny.adapter(tmp_path / "other", tiny.checkpoint(tmp_path / "base", hidden_size=32), 1)
    small = started(base, vllm={"max_lora_rank": 8})
    with pytest.raises(AdapterRefused, match="another base model"):
        asyncio.run(small.load_adapter("other", other))
    with pytest.raises(AdapterRefused, match=r"rank 16.*max-lora-rank: 16"):
        asyncio.run(small.load_adapter("wide", tiny.adapter(tmp_path / "wide", base, 1, r=16)))

    async def two():
        for name in ("one", "two"):
            await small.load_adapter(name, adapters[name])
        await answer(small, adapters={"one": 1.0, "two": 1.0})

    with pytest.raises(RequestRefused, match=r"together have rank 12.*max-lora-rank: 16"):
        asyncio.run(two())
    with pytest.raises(AdapterRefused, match=r"started without adapters.*enable-lora"):
        asyncio.run(started(base, vllm={"enable_lora": False}).load_adapter("one", adapters["one"]))


def test_closing_the_answer_ends_the_request_in_vllm(engine):
    async def leave():
        async with contextlib.aclosing(engine.generate(Request(PROMPT, 100, stop_ids=frozenset()))) as deltas:
            async for delta in deltas:
                if delta.tokens:
                    break
        return set(engine._llm.open), engine.health()

    still_open, health = asyncio.run(leave())
    assert not still_open
    assert health.stalled_seconds == 0


@pytest.mark.parametrize("way", ["died", "stopped"])
def test_when_vllm_ends_running_and_later_requests_are_told(base, way):
    engine = started(base)

    async def end():
        running = engine.generate(Request(PROMPT, 400, stop_ids=frozenset()))
        await anext(running)
        assert engine.health().alive
        assert engine.stats().running == 1
        if way == "stopped":
            await engine.stop()
        engine._llm.dead = True
        with pytest.raises(EngineDown):
            async for _ in running:
                pass
        with pytest.raises(EngineDown, match=way):
            await answer(engine)
        return engine.health()

    health = asyncio.run(end())
    assert not health.alive
    assert way in health.reason


def test_a_request_that_vllm_refuses_or_fails_at_leaves_the_engine_alive(engine):
    for wish, told in (
        (Sampling(do_sample=True, seed=13), "this seed"),
        (Sampling(do_sample=True, temperature=5.0), "temperature"),
        (Sampling(typical_p=0.5), "typical_p"),
        (Sampling(no_repeat_ngram_size=1), "no_repeat_ngram_size"),
        (Sampling(num_beams=2), "num_beams"),
    ):
        with pytest.raises(RequestRefused, match=told):
            asyncio.run(answer(engine, sampling=wish))
    with pytest.raises(RequestRefused, match="0 to 20"):
        asyncio.run(answer(engine, logprobs=21))
    with pytest.raises(RequestRefused, match="context of 512"):
        asyncio.run(answer(engine, count=600))
    asyncio.run(engine._llm.abort("8"))
    with pytest.raises(RequestFailed, match="abort"):
        [asyncio.run(answer(engine)) for _ in range(9)]
    assert tokens(asyncio.run(answer(engine)))


class Formed:
    """A grammar, of which only the form matters here."""

    def __init__(self, form):
        self.form = form


def test_forms_are_handed_on_as_they_were_asked_for(engine):
    forms = [Form("json", {"type": "object"}), Form("regex", "[0-9]+"), Form("choice", ["a", "b"])]
    for form in forms:
        asyncio.run(answer(engine, count=1, grammar=Formed(form)))
    seen = [one.params.structured_outputs for one in engine._llm.seen]
    assert [(one.json, one.regex, one.choice) for one in seen] == [
        ('{"type": "object"}', None, None),
        (None, "[0-9]+", None),
        (None, None, ["a", "b"]),
    ]


def test_figures_add_up(engine):
    asyncio.run(answer(engine, count=5, stop_ids=frozenset()))
    stats = engine.stats()
    assert (stats.prompt_tokens, stats.generated_tokens) == (4, 5)
    assert (stats.kv_usage, stats.prefix_queries, stats.prefix_hits) == (0.25, 15, 5)


def test_gpus_divide_the_heads_that_can_be_divided(base):
    config = ServingConfig.model_validate(CONFIG | {"dtype": "bfloat16", "vllm": {"gpu_memory_utilization": 0.8}})
    alone, several = (start.arguments(base, config, gpus=gpus) for gpus in (1, 3))
    assert (alone["tensor_parallel_size"], several["tensor_parallel_size"]) == (1, 2)
    assert "distributed_executor_backend" not in alone
    assert several["distributed_executor_backend"] == "mp"
    assert (alone["dtype"], alone["gpu_memory_utilization"], alone["max_model_len"]) == ("bfloat16", 0.8, -1)
    greedy = ServingConfig.model_validate(CONFIG | {"vllm": {"tensor_parallel_size": 4}})
    with pytest.raises(errors.BadConfig, match=r"tensor-parallel-size: 4 GPUs.*pod with 2; write one of 1, 2"):
        start.arguments(base, greedy, gpus=2)


def test_gpus_divide_the_heads_of_keys_and_blocks_of_experts_too(base, tmp_path):
    """phi-4, qwen2.5-coder-7b and MiniMax-M2.7: divisors of the heads alone end in an assertion of vLLM's."""
    tiny_config = json.loads((base / "config.json").read_text())
    config = ServingConfig.model_validate(CONFIG)
    for heads, keys, more, taken in (
        (40, 10, {"vocab_size": 100352, "intermediate_size": 17920}, {4: 2, 8: 2}),
        (28, 4, {"vocab_size": 152064, "intermediate_size": 18944}, {2: 2, 7: 4, 8: 4}),
        (48, 8, {"intermediate_size": 1536, "quantization_config": {"weight_block_size": [128, 128]}}, {4: 4, 8: 4}),
    ):
        own = {"num_attention_heads": heads, "num_key_value_heads": keys, "hidden_size": 64 * heads, **more}
        (tmp_path / "config.json").write_text(json.dumps(tiny_config | own))
        for gpus, count in taken.items():
            assert start.arguments(tmp_path, config, gpus=gpus)["tensor_parallel_size"] == count


def test_nodes_divide_the_layers_and_the_gpus_of_each_the_heads(base):
    config = ServingConfig.model_validate(CONFIG | {"nodes": 3})
    wanted = start.arguments(base, config, gpus=2)
    assert (wanted["tensor_parallel_size"], wanted["pipeline_parallel_size"]) == (2, 3)
    assert wanted["distributed_executor_backend"] == "ray"
    with pytest.raises(errors.BadConfig, match="each of 3 nodes must use all of its 3 GPUs"):
        start.arguments(base, config, gpus=3)


def test_a_model_that_transformers_does_not_know_is_started_and_has_no_adapters(base, adapters, tmp_path):
    for file in base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tiny_config = json.loads((base / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(tiny_config | {"model_type": "newer"}))
    assert start._linears(tmp_path) == {}
    assert start._shape(tmp_path).heads == 4
    (tmp_path / "generation_config.json").unlink()
    assert start._generation(tmp_path).eos_token_id == [0, 4]
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(errors.BadModel, match=r"config\.json"):
        start._shape(tmp_path)


def test_without_a_gpu_it_does_not_start(base):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(errors.NodeTrouble, match="no GPU"):
        start.load(base, ServingConfig.model_validate(CONFIG), mixes(base))
