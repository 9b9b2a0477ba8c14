"""The whole server: weights from a hub, adapters from a registry, Ray Serve with HAProxy, in a restricted process.

The tests of the first two starts share them and stand in the order of their lives.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import grpc
import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # peft asks for it
]

from serving.config import Adapter, Adapters, Served
from tests import terminations
from tests.bench.serving import load, storm
from tests.serving import modelhub, peer, registry, tiny
from tests.serving.pod import TOKEN, Pod, sandboxed

REVISION = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"workspace": "ns/w", "name": "tiny-phi", "model": {"id": "acme/tiny-phi", "revision": REVISION}}
PROMPT = "the quick brown fox"
OTHER_TEMPLATE = "{% for message in messages %}{{ '<|user|>' + message['content'] }}{% endfor %}{{ '<|assistant|>' }}"


class World:
    """Hub, registry, checkpoint and adapters, beside the pod."""

    def __init__(self, folder, host):
        self.folder, self.host = folder, host
        self.base = tiny.checkpoint(folder / "model")
        self.adapters = {
            "one": tiny.adapter(folder / "one", self.base, 1, template=OTHER_TEMPLATE),
            "two": tiny.adapter(folder / "two", self.base, 2, template=OTHER_TEMPLATE),
        }
        for name, image in (("one", registry.kaito_image), ("two", registry.docker_image)):
            names = ["adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"]
            files = {each: (self.adapters[name] / each).read_bytes() for each in names}
            registry.push(folder, image(files), f"{host}/team/{name}:1")

    def listed(self, **strengths):
        return tuple(
            Adapter(name=name, image=f"{self.host}/team/{name}:1", strength=s) for name, s in strengths.items()
        )

    def write(self, adapters):
        """As the kubelet swaps a ConfigMap's content."""
        file = self.folder / "pod" / "config" / "adapters.json"
        new = file.with_suffix(".new")
        new.write_bytes(Adapters.dump_json(adapters))
        new.replace(file)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    (folder / "pod" / "config").mkdir(parents=True)
    with registry.running(folder / "registry") as host:
        registry.plain_http(folder / "pod" / "config", host)
        yield World(folder, host)


@pytest.fixture(scope="module")
def pod(world):
    world.write(world.listed(one=0.5))
    with modelhub.running({"acme/tiny-phi": (REVISION, world.base)}) as (_, url):
        pod = Pod(world.folder / "pod", CONFIG, HF_ENDPOINT=url, MAX_WAITING="4")
        try:
            pod.seconds = pod.await_status("/health", 200)
            yield pod
        finally:
            pod.close()


def served(pod):
    return Served.model_validate(pod.request("GET", "/v1/models")[1])


def eventually(condition, seconds=120):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "did not happen in time"
        time.sleep(0.1)


def chat(pod, **kwargs):
    kwargs = {"do_sample": False, "max_new_tokens": 12} | kwargs
    body = {"prompt": PROMPT, "return_full_text": False, "generate_kwargs": kwargs}
    status, answer = pod.request("POST", "/chat", body)
    assert status == 200, answer
    return answer["Result"]


def expected(world, mix, template):
    """Base and adapters merged by hand, transformers' tokens, the tokenizer's text as an answer begins and ends."""
    model, own = tiny.merged(world.base, world.adapters, mix), tiny.tokenizer()
    turn = [{"role": "user", "content": PROMPT}]
    prompt = own.apply_chat_template(turn, chat_template=template, add_generation_prompt=True, return_dict=False)
    tokens = tiny.greedy(model, prompt, 12)
    tokens = tokens[: next((at for at, token in enumerate(tokens) if token in (0, 4)), len(tokens))]
    before, whole = [own.decode(each, skip_special_tokens=True) for each in (prompt, prompt + tokens)]
    answer = whole.removeprefix(before).rstrip("\N{REPLACEMENT CHARACTER}")  # half a character at the end is not shown
    return answer.lstrip()


def test_chat_answers_what_transformers_would_with_the_adapter_at_its_strength(pod, world):
    assert not served(pod).lacks(world.listed(one=0.5))
    assert chat(pod) == expected(world, {"one": 0.5}, OTHER_TEMPLATE)
    print(f"\nfirst good /health after {pod.seconds:.1f} s, {pod.memory()} MB")


def test_an_adapter_on_a_volume_adds_up_with_one_of_an_image(pod, world):
    shutil.copytree(world.adapters["two"], world.folder / "pod" / "config" / "volume")
    mounted = Path("/opt" if sandboxed() else world.folder / "pod" / "config") / "volume"
    wanted = (*world.listed(one=0.25), Adapter(name="two", volume="persistentVolumeClaim/two", folder=str(mounted)))
    world.write(wanted)
    eventually(lambda: not served(pod).lacks(wanted))
    assert chat(pod) == expected(world, {"one": 0.25, "two": 1.0}, OTHER_TEMPLATE)
    assert served(pod).adapters[1].volume == "persistentVolumeClaim/two"


@contextlib.contextmanager
def asked_meanwhile(pod):
    """The statuses of a client that asks without a pause."""
    statuses, over = [], threading.Event()

    def ask():
        while not over.is_set():
            statuses.append(pod.request("POST", "/chat", {"prompt": PROMPT})[0])

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield statuses
    finally:
        over.set()
        asking.join()


def test_adapters_change_under_their_clients_without_a_restart(pod, world):
    replica = pod.replica()
    with asked_meanwhile(pod) as statuses:
        change(pod, world)
    assert set(statuses) == {200}
    assert len(statuses) > 5
    assert pod.replica() == replica


def change(pod, world):
    for wanted in ({"one": 0.25, "two": 1.0}, {"two": 1.0}, {"one": 0.0}, {}):
        world.write(world.listed(**wanted))
        eventually(lambda wanted=wanted: not served(pod).lacks(world.listed(**wanted)))
        template = OTHER_TEMPLATE if any(wanted.values()) else tiny.TEMPLATE
        assert chat(pod) == expected(world, wanted, template)
    world.write((Adapter(name="gone", image=f"{world.host}/team/none:1"),))
    eventually(lambda: served(pod).adapters and served(pod).adapters[0].state == "failed")
    assert "the registry has no image" in served(pod).adapters[0].reason
    assert pod.request("GET", "/health")[0] == 200
    world.write(world.listed(one=0.5))
    eventually(lambda: not served(pod).lacks(world.listed(one=0.5)))


def test_openai_streams_through_haproxy(pod):
    body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 5, "temperature": 0, "stream": True}
    status, text = pod.request("POST", "/v1/chat/completions", body)
    assert status == 200
    assert text.endswith("data: [DONE]\n\n")


def test_errors_pass_through_haproxy_as_they_are(pod):
    status, answer = pod.request("POST", "/chat", {"prompt": PROMPT, "generate_kwargs": {"top_p": 7}})
    assert (status, answer) == (400, {"detail": "generate_kwargs.top_p is 7.0: it must be above 0 and at most 1"})


def test_a_storm_of_clients_gets_answers_or_a_polite_no_and_leaves_nothing_behind(pod):
    prompts = [load.Asked(f"{PROMPT} {number}", 400) for number in range(99)]
    blown = storm.Storm(pod.port, prompts)
    asyncio.run(blown.blow(rate=100, seconds=2))
    assert {200, 429} <= set(blown.statuses) <= {200, 429, 503}
    assert not blown.broken
    assert sum(blown.hung_up.values()) > 20
    eventually(lambda: storm.gauges(pod) == [0, 0])
    assert pod.request("GET", "/health")[0] == 200


def test_sigterm_finishes_what_runs_and_ends_with_0(pod):
    answers, streams = [], []
    stream = {"prompt": PROMPT, "max_tokens": 400, "ignore_eos": True, "stream": True}
    works = [
        lambda: answers.append(chat(pod, num_return_sequences=8, max_new_tokens=400, eos_token_id=[])),
        *[lambda: streams.append(pod.request("POST", "/v1/completions", stream)) for _ in range(4)],
    ]
    running = [threading.Thread(target=work) for work in works]
    for each in running:
        each.start()
    eventually(lambda: pod.request("GET", "/v1/models")[1]["engine"]["requests"] == 12)
    began = time.monotonic()
    pod.terminate()
    assert not answers
    pod.await_status("/health", 503, seconds=60)
    refused, reason = pod.request("POST", "/chat", {"prompt": PROMPT})
    assert (refused, reason["detail"]) == (503, "the server is shutting down")
    for each in running:
        each.join(240)
    assert len(answers) == 1
    assert [(status, text[-14:]) for status, text in streams] == [(200, "data: [DONE]\n\n")] * 4
    assert pod.wait() == 0
    print(f"\ngone after {time.monotonic() - began:.1f} s")
    assert not pod.termination.exists()


@pytest.fixture(scope="module")
def another(world, pod):
    """The second start, in a network of its own, where nothing is but the cable to this machine."""
    pod.close()
    world.write(())
    alone = Pod(world.folder / "pod", CONFIG, alone=sandboxed(), HF_HUB_OFFLINE="1", DRAIN_SECONDS="0.3")
    try:
        alone.await_status("/health", 200)
        yield alone
    finally:
        alone.close()


@pytest.mark.skipif(not sandboxed(), reason="needs a network of its own")
def test_no_other_port_takes_anything_from_a_peer_without_the_token(another):
    listening = another.listening()
    assert ("*", "5000") in listening
    reached = Path(f"/proc/{another.replica()}/root/tmp/reached")
    refused = [peer.refuses(host, int(port)) for _, port in listening for host in (another.host, another.host6)]
    assert refused.count(False) == 2  # port 5000 alone, at both addresses
    assert not reached.exists()
    inside = next(int(port) for address, port in listening if address == "*" and port != "5000")
    assert peer.calls(another.host, inside, token=TOKEN) != {grpc.StatusCode.UNAUTHENTICATED}
    assert reached.exists()  # so what was sent before would have been run


def test_a_stream_that_outlives_the_shutdown_ends_with_an_event_through_haproxy(another):
    body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 400, "n": 8, "ignore_eos": True}
    answers = []
    running = threading.Thread(
        target=lambda: answers.append(another.request("POST", "/v1/chat/completions", body | {"stream": True}))
    )
    running.start()
    eventually(lambda: another.request("GET", "/v1/models")[1]["engine"]["requests"])
    another.terminate()
    running.join(240)
    [(status, text)] = answers
    assert status == 200
    last = text.removesuffix("\n\n").rpartition("\n\n")[2]
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "service_unavailable"
    assert another.wait() == 0


@pytest.mark.parametrize(
    ("words", "name"),
    [
        pytest.param("ServeReplica", "the serving replica", id="replica"),
        pytest.param("haproxy.cfg", "HAProxy", id="haproxy"),
        pytest.param("raylet/raylet", "raylet", id="raylet"),
    ],
)
def test_any_death_ends_the_driver_with_the_reason(world, pod, words, name):
    pod.close()
    world.write(())
    again = Pod(world.folder / "pod", CONFIG, HF_HUB_OFFLINE="1")
    try:
        again.await_status("/health", 200)
        os.kill(again.process_of(words), signal.SIGKILL)
        assert again.wait(60) == 43
        left = terminations.of_serving(again.termination.read_text())
        assert (left.reason, left.retryable) == ("EngineDied", True)
        assert left.message.startswith(f"{name} ended without a word")
    finally:
        again.close()
