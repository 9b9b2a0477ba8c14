"""The clients that people have, as they are, against the whole server over HTTP: openai-python, LangChain, curl."""

import asyncio
import functools
import json
import subprocess
import threading
from typing import Literal

import langchain_core.exceptions
import openai
import pydantic
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

from serving import model
from tests.serving import fakes, tiny
from tests.serving.test_openai_tools import CALL, TEMPLATE, TOOLS

pytestmark = pytest.mark.torch

HELLO = [{"role": "user", "content": "the fox"}]
SHORT = {"max_tokens": 20, "temperature": 0, "seed": 1}


class Mood(pydantic.BaseModel):
    """How it is."""

    mood: Literal["fine", "bad"]
    sure: bool


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real small model."""
    folder = tmp_path_factory.mktemp("clients")
    base = tiny.checkpoint(folder / "model")
    with fakes.server(folder, load=lambda: model.load(fakes.CONFIG, base, threads=1, scratch=folder)) as running:
        running.eventually(lambda: running.get("/health").status_code == 200, seconds=120)
        yield running


@pytest.fixture(scope="module")
def client(server):
    with connected(server) as client:
        yield client


@pytest.fixture(scope="module")
def chain(server):
    return chained(server)


def connected(server, **options):
    return openai.OpenAI(**{"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0} | options)


def chained(server, **options):
    where = {"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0}
    return ChatOpenAI(**{"model": "tiny", **SHORT} | where | options)


def said(client):
    return client.chat.completions.create(model="tiny", messages=HELLO, **SHORT).choices[0].message.content


class TestOpenAI:
    def test_models_are_listed_and_found(self, client):
        assert [each.id for each in client.models.list()] == ["tiny", "acme/tiny"]
        assert client.models.retrieve("acme/tiny").id == "acme/tiny"
        with pytest.raises(openai.NotFoundError, match="model 'gpt-4o' is not served; there are tiny, acme/tiny"):
            client.models.retrieve("gpt-4o")

    def test_a_chat_is_the_same_whole_streamed_and_beside_others(self, client, server):
        answer = client.chat.completions.create(model="tiny", messages=HELLO, **SHORT)
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        whole = answer.choices[0].message.content
        chunks = list(
            client.chat.completions.create(
                model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}, **SHORT
            )
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole
        assert chunks[-1].usage == answer.usage
        with client.chat.completions.stream(model="tiny", messages=HELLO, **SHORT) as stream:
            assert "".join(event.delta for event in stream if event.type == "content.delta") == whole

        async def many():
            async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as opened:
                ask = opened.chat.completions.create
                answers = await asyncio.gather(*[ask(model="tiny", messages=HELLO, **SHORT) for _ in range(8)])
                return {each.choices[0].message.content for each in answers}

        assert asyncio.run(many()) == {whole}

    def test_a_completion_has_answers_and_log_probabilities(self, client):
        answer = client.completions.create(model="tiny", prompt="the fox", n=2, logprobs=2, max_tokens=5, seed=1)
        assert [len(choice.logprobs.tokens) for choice in answer.choices] == [5, 5]

    def test_a_class_is_the_form_of_an_answer(self, client):
        asked = {"model": "tiny", "messages": HELLO, **SHORT | {"max_tokens": 200}}
        answer = client.chat.completions.parse(response_format=Mood, **asked)
        assert isinstance(answer.choices[0].message.parsed, Mood)

    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda client: client.embeddings.create(model="tiny", input="x"), id="embeddings"),
            pytest.param(lambda client: client.responses.create(model="tiny", input="x"), id="responses"),
            pytest.param(lambda client: client.images.generate(prompt="x"), id="images"),
        ],
    )
    def test_what_is_not_served_is_named_beside_what_is(self, client, call):
        with pytest.raises(openai.NotFoundError, match=r"is not served; there are POST /v1/chat/completions"):
            call(client)

    def test_a_bad_request_names_its_field(self, client):
        with pytest.raises(openai.BadRequestError) as told:
            client.chat.completions.create(model="tiny", messages=HELLO, temperature=3)
        assert (told.value.param, told.value.type) == ("temperature", "invalid_request_error")
        with pytest.raises(openai.BadRequestError) as told:
            client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=100_000)
        assert told.value.code == "context_length_exceeded"


class TestLangChain:
    def test_an_answer_is_the_same_whole_streamed_and_in_a_batch(self, chain, client):
        answer = chain.invoke("the fox")
        assert answer.content == said(client)
        assert answer.usage_metadata["output_tokens"] > 0
        assert "".join(chunk.content for chunk in chain.stream("the fox")) == answer.content
        assert [each.content for each in chain.batch(["the fox"] * 3)] == [answer.content] * 3

    def test_a_class_is_the_form_of_an_answer(self, server):
        formed = chained(server, max_tokens=200).with_structured_output(Mood)
        assert isinstance(formed.invoke("the fox"), Mood)

    def test_what_is_too_long_is_known_as_such(self, chain):
        with pytest.raises(langchain_core.exceptions.ContextOverflowError):
            chain.invoke("the fox " * 600)


class TestTools:
    """With an engine that says what it is told to, within the form that is asked for."""

    @pytest.fixture
    def server(self, tmp_path):
        with fakes.server(tmp_path, tokenizer=fakes.ByteTokenizer(TEMPLATE)) as server:
            yield server

    def test_openais(self, server):
        with connected(server) as client:
            ask = functools.partial(client.chat.completions.create, model="tiny", tools=TOOLS)
            server.engine.answer = f"<tool_call>{CALL}</tool_call>"
            message = ask(messages=HELLO).choices[0].message
            assert (message.tool_calls[0].function.name, message.content) == ("weather", None)
            server.engine.answer = f"[{CALL}]"
            asked = {"model": "tiny", "messages": HELLO, "tools": TOOLS, "tool_choice": "required"}
            with client.chat.completions.stream(**asked) as stream:
                done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
            assert json.loads(done[0].arguments) == {"city": "Rome"}
            server.engine.answer = "sunny"
            told = [*HELLO, message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sun"}]
            assert ask(messages=told).choices[0].message.content == "sunny"

    def test_langchains(self, server):
        chain, told = chained(server, max_tokens=100), [HumanMessage("the fox")]
        server.engine.answer = f"[{CALL}]"
        called = chain.bind_tools(TOOLS, tool_choice="any").invoke(told)
        [call] = called.tool_calls
        assert (call["name"], call["args"]) == ("weather", {"city": "Rome"})
        server.engine.answer = "sunny"
        answer = chain.bind_tools(TOOLS).invoke([*told, called, ToolMessage("sun", tool_call_id=call["id"])])
        assert answer.content == "sunny"

    def test_a_class_as_langchains_tool(self, server):
        server.engine.answer = '[{"name": "Mood", "arguments": {"mood": "bad", "sure": true}}]'
        formed = chained(server, max_tokens=100).with_structured_output(Mood, method="function_calling")
        assert formed.invoke("the fox") == Mood(mood="bad", sure=True)


class TestManners:
    """With an engine that speaks when it is let."""

    def test_a_key_is_wanted(self, tmp_path):
        with fakes.server(tmp_path, limits={"api_keys": ("secret",)}) as server:
            with pytest.raises(openai.AuthenticationError, match="Authorization: Bearer KEY"):
                said(connected(server))
            assert said(connected(server, api_key="secret")) == "fine, thank you"
            assert chained(server, api_key="secret").invoke("x").content == "fine, thank you"

    def test_a_full_queue_is_a_rate_limit_and_clients_come_again(self, tmp_path):
        with fakes.server(tmp_path, limits={"waiting": 0}) as server:
            server.engine.gate.clear()
            first = threading.Thread(target=lambda: said(connected(server)))
            first.start()
            server.eventually(lambda: server.service.admission.inside == 1)
            with pytest.raises(openai.RateLimitError) as told:
                said(connected(server))
            assert told.value.code == "rate_limit_exceeded"
            assert int(told.value.response.headers["Retry-After"]) > 0
            second = asyncio.run_coroutine_threadsafe(
                asyncio.to_thread(said, connected(server, max_retries=3)), server.loop
            )
            server.eventually(lambda: 'admission_rejections_total{engine="0",model_name="tiny"} 2.0' in figures(server))
            server.engine.gate.set()
            assert second.result(60) == "fine, thank you"
            first.join()

    def test_who_waits_no_longer_leaves_nothing_behind(self, tmp_path):
        with fakes.server(tmp_path) as server:
            server.engine.gate.clear()
            with pytest.raises(openai.APITimeoutError):
                said(connected(server, timeout=0.5))
            server.eventually(lambda: server.service.admission.inside == 0)

    def test_a_deadline_is_not_tried_again(self, tmp_path):
        with fakes.server(tmp_path) as server:
            server.engine.gate.clear()
            with pytest.raises(openai.InternalServerError) as told:
                said(connected(server, max_retries=2, default_headers={"X-Request-Timeout": "0.3"}))
            assert (told.value.status_code, told.value.code) == (504, "timeout")
            assert len(server.engine.seen) == 1


def figures(server):
    return server.get("/metrics").text


def test_curl_as_kaitos_readme_has_it(server):
    asked = ["curl", "-sS", "-X", "POST", f"{server.url}/chat", "-H", "accept: application/json"]
    asked += ["-H", "Content-Type: application/json", "-d", '{"prompt":"YOUR QUESTION HERE"}']
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert json.loads(told)["Result"].startswith("YOUR QUESTION HERE")
