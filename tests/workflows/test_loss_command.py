"""`kaito-hera loss` of files, folders and images; of Workspaces: tests/apiserver/test_loss.py."""

import base64
import json
import subprocess
import sys

import pytest

from tests.tuning import servers
from tuning.config import Progress
from tuning.curve import Curve as Rows
from tuning.output import image
from workflows import __main__ as command
from workflows.commands import curves
from workflows.commands.curves import Curve
from workflows.outlook.documents import UnreadableError

SUMMARY = {"loss_curve": [[1, 3.5], [2, 2.5]], "steps": 2, "eval_loss": 2.75, "loss": 3.0}


@pytest.fixture
def loss(capsys):
    def run(*arguments):
        parsed = command._parser().parse_args(["loss", *map(str, arguments)])
        parsed.run(parsed)
        return capsys.readouterr().out

    return run


@pytest.fixture
def rows():
    """Two attempts, the second from step 2 on."""
    first, second = Rows(), Rows()
    for step in (1, 2):
        first.add(Progress(phase="train", percent=9, step=step, max_steps=4, loss=4.0 - step))
    second.resume(2, [row.loss for row in first.rows])
    for step in (3, 4):
        second.add(Progress(phase="train", percent=9, step=step, max_steps=4, loss=4.0 - step))
    second.add(Progress(phase="train", percent=9, step=4, max_steps=4, eval_loss=0.5))
    return second


@pytest.fixture
def folder(tmp_path, rows):
    """An adapter's."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "adapter_config.json").write_text("{}")
    (tmp_path / "data" / "training_summary.json").write_text(json.dumps(SUMMARY))
    rows.write(tmp_path / "data" / "metrics.jsonl")
    return tmp_path / "data"


WHOLE = Curve(((1, 3), (2, 2), (3, 1), (4, 0)), ((4, 0.5),), (2,), 4)


def test_a_folder_tells_each_step(loss, folder):
    assert Curve(**json.loads(loss(folder, "-o", "json"))) == Curve(*json.loads(json.dumps(WHOLE)))
    shown = loss(folder)
    assert "loss 3 at step 1, 0 at step 4; ◆ on rows held out: 0.5; ┊ resumed from step 2" in shown
    assert "┤" in shown


def test_a_summary_is_a_curve_too(loss, folder):
    assert "loss 3.5 at step 1, 2.5 at step 2; ◆ on rows held out: 2.75" in loss(folder / "training_summary.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "\x00\xff",
        '{"loss_curve": "x"}',
        '{"loss_curve": [[1, "x"]]}',
        '{"loss_curve": [[1, NaN]]}',
        '{"step": 1}',
        '{"t":1,"attempt":1,"step":1,"loss":1e999}',
        "[" * 100_000,
    ],
)
def test_what_tells_of_no_loss_is_refused(loss, tmp_path, text):
    (tmp_path / "some.json").write_text(text)
    with pytest.raises(UnreadableError, match=r"some.json: tells of no loss; give training_summary.json"):
        loss(tmp_path / "some.json")


def test_what_is_not_there_is_named(loss, tmp_path):
    with pytest.raises(UnreadableError, match=r"^./none: there is no such file or folder"):
        loss("./none")
    with pytest.raises(UnreadableError, match=r"none.json: there is no such file"):
        loss(tmp_path / "none.json")
    with pytest.raises(UnreadableError, match=r"it has neither metrics.jsonl nor training_summary.json"):
        loss(tmp_path)


def test_words_of_strangers_are_harmless(loss, tmp_path):
    named = tmp_path / "\x1b[31m.json"
    named.write_text(json.dumps(SUMMARY))
    assert "\x1b" not in loss(named)


def test_logs_of_attempts_are_one_curve():
    def line(step, loss=None, **more):
        return Progress(phase="train", percent=9, step=step, max_steps=9, loss=loss, **more).line()

    first = [line(1, 5.0), "other words", line(4, 4.0)]
    second = [line(3, 3.0, resumed_from_step=2), line(4, 2.0, resumed_from_step=2), line(4, eval_loss=2.5)]
    assert curves.of_logs([first, second]) == Curve(((1, 5.0), (3, 3.0), (4, 2.0)), ((4, 2.5),), (2,), 9)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    server = servers.Registry(tmp_path_factory.mktemp("registry"), password=True)
    yield server
    server.close()


@pytest.fixture
def pushed(registry, folder, tmp_path, monkeypatch):
    """Pushes an image as a run does; this machine's docker has the password."""
    password = base64.b64encode(f"{servers.USER}:{servers.PASSWORD}".encode()).decode()
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": password}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))

    def push(tag, adapter, card):
        def named(names):
            return {name: folder / name for name in names}

        packed = image.write(tmp_path / "layout", named(adapter), {}, card=named(card))
        target = f"{registry.host}/team/adapter:{tag}"
        command = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false"]
        command += ["--dest-creds", f"{servers.USER}:{servers.PASSWORD}"]
        command += [f"oci:{packed.layout}:{image.TAG}", f"docker://{target}"]
        subprocess.run(command, check=True, capture_output=True)
        return target

    return push


def test_an_image_is_asked_for_its_card_alone(loss, pushed, registry):
    name = pushed("1", ["adapter_config.json"], ["metrics.jsonl", "training_summary.json"])
    assert "loss 3 at step 1, 0 at step 4" in loss(name)


def test_an_image_of_one_layer_has_its_card_there(loss, pushed):
    name = pushed("2", ["adapter_config.json", "training_summary.json"], [])
    assert "loss 3.5 at step 1, 2.5 at step 2" in loss(name)


def test_an_image_without_a_card_says_so(loss, pushed):
    with pytest.raises(UnreadableError, match=r"has no card \(training_summary.json\)"):
        loss(pushed("3", ["adapter_config.json"], []))


def test_a_registry_that_refuses_says_how_to_get_in(loss, pushed, monkeypatch, tmp_path):
    name = pushed("4", ["adapter_config.json"], [])
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nobody"))
    with pytest.raises(UnreadableError, match=r"log in there \(docker login, az acr login\)"):
        loss(name)


def test_no_torch_is_loaded_for_it(folder):
    code = f"""
import sys
from workflows import __main__ as command
parsed = command._parser().parse_args(["loss", {str(folder)!r}])
parsed.run(parsed)
sys.exit(bool({{"torch", "transformers", "peft"}} & set(sys.modules)))
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
