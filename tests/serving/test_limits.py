"""What a server does for its own good: queue, deadlines, keys, the end of a stream at a shutdown."""

import contextlib
import http.client
import json
import threading

import pytest
import requests

from serving import errors, settings
from serving.admission import Admission
from serving.settings import Limits
from tests.serving import fakes

HELLO = [{"role": "user", "content": "Hi"}]
CHAT = "/v1/chat/completions"


@contextlib.contextmanager
def streamed(client, **body):
    """A stream's lines, as they come."""
    body = {"messages": HELLO, "stream": True} | body
    with requests.post(client.url + CHAT, json=body, stream=True, timeout=60) as response:
        yield response, response.iter_lines(decode_unicode=True)


def error_of(lines):
    """The error that ends a stream; nothing follows it."""
    *_, last = [line for line in lines if line]
    return json.loads(last.removeprefix("data: "))["error"]


def test_prompts_that_wait_are_bounded_by_their_tokens_too():
    door = Admission(Limits(waiting_tokens=100))
    with door.enter(1, [500]) as [first]:
        with pytest.raises(errors.TooBusy, match="prompts with 500 tokens are waiting"), door.enter(1, [1]):
            pass
        first.begin()
        with door.enter(1, [60]), door.enter(1, [40]), pytest.raises(errors.TooBusy), door.enter(1, [1]):
            pass
    assert door.inside == 0


def test_the_queue_grows_with_what_runs_and_is_64_at_least():
    door = Admission()
    for concurrency, most in ((1, 65), (32, 160)):
        with door.enter(concurrency, [1] * most), pytest.raises(errors.TooBusy) as busy, door.enter(concurrency):
            pass
        assert busy.value.retry_after >= 1
        with pytest.raises(errors.BadRequest, match=f"at most {most} are made"), door.enter(concurrency, [1] * 999):
            pass


def test_where_nobody_is_let_in_no_body_is_waited_for(tmp_path):
    with fakes.server(tmp_path, limits={"waiting": 0}) as client:
        client.engine.gate.clear()
        with streamed(client) as (_, lines):
            next(lines)
            for path in ("/chat", CHAT, "/v1/completions"):
                connection = http.client.HTTPConnection(client.url.removeprefix("http://"), timeout=30)
                connection.putrequest("POST", path)
                connection.putheader("Content-Length", "1000")
                connection.endheaders(b'{"prompt')
                answer = connection.getresponse()
                assert (answer.status, answer.getheader("Retry-After")) == (429, "1")
                connection.close()


def test_a_request_that_waits_too_long_is_503_and_one_that_takes_too_long_504(tmp_path):
    with fakes.server(tmp_path, limits={"wait_seconds": 0.4, "request_seconds": 30}) as client:
        client.engine.gate.clear()
        with streamed(client) as (_, lines):
            next(lines)
            waited = client.post(CHAT, messages=HELLO)
            assert (waited.status_code, waited.headers["Retry-After"]) == (503, "5")
            assert "did not get its turn" in waited.json()["error"]["message"]
        client.eventually(lambda: client.service.admission.inside == 0)
        headers = {"X-Request-Timeout": "0.4"}
        late = requests.post(client.url + CHAT, json={"messages": HELLO}, headers=headers, timeout=60)
        assert (late.status_code, late.json()["error"]["type"]) == (504, "timeout")
        late = requests.post(client.url + "/chat", json={"prompt": "p"}, headers=headers, timeout=60)
        assert (late.status_code, "was not finished within" in late.json()["detail"]) == (504, True)
        client.eventually(lambda: client.engine.cancelled == 4)


def test_the_header_can_only_lower_the_deadline_and_must_be_a_number(tmp_path):
    with fakes.server(tmp_path, limits={"request_seconds": 0.4}) as client:
        client.engine.gate.clear()
        for given, status in (("99999", 504), ("inf", 504), ("-1", 400), ("nan", 400), ("soon", 400)):
            headers = {"X-Request-Timeout": given}
            answer = requests.post(client.url + CHAT, json={"messages": HELLO}, headers=headers, timeout=60)
            assert answer.status_code == status, given


def test_a_deadline_in_a_stream_is_an_event(tmp_path):
    with fakes.server(tmp_path, limits={"request_seconds": 0.4}) as client:
        client.engine.gate.clear()
        with streamed(client) as (response, lines):
            assert response.status_code == 200
            assert error_of(lines)["code"] == "timeout"


def test_a_stream_that_waits_says_that_it_is_still_there(tmp_path):
    with fakes.server(tmp_path, limits={"keep_alive_seconds": 0.1}) as client:
        client.engine.gate.clear()
        with streamed(client) as (_, running):
            next(running)
            with streamed(client) as (response, waiting):
                assert response.status_code == 200
                assert [next(waiting) for _ in range(3)] == [": keep-alive", "", ": keep-alive"]
                client.engine.gate.set()
                rest = [line for line in waiting if line.startswith("data: ")]
            assert json.loads(rest[0].removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
            assert rest[-1] == "data: [DONE]"


def test_a_stream_that_waited_and_is_refused_gets_an_event(tmp_path):
    with fakes.server(tmp_path, limits={"keep_alive_seconds": 0.1, "wait_seconds": 0.4}) as client:
        client.engine.gate.clear()
        with streamed(client) as (_, running):
            next(running)
            with streamed(client) as (_, waiting):
                assert "did not get its turn" in error_of(waiting)["message"]


def test_a_stream_that_outlives_the_shutdown_ends_with_an_event(tmp_path):
    with fakes.server(tmp_path) as client:
        client.engine.gate.clear()
        with streamed(client) as (_, lines):
            next(lines)
            drained = client.on_loop(client.service.drain(0.3))
            assert error_of(lines)["type"] == "service_unavailable"
            assert not drained.result(60)


def test_with_a_key_only_health_and_figures_are_open(tmp_path):
    with fakes.server(tmp_path, limits={"api_keys": ("new", "old")}) as client:
        for path in ("/", "/health", "/healthz", "/livez", "/metrics"):
            assert client.get(path).status_code == 200, path
        refused = client.post(CHAT, messages=HELLO)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert "detail" in client.post("/chat", prompt="p").json()
        assert not client.engine.seen
        for headers, status in (
            ({"Authorization": "Bearer old"}, 200),
            ({"Authorization": "bearer new"}, 200),
            ({"X-Api-Key": "new"}, 200),
            ({"Authorization": "Bearer ne"}, 401),
            ({"Authorization": "Basic new"}, 401),
            ({"Authorization": "Bearer "}, 401),
        ):
            answer = requests.get(client.url + "/v1/models", headers=headers, timeout=60)
            assert answer.status_code == status, headers


def test_pages_of_other_origins_read_nothing_unless_they_are_listed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    headers = {"Origin": "https://chat.example"}
    with fakes.server(tmp_path / "a") as client:
        answer = requests.get(client.url + "/v1/models", headers=headers, timeout=60)
        assert "Access-Control-Allow-Origin" not in answer.headers
    with fakes.server(tmp_path / "b", limits={"cors_origins": ("https://chat.example",)}) as client:
        answer = requests.get(client.url + "/v1/models", headers=headers, timeout=60)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://chat.example"
        other = requests.get(client.url + "/v1/models", headers={"Origin": "https://evil.example"}, timeout=60)
        assert "Access-Control-Allow-Origin" not in other.headers


def test_every_answer_has_a_request_id_the_clients_if_it_has_one(tmp_path):
    with fakes.server(tmp_path) as client:
        url = client.url + "/v1/models"
        assert requests.get(url, headers={"X-Request-Id": "abc-1"}, timeout=60).headers["X-Request-Id"] == "abc-1"
        made = {requests.get(url, timeout=60).headers["X-Request-Id"] for _ in range(2)}
        made.add(requests.get(url, headers={"X-Request-Id": "a b"}, timeout=60).headers["X-Request-Id"])
        assert len(made) == 3
        assert client.get("/nothing").headers["X-Request-Id"]


def test_full_queues_are_counted_and_health_answers(tmp_path):
    with fakes.server(tmp_path, limits={"waiting": 1}) as client:
        client.engine.gate.clear()
        inside = [threading.Thread(target=lambda: client.post("/chat", prompt="p")) for _ in range(2)]
        for each in inside:
            each.start()
        client.eventually(lambda: client.service.admission.inside == 2)
        assert client.post("/chat", prompt="p").status_code == 429
        too_long = "p" * 2000
        assert client.post("/chat", prompt=too_long).status_code == 429  # without a look at it
        assert client.post(CHAT, messages=[{"role": "user", "content": too_long}]).status_code == 429
        assert client.get("/health").status_code == 200
        assert 'vllm:admission_rejections_total{engine="0",model_name="tiny"} 3.0' in client.get("/metrics").text
        client.engine.gate.set()
        for each in inside:
            each.join()
        assert client.post("/chat", prompt=too_long).status_code == 400


def test_the_environment_sets_the_limits():
    limits = settings.read({"MAX_WAITING": "9", "REQUEST_SECONDS": "30", "API_KEY": "a, b", "CORS_ORIGINS": "*"}).limits
    assert (limits.waiting, limits.request_seconds, limits.api_keys) == (9, 30, ("a", "b"))
    assert limits.cors_origins == ("*",)
    assert settings.read({}).limits == Limits()
    for wrong in ({"API_KEY": ""}, {"API_KEY": " , "}, {"MAX_WAITING": "many"}, {"WAIT_SECONDS": "0"}):
        with pytest.raises(errors.BadConfig, match=next(iter(wrong))):
            settings.read(wrong)
    assert "a, b" not in repr(settings.read({"API_KEY": "a, b"}))


def test_a_storm_of_clients_that_hang_up_leaves_nothing_behind(tmp_path):
    """Ten times as many as there is room for, half of which go away in the middle of their stream."""
    statuses = []

    def come(number):
        body = {"messages": HELLO, "stream": number % 2 == 0, "n": 1 + number % 3}
        with requests.post(client.url + CHAT, json=body, stream=True, timeout=60) as response:
            statuses.append(response.status_code)
            if number % 4:
                response.content  # noqa: B018 (read to its end)
            else:
                next(response.iter_lines())

    with fakes.server(tmp_path, limits={"waiting": 5}) as client:
        client.engine.gate.clear()
        clients = [threading.Thread(target=come, args=(number,)) for number in range(60)]
        for each in clients:
            each.start()
        assert client.get("/health").status_code == 200
        client.eventually(lambda: 429 in statuses)
        client.engine.gate.set()
        for each in clients:
            each.join(60)
        assert len(statuses) == 60
        assert set(statuses) == {200, 429}
        client.eventually(lambda: client.service.admission.inside == 0)
        client.eventually(lambda: client.engine.inside == 0)
        assert client.post(CHAT, messages=HELLO).status_code == 200


def test_what_nobody_foresaw_has_each_api_s_shape_and_tells_no_more_than_the_log(tmp_path, caplog):
    with fakes.server(tmp_path) as client:
        client.engine.fails = ValueError("a secret of the server")
        told = [
            client.post("/chat", prompt="p").json()["detail"],
            client.post(CHAT, messages=HELLO).json()["error"]["message"],
            client.post("/v1/completions", prompt="p").json()["error"]["message"],
        ]
        client.engine.gate.clear()
        client.engine.fails = None
        with streamed(client) as (response, lines):
            next(lines)
            client.engine.fails = ValueError("a secret of the server")
            told.append(error_of(lines)["message"])
            assert response.status_code == 200
        assert set(told) == {"the server failed at this request, and its log says why; another one may go well"}
        ended = [line for line in client.get("/metrics").text.splitlines() if "request_success_total{" in line]
        assert any('finished_reason="error"' in line and line.endswith(" 4.0") for line in ended), ended
    assert caplog.text.count("ValueError: a secret of the server") >= 4
