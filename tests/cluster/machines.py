"""Machines made of namespaces: what runs in one dies with it, and so do its mounts.

A cluster is a tree of them. The first, `world`, has the cluster's network namespace; in it run the control plane and
the simulated outside world. Every node is a machine inside `world`, with its own processes and mounts, so that
containerd and the kubelet find their usual paths (/run, /var/lib, /var/log) to themselves. A machine is held by one
process, the first of its process namespace: ending that one is pulling the plug, and the kernel cleans up.

Nothing is recorded on disk: a machine is found by the tag that its first process carries, seen from the host or from
inside `world`, where the cloud simulator boots nodes. The daemons of a machine are found by files in its own /run, and
carry its tag in their environment.
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import layout, progress

WORLD = "world"
_PLAIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The first process of a machine: it inherits orphans, and must not let them become zombies.
_FIRST = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); [signal.pause() for _ in iter(int, 1)]"

_SETUP = """
set -e
resolver="$(realpath -m /etc/resolv.conf)"  # below /run, where systemd-resolved has it
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/daemons /run/lock "$(dirname "$resolver")"
[ -e "$resolver" ] || : > "$resolver"
mount --bind {resolv_conf} "$resolver"
{script}
: > /run/ready-{name}
exec {python} -ISc {first} "$0"
"""


@dataclass(frozen=True)
class Machine:
    """One machine of a cluster, on or off."""

    cluster: layout.Cluster
    name: str = WORLD

    @property
    def tag(self) -> str:
        return f"{_mark(self.cluster)}{self.name}"

    @property
    def log(self) -> Path:
        return self.cluster.log if self.name == WORLD else self.cluster.log / self.name

    @property
    def world(self) -> "Machine":
        return Machine(self.cluster)

    def on(self) -> bool:
        """Its first process runs and has finished setting up."""
        return (pid := self._pid()) is not None and self._root(pid, f"run/ready-{self.name}").exists()

    def power_on(self, script: str) -> None:
        """Start it with a shell script that finishes its setup (mounts, links); nothing happens if it is on."""
        if self.on():
            return
        self.power_off()
        self.log.mkdir(parents=True, exist_ok=True)
        setup = _SETUP.format(
            resolv_conf=shlex.quote(str(self.cluster.state / "resolv.conf")),
            script=script,
            name=self.name,
            python=shlex.quote(sys.executable),
            first=shlex.quote(_FIRST),
        )
        unshare = ["unshare", "--pid", "--mount", *(["--net"] if self.name == WORLD else [])]
        inside = [] if self.name == WORLD else self.world.inside()
        log = self.log / "machine.log"
        _detach([*inside, *unshare, "--", "setsid", "--fork", "sh", "-c", setup, self.tag], log)
        progress.until(self.on, what=f"machine {self.name}", seconds=20, hint=f"see {log}", pause=0.02)

    def power_off(self) -> None:
        """End everything in it at once, as a power cut would."""
        while (pid := self._pid()) is not None:
            os.kill(pid, signal.SIGKILL)
            progress.until(
                lambda pid=pid: not _alive(pid),  # type: ignore[misc]
                what=f"the end of machine {self.name} (process {pid})",
                seconds=30,
                hint="a process in it may hang in the kernel: `ps axl`",
                pause=0.02,
            )

    def inside(self, *namespaces: str) -> list[str]:
        """The command prefix that runs a program in it (in all its namespaces, unless some are named)."""
        pid = self._pid()
        if pid is None:
            raise layout.ClusterError(f"machine {self.name} of cluster {self.cluster.name} is off: `make up` starts it")
        return ["nsenter", "--target", str(pid), *(f"--{name}" for name in namespaces or ("pid", "mount", "net")), "--"]

    def ensure_daemon(self, name: str, command: Sequence[object], *, env: Mapping[str, str] | None = None) -> bool:
        """Start a daemon unless it runs; True if it was started. It belongs to the machine, not to its caller."""
        if self.running(name):
            return False
        self._start(name, [str(word) for word in command], env or {}, ())
        return True

    def ensure_host_daemon(self, name: str, command: Sequence[object]) -> bool:
        """The same, but with the host's network: what carries connections from the loopback into the cluster."""
        if self.running(name):
            return False
        self._start(name, [str(word) for word in command], {}, ("pid", "mount"))
        return True

    def running(self, name: str) -> bool:
        return self.daemon(name) is not None

    def daemon(self, name: str) -> int | None:
        """A running daemon's process id, as this machine counts."""
        pid = self._pid()
        if pid is None:
            return None
        try:
            number = int(self._root(pid, f"run/daemons/{name}").read_text())
            environment = self._root(pid, f"proc/{number}/environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return number if f"KAITO_HERA_DAEMON={self.tag}:{name}".encode() in environment else None

    def stop_daemon(self, name: str, number: int = signal.SIGTERM) -> None:
        """Signal one daemon and wait for its end; SIGKILL follows if it does not listen."""
        if (pid := self.daemon(name)) is None:
            return
        for one in (number, signal.SIGKILL):
            subprocess.run([*self.inside(), "kill", f"-{int(one)}", str(pid)], capture_output=True, check=False)
            try:
                progress.until(lambda: not self.running(name), what=f"the end of {name}", seconds=10, hint="")
            except TimeoutError:
                continue
            return

    def memory(self) -> dict[str, int]:
        """Resident bytes of each daemon, and of all else that runs here (containers, and machines inside this one)."""
        if (pid := self._pid()) is None:
            return {}
        resident = {int(path.parent.name): _resident(path) for path in self._root(pid, "proc").glob("[0-9]*/statm")}
        daemons = {path.name: self.daemon(path.name) for path in self._root(pid, "run/daemons").iterdir()}
        figures = {name: resident.pop(number) for name, number in sorted(daemons.items()) if number in resident}
        return figures if self.name == WORLD else figures | {"pods": sum(resident.values())}

    def _start(self, name: str, command: list[str], env: Mapping[str, str], namespaces: tuple[str, ...]) -> None:
        """The shell writes its own process id before it becomes the daemon, so killing us here loses nothing."""
        record = f'echo $$ > /run/daemons/{name} && exec "$@" >> {shlex.quote(str(self.log / name))}.log 2>&1'
        environment = {"PATH": _PLAIN_PATH, "LANG": "C.UTF-8", "KAITO_HERA_DAEMON": f"{self.tag}:{name}", **env}
        assignments = ["env", "-i", *(f"{key}={value}" for key, value in environment.items())]
        # The shell's own environment has to carry the mark too: /proc shows a program's environment as of its start.
        entry = ["setsid", "--fork", *assignments, "sh", "-c", record, name, *command]
        self.log.mkdir(parents=True, exist_ok=True)
        _detach([*self.inside(*namespaces), *entry], self.log / f"{name}.log")
        progress.until(
            lambda: self.running(name), what=f"a start of {name}", seconds=10, hint=self._hint(name), pause=0.01
        )

    def _hint(self, name: str) -> str:
        return f"its log is {self.log / name}.log"

    def _pid(self) -> int | None:
        """The first process, as the caller's own process namespace counts."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.tag.encode() not in (process / "cmdline").read_bytes().split(b"\0"):
                    continue
                if _first_of_its_namespace(process) and _alive(int(process.name)):
                    return int(process.name)
            except OSError:  # it has just ended
                continue
        return None

    @staticmethod
    def _root(pid: int, path: str) -> Path:
        return Path(f"/proc/{pid}/root") / path


def left(cluster: layout.Cluster) -> list[str]:
    """Processes that are machines or daemons of this cluster by their marks, for the check after `down`.

    Not whatever names the state folder: a person may well have a log or the kubeconfig open.
    """
    mark = _mark(cluster).encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if any(text.startswith((mark, b"KAITO_HERA_DAEMON=" + mark)) for text in (*words, *environment)):
            found.append(f"process {process.name}: {b' '.join(words[:3]).decode(errors='replace')}")
    return found


def _mark(cluster: layout.Cluster) -> str:
    """What the tags of a cluster's machines begin with."""
    return f"kaito-hera:{cluster.state}:"


def _first_of_its_namespace(process: Path) -> bool:
    numbers = next(line for line in (process / "status").read_text().splitlines() if line.startswith("NSpid:"))
    return numbers.split()[-1] == "1"


def _resident(statm: Path) -> int:
    try:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def _detach(command: list[str], log: Path) -> None:
    """Run a command that leaves a process behind, with nothing of ours open in it."""
    with log.open("a") as output:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, check=False
        )
    if done.returncode:
        raise layout.ClusterError(f"`{shlex.join(command[:12])} ...` ended with {done.returncode}; see {log}")
