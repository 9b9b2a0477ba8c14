"""An API server that stays: `make apiserver` starts it or finds it, `make apiserver-down` ends it.

It is etcd, kube-apiserver and all of argo/, so the CRD and the admission policies judge Workspaces as in a cluster; no
node, controller or operator acts on what was admitted. It needs no root. Its two processes are found by files with
their process ids and by a mark in their environment, so that a number which the kernel gave away again is not mistaken
for one of them. What was stored outlives a killed process, not `down`.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import build, layout, progress, testing

_NAMES = ("apiserver", "etcd")  # in the order in which they end


def up() -> Path:
    """Everything runs and holds argo/ as it is now; the path of a kubeconfig with every right."""
    build.ensure(*testing.PROGRAMS)
    folder = layout.standing()
    with layout.standing_lock():
        folder.mkdir(parents=True, exist_ok=True)
        applied = folder / "applied"
        if not _healthy(folder):
            applied.unlink(missing_ok=True)  # a server that has just started holds its policies a moment later
            _start(folder)
        wanted = testing.installed()
        if not applied.exists() or applied.read_text() != wanted:
            testing.install(folder / "kubeconfig")
            layout.replace(applied, wanted)
    return folder / "kubeconfig"


def down() -> None:
    """Nothing of it is left."""
    folder = layout.standing()
    with layout.standing_lock():
        _stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


def processes(folder: Path) -> dict[str, int]:
    """The process ids of those of its processes that run."""
    return {name: pid for name in _NAMES if (pid := _pid(folder, name)) is not None}


def _healthy(folder: Path) -> bool:
    return len(processes(folder)) == len(_NAMES) and testing.answers(folder / "kubeconfig")


def _start(folder: Path) -> None:
    """Both anew, whichever is left of an earlier start: they know each other by their ports."""
    _stop(folder)
    parts = testing.Parts.prepare(folder)
    _launch(folder, "etcd", parts.etcd)
    _launch(folder, "apiserver", parts.apiserver)
    parts.await_ready(lambda: len(processes(folder)) == len(_NAMES))


def _launch(folder: Path, name: str, command: Sequence[object]) -> None:
    """The shell writes its own process id before it becomes the server, so killing us here loses nothing."""
    script = 'echo $$ > "$RECORD" && exec "$@"'
    environment = [f"PATH={os.defpath}", f"KAITO_HERA_DAEMON={_mark(folder, name)}", f"RECORD={_record(folder, name)}"]
    entry = ["setsid", "--fork", "env", "-i", *environment, "sh", "-c", script, name, *map(str, command)]
    record = _record(folder, name)
    record.unlink(missing_ok=True)
    with (folder / f"{name}.log").open("w") as log:
        subprocess.run(entry, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
    progress.until(
        lambda: record.exists() and record.stat().st_size > 0,
        what=f"a start of {name}",
        seconds=10,
        hint=f"see {folder}",
        pause=0.01,
    )


def _stop(folder: Path) -> None:
    for name, pid in processes(folder).items():
        os.kill(pid, signal.SIGKILL)  # etcd keeps what it acknowledged
        progress.until(
            lambda name=name: _pid(folder, name) is None,  # type: ignore[misc]
            what=f"the end of {name} (process {pid})",
            seconds=10,
            hint="it may hang in the kernel: `ps axl`",
            pause=0.02,
        )


def _pid(folder: Path, name: str) -> int | None:
    try:
        pid = int(_record(folder, name).read_text())
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if f"KAITO_HERA_DAEMON={_mark(folder, name)}".encode() in environment else None


def _record(folder: Path, name: str) -> Path:
    return folder / f"{name}.pid"


def _mark(folder: Path, name: str) -> str:
    return f"kaito-hera:{folder}:{name}"
