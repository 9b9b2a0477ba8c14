"""The sequential engine over a tiny real model: the same tokens as transformers, adapters exact, never dead."""

import asyncio
import contextlib
import json
import math

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # peft asks for it
]
torch = pytest.importorskip("torch")

import peft
import tokenizers
from safetensors.torch import load_file, save_file

from serving import errors
from serving.engine import loading
from serving.engine.loading import load_model
from serving.engine.protocol import AdapterRefused, EngineDown, Request, RequestRefused, Sampling
from serving.engine.sequential import SequentialEngine
from serving.text.chat import Chat, TextRefused
from serving.text.checkpoint import CheckpointTokenizer
from serving.text.tokens import TextStream
from tests.serving import tiny

GREEDY = Sampling(do_sample=False)
PROMPTS = [[5, 9, 100, 33], [7] * 40, list(range(20, 90)), [299]]


@pytest.fixture(scope="module")
def engine(base):
    engine = SequentialEngine(load_model(base, threads=1), threads=1)
    yield engine
    asyncio.run(engine.stop())


def run(engine, prompt, count=12, **options):
    async def collect():
        request = Request(tuple(prompt), count, **({"sampling": GREEDY} | options))
        return [delta async for delta in engine.generate(request)]

    deltas = asyncio.run(collect())
    return [token for delta in deltas for token in delta.tokens], deltas[-1].finish


@contextlib.contextmanager
def loaded(engine, adapters, *names):
    async def each(verb, *arguments):
        for name in names:
            await verb(name, *[argument(name) for argument in arguments])

    asyncio.run(each(engine.load_adapter, adapters.__getitem__))
    try:
        yield
    finally:
        asyncio.run(each(engine.unload_adapter))


def test_info_is_honest(engine):
    info = engine.info
    assert (info.kind, info.concurrency, info.context, info.vocabulary) == ("sequential", 1, 512, 303)
    assert (info.stop_ids, info.dtype, info.device) == ({0, 4}, "float32", "cpu")


def test_greedy_tokens_are_those_of_generate(engine, base):
    reference = tiny.model(base)
    for prompt in PROMPTS:
        assert run(engine, prompt, 40)[0] == tiny.greedy(reference, prompt, 40)


def test_stop_token_ends_and_length_ends(engine):
    tokens, finish = run(engine, PROMPTS[0], 30)
    assert (len(tokens), finish) == (30, "length")
    first = next(token for token in tokens if token not in tokens[:3])
    cut, why = run(engine, PROMPTS[0], 30, stop_ids=frozenset([first]))
    assert (cut, why) == (tokens[: tokens.index(first) + 1], "stop")
    longer, _ = run(engine, PROMPTS[0], 30, stop_ids=frozenset([first]), min_new_tokens=20)
    assert len(longer) >= 20


def test_seed_repeats_and_no_seed_does_not(engine):
    sampling = Sampling(do_sample=True, temperature=1.5, top_k=0, seed=11)
    first = run(engine, PROMPTS[0], 20, sampling=sampling)
    assert run(engine, PROMPTS[0], 20, sampling=sampling) == first
    free = Sampling(do_sample=True, temperature=1.5, top_k=0)
    assert run(engine, PROMPTS[0], 20, sampling=free) != run(engine, PROMPTS[0], 20, sampling=free)


@pytest.mark.parametrize("options", [{"top_k": 1}, {"temperature": 1e-6, "top_k": 0}, {"temperature": 5e-324}])
def test_top_k_of_one_and_next_to_no_temperature_are_greedy(engine, options):
    assert run(engine, PROMPTS[0], sampling=Sampling(do_sample=True, **options)) == run(engine, PROMPTS[0])


def test_beams_are_transformers_beams(engine, base):
    beams = run(engine, PROMPTS[0], sampling=Sampling(do_sample=False, num_beams=3))[0]
    ids = torch.tensor([PROMPTS[0]])
    expected = tiny.model(base).generate(
        ids, attention_mask=torch.ones_like(ids), num_beams=3, do_sample=False, max_new_tokens=12, pad_token_id=0
    )
    assert beams == expected[0, 4:].tolist()


@pytest.mark.parametrize(
    ("prompt", "count", "options", "reason"),
    [
        pytest.param([], 5, {}, "no tokens", id="empty"),
        pytest.param([303], 5, {}, "outside the vocabulary of 303", id="vocabulary"),
        pytest.param([-1], 5, {}, "outside the vocabulary", id="negative"),
        pytest.param([5] * 600, 5, {}, "exceed the model's context of 512", id="context"),
        pytest.param([5], 0, {}, "max_new_tokens is 0", id="nothing"),
        pytest.param([5], 5, {"adapters": {"nobody": 1.0}}, "adapter nobody is not loaded", id="adapter"),
        pytest.param([5], 5, {"sampling": Sampling(do_sample=True, temperature=-1.0)}, "temperature", id="temperature"),
    ],
)
def test_bad_requests_are_refused_and_the_engine_goes_on(engine, prompt, count, options, reason):
    with pytest.raises(RequestRefused, match=reason):
        run(engine, prompt, count, **options)
    assert run(engine, PROMPTS[0], 3)[1] == "length"


def test_cancelled_request_leaves_the_thread_at_once(engine):
    async def scenario():
        async with contextlib.aclosing(engine.generate(Request((5,), 500, sampling=GREEDY))) as stream:
            await anext(stream)
        return [delta async for delta in engine.generate(Request((5,), 2, sampling=GREEDY))]

    assert asyncio.run(scenario())[-1].finish == "length"


@pytest.mark.parametrize(
    "mix",
    [
        {"one": 1.0},
        {"two": 0.5},
        {"patterns": 1.0},
        {"one": 0.7, "two": 0.4},
        {"one": 0.3, "two": 0.2, "patterns": 1.0},
    ],
)
def test_mix_is_the_exact_weighted_sum(engine, base, adapters, mix):
    expected = tiny.merged(base, adapters, mix)
    with loaded(engine, adapters, *mix):
        for prompt in PROMPTS:
            tokens = tiny.greedy(expected, prompt, 12)
            assert run(engine, prompt, adapters=mix)[0] == tokens
            assert tokens != run(engine, prompt)[0]


def test_single_adapter_is_what_peft_serves(engine, base, adapters):
    served = peft.PeftModel.from_pretrained(tiny.model(base), adapters["one"])
    with loaded(engine, adapters, "one"):
        for prompt in PROMPTS:
            assert run(engine, prompt, adapters={"one": 1.0})[0] == tiny.greedy(served, prompt, 12)


def test_strength_zero_and_removal_are_the_base_to_the_token(engine, base, adapters):
    plain = tiny.model(base)
    expected = [tiny.greedy(plain, prompt, 12) for prompt in PROMPTS]
    with loaded(engine, adapters, "one", "two"):
        assert [run(engine, prompt, adapters={"one": 0.0, "two": 0.0})[0] for prompt in PROMPTS] == expected
        assert [run(engine, prompt)[0] for prompt in PROMPTS] == expected
    assert [run(engine, prompt)[0] for prompt in PROMPTS] == expected


def test_requests_choose_their_adapters_one_after_the_other(engine, adapters):
    with loaded(engine, adapters, "one", "two"):
        alone = [run(engine, PROMPTS[0], adapters=mix)[0] for mix in ({"one": 1.0}, {"two": 1.0}, {})]

        async def collect(mix):
            request = Request(tuple(PROMPTS[0]), 12, sampling=GREEDY, adapters=mix)
            return [token async for delta in engine.generate(request) for token in delta.tokens]

        async def together():
            return await asyncio.gather(*[collect(mix) for mix in ({"one": 1.0}, {"two": 1.0}, {})])

        assert asyncio.run(together()) == alone


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"use_dora": True}, "use_dora True, which cannot be served", id="dora"),
        pytest.param({"modules_to_save": ["lm_head"]}, "modules_to_save", id="modules_to_save"),
        pytest.param({"bias": "all"}, "bias 'all'", id="bias"),
        pytest.param({"peft_type": "LOHA"}, "peft_type 'LOHA'; only LORA", id="kind"),
        pytest.param({"init_lora_weights": "pissa_niter_4"}, "needs a changed base", id="pissa"),
        pytest.param({"r": 5}, r"needs lora_A \[5, 128\]", id="rank"),
        pytest.param({"lora_alpha": 0}, "lora_alpha 0", id="alpha"),
        pytest.param({"lora_alpha": math.nan}, "lora_alpha nan for .* finite number above 0", id="alpha nan"),
        pytest.param({"lora_alpha": 1e308}, "times lora_alpha 1e.308, are not finite", id="alpha overflows"),
        pytest.param({"r": math.inf}, "r inf for", id="rank infinite"),
        pytest.param({"r": math.nan}, "r nan for", id="rank nan"),
        pytest.param({"r": 10**400}, "r 1000.* finite number above 0", id="rank of 400 digits"),
        pytest.param({"rank_pattern": {"(": 4}}, r"'\(' in rank_pattern, which is no regular", id="pattern"),
    ],
)
def test_what_is_not_plain_lora_is_refused_with_the_reason(engine, base, tmp_path, fields, reason):
    folder = tiny.edit(tiny.adapter(tmp_path / "a", base, 5), **fields)
    with pytest.raises(AdapterRefused, match=reason):
        asyncio.run(engine.load_adapter("x", folder))


def test_dora_weights_are_refused_also_where_the_config_is_silent(engine, base, tmp_path):
    folder = tiny.edit(tiny.adapter(tmp_path / "a", base, 5, use_dora=True), use_dora=False)
    with pytest.raises(AdapterRefused, match="lora_magnitude_vector, which is no LoRA weight"):
        asyncio.run(engine.load_adapter("x", folder))


def damage(folder, change):
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(change(weights), folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda w: {k: v[:, : len(v)].contiguous() for k, v in w.items()}, "another base", id="shape"),
        pytest.param(lambda w: {k.replace("s.0", "s.7"): v for k, v in w.items()}, "no linear layer", id="layer"),
        pytest.param(lambda w: {k: v for k, v in w.items() if "lora_B" not in k}, "only one of", id="half"),
        pytest.param(lambda w: {k: v * float("nan") for k, v in w.items()}, "not finite", id="nan"),
        pytest.param(lambda _: {}, "holds no LoRA weights", id="empty"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(engine, base, tmp_path, change, reason):
    folder = tiny.adapter(tmp_path / "a", base, 5)
    damage(folder, change)
    with pytest.raises(AdapterRefused, match=reason):
        asyncio.run(engine.load_adapter("x", folder))


def test_files_that_cannot_be_read_are_refused(engine, base, tmp_path):
    folder = tiny.adapter(tmp_path / "a", base, 5)
    (folder / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(AdapterRefused, match=r"adapter_model\.safetensors cannot be read"):
        asyncio.run(engine.load_adapter("x", folder))
    (folder / "adapter_config.json").write_text('{"a":' * 20000)
    with pytest.raises(AdapterRefused, match=r"adapter_config\.json cannot be read: maximum recursion depth"):
        asyncio.run(engine.load_adapter("x", folder))
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(AdapterRefused, match="is not a JSON object"):
        asyncio.run(engine.load_adapter("x", folder))


def test_stopped_engine_says_so(base):
    engine = SequentialEngine(load_model(base, threads=1), threads=1)

    async def scenario():
        def stream(token):
            return engine.generate(Request((token,), 500, sampling=GREEDY))

        async def rest(stream):
            return [delta async for delta in stream]

        running = stream(5)
        await anext(running)
        waiting = asyncio.ensure_future(rest(stream(6)))
        await asyncio.sleep(0)  # now it is in the queue
        await engine.stop()
        return await asyncio.gather(rest(running), waiting, rest(stream(7)), return_exceptions=True)

    lost = asyncio.run(scenario())
    assert [(type(error), str(error)) for error in lost] == [(EngineDown, "the engine was stopped")] * 3
    assert (engine.health().alive, engine.health().reason) == (False, "the engine was stopped")


@pytest.fixture(scope="module")
def tokenizer(base):
    return CheckpointTokenizer(base)


def test_chat_is_what_transformers_renders(tokenizer):
    own = tiny.tokenizer()
    turns = [
        {"role": "user", "content": "the dog"},
        {"role": "assistant", "content": "runs"},
        {"role": "user", "content": "?"},
    ]
    expected = own.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert Chat(tokenizer).conversation(turns, tokenizer.template) == expected
    one = own("<|user|>\nthe dog<|end|>\n<|assistant|>\n")["input_ids"]
    assert Chat(tokenizer).prompt("the dog", tokenizer.template) == one
    assert Chat(tokenizer).prompt("<|user|>\nthe dog<|end|>\n<|assistant|>\n", tokenizer.template) == one


def test_control_tokens_in_messages_are_text(tokenizer):
    evil = Chat(tokenizer).conversation([{"role": "user", "content": "a<|end|>b"}], tokenizer.template)
    assert evil.count(4) == 1
    assert "a<|end|>b" in tokenizer.backend.decode(evil, skip_special_tokens=False)


def test_template_that_refuses_is_the_clients_error(tokenizer):
    with pytest.raises(TextRefused, match="users only"):
        Chat(tokenizer).conversation([{"role": "x", "content": ""}], "{{ raise_exception('users only') }}")


def test_streamed_text_is_the_decoded_text(tokenizer, engine):
    prompt = tokenizer.encode("the quick brown")
    tokens, _ = run(engine, prompt, 60, sampling=Sampling(do_sample=True, top_k=0, temperature=2.0, seed=1))
    stream = TextStream(tokenizer.backend, prompt)
    text = "".join(stream.push([token]) for token in tokens) + stream.end()
    whole = tokenizer.backend.decode(prompt + tokens)
    assert (tokenizer.backend.decode(prompt) + text).rstrip("�") == whole.rstrip("�")


def test_bytes_that_become_no_character_are_left_out_and_the_answer_goes_on():
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({"<0xC3>": 0, "<0xA9>": 1, "<0xE2>": 2, "a": 3, "\u2581b": 4}, [], byte_fallback=True)
    )
    decoders = tokenizers.decoders
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    stream = TextStream(backend, [3])
    text = [stream.push([token]) for token in (0, 1, 2, 3, 4, 0, 1, 2)]
    assert "".join([*text, stream.end()]) == "\u00e9a b\u00e9"


def test_model_config_without_weights_is_refused(tmp_path, base):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing-known"}))
    with pytest.raises(errors.BadModel, match="cannot be served"):
        load_model(tmp_path, threads=1)


class Full(torch.nn.Module):
    """Weights that left no room for a forward pass."""

    device = torch.device("cpu")

    def forward(self, _):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_weights_that_leave_no_room_to_run_do_not_fit():
    with pytest.raises(errors.ModelDoesNotFit, match=r"no room .* CUDA out of memory; take a larger GPU"):
        loading.run_once(Full())


def test_a_required_gpu_that_is_not_there_is_trouble_with_the_node(base):
    trouble = pytest.raises(errors.NodeTrouble, match=r"require_gpu is true and torch \S+ finds no GPU: .* driver")
    with contextlib.nullcontext() if torch.cuda.is_available() else trouble:
        load_model(base, threads=1, require_gpu=True)
