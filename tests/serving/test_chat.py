"""KAITO's /chat, over real HTTP."""

import http.client
import json
import threading

import pytest
import requests

from serving.engine.protocol import RequestFailed, RequestRefused
from serving.text.chat import Chat
from tests.serving import fakes


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with fakes.server(tmp_path_factory.mktemp("chat")) as client:
        yield client


@pytest.fixture
def chat(running):
    running.engine.forget()
    return running


def last(client):
    return client.engine.seen[-1]


def asked(client):
    return client.engine.tokenizer.text(last(client).prompt)


def detail(response):
    return response.json()["detail"]


def test_prompt_is_one_user_turn_and_the_answer_follows_the_prompt(chat):
    response = chat.post("/chat", prompt="How are you? ")
    assert (response.status_code, response.json()) == (200, {"Result": "How are you? fine, thank you"})
    assert asked(chat) == "<|user|>How are you? <|end|><|assistant|>"


def test_prompt_with_control_tokens_is_raw(chat):
    response = chat.post("/chat", prompt="<|user|>Hi<|end|>", return_full_text=False)
    assert response.json() == {"Result": "fine, thank you"}
    assert asked(chat) == "<|user|>Hi<|end|>"


def test_defaults_are_kaitos(chat):
    chat.post("/chat", prompt="Hi")
    request = last(chat)
    sampling = request.sampling
    assert request.max_new_tokens == 200 - len(request.prompt)
    assert (sampling.do_sample, sampling.temperature, sampling.top_k, sampling.top_p) == (True, 1.0, 10, 1.0)
    assert (sampling.typical_p, sampling.repetition_penalty, sampling.num_beams) == (1.0, 1.0, 1)
    assert (request.min_new_tokens, request.stop_ids, sampling.seed) == (0, {0, fakes.END}, None)


def test_generate_kwargs_reach_the_engine(chat):
    chat.chat("Hi", max_new_tokens=5, do_sample=False, top_k=3, repetition_penalty=1.2, seed=7, eos_token_id=[9, 10])
    request = last(chat)
    assert (request.max_new_tokens, request.sampling.do_sample, request.sampling.top_k) == (5, False, 3)
    assert (request.sampling.repetition_penalty, request.sampling.seed) == (1.2, 7)
    assert request.stop_ids == {9, 10}


def test_max_length_counts_the_prompt_and_max_new_tokens_wins(chat):
    chat.chat("Hi", max_length=20)
    assert last(chat).max_new_tokens == 20 - len(last(chat).prompt)
    chat.chat("Hi", max_length=20, max_new_tokens=50)
    assert last(chat).max_new_tokens == 50


def test_keywords_that_ask_for_nothing_are_taken(chat):
    assert (
        chat.chat("Hi", length_penalty=1.0, penalty_alpha=None, no_repeat_ngram_size=0, num_beams=1).status_code == 200
    )


def test_min_length_counts_the_prompt(chat):
    chat.chat("Hi", min_length=15)
    assert last(chat).min_new_tokens == 15 - len(last(chat).prompt)


def test_messages_are_a_conversation(chat):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    response = chat.post("/chat", messages=turns)
    assert response.json() == {"Result": "fine, thank you"}
    assert asked(chat) == "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|>"


def test_messages_beside_a_prompt_are_ignored_as_kaito_does(chat):
    chat.post("/chat", prompt="p", messages=[{"role": "user", "content": "m"}])
    assert asked(chat) == "<|user|>p<|end|><|assistant|>"


NO_SYSTEM = {
    "silent": "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% endif %}{% endfor %}",
    "refused": (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    ),
}


@pytest.mark.parametrize(
    ("said", "text"),
    [
        pytest.param([("system", "Be kind."), ("user", "Hi")], "<|user|>Be kind.\n\nHi", id="before the user"),
        pytest.param(
            [("system", "a"), ("user", "b"), ("system", "c"), ("user", "d")],
            "<|user|>a\n\nc\n\nb<|user|>d",
            id="several",
        ),
        pytest.param([("system", "Be kind.")], "<|user|>Be kind.", id="alone"),
        pytest.param([("system", ""), ("user", "Hi")], "<|user|>Hi", id="empty"),
        pytest.param([("user", "Hi")], "<|user|>Hi", id="none"),
    ],
)
@pytest.mark.parametrize("template", NO_SYSTEM.values(), ids=NO_SYSTEM)
def test_system_messages_that_the_template_has_no_place_for_stand_in_the_first_user_message(said, text, template):
    tokenizer = fakes.ByteTokenizer(template)
    messages = [{"role": role, "content": content} for role, content in said]
    assert tokenizer.text(Chat(tokenizer).conversation(messages, template)) == text


def test_system_messages_that_the_template_takes_stay(chat):
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    chat.post("/chat", messages=turns)
    assert asked(chat) == "<|system|>Be kind.<|end|><|user|>Hi<|end|><|assistant|>"


def test_prefix_is_read_by_the_model_and_not_returned(chat):
    response = chat.post("/chat", prompt="body", prefix="Be kind. ")
    assert asked(chat) == "<|user|>Be kind. body<|end|><|assistant|>"
    assert response.json()["Result"].startswith("bodyfine")


def test_num_return_sequences_are_concatenated_with_seeds_of_their_own(chat):
    response = chat.chat("p", num_return_sequences=2, seed=5)
    assert response.json() == {"Result": "pfine, thank you" * 2}
    assert [request.sampling.seed for request in chat.engine.seen] == [5, 6]


def test_clean_up_and_stop_strings(chat):
    chat.engine.answer = "well , yes ! END never seen"
    body = {"prompt": "p", "return_full_text": False, "clean_up_tokenization_spaces": True}
    response = chat.post("/chat", **body, generate_kwargs={"stop_strings": ["END"]})
    assert response.json() == {"Result": "well, yes! "}
    chat.chat("p")  # who looks for a stop string is told of each token
    assert [request.at_once for request in chat.engine.seen] == [False, True]


@pytest.mark.parametrize(
    ("body", "result"),
    [
        pytest.param({"prompt": "p", "return_full_text": False}, "I do not know.", id="prompt"),
        pytest.param({"messages": [{"role": "user", "content": "m"}]}, "I do not know.", id="messages"),
        pytest.param({"prompt": "p"}, "p I do not know.", id="full text"),
        pytest.param({"prompt": "<|user|>p", "return_full_text": False}, " I do not know.", id="raw"),
    ],
)
def test_answer_alone_begins_without_a_space(chat, body, result):
    chat.engine.answer = " I do not know."
    assert chat.post("/chat", **body).json() == {"Result": result}


def test_hole_cuts_the_prompt_from_the_left(chat):
    chat.post("/chat", prompt="x" * 2000, handle_long_generation="hole", generate_kwargs={"max_new_tokens": 100})
    assert len(last(chat).prompt) == 900
    assert asked(chat).endswith("x<|end|><|assistant|>")


def test_answer_is_cut_to_what_the_model_can_hold(chat):
    chat.chat("x" * 900, max_new_tokens=500)
    assert last(chat).max_new_tokens == 1000 - len(last(chat).prompt)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param({}, "Text generation parameter prompt required", id="nothing"),
        pytest.param({"prompt": ""}, "Text generation parameter prompt required", id="empty prompt"),
        pytest.param({"messages": []}, "Conversational parameter messages required", id="no messages"),
        pytest.param(
            {"prompt": "x" * 300}, "generate_kwargs.max_length is 200: it counts the prompt", id="long prompt"
        ),
        pytest.param(
            {"prompt": "x" * 2000, "generate_kwargs": {"max_new_tokens": 5}},
            'the model takes 1000 with its answer: shorten it, or set handle_long_generation to "hole"',
            id="too long",
        ),
        pytest.param(
            {"prompt": "x", "handle_long_generation": "cut"}, 'handle_long_generation is "cut": it must be', id="hole"
        ),
    ],
)
def test_what_kaito_answered_400_or_500_is_400_with_the_reason(chat, body, words):
    response = chat.post("/chat", **body)
    assert response.status_code == 400
    assert words in detail(response)
    assert not chat.engine.seen


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        pytest.param(
            {"temperature": -1}, "temperature is -1.0: it must be above 0; or set do_sample", id="temperature"
        ),
        pytest.param({"top_k": -1}, "generate_kwargs.top_k is -1: it must be 0 (off) or above", id="top_k"),
        pytest.param({"top_p": 0}, "generate_kwargs.top_p is 0.0: it must be above 0 and at most 1", id="top_p"),
        pytest.param({"repetition_penalty": 1e-40}, "penalty is 1e-40: it must be 0.01 to 100", id="penalty"),
        pytest.param({"max_new_tokens": 0}, "max_new_tokens is 0: it must be at least 1", id="max_new_tokens"),
        pytest.param({"max_new_tokens": "x"}, 'max_new_tokens is "x": it must be a whole number', id="type"),
        pytest.param({"max_length": "x"}, 'generate_kwargs.max_length is "x": it must be a whole number', id="kaito's"),
        pytest.param({"max_length": 7.5}, "generate_kwargs.max_length is 7.5: it must be a whole number", id="half"),
        pytest.param({"do_sample": 7}, "generate_kwargs.do_sample is 7: it must be true or false", id="bool"),
        pytest.param(
            {"stop_strings": ["a", 1]}, "generate_kwargs.stop_strings[1] is 1: it must be a string", id="union"
        ),
        pytest.param(
            {"stop_strings": 1}, "generate_kwargs.stop_strings is 1: it must be a string or a list", id="branches"
        ),
        pytest.param({"num_return_sequences": 99}, "num_return_sequences is 99: it must be 1 to 8", id="sequences"),
        pytest.param(
            {"penalty_alpha": 0.6}, "penalty_alpha is 0.6: it is not supported; there are do_sample", id="key"
        ),
        pytest.param({"num_beams": 3}, "num_beams is 3: this engine (fake) does not support it", id="beams"),
        pytest.param({"min_p": 2}, "min_p is 2.0: it must be 0 to 1", id="min_p"),
        pytest.param({"eos_token_id": 1 << 80}, "it must be a token of the vocabulary of 260", id="eos"),
        pytest.param({"seed": -1}, "seed is -1", id="seed"),
    ],
)
def test_bad_generate_kwargs_are_400_and_name_field_value_and_remedy(chat, kwargs, words):
    response = chat.chat("Hi", **kwargs)
    assert response.status_code == 400
    assert words in detail(response)


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain", "odd"])
def test_a_body_that_is_not_called_json_is_refused_with_the_header_it_needs(chat, kind):
    headers = {"Content-Type": kind} if kind else {}
    response = requests.post(chat.url + "/chat", data=b'{"prompt": "p"}', headers=headers, timeout=60)
    assert response.status_code == 415
    assert "Content-Type: application/json" in response.json()["detail"]
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert requests.post(chat.url + "/chat", data=b'{"prompt": "p"}', headers=headers, timeout=60).ok


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param('{"prompt": "a\\ud800"}', "the text is no Unicode: surrogates not allowed", id="prompt"),
        pytest.param('{"messages": [{"role": "user", "content": "\\udfff"}]}', "surrogates not allowed", id="message"),
        pytest.param(
            '{"prompt": "x", "generate_kwargs": {"min_p": NaN}}', "min_p is NaN: it must be a finite number", id="nan"
        ),
    ],
)
def test_what_only_json_can_say_is_400(chat, body, words):
    response = requests.post(chat.url + "/chat", data=body, headers={"Content-Type": "application/json"}, timeout=60)
    assert response.status_code == 400
    assert words in detail(response)


def test_unknown_keys_beside_generate_kwargs_are_ignored_as_kaito_does(chat):
    assert chat.post("/chat", prompt="Hi", colour="red").status_code == 200


def test_characters_are_never_cut(chat):
    chat.engine.answer = "grüß dich 🙂"
    assert chat.post("/chat", prompt="p", return_full_text=False).json() == {"Result": "grüß dich 🙂"}


def test_model_without_template_reads_the_prompt_as_it_is(tmp_path):
    with fakes.server(tmp_path, tokenizer=fakes.ByteTokenizer(template=None)) as client:
        assert client.post("/chat", prompt="once upon").json() == {"Result": "once uponfine, thank you"}
        assert asked(client) == "once upon"
        response = client.post("/chat", messages=[{"role": "user", "content": "x"}])
        assert response.status_code == 400
        assert "this model has none" in detail(response)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(RequestRefused("odd token"), 400, id="refused"),
        pytest.param(RequestFailed("nan"), 500, id="failed"),
    ],
)
def test_what_the_engine_says_of_a_request_reaches_the_client(chat, error, status):
    chat.engine.fails = error
    response = chat.post("/chat", prompt="p")
    assert (response.status_code, detail(response)) == (status, str(error))
    chat.engine.fails = None
    assert chat.post("/chat", prompt="p").status_code == 200


def test_full_queue_is_429_with_retry_after_and_health_stays(tmp_path):
    with fakes.server(tmp_path, limits={"waiting": 1}) as client:
        client.engine.gate.clear()
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.post("/chat", prompt="p").status_code))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        client.eventually(lambda: client.service.admission.inside == 2)
        refused = client.post("/chat", prompt="p")
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.get("/health").status_code == 200
        client.engine.gate.set()
        for thread in threads:
            thread.join()
        assert answers == [200, 200]
        assert client.post("/chat", prompt="p").status_code == 200


def test_client_that_hangs_up_frees_its_place(chat):
    chat.engine.gate.clear()
    connection = http.client.HTTPConnection(chat.url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/chat", json.dumps({"prompt": "p"}), {"Content-Type": "application/json"})
    chat.eventually(lambda: chat.engine.seen)
    connection.close()
    chat.eventually(lambda: chat.engine.cancelled == 1 and chat.service.admission.inside == 0)


def test_body_that_is_too_long_is_413(tmp_path):
    with fakes.server(tmp_path, limits={"body_bytes": 1000}) as client:
        assert client.post("/chat", prompt="x" * 2000).status_code == 413
        chunks = (piece for piece in [b'{"prompt": "', b"x" * 2000, b'"}'])
        headers = {"Content-Type": "application/json"}
        assert requests.post(client.url + "/chat", data=chunks, headers=headers, timeout=60).status_code == 413
        assert client.post("/chat", prompt="x").status_code == 200
