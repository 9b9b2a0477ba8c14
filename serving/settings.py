"""The environment, read in one place: where to write, how long to drain, what to say to Ray and HAProxy.

The pod's defaults need nothing set but RAY_AUTH_TOKEN; the rest is there for tests and for a laptop.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from artifacts import looks
from serving import errors, keys
from serving.config import REGISTRY_AUTH, SCRATCH

DRAIN_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """What clients may ask of the server, and how it is guarded."""

    waiting: int | None = None
    """MAX_WAITING: answers that may wait; None: four for each that runs, and 64 at least."""
    waiting_tokens: int = 262_144
    """MAX_WAITING_TOKENS: tokens of the prompts that wait; one prompt may be longer."""
    request_seconds: float = 600.0
    """REQUEST_SECONDS: how long a request may take; the header X-Request-Timeout can ask for less."""
    wait_seconds: float = 120.0
    """WAIT_SECONDS: how long of these it may wait."""
    keep_alive_seconds: float = 15.0
    """KEEP_ALIVE_SECONDS: how often a stream that waits says that it is still there."""
    body_bytes: int = 4 << 20
    """MAX_BODY_BYTES: a request's body."""
    choices: int = 8
    """MAX_CHOICES: `n`, and `num_return_sequences` of /chat."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """API_KEY: who names none of these, divided by commas, gets 401; none: everybody may ask."""
    api_key_file: Path | None = None
    """API_KEY_FILE: a file with further ones, read again when it changes; then somebody unnamed is never let in."""
    cors_origins: tuple[str, ...] = ()
    """CORS_ORIGINS: pages of these origins, divided by commas, may read answers in a browser; `*` is all."""


@dataclass(frozen=True)
class Settings:
    """One process's surroundings."""

    scratch: Path
    """SCRATCH: weights and adapters."""
    cache: Path | None
    """CACHE: a volume that keeps weights for pods to come, if there is one."""
    model_folder: Path | None
    """MODEL_FOLDER: the model's image, where it is mounted; nothing is fetched then."""
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
    limits: Limits = Limits()


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in `environment`."""
    return Settings(
        scratch=Path(environment.get("SCRATCH") or SCRATCH),
        cache=_path(environment, "CACHE"),
        model_folder=_path(environment, "MODEL_FOLDER"),
        registry_auth=Path(environment.get("REGISTRY_AUTH") or REGISTRY_AUTH),
        termination_log=Path(environment.get("TERMINATION_LOG") or "/dev/termination-log"),
        run_folder=Path(environment.get("RUN_FOLDER") or "/tmp"),  # noqa: S108 (the one writable place of the pod)
        drain_seconds=_number(environment, "DRAIN_SECONDS", DRAIN_SECONDS),
        host=environment.get("HOST") or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0"),  # noqa: S104
        check_seconds=_number(environment, "CHECK_SECONDS", looks.SECONDS),
        threads=int(_number(environment, "OMP_NUM_THREADS", processors())),
        limits=_limits(environment),
    )


def _limits(environment: Mapping[str, str]) -> Limits:
    own = Limits()
    return Limits(
        waiting=int(_number(environment, "MAX_WAITING", 0)) if environment.get("MAX_WAITING") else None,
        waiting_tokens=int(_number(environment, "MAX_WAITING_TOKENS", own.waiting_tokens)),
        request_seconds=_number(environment, "REQUEST_SECONDS", own.request_seconds),
        wait_seconds=_number(environment, "WAIT_SECONDS", own.wait_seconds),
        keep_alive_seconds=_number(environment, "KEEP_ALIVE_SECONDS", own.keep_alive_seconds),
        body_bytes=int(_number(environment, "MAX_BODY_BYTES", own.body_bytes)),
        choices=int(_number(environment, "MAX_CHOICES", own.choices)),
        api_keys=_list(environment, "API_KEY"),
        api_key_file=_key_file(environment),
        cors_origins=_list(environment, "CORS_ORIGINS"),
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


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(environment[name]) if environment.get(name) else None


def _key_file(environment: Mapping[str, str]) -> Path | None:
    """One that can be used: better not to start than to turn everybody away."""
    if not (name := environment.get("API_KEY_FILE")):
        return None
    keys.read(Path(name))
    return Path(name)


def _list(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    """What is divided by commas. Set and empty is an error: an empty Secret must not open the server."""
    values = tuple(value.strip() for value in environment.get(name, "").split(",") if value.strip())
    if name in environment and not values:
        raise errors.BadConfig(f"the environment variable {name} is empty; give it a value, or unset it")
    return values
