"""The slot engine under change: adapters and requests come and go, some are hostile, and nobody else notices."""

import asyncio
import contextlib
import random
from dataclasses import replace

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # peft asks for it
]
torch = pytest.importorskip("torch")

from serving.engine import choice, lora, packed
from serving.engine.protocol import EngineDown, Request, RequestFailed, RequestRefused, Sampling
from serving.engine.sequential import SequentialEngine
from serving.engine.slot.engine import SlotEngine
from tests.serving import tiny

GREEDY = Sampling(do_sample=False)


@contextlib.contextmanager
def running(base, **options):
    engine = SlotEngine(tiny.model(base), threads=1, **{"slots": 6, "chunk": 16} | options)
    try:
        yield engine
    finally:
        asyncio.run(engine.stop())


async def tokens(engine, prompt, count, **options):
    request = Request(tuple(prompt), count, **({"sampling": GREEDY} | options))
    return [token async for delta in engine.generate(request) for token in delta.tokens]


def prompts(seed, count, length=60):
    chance = random.Random(seed)
    return [[chance.randrange(5, 300) for _ in range(chance.randint(1, length))] for _ in range(count)]


def test_adapters_come_and_go_under_running_requests(base, adapters):
    """Who runs keeps what it was accepted with; who comes after an adapter has left is refused."""
    plain, tuned = tiny.model(base), tiny.merged(base, adapters, {"one": 1.0})

    async def scenario(engine):
        bare = asyncio.ensure_future(tokens(engine, [9] * 10, 120))
        await engine.load_adapter("one", adapters["one"])
        using = asyncio.ensure_future(tokens(engine, [8] * 10, 120, adapters={"one": 1.0}))
        await engine.load_adapter("two", adapters["two"])
        leaving = asyncio.ensure_future(engine.unload_adapter("one"))
        await asyncio.sleep(0)
        with pytest.raises(RequestRefused, match="adapter one is not loaded"):
            await tokens(engine, [5], 3, adapters={"one": 1.0})
        assert not leaving.done()
        return await bare, await using, await leaving

    with running(base) as engine:
        bare, using, _ = asyncio.run(scenario(engine))
        assert engine.health().alive
    assert bare == tiny.greedy(plain, [9] * 10, 120)
    assert using == tiny.greedy(tuned, [8] * 10, 120)


def test_prefix_is_not_shared_between_adapters(base, adapters):
    prompt = prompts(3, 1, 50)[0] + [7] * 40
    references = {name: tiny.merged(base, adapters, {name: 1.0} if name else {}) for name in ("", "one")}

    async def scenario(engine):
        await engine.load_adapter("one", adapters["one"])
        found = {}
        for name in ("", "one", "", "one"):
            found[name] = await tokens(engine, prompt, 12, adapters={name: 1.0} if name else {})
        return found

    with running(base) as engine:
        found = asyncio.run(scenario(engine))
        hits = engine.stats().prefix_hits
    assert found == {name: tiny.greedy(model, prompt, 12) for name, model in references.items()}
    assert hits == 2 * (len(prompt) - 1)


def test_rows_are_laid_anew_for_longer_requests_and_back(base):
    """Short ones run on while a request comes that is longer than any row, and rows shrink for many short ones."""
    reference = tiny.model(base)
    asked = [(prompt, 30) for prompt in prompts(4, 12)] + [([11] * 300, 150)] + [([12] * 5, 200)] * 2
    asked += [(prompt, 10) for prompt in prompts(5, 12)]

    async def scenario(engine):
        return await asyncio.gather(*[tokens(engine, *each) for each in asked])

    with running(base, context=512, slots=4) as engine:
        pool = engine._scheduler.pool  # its memory is made scarce: no option does that
        pool.budget = 4 * pool.shape.bytes * 300
        pool.lay(64)
        found = asyncio.run(scenario(engine))
        laid = pool.cap
    assert found == [tiny.greedy(reference, *each) for each in asked]
    assert laid < 450


HOSTILE = [
    pytest.param([], 5, {}, "no tokens", id="empty"),
    pytest.param([303], 5, {}, "outside the vocabulary", id="vocabulary"),
    pytest.param([5] * 600, 5, {}, "exceed the model's context", id="longer than everything"),
    pytest.param([5], 0, {}, "max_new_tokens is 0", id="nothing"),
    pytest.param([5], 5, {"sampling": Sampling(do_sample=True, temperature=-1.0)}, "temperature", id="temperature"),
    pytest.param([5], 5, {"sampling": Sampling(logit_bias={999: 1.0})}, "logit_bias names token 999", id="bias"),
    pytest.param([5], 5, {"logprobs": 4000}, "logprobs is 4000", id="logprobs"),
    pytest.param([5], 5, {"logprobs": 1, "sampling": Sampling(num_beams=2)}, "one at a time", id="beams"),
]


@pytest.mark.parametrize(("prompt", "count", "options", "reason"), HOSTILE)
def test_hostile_requests_are_refused_beside_a_running_one(base, prompt, count, options, reason):
    async def scenario(engine):
        other = asyncio.ensure_future(tokens(engine, [9] * 10, 40))
        with pytest.raises(RequestRefused, match=reason):
            await tokens(engine, prompt, count, **options)
        return await other

    with running(base) as engine:
        assert asyncio.run(scenario(engine)) == tiny.greedy(tiny.model(base), [9] * 10, 40)


def test_top_k_above_the_vocabulary_and_whole_numbers_are_taken(base):
    with running(base) as engine:
        for sampling in (Sampling(do_sample=True, top_k=10**6), Sampling(do_sample=True, temperature=1, top_p=1)):
            assert len(asyncio.run(tokens(engine, [5], 5, sampling=replace(sampling, seed=1)))) == 5


def test_cancelled_requests_free_their_rows(base):
    async def scenario(engine):
        streams = [engine.generate(Request((5, at), 400, sampling=GREEDY)) for at in range(6)]
        for stream in streams:
            await anext(stream)
        assert engine.stats().running == 6
        for stream in streams:
            await stream.aclose()
        return await tokens(engine, [5], 5)

    with running(base) as engine:
        assert len(asyncio.run(scenario(engine))) == 5
        assert engine.stats()[:3] == (0, 0, 0.0)


def test_beams_run_between_the_others(base):
    reference, sampling = tiny.model(base), Sampling(do_sample=False, num_beams=3)

    async def scenario(engine):
        asked = [([9] * 10, 40, GREEDY), ([5, 9, 33], 12, sampling), ([4, 4], 40, GREEDY)]
        answers = [asyncio.ensure_future(tokens(engine, ids, count, sampling=how)) for ids, count, how in asked]
        found = await asyncio.gather(*answers)
        alone = asyncio.ensure_future(tokens(engine, [7, 7], 400, sampling=sampling))
        while not alone.done() and engine.stats()[:2] != (1, 0):  # noqa: ASYNC110 (it runs, and keeps nobody waiting)
            await asyncio.sleep(0)
        assert not alone.done()
        await alone
        return found

    with running(base) as engine:
        first, beams, last = asyncio.run(scenario(engine))
    ids = torch.tensor([[5, 9, 33]])
    expected = reference.generate(
        ids, attention_mask=torch.ones_like(ids), num_beams=3, do_sample=False, max_new_tokens=12, pad_token_id=0
    )
    assert beams == expected[0, 3:].tolist()
    assert (first, last) == (tiny.greedy(reference, [9] * 10, 40), tiny.greedy(reference, [4, 4], 40))


def test_scores_that_are_no_numbers_fail_their_request_alone(base):
    """One embedding is NaN: who says that token fails, who comes into the same row afterwards does not."""

    async def scenario(engine):
        asked = [tokens(engine, prompt, 30) for prompt in ([9] * 10, [8, 250], [7] * 5)]
        return await asyncio.gather(*asked, return_exceptions=True)

    model = tiny.model(base)
    sick = tiny.model(base)
    with torch.no_grad():
        sick.get_input_embeddings().weight[250] = float("nan")
    expected = [tiny.greedy(model, [9] * 10, 30), tiny.greedy(model, [7] * 5, 30)]
    assert 250 not in expected[0] + expected[1]
    engine = SlotEngine(sick, threads=1, slots=3)
    try:
        for _ in range(3):
            first, second, third = asyncio.run(scenario(engine))
            assert [first, third] == expected
            assert isinstance(second, RequestFailed)
            assert "no numbers" in str(second)
    finally:
        asyncio.run(engine.stop())


class Breaks(torch.nn.Module):
    """A layer that raises as often as it is told to."""

    def __init__(self, own):
        super().__init__()
        self.own = own
        self.left = 0

    def forward(self, *arguments, **options):
        if self.left:
            self.left -= 1
            raise RuntimeError("broken")
        return self.own(*arguments, **options)


@pytest.mark.parametrize("times", [1, 3])
def test_failed_step_ends_who_runs_and_the_third_in_a_row_the_engine(base, times):
    model = tiny.model(base)
    model.model.norm = breaks = Breaks(model.model.norm)
    engine = SlotEngine(model, threads=1, slots=2)

    async def scenario():
        breaks.left = times
        asked = [tokens(engine, [at], 5) for at in (5, 6, 7, 8, 9, 10)]
        return await asyncio.gather(*asked, return_exceptions=True)

    try:
        found = asyncio.run(scenario())
        assert all(isinstance(each, RequestFailed) and "broken" in str(each) for each in found[:2])
        if times == 1:
            assert found[2:] == [tiny.greedy(tiny.model(base), [at], 5) for at in (7, 8, 9, 10)]
            assert engine.health().alive
        else:
            assert (engine.health().alive, engine.health().reason) == (False, "3 steps failed, at last: broken")
            assert all(isinstance(each, EngineDown) for each in found[4:])
    finally:
        asyncio.run(engine.stop())


def test_stopped_engine_ends_everybody(base):
    engine = SlotEngine(tiny.model(base), threads=1, slots=1)

    async def scenario():
        asked = [asyncio.ensure_future(tokens(engine, [at], 500)) for at in (5, 6)]
        while not engine.stats().generated_tokens:  # noqa: ASYNC110 (another thread's)
            await asyncio.sleep(0.001)
        await engine.stop()
        return await asyncio.gather(*asked, tokens(engine, [7], 5), return_exceptions=True)

    assert [(type(each), str(each)) for each in asyncio.run(scenario())] == [(EngineDown, "the engine was stopped")] * 3


def test_choice_is_the_slot_engine_where_it_fits(base):
    engine = choice.load(base, threads=1)
    assert (engine.info.kind, engine.info.concurrency, engine.info.notes) == ("slot", 32, ())
    asyncio.run(engine.stop())


def test_choice_says_why_requests_run_one_at_a_time(base, tmp_path):
    model = tiny.model(base)
    model.generation_config.forced_eos_token_id = 4
    model.save_pretrained(tmp_path)
    engine = choice.load(tmp_path, threads=1)
    assert isinstance(engine, SequentialEngine)
    assert engine.info.notes[0].startswith("one request at a time: its generation_config sets forced_eos_token_id")
    asyncio.run(engine.stop())


def test_packed_weights_and_adapters_on_them_give_the_same_tokens(tmp_path):
    """Layers that are large enough to be packed for the CPU, where a trial says that it pays; many columns and few."""
    folder = tiny.checkpoint(tmp_path / "base", hidden_size=256, intermediate_size=512)
    adapters = {name: tiny.adapter(tmp_path / name, folder, seed, r=24) for seed, name in enumerate(("one", "two"))}
    mixes = [{}, {"one": 1.0}, {"two": 0.7}, {"one": 0.5, "two": 0.5}]
    model = tiny.model(folder)
    packed.pack(model, spare_bytes=1 << 30, force=True)
    engine = SlotEngine(model, threads=1, slots=6)

    async def scenario():
        for name, where in adapters.items():
            await engine.load_adapter(name, where)
        alone = await tokens(engine, [9, 1] * 10, 12, adapters=mixes[1])
        found = []
        for kinds in (4, 3):  # with sums of adapters among them, and without
            every = [tokens(engine, [9, at] * 10, 12, adapters=mixes[at % kinds]) for at in range(12)]
            found.append(await asyncio.gather(*every))
        return alone, found

    try:
        alone, found = asyncio.run(scenario())
    finally:
        asyncio.run(engine.stop())
    assert alone == found[0][1]
    references = [tiny.merged(folder, adapters, mix) for mix in mixes]
    assert isinstance(model.model.layers[0].mlp.down_proj, packed.PackedLinear | lora.LoraLinear)
    for kinds, each in zip((4, 3), found, strict=True):
        assert each == [tiny.greedy(references[at % kinds], [9, at] * 10, 12) for at in range(12)]


def test_an_adapter_on_the_head_too_beside_prompts_and_others(base, adapters, tmp_path):
    """The head is given the last token of a prompt alone, the layers all of them."""
    mine = tiny.adapter(tmp_path / "mine", base, 7, target_modules=[*tiny.TARGETS, "lm_head"])
    every = adapters | {"mine": mine}
    mixes = [{"mine": 1.0}, {}, {"one": 1.0}, {"one": 0.5, "mine": 0.5}]

    async def scenario(engine):
        for name in ("one", "mine"):
            await engine.load_adapter(name, every[name])
        asked = [tokens(engine, [9, at] * (4 + 9 * at), 12, adapters=mixes[at % 4]) for at in range(8)]
        return await asyncio.gather(*asked)

    with running(base) as engine:
        found = asyncio.run(scenario(engine))
    references = [tiny.merged(base, every, mix) for mix in mixes]
    assert found == [tiny.greedy(references[at % 4], [9, at] * (4 + 9 * at), 12) for at in range(8)]
