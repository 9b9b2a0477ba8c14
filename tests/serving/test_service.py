"""Readiness, models, adapters by name, draining: the life of a server around its requests."""

import contextlib
import json
import threading

import pytest

from serving import errors
from serving.config import Adapter, AdapterStatus, Served
from serving.service import Loaded
from serving.text.chat import Chat
from tests.serving import fakes

POET = {"name": "poet", "image": "r/poet:1", "strength": 0.5}
COOK = {"name": "cook", "image": "r/cook:1", "strength": 1.0}
FILES = {"chat_template.jinja": fakes.OTHER_TEMPLATE}
IMAGES = {
    "r/poet:1": ("sha256:" + "a" * 64, FILES),
    "r/cook:1": ("sha256:" + "b" * 64, FILES),
    "r/cook:2": ("sha256:" + "c" * 64, {}),
    "r/bad:1": ("sha256:" + "d" * 64, {"bad": ""}),
    "r/odd:1": ("sha256:" + "e" * 64, {"odd": ""}),
}
POET_ID, COOK_ID = "poet@sha256:" + "a" * 64, "cook@sha256:" + "b" * 64


def listing(*adapters):
    return json.dumps(adapters)


def served(client):
    return Served.model_validate(client.get("/v1/models").json())


def lacks(client, *adapters):
    return served(client).lacks(tuple(Adapter.model_validate(adapter) for adapter in adapters))


def write(client, content):
    """As the kubelet does: a new file behind a swapped link."""
    file = client.source.root.parent / "adapters.json"
    new = file.with_suffix(".new")
    new.write_text(content)
    new.replace(file)


def test_root_health_and_livez(tmp_path):
    with fakes.server(tmp_path) as client:
        assert client.get("/").json() == {"message": "Server is running"}
        for path in ("/health", "/healthz", "/livez"):
            assert client.get(path).json() == {"status": "Healthy"}


def test_while_the_model_loads_health_says_so_and_nothing_is_taken(tmp_path):
    go = threading.Event()

    def load():
        go.wait(20)
        tokenizer = fakes.ByteTokenizer()
        return Loaded(fakes.FakeEngine(tokenizer), Chat(tokenizer))

    with fakes.server(tmp_path, load=load) as client:
        health = client.get("/health")
        assert (health.status_code, health.json()["detail"]) == (503, "the model is being loaded")
        assert client.get("/livez").status_code == 200
        refused = client.post("/chat", prompt="p")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert client.post("/v1/completions", prompt="p").json()["error"]["type"] == "service_unavailable"
        assert not served(client).ready
        go.set()
        client.eventually(lambda: client.get("/health").status_code == 200)


def test_model_that_cannot_be_loaded_ends_the_server_with_the_reason(tmp_path):
    with fakes.server(tmp_path, load=fakes.failing(errors.BadModel("no tokenizer"))) as client:
        client.eventually(lambda: client.fatal)
        assert client.fatal[0].failure().reason == "BadModel"
        assert client.get("/health").json()["detail"] == "no tokenizer"
        assert client.get("/livez").status_code == 503


def test_broken_engine_ends_the_server(tmp_path):
    with fakes.server(tmp_path) as client:
        client.engine.broken = "the GPU failed"
        client.eventually(lambda: client.fatal)
        assert (client.fatal[0].failure().reason, client.fatal[0].retryable) == ("EngineDied", True)
        assert client.get("/health").status_code == 503
        assert client.post("/chat", prompt="p").status_code == 503


def test_default_is_the_weighted_sum_and_a_name_selects(tmp_path):
    with fakes.server(tmp_path, images=IMAGES, adapters=listing(POET, COOK)) as client:
        client.eventually(lambda: client.get("/health").status_code == 200)
        client.post("/chat", prompt="p")
        for model in ("tiny", "poet", "acme/tiny"):
            assert client.post("/v1/completions", prompt="p", model=model).status_code == 200
        mixes = [dict(request.adapters) for request in client.engine.seen]
        assert mixes == [{POET_ID: 0.5, COOK_ID: 1.0}, {POET_ID: 0.5, COOK_ID: 1.0}, {POET_ID: 0.5}, {}]
        data = {entry["id"]: entry for entry in client.get("/v1/models").json()["data"]}
        assert data["tiny"]["strengths"] == {"poet": 0.5, "cook": 1.0}
        assert (data["poet"]["parent"], data["poet"]["digest"]) == ("acme/tiny", "sha256:" + "a" * 64)
        assert client.get("/v1/models/acme/tiny").json()["strengths"] == {}
        assert client.get("/v1/models/nobody").status_code == 404


def test_template_is_the_adapters_where_they_agree_and_else_the_bases(tmp_path):
    with fakes.server(tmp_path, images=IMAGES, adapters=listing(POET, COOK)) as client:
        client.eventually(lambda: client.get("/health").status_code == 200)

        def prompt():
            client.post("/chat", prompt="p")
            return client.engine.tokenizer.text(client.engine.seen[-1].prompt)

        assert prompt() == "[user] p\n[bot] "
        write(client, listing(POET, COOK | {"image": "r/cook:2"}))
        client.eventually(lambda: not lacks(client, POET, COOK | {"image": "r/cook:2"}))
        assert prompt() == "<|user|>p<|end|><|assistant|>"
        write(client, listing(POET, COOK | {"image": "r/cook:2", "strength": 0}))
        client.eventually(lambda: not lacks(client, POET, COOK | {"image": "r/cook:2", "strength": 0}))
        assert prompt() == "[user] p\n[bot] "


def test_changes_of_the_file_are_applied_without_a_restart(tmp_path):
    with fakes.server(tmp_path, images=IMAGES) as client:
        assert lacks(client, POET) == "adapter poet: the server has not read this change yet"
        write(client, listing(POET))
        client.eventually(lambda: not lacks(client, POET))
        write(client, listing(POET | {"strength": 0.25}, COOK))
        client.eventually(lambda: not lacks(client, POET | {"strength": 0.25}, COOK))
        assert client.source.pulls == ["r/poet:1", "r/cook:1"]
        assert lacks(client, COOK) == "adapter poet: still listed"
        write(client, listing(COOK))
        client.eventually(lambda: client.engine.adapters == {COOK_ID: "sha256-" + "b" * 64})
        assert client.source.kept == {"sha256:" + "b" * 64}


@pytest.mark.parametrize(
    ("image", "reason", "retryable"),
    [
        pytest.param("r/none:1", "the registry has no image r/none:1", True, id="missing"),
        pytest.param("r/bad:1", "made for another base model", False, id="other base"),
        pytest.param("r/odd:1", "OverflowError: cannot convert float infinity to integer", True, id="unforeseen"),
    ],
)
def test_bad_adapter_is_reported_and_the_good_ones_stay(tmp_path, image, reason, retryable):
    with fakes.server(tmp_path, images=IMAGES, adapters=listing(POET)) as client:
        client.eventually(lambda: client.get("/health").status_code == 200)
        bad = {"name": "bad", "image": image, "strength": 1.0}
        write(client, listing(POET, bad))
        client.eventually(lambda: lacks(client, POET, bad) == f"adapter bad: failed: {reason}")
        status = served(client).adapters[1]
        assert (status.retryable, status.failures) == (retryable, 1)
        assert client.get("/health").status_code == 200
        assert client.post("/v1/completions", prompt="p", model="poet").status_code == 200
        assert client.post("/v1/completions", prompt="p", model="bad").status_code == 404
        assert not client.fatal


def test_new_image_that_fails_leaves_the_old_one_serving(tmp_path):
    with fakes.server(tmp_path, images=IMAGES, adapters=listing(COOK)) as client:
        client.eventually(lambda: client.get("/health").status_code == 200)
        write(client, listing(COOK | {"image": "r/bad:1"}))
        client.eventually(lambda: "failed" in lacks(client, COOK | {"image": "r/bad:1"}))
        assert served(client).adapters[0].digest == "sha256:" + "b" * 64
        assert client.post("/chat", prompt="p").status_code == 200
        assert dict(client.engine.seen[-1].adapters) == {COOK_ID: 1.0}


def test_bad_adapter_at_the_start_keeps_it_unready_and_says_why(tmp_path):
    with fakes.server(tmp_path, images=IMAGES, adapters=listing(POET, COOK | {"image": "r/none:1"})) as client:
        client.eventually(lambda: "cook" in client.get("/health").json().get("detail", ""))
        health = client.get("/health")
        assert health.status_code == 503
        assert "adapter cook: the registry has no image r/none:1" in health.json()["detail"]
        assert lacks(client, POET, COOK | {"image": "r/none:1"}).startswith("adapter cook: failed: the registry has no")
        assert client.get("/livez").status_code == 200
        write(client, listing(POET))
        client.eventually(lambda: client.get("/health").status_code == 200)


def test_failure_is_counted_until_it_works(tmp_path):
    with fakes.server(tmp_path, images=IMAGES, adapters=listing(COOK | {"image": "r/bad:1"})) as client:
        client.eventually(lambda: served(client).adapters and served(client).adapters[0].failures == 1)
        write(client, listing(COOK | {"image": "r/bad:1", "strength": 0.5}))
        client.eventually(lambda: served(client).adapters[0].failures == 2)
        write(client, listing(COOK))
        client.eventually(lambda: not lacks(client, COOK))
        assert (served(client).adapters[0].failures, served(client).adapters[0].reason) == (0, "")


def test_refused_are_those_that_failed_for_good_as_they_are_wanted():
    poet, cook, good = (Adapter.model_validate(each) for each in (POET, COOK, COOK | {"name": "good"}))
    failed = AdapterStatus(**cook.model_dump(), state="failed", reason="DoRA", retryable=False, failures=2)
    loaded = AdapterStatus(**good.model_dump(), state="loaded")
    passing = AdapterStatus(**poet.model_dump(), state="failed", reason="no answer")
    answer = Served(ready=False, adapters=(passing, failed, loaded))
    assert answer.refused((poet, cook, good)) == {1: failed}
    assert not answer.refused((poet, cook.model_copy(update={"image": "r/cook:2"}), good))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param("[{]", "Invalid JSON", id="no JSON"),
        pytest.param(listing(POET, POET), "the name poet is listed twice", id="twice"),
        pytest.param(listing(POET | {"strength": 2}), "less than or equal to 1", id="strength"),
    ],
)
def test_file_that_cannot_be_read_changes_nothing(tmp_path, content, reason):
    with fakes.server(tmp_path, images=IMAGES, adapters=listing(COOK)) as client:
        client.eventually(lambda: client.get("/health").status_code == 200)
        write(client, content)
        client.eventually(lambda: reason in client.service.adapters.lacking())
        assert reason in lacks(client, COOK)
        assert client.get("/health").status_code == 200
        client.post("/chat", prompt="p")
        assert dict(client.engine.seen[-1].adapters) == {COOK_ID: 1.0}


@contextlib.contextmanager
def leaving(tmp_path):
    """A client, after the poet was taken off the list under a request that uses it, and what ends that request."""
    with fakes.server(tmp_path, images=IMAGES, adapters=listing(POET)) as client:
        client.eventually(lambda: client.get("/health").status_code == 200)
        client.engine.gate.clear()
        statuses = []
        request = threading.Thread(target=lambda: statuses.append(client.post("/chat", prompt="p").status_code))
        request.start()
        client.eventually(lambda: client.engine.seen)
        write(client, "[]")
        client.eventually(lambda: not served(client).adapters)

        def done():
            client.engine.gate.set()
            request.join()
            return statuses

        yield client, done


def test_adapter_in_use_is_unloaded_after_its_requests(tmp_path):
    with leaving(tmp_path) as (client, done):
        assert POET_ID in client.engine.adapters
        assert done() == [200]
        client.eventually(lambda: not client.engine.adapters)


def test_adapter_that_is_listed_again_before_it_could_leave_is_not_loaded_twice(tmp_path):
    with leaving(tmp_path) as (client, done):
        write(client, listing(POET))
        client.eventually(lambda: not lacks(client, POET))
        assert (done(), client.engine.loads) == ([200], [POET_ID])
        assert client.post("/chat", prompt="p").status_code == 200
        assert client.engine.adapters == {POET_ID: "sha256-" + "a" * 64}


def test_draining_finishes_what_is_inside_and_takes_nothing_new(tmp_path):
    with fakes.server(tmp_path) as client:
        client.engine.gate.clear()
        answers = []
        inside = threading.Thread(target=lambda: answers.append(client.post("/chat", prompt="p").json()))
        inside.start()
        client.eventually(lambda: client.service.admission.inside == 1)
        drained = client.on_loop(client.service.drain(60))
        client.eventually(lambda: client.get("/health").status_code == 503)
        assert "shutting down" in client.post("/chat", prompt="p").json()["detail"]
        assert client.get("/livez").status_code == 200
        client.engine.gate.set()
        assert drained.result(60)
        inside.join()
        assert answers == [{"Result": "pfine, thank you"}]
        assert not client.fatal


def test_request_that_outlives_the_deadline_gets_an_error(tmp_path):
    with fakes.server(tmp_path) as client:
        client.engine.gate.clear()
        answers = []
        inside = threading.Thread(target=lambda: answers.append(client.post("/chat", prompt="p")))
        inside.start()
        client.eventually(lambda: client.service.admission.inside == 1)
        assert not client.on_loop(client.service.drain(0.3)).result(60)
        inside.join()
        assert (answers[0].status_code, answers[0].json()["detail"]) == (503, "the engine was stopped")
        assert not client.fatal
