"""What a push of a 400 MB adapter weighs, sends again after a kill, and bears: `make bench-push`.

A process of its own packs and pushes, through a line that counts, into the real registry. Three pushes: one that nobody
disturbs; one whose skopeo is killed when all blobs are there; one to a registry that is away for the first minutes.
"""

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.tuning import servers
from tests.tuning.conftest import CARD, entry, tuning_config, write_secret

MB = 1_000_000
SIZE = 400 * MB
BAR_MB = 100.0


class Line:
    """A line to the registry that counts the bytes sent, and calls `seen` when `mark` comes by for the first time."""

    def __init__(self, port: int, mark: bytes = b"", seen: Callable[[], None] = lambda: None) -> None:
        self.sent = 0
        self._port, self._mark, self._seen = port, mark, seen
        self._listens = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listens.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            near, _ = self._listens.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                near.close()
                continue
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counts: bool) -> None:  # noqa: FBT001
        try:
            while data := source.recv(1 << 18):
                if counts:
                    self.sent += len(data)
                    if self._mark and self._mark in data:
                        self._mark = b""
                        self._seen()
                target.sendall(data)
        except OSError:
            pass
        finally:
            for each in (source, target):
                each.close()


def child(folder: Path, host: str) -> None:
    """Pack and push what is in the folder; prints what that weighed."""
    from tuning.eviction import Eviction
    from tuning.output import destination
    from tuning.output.patience import Patience
    from tuning.places import Places

    config = tuning_config(f"{host}/team/adapter:{folder.name}", [], input={"volume": "in"})
    places = Places(scratch=folder / "scratch", push_auth=folder.parent / f"{folder.name}.json")
    (places.scratch / "adapter").mkdir(parents=True)
    files = {name: folder.parent / name for name in ("adapter_config.json", "adapter_model.safetensors")}
    idle, began = _status("VmRSS"), time.monotonic()
    put = destination.put(config, places, files, CARD, waits=Patience(Eviction(), seconds=7200))
    skopeo = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    grown = (_status("VmHWM") - idle + skopeo) / MB
    print(json.dumps({"seconds": round(time.monotonic() - began, 1), "grown_mb": round(grown, 1), "name": put.name}))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def _start(folder: Path, host: str) -> subprocess.Popen[str]:
    write_secret(folder.parent / f"{folder.name}.json", {host: entry()})
    command = [sys.executable, "-m", "tests.bench.push", "--child", str(folder), "--host", host]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _end(running: subprocess.Popen[str]) -> dict[str, float]:
    out, _ = running.communicate()
    assert running.returncode == 0, "the push failed"
    told: dict[str, float] = json.loads(out.splitlines()[-1])
    return told


def _kill_skopeo(parent: int) -> None:
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8").split():
        os.kill(int(pid), signal.SIGKILL)


def measure(folder: Path, away: float) -> dict[str, float]:
    """The figures of the three pushes; all have the same layer, so each goes into a registry of its own."""
    (folder / "adapter_config.json").write_text("{}")
    with (folder / "adapter_model.safetensors").open("wb") as file:
        for _ in range(SIZE // MB):
            file.write(os.urandom(MB))
    figures: dict[str, float] = {}
    with servers.Registry(_new(folder / "one"), password=True) as server:
        line = Line(server.port)
        calm = _end(_start(folder / "calm", line.host))
        figures |= {"push_seconds": calm["seconds"], "push_grown_mb": calm["grown_mb"], "sent": line.sent / SIZE}
    with servers.Registry(_new(folder / "two"), password=True) as server:
        running: list[subprocess.Popen[str]] = []
        line = Line(server.port, b"PUT /v2/team/adapter/manifests/", lambda: _kill_skopeo(running[0].pid))
        running.append(_start(folder / "killed", line.host))
        _end(running[0])
        figures["killed_sent"] = line.sent / SIZE
    server = servers.Registry(_new(folder / "three"), password=True)
    server.close()
    begun, waits = time.monotonic(), _start(folder / "away", Line(server.port).host)
    time.sleep(away)
    server.start()
    back = time.monotonic()
    _end(waits)
    server.close()
    return figures | {"away_seconds": round(back - begun, 1), "there_after_s": round(time.monotonic() - back, 1)}


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--away", type=float, default=300.0, help="seconds that the registry is away")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--host", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child, asked.host)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), asked.away)
    print(f"an adapter of {SIZE // MB} MB, with skopeo: {figures['push_grown_mb']:.0f} MB above idle", end=" ")
    print(f"(at most {BAR_MB:.0f}), {figures['push_seconds']:.0f} s; {figures['sent']:.2f} of its bytes were sent")
    print(f"skopeo killed once all blobs were there: {figures['killed_sent']:.2f} of its bytes were sent in both tries")
    print(f"a registry away for {figures['away_seconds']:.0f} s: there {figures['there_after_s']:.0f} s after that")
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}))
    raise SystemExit(figures["push_grown_mb"] > BAR_MB or figures["killed_sent"] > 1.01 * figures["sent"])


if __name__ == "__main__":
    main()
