"""The serving process in as much of a restricted pod as one machine has without a cluster.

As root: process 1 of its own process namespace, the root file system read-only, /tmp and /dev/shm of its own, no
capabilities, no new privileges. Otherwise a plain process. The network is the machine's loopback, or one of its own
with a cable to this machine, which then is another pod.
"""

import contextlib
import functools
import http.client
import importlib.util
import ipaddress
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.serving.registry import free_port

ROOT = Path(__file__).parents[2]
TOKEN = "f" * 64
ENTER = """
set -e
[ -z "$ALONE" ] || ip link set lo up
mount --make-rprivate /
mount --bind "$POD/scratch" /mnt
mount --bind "$POD/config" /opt
mount --bind "$PYCACHE" /srv
mount -t tmpfs tmpfs /tmp
mount -t tmpfs -o size=256m tmpfs /dev/shm
mount -o remount,bind,ro /
export HOME=/tmp SCRATCH=/mnt TERMINATION_LOG=/mnt/termination RUN_FOLDER=/tmp REGISTRY_AUTH=/opt/auth.json
export CONTAINERS_REGISTRIES_CONF=/opt/registries.conf PYTHONPYCACHEPREFIX=${PREFIX:+/srv}
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$PYTHON" -m serving /opt/serving.json
"""
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


@functools.cache
def sandboxed():
    probe = [*UNSHARE, "sh", "-c", "mount --make-rprivate / && mount -t tmpfs tmpfs /tmp"]
    return os.geteuid() == 0 and subprocess.run(probe, capture_output=True, check=False).returncode == 0


def connect(pid):
    """A cable between this machine and a process that is about to enter a network of its own; the process's address."""
    here, there = [str(ipaddress.ip_address("198.18.0.0") + 4 * (pid % 32768) + end) for end in (1, 2)]
    ends = time.monotonic() + 30
    while Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
        assert time.monotonic() < ends
        time.sleep(0.02)
    name = f"pod{pid}"
    _ip([], f"link add {name} type veth peer name eth0 netns {pid}", *_address(here, name))
    _ip(inside(pid), *_address(there, "eth0"))
    return there


def inside(pid):
    """Begins a command that runs in a process's network."""
    return ["nsenter", "--target", str(pid), "--net"]


def _address(address, name):
    return [
        f"address add {address}/30 dev {name}",
        f"address add fd00::{address}/126 dev {name} nodad",
        f"link set {name} up",
    ]


def _ip(prefix, *lines):
    subprocess.run([*prefix, "ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def uncompiled():
    """Whether each of Ray's processes would compile Ray anew: an image has its bytecode, a fresh venv has not."""
    source = importlib.util.find_spec("ray").origin
    return not Path(importlib.util.cache_from_source(source)).exists()


def pycache():
    """Bytecode that outlives the test run, where the venv has none."""
    folder = Path.home() / ".cache" / "kaito-hera" / "pycache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Pod:
    """One start of the server; `folder` keeps scratch and config over starts, as a pod does over its container's.

    With `alone` (as root) it has a network of its own, its address `host` there, and the port and address of real pods.
    """

    def __init__(self, folder, config, *, alone=False, **environment):
        self.folder, self.host, self.port = folder, "127.0.0.1", 5000 if alone else free_port()
        for name in ("scratch", "config"):
            (folder / name).mkdir(exist_ok=True)
        (folder / "config" / "serving.json").write_text(json.dumps(config | {"port": self.port}))
        self.termination = folder / "scratch" / "termination"
        self.termination.unlink(missing_ok=True)
        self.began = time.monotonic()
        self.output = (folder / "log").open("wb")
        command, own = self._command(alone)
        keep = {"PATH": os.environ["PATH"]}
        keep |= {} if alone else {"RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()), "HOST": self.host}
        token = {"RAY_AUTH_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=keep | token | own | environment, stdout=self.output, stderr=self.output
        )
        if alone:
            self.host = connect(self.process.pid)

    def _command(self, alone):
        if sandboxed():
            prefix = {"PREFIX": "1"} if uncompiled() else {}
            own, network = ({"ALONE": "1"}, ["--net"]) if alone else ({}, [])
            return [*UNSHARE, *network, "sh", "-c", ENTER], own | prefix | {
                "POD": str(self.folder), "PYTHON": sys.executable, "PYCACHE": str(pycache()),
            }  # fmt: skip
        config, scratch = self.folder / "config", self.folder / "scratch"
        own = {"HOME": str(self.folder), "SCRATCH": str(scratch), "TERMINATION_LOG": str(self.termination)}
        own |= {"PYTHONPYCACHEPREFIX": str(pycache())} if uncompiled() else {}
        own |= {"RUN_FOLDER": "/tmp", "CONTAINERS_REGISTRIES_CONF": str(config / "registries.conf")}
        return [sys.executable, "-m", "serving", str(config / "serving.json")], own

    @property
    def host6(self):
        return f"fd00::{self.host}"

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        with contextlib.closing(connection):
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith("{") else text

    def await_status(self, path, status, seconds=480):
        """Poll until the path answers so; the seconds since the start."""
        ends = time.monotonic() + seconds
        last = None
        while time.monotonic() < ends and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                last = self.request("GET", path)
                if last[0] == status:
                    return time.monotonic() - self.began
            time.sleep(0.05)
        raise AssertionError(f"{path} was {last} at the end; exit {self.process.poll()}; log:\n{self.log()}")

    def log(self):
        return (self.folder / "log").read_text(errors="replace")

    def driver(self):
        """The driver's process id here outside."""
        return self.process_of("-m serving")

    def replica(self):
        return self.process_of("ServeReplica")

    def process_of(self, words):
        """The first of this pod's processes with these words in its command line."""
        mine = [(pid, _command_line(pid)) for pid in self.tree()]
        return next(pid for pid, line in mine if words in line and "unshare" not in line)

    def tree(self):
        """All processes of this pod."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    todo += [int(child) for child in (task / "children").read_text().split()]
        return found

    def listening(self):
        """(address, port) of every socket that listens in the network of a pod that is alone."""
        command = [*inside(self.process.pid), "ss", "-Hltn"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return [tuple(line.split()[3].rsplit(":", 1)) for line in lines]

    def terminate(self):
        os.kill(self.driver(), signal.SIGTERM)

    def wait(self, seconds=240):
        return self.process.wait(seconds)

    def memory(self):
        """Proportional set size of all processes, in MB."""
        sizes = []
        for pid in self.tree():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                sizes.append(int(re.search(r"Pss:\s+(\d+)", text)[1]) / 1024)
        return round(sum(sizes))

    def close(self):
        left = self.tree()
        self.process.kill()
        self.process.wait(10)
        self.output.close()
        if not sandboxed():
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)


def _command_line(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""
