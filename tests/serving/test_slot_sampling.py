"""What the slot engine chooses: the distributions of transformers' own processors, by each request's own seed."""

import asyncio
import itertools
import math

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

import transformers
from transformers.generation import logits_process

from serving.engine.protocol import Logprob, Request, RequestFailed, Sampling
from serving.engine.slot.engine import SlotEngine
from serving.engine.slot.sampler import sampled, sampled_of_few
from serving.engine.slot.sequence import Sequence
from serving.engine.slot.settings import Reader
from tests.serving import architectures

VOCABULARY = 1500
"""More than the prefix that is looked at first."""
PROMPT = (5, 9, 33, 9, 33, 7)


@pytest.fixture(scope="module")
def engine():
    engine = SlotEngine(architectures.model("llama"), threads=1, slots=6)
    yield engine
    asyncio.run(engine.stop())


async def deltas(engine, **options):
    request = Request(PROMPT, **{"max_new_tokens": 20, "sampling": Sampling(do_sample=False)} | options)
    return [delta async for delta in engine.generate(request)]


def run(engine, **options):
    found = asyncio.run(deltas(engine, **options))
    return [token for delta in found for token in delta.tokens]


def left(sampling, scores):
    """The tokens that can be chosen at all, with their shares, by asking for many points of the distribution."""
    request = Request((1,), 5, sampling=sampling)
    settings = Reader(transformers.GenerationConfig(), VOCABULARY).settings(request)
    sequence = Sequence(request, settings, None, [1], {})
    points = [(at + 0.5) / 4000 for at in range(4000)]
    if settings.few:
        chosen = sampled_of_few([sequence] * len(points), scores.expand(len(points), -1), points)
    else:
        chosen = [sampled(sequence, scores, point) for point in points]
    return {token: chosen.count(token) / len(chosen) for token in set(chosen)}


def processors(sampling):
    """What `generate` would build, in its order."""
    if sampling.temperature is not None:
        yield logits_process.TemperatureLogitsWarper(sampling.temperature)
    if sampling.top_k:
        yield logits_process.TopKLogitsWarper(sampling.top_k)
    if sampling.top_p is not None:
        yield logits_process.TopPLogitsWarper(sampling.top_p)
    if sampling.min_p is not None:
        yield logits_process.MinPLogitsWarper(sampling.min_p)
    if sampling.typical_p is not None:
        yield logits_process.TypicalLogitsWarper(sampling.typical_p)


KINDS = {"temperature": 0.7, "top_k": 12, "top_p": 0.8, "min_p": 0.05, "typical_p": 0.6}


@pytest.mark.parametrize(
    "names", [names for count in (1, 2, 5) for names in itertools.combinations(KINDS, count)], ids="+".join
)
@pytest.mark.parametrize("spread", [0.3, 3.0], ids=["flat", "steep"])
def test_distribution_is_that_of_transformers(names, spread):
    wishes = {"top_k": 0} | {name: KINDS[name] for name in names}
    sampling = Sampling(do_sample=True, **wishes)
    scores = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(3)) * spread
    expected = scores[None]
    for processor in processors(sampling):
        expected = processor(torch.ones((1, 1), dtype=torch.long), expected)
    shares = expected.softmax(-1)[0]
    found = left(sampling, scores)
    assert all(abs(found.get(token, 0.0) - float(share)) < 1e-3 for token, share in enumerate(shares))


def test_many_rows_at_once_are_each_as_alone():
    """Rows of different wishes, by `sampled` one by one and together."""
    wishes = [{"top_k": 50}, {"top_k": 3, "top_p": 0.5}, {"top_k": 200, "temperature": 2.0, "min_p": 0.2}, {"top_k": 1}]
    requests = [Request((1,), 5, sampling=Sampling(do_sample=True, **each)) for each in wishes]
    reader = Reader(transformers.GenerationConfig(), VOCABULARY)
    sequences = [Sequence(each, reader.settings(each), None, [1], {}) for each in requests]
    scores = torch.randn((4, VOCABULARY), generator=torch.Generator().manual_seed(5)) * 2
    for point in (0.0, 0.1, 0.35, 0.6, 0.9, 0.999999):
        alone = [sampled(each, row, point) for each, row in zip(sequences, scores, strict=True)]
        assert sampled_of_few(sequences, scores, [point] * 4) == alone


def test_seed_decides_whoever_else_is_there(engine):
    sampling = Sampling(do_sample=True, temperature=1.5, top_k=0, seed=11)

    async def crowd():
        others = [deltas(engine, sampling=Sampling(do_sample=True, top_k=0, seed=seed)) for seed in range(4)]
        return (await asyncio.gather(deltas(engine, sampling=sampling), *others))[0]

    alone = run(engine, sampling=sampling)
    together = [token for delta in asyncio.run(crowd()) for token in delta.tokens]
    assert together == alone == run(engine, sampling=sampling)
    assert run(engine, sampling=Sampling(do_sample=True, temperature=1.5, top_k=0, seed=12)) != alone


@pytest.mark.parametrize(
    "wishes",
    [
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.6},
        {"no_repeat_ngram_size": 2},
        {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
    ],
    ids=str,
)
def test_penalties_are_those_of_generate(engine, wishes):
    ids = torch.tensor([PROMPT])
    expected = architectures.model("llama").generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40, pad_token_id=0, **wishes
    )
    assert run(engine, max_new_tokens=40, sampling=Sampling(do_sample=False, **wishes)) == expected[0, 6:].tolist()


def test_minimum_keeps_the_stop_token_back(engine):
    plain = run(engine)
    stop = frozenset([plain[2]])
    assert run(engine, stop_ids=stop) == plain[: plain.index(plain[2]) + 1]
    assert not stop & set(run(engine, stop_ids=stop, min_new_tokens=12)[:12])


def test_bias_and_penalties_of_the_answer_change_scores(engine):
    plain = run(engine)
    assert set(run(engine, sampling=Sampling(do_sample=False, logit_bias={42: 1e4}))) == {42}
    assert plain[0] not in run(engine, sampling=Sampling(do_sample=False, logit_bias={plain[0]: -1e4}))
    all_different = run(engine, sampling=Sampling(do_sample=False, presence_penalty=1e4))
    assert len(set(all_different)) == 20
    assert len(set(run(engine, sampling=Sampling(do_sample=False, frequency_penalty=1e4)))) == 20


def test_logprobs_are_those_of_the_models_own_scores(engine):
    found = asyncio.run(deltas(engine, logprobs=3, sampling=Sampling(do_sample=False, logit_bias={42: 1e4})))
    told = [each for delta in found for each in delta.logprobs]
    ids = torch.tensor([[*PROMPT, *[42] * 19]])
    logs = architectures.model("llama")(ids).logits.detach()[0, 5:].log_softmax(-1)
    assert len(told) == 20
    for at, each in enumerate(told):
        top = logs[at].topk(3)
        assert math.isclose(each.chosen, logs[at, 42], abs_tol=1e-3)
        assert [token for token, _ in each.top] == top.indices.tolist()
        assert all(math.isclose(mine, own, abs_tol=1e-3) for (_, mine), own in zip(each.top, top.values, strict=True))
    only = asyncio.run(deltas(engine, logprobs=0, max_new_tokens=1))
    assert isinstance(only[-1].logprobs[0], Logprob)
    assert only[-1].logprobs[0].top == ()


class Alternates:
    """A grammar of two tokens in turn, then the stop token."""

    def __init__(self, *tokens, fails=False):
        self.left, self.fails = list(tokens), fails

    def allowed(self):
        mask = torch.zeros(211, dtype=torch.bool)
        mask[self.left[:1] or [2]] = not self.fails
        return mask

    def accept(self, _):
        self.left = self.left[1:]


def test_grammar_decides_what_may_come_beside_others_without_one(engine):
    async def both():
        return await asyncio.gather(deltas(engine, grammar=Alternates(50, 60, 50, 60)), deltas(engine))

    plain = run(engine)
    with_grammar, without = asyncio.run(both())
    assert [token for delta in with_grammar for token in delta.tokens] == [50, 60, 50, 60, 2]
    assert with_grammar[-1].finish == "stop"
    assert [token for delta in without for token in delta.tokens] == plain


def test_grammar_that_allows_nothing_fails_its_request_alone(engine):
    with pytest.raises(RequestFailed, match="every token is forbidden"):
        run(engine, grammar=Alternates(50, fails=True))
    assert len(run(engine)) == 20
