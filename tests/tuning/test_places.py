"""A scratch folder of one's own: gone with its process, at the latest when the next one begins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tuning.conftest import ROOT

HOLDS = """
import sys
from tuning.places import scratch
with scratch() as folder:
    (folder / "data").write_text("rows")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    """Processes that have a scratch folder below this one, each with its folder."""
    running = []

    def go():
        command, environment = [sys.executable, "-c", HOLDS], os.environ | {"TMPDIR": str(tmp_path)}
        piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, cwd=ROOT, env=environment, **piped))
        return running[-1], Path(running[-1].stdout.readline().strip())

    yield go
    for each in running:
        each.kill()
        each.communicate()


def test_what_a_killed_process_leaves_goes_when_the_next_begins(start, tmp_path):
    (killed, left), (_, others) = start(), start()
    for mine in ("tuning-mine", "tuning-results"):
        (tmp_path / mine).mkdir()
    (tmp_path / "tuning-mine" / "rows.jsonl").write_text("the user's own")
    (tmp_path / "tuning-link").symlink_to(tmp_path / "tuning-mine")
    killed.kill()
    killed.wait()
    assert (left / "data").exists()
    last, own = start()
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {"tuning-mine", "tuning-results", "tuning-link", others.name, own.name}
    assert (others / "data").read_text() == "rows"
    last.communicate("")
    assert not own.exists()


def test_the_command_line_has_such_a_one(start, tmp_path):
    killed, left = start()
    killed.kill()
    killed.wait()
    words = ["--model", str(tmp_path), "--data", "none", "--output", str(tmp_path / "out")]
    command = [sys.executable, "-m", "tuning", "validate", *words]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "none: there is no such file" in done.stderr
    assert not left.exists()
