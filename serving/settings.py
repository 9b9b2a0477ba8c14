"""The environment, read in one place: where to write, how long to drain, what to say to Ray and HAProxy.

The pod's defaults need nothing set but RAY_AUTH_TOKEN; the rest is there for tests and for a laptop.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from artifacts import looks
from serving import errors
from serving.config import REGISTRY_AUTH, SCRATCH

DRAIN_SECONDS = 60.0


@dataclass(frozen=True)
class Settings:
    """One process's surroundings."""

    scratch: Path
    """SCRATCH: weights and adapters."""
    registry_auth: Path
    """REGISTRY_AUTH: the merged `.dockerconfigjson`."""
    termination_log: Path
    """TERMINATION_LOG: where the reason of a bad end goes."""
    run_folder: Path
    """RUN_FOLDER: parent of the private folder of Ray, HAProxy and our socket; its path must be short."""
    drain_seconds: float
    """DRAIN_SECONDS: how long running requests may go on after SIGTERM; the pod's grace period must be 15 s longer."""
    host: str
    """HOST: the address that port 5000 is opened on."""
    check_seconds: float
    """CHECK_SECONDS: how long `--check` may take in all."""
    threads: int
    """OMP_NUM_THREADS, or as many as this process has processors: for models on the CPU."""


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in `environment`."""
    return Settings(
        scratch=Path(environment.get("SCRATCH") or SCRATCH),
        registry_auth=Path(environment.get("REGISTRY_AUTH") or REGISTRY_AUTH),
        termination_log=Path(environment.get("TERMINATION_LOG") or "/dev/termination-log"),
        run_folder=Path(environment.get("RUN_FOLDER") or "/tmp"),  # noqa: S108 (the one writable place of the pod)
        drain_seconds=_number(environment, "DRAIN_SECONDS", DRAIN_SECONDS),
        host=environment.get("HOST") or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0"),  # noqa: S104
        check_seconds=_number(environment, "CHECK_SECONDS", looks.SECONDS),
        threads=int(_number(environment, "OMP_NUM_THREADS", processors())),
    )


def processors() -> int:
    """How many processors this process may use: its affinity, or its cgroup's share if that is less."""
    here = len(os.sched_getaffinity(0))
    for file, divide in (("/sys/fs/cgroup/cpu.max", _share_v2), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", _share_v1)):
        try:
            share = divide(Path(file))
        except (OSError, ValueError):
            continue
        here = int(min(here, max(1.0, share)))
    return here


def _share_v2(file: Path) -> float:
    quota, period = file.read_text().split()
    return float("inf") if quota == "max" else int(quota) / int(period)


def _share_v1(file: Path) -> float:
    quota = int(file.read_text())
    return quota / int((file.parent / "cpu.cfs_period_us").read_text()) if quota > 0 else float("inf")


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name) or str(default)
    try:
        number = float(text.split(",")[0])
    except ValueError:
        number = -1.0
    if number <= 0:
        raise errors.BadConfig(f"the environment variable {name} is {text!r}; it must be a number above 0")
    return number
