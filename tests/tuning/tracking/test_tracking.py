"""Trackers beside a run: what they are told, and that they never hold it up."""

import base64
import json
import logging
import struct
import threading
import time

import pytest

from tests.tuning import servers
from tests.tuning.conftest import tuning_config
from tuning import tracking
from tuning.config import Progress
from tuning.errors import Evicted
from tuning.places import Places
from tuning.tracking import tensorboard
from tuning.tracking.feed import Feed
from tuning.tracking.run import Point


class Mlflow(servers.Server):
    """The routes of a tracking server that are asked, with its own words for what is not there."""

    def __init__(self):
        super().__init__()
        self.experiments, self.runs, self.metrics, self.signed, self.away = {}, {}, [], set(), False

    def answer(self, request):
        self.signed.add(request.headers.get("Authorization", ""))
        if self.away:
            self.reply(request, 503, b"{}")
            return
        what, _, query = request.path.removeprefix("/api/2.0/mlflow/").partition("?")
        body = json.loads(request.content or b"{}")
        status, answer = getattr(self, what.replace("/", "_").replace("-", "_"))(body, query)
        self.reply(request, status, json.dumps(answer).encode())

    def experiments_get_by_name(self, _body, query):
        name = query.removeprefix("experiment_name=")
        if name not in self.experiments:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
        return 200, {"experiment": {"experiment_id": self.experiments[name]}}

    def experiments_create(self, body, _query):
        self.experiments[body["name"]] = "7"
        return 200, {"experiment_id": "7"}

    def runs_search(self, body, _query):
        wanted = body["filter"].split("'")[1]
        return 200, {"runs": [{"info": {"run_id": key}} for key, run in self.runs.items() if wanted in run["tags"]]}

    def runs_create(self, body, _query):
        key = f"run-{len(self.runs)}"
        self.runs[key] = {"name": body["run_name"], "tags": [tag["value"] for tag in body["tags"]], "params": {}}
        return 200, {"run": {"info": {"run_id": key}}}

    def runs_log_batch(self, body, _query):
        self.metrics += body.get("metrics", [])
        self.runs[body["run_id"]]["params"] |= {each["key"]: each["value"] for each in body.get("params", [])}
        return 200, {}

    def runs_update(self, body, _query):
        self.runs[body["run_id"]]["status"] = body["status"]
        return 200, {}


class Wandb(servers.Server):
    """GraphQL and the stream of files, which keeps lines by their place as theirs does."""

    def __init__(self):
        super().__init__()
        self.lines, self.upserts, self.ends, self.signed = {}, [], [], set()

    def answer(self, request):
        self.signed.add(request.headers.get("Authorization", ""))
        body = json.loads(request.content)
        if request.path == "/graphql":
            asked = body["variables"]
            self.upserts.append(asked)
            project = {"name": asked["project"], "entity": {"name": "team"}}
            bucket = {"name": asked["name"], "historyLineCount": len(self.lines), "project": project}
            self.reply(request, 200, json.dumps({"data": {"upsertBucket": {"bucket": bucket}}}).encode())
            return
        assert request.path == f"/files/team/{self.upserts[-1]['project']}/{self.upserts[-1]['name']}/file_stream"
        chunk = body.get("files", {}).get("wandb-history.jsonl", {"offset": 0, "content": []})
        self.lines |= {chunk["offset"] + at: json.loads(line) for at, line in enumerate(chunk["content"])}
        self.ends += [{key: value for key, value in body.items() if key in {"complete", "exitcode", "preempting"}}]
        self.reply(request, 200, b"{}")


@pytest.fixture(params=[Mlflow, Wandb])
def any_server(request):
    server = request.param()
    yield server
    server.close()


@pytest.fixture
def mlflow():
    server = Mlflow()
    yield server
    server.close()


@pytest.fixture
def wandb():
    server = Wandb()
    yield server
    server.close()


def asked(*names, **more):
    arguments = {"report_to": names, **more}
    return tuning_config("reg.io/a:1", ["https://h.io/a"], training={"arguments": arguments})


def step(number, **more):
    return Progress(phase="train", percent=10, step=number, max_steps=9, loss=1 / number, **more)


def go(config, environment, *steps, places=None, error=None):
    with tracking.told(config, places or Places(), environment) as listeners:
        for progress in steps:
            for listener in listeners:
                listener(progress)
        if error:
            raise error


def test_mlflow_has_one_run_for_all_attempts(mlflow):
    config, environment = asked("mlflow"), {"MLFLOW_TRACKING_URI": mlflow.url, "MLFLOW_TRACKING_TOKEN": "secret"}
    go(config, environment, Progress(phase="fetch", percent=0), step(1, learning_rate=1e-4), step(2, eval_loss=0.5))
    go(config, environment, step(2), step(3))
    (run,) = mlflow.runs.values()
    assert (run["name"], run["status"], run["params"]["method"]) == ("team-ws", "FINISHED", "qlora")
    assert float(run["params"]["learning_rate"]) == 2e-4
    said = [(each["step"], each["key"], each["value"]) for each in mlflow.metrics]
    assert said == [
        (1, "loss", 1.0),
        (1, "learning_rate", 1e-4),
        (2, "loss", 0.5),
        (2, "eval_loss", 0.5),
        (2, "loss", 0.5),
        (3, "loss", 1 / 3),
    ]
    assert mlflow.signed == {"Bearer secret"}


def test_mlflow_takes_a_name_and_a_password(mlflow):
    environment = {"MLFLOW_TRACKING_URI": mlflow.url, "MLFLOW_EXPERIMENT_NAME": "mine"}
    go(asked("mlflow"), environment | {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, step(1))
    assert mlflow.signed == {f"Basic {base64.b64encode(b'u:p').decode()}"}
    assert list(mlflow.experiments) == ["mine"]


def test_mlflow_takes_them_in_its_address_too(mlflow, caplog):
    go(asked("mlflow"), {"MLFLOW_TRACKING_URI": mlflow.url.replace("://", "://u:p%40ss@")}, step(1))
    assert mlflow.signed == {f"Basic {base64.b64encode(b'u:p@ss').decode()}"}
    assert [each["step"] for each in mlflow.metrics] == [1]
    assert "p%40ss" not in caplog.text


def test_wandb_goes_on_after_the_last_line(wandb):
    config = asked("wandb", run_name="for people")
    environment = {"WANDB_API_KEY": "key", "WANDB_BASE_URL": wandb.url, "WANDB_PROJECT": "codes"}
    go(config, environment, step(1), step(2))
    go(config, environment, step(3, eval_loss=0.25))
    assert [(line["_step"], line["train/loss"]) for line in wandb.lines.values()] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert wandb.lines[2]["eval/loss"] == 0.25
    assert {(each["name"], each["project"], each["shown"]) for each in wandb.upserts} == {
        ("kaito-an-intent", "codes", "for people")
    }
    assert json.loads(wandb.upserts[0]["config"])["method"] == {"value": "qlora"}
    assert wandb.ends[-1] == {"complete": True, "exitcode": 0}
    assert wandb.signed == {f"Basic {base64.b64encode(b'api:key').decode()}"}


@pytest.mark.parametrize(
    ("error", "end", "status"),
    [
        (Evicted("the node goes"), {"preempting": True}, "KILLED"),
        (ValueError("a bug"), {"complete": True, "exitcode": 1}, "FAILED"),
    ],
)
def test_how_a_run_ends_is_told(mlflow, wandb, error, end, status):
    environment = {"MLFLOW_TRACKING_URI": mlflow.url, "WANDB_API_KEY": "k", "WANDB_BASE_URL": wandb.url}
    with pytest.raises(type(error)):
        go(asked("mlflow", "wandb"), environment, step(1), error=error)
    assert wandb.ends[-1] == end
    assert mlflow.runs["run-0"]["status"] == status


def test_a_run_without_a_step_is_nobody_s_business(any_server):
    environment = {"MLFLOW_TRACKING_URI": any_server.url, "WANDB_API_KEY": "k", "WANDB_BASE_URL": any_server.url}
    go(asked("mlflow", "wandb"), environment, Progress(phase="push", percent=100))
    assert any_server.signed == set()


@pytest.mark.parametrize(
    ("name", "environment", "said"),
    [
        ("mlflow", {}, "MLFLOW_TRACKING_URI is not set"),
        ("wandb", {}, "WANDB_API_KEY is not set"),
        ("mlflow", {"MLFLOW_TRACKING_URI": "http://169.254.169.254/"}, "never allowed"),
        ("mlflow", {"MLFLOW_TRACKING_URI": "http://10.1.2.3:5000"}, "allowedPrivateCIDRs"),
        ("mlflow", {"MLFLOW_TRACKING_URI": "databricks"}, "scheme"),
        ("tensorboard", {}, "tuning.output.volumeSource"),
    ],
)
def test_what_cannot_be_told_is_said_once(name, environment, said, caplog):
    caplog.set_level(logging.WARNING)
    go(asked(name), environment, step(1), step(2))
    (record,) = caplog.records
    assert f"nothing goes to {name}: " in record.message
    assert said in record.message


class Sink:
    """A tracker that is away, slow or well, as the test says."""

    name = "a tracker"

    def __init__(self):
        self.taken, self.away, self.gate = [], False, threading.Event()

    def open(self):
        if self.away:
            raise ConnectionError("it is away")

    def log(self, points):
        self.gate.wait(30)
        if self.away:
            raise ConnectionError("it is away")
        self.taken += points

    def close(self, outcome):
        self.taken.append(outcome)


def test_a_tracker_that_hangs_holds_nothing_up(caplog):
    sink = Sink()
    feed = Feed(sink, room=100)
    before = threading.active_count()
    for number in range(1, 1001):
        feed(step(number))
    assert threading.active_count() <= before + 1
    assert feed.dropped >= 800
    feed.close("finished", seconds=0.2)
    assert "points were not taken" in caplog.text
    sink.gate.set()


def test_what_was_away_gets_what_was_kept(caplog):
    caplog.set_level(logging.INFO)
    sink = Sink()
    sink.away = True
    sink.gate.set()
    feed = Feed(sink, first_pause=0.05)
    feed(step(1))
    while "does not take" not in caplog.text:
        time.sleep(0.01)
    feed(step(2))
    sink.away = False
    while "takes the run's figures now" not in caplog.text:
        time.sleep(0.01)
    feed.close("finished")
    assert [each.step if isinstance(each, Point) else each for each in sink.taken] == [1, 2, "finished"]
    assert caplog.text.count("does not take") == 1


def read_events(file):
    """(step, {tag: value}) of each record, whose checksums are right."""
    data, place, found = file.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        body = data[place + 12 : place + 12 + length]
        assert data[place : place + 16 + length] == tensorboard.record(body)
        found.append(body)
        place += 16 + length
    return found


def test_tensorboard_has_a_file_for_each_attempt(tmp_path):
    config = tuning_config(
        "", ["https://h.io/a"], output={"volume": "team/out"}, training={"arguments": {"report_to": ["tensorboard"]}}
    )
    for number in (1, 300):
        go(config, {}, step(number), places=Places(results=tmp_path))
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert folder.name == "team-ws-an-intent"
    first, second = sorted(folder.iterdir())
    version, point = read_events(first)
    assert version.endswith(b"brain.Event:2")
    value = b"\x0a\x0atrain/loss\x15" + struct.pack("<f", 1.0)
    assert point[9:11] == b"\x10\x01"
    assert point[11:] == b"\x2a" + bytes([len(value) + 2]) + b"\x0a" + bytes([len(value)]) + value
    assert read_events(second)[1][9:12] == b"\x10\xac\x02", "300 as a varint"


def test_the_checksum_is_castagnoli_s():
    assert tensorboard.crc32c(b"123456789") == 0xE3069283
