"""What a user's inference_config.yaml changes of the real server: context, number type, name and chat template."""

import asyncio
import contextlib
import dataclasses
import json
import resource
from pathlib import Path

import pytest
import torch
import transformers

from serving.engine.loading import load_model
from serving.engine.protocol import Request, RequestFailed, RequestRefused, Sampling
from serving.engine.sequential import SequentialEngine
from serving.inference_config import parse
from tests import terminations
from tests.serving import modelhub, tiny
from tests.serving.pod import Pod

pytestmark = pytest.mark.torch

REVISION = "0123456789abcdef0123456789abcdef01234567"
GREEDY = Sampling(do_sample=False)
PROMPT = "the quick brown fox"
TEMPLATE = "{% for message in messages %}<|system|>{{ message['content'] }}{% endfor %}<|assistant|>"
WRITTEN = f"""
vllm:
  max-model-len: 64
  served-model-name: house-model
  dtype: bfloat16
  chat-template: "{TEMPLATE}"
"""


def config(text):
    """As the roll-out writes it."""
    chosen, _ = parse(text)
    return {
        "workspace": "ns/w",
        "name": chosen.served_model_name or "tiny-phi",
        "model": {"id": "acme/tiny-phi", "revision": REVISION},
        "context": chosen.max_model_len,
        "dtype": chosen.dtype,
        "chat_template": chosen.chat_template,
    }


def answered(engine, prompt, count, sampling=GREEDY):
    async def collect():
        return [delta async for delta in engine.generate(Request(tuple(prompt), count, sampling=sampling))]

    return [token for delta in asyncio.run(collect()) for token in delta.tokens]


@pytest.mark.parametrize(("asked", "context"), [(None, 512), (100, 100), (512, 512), (9999, 512)])
def test_a_context_is_lowered_never_raised(base, asked, context):
    engine = SequentialEngine(load_model(base, threads=1), threads=1, context=asked)
    try:
        assert engine.info.context == context
        assert len(answered(engine, [5] * (context - 4), 4)) == 4
        with pytest.raises(RequestRefused, match=f"exceed the model's context of {context}"):
            answered(engine, [5] * (context - 3), 4)
    finally:
        asyncio.run(engine.stop())


@contextlib.contextmanager
def memory_left(megabytes):
    """A process that gets so much more memory and no more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_request_that_the_memory_does_not_hold_fails_and_no_other(base):
    engine = SequentialEngine(load_model(base, threads=1), threads=1)
    whole = answered(engine, [5, 6, 7], 4)
    try:
        with memory_left(256):
            with pytest.raises(RequestFailed, match="can't allocate memory"):
                answered(engine, [5, 6, 7], 4, dataclasses.replace(GREEDY, num_beams=200_000))
            assert answered(engine, [5, 6, 7], 4) == whole
    finally:
        asyncio.run(engine.stop())


@pytest.mark.parametrize("asked", ["float32", "bfloat16", "float16"])
def test_weights_are_loaded_in_the_number_type_that_is_asked_for(base, asked):
    engine = SequentialEngine(load_model(base, threads=1, wanted=asked), threads=1)
    reference = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, asked)).eval()
    prompt = [7, 8, 9, 10, 11]
    try:
        assert engine.info.dtype == asked
        assert answered(engine, prompt, 12) == tiny.greedy(reference, prompt, 12)
    finally:
        asyncio.run(engine.stop())


def test_the_whole_server_serves_as_it_is_told(base, tmp_path):
    with modelhub.running({"acme/tiny-phi": (REVISION, base)}) as (_, url):
        pod = Pod(tmp_path, config(WRITTEN), HF_ENDPOINT=url)
        try:
            pod.await_status("/health", 200)
            models = pod.request("GET", "/v1/models")[1]
            assert [entry["id"] for entry in models["data"]] == ["house-model", "acme/tiny-phi"]
            assert (models["engine"]["context"], models["engine"]["dtype"]) == (64, "bfloat16")
            _answers_with_the_template(pod, base)
            _refuses_what_is_too_long_and_what_it_is_not(pod)
        finally:
            pod.close()


def _answers_with_the_template(pod, base):
    own = tiny.tokenizer()
    turn = [{"role": "user", "content": PROMPT}]
    prompt = own.apply_chat_template(turn, chat_template=TEMPLATE, add_generation_prompt=True, return_dict=False)
    other = own.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    assert prompt != other
    reference = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval()
    body = {"model": "house-model", "messages": turn, "max_tokens": 12, "temperature": 0}
    status, answer = pod.request("POST", "/v1/chat/completions", body)
    assert status == 200, answer
    assert answer["model"] == "house-model"
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    tokens = tiny.greedy(reference, prompt, 12)
    assert answer["usage"]["completion_tokens"] == len(tokens[: _end(tokens)])


def _end(tokens):
    """Behind the first stop token, which counts."""
    return next((at + 1 for at, token in enumerate(tokens) if token in (0, 4)), len(tokens))


def _refuses_what_is_too_long_and_what_it_is_not(pod):
    status, answer = pod.request("POST", "/v1/completions", {"prompt": [5] * 60, "max_tokens": 5})
    assert status == 400
    assert "maximum context length is 64 tokens" in json.dumps(answer)
    status, answer = pod.request("POST", "/v1/completions", {"model": "tiny-phi", "prompt": "a", "max_tokens": 1})
    assert status == 404
    assert "there are house-model, acme/tiny-phi" in json.dumps(answer)


def test_a_template_that_takes_no_message_ends_it_before_it_serves(base, tmp_path):
    broken = config("vllm: {chat-template: '{% for m in messages %}'}")
    with modelhub.running({"acme/tiny-phi": (REVISION, base)}) as (_, url):
        pod = Pod(tmp_path, broken, HF_ENDPOINT=url)
        try:
            assert pod.wait(120) == 10
            left = terminations.of_serving(pod.termination.read_text())
            assert (left.reason, left.retryable) == ("BadConfig", False)
            assert left.message.startswith("inference_config.yaml: vllm.chat-template: the chat template does not take")
        finally:
            pod.close()
