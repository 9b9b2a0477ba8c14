"""A model served without a cluster, Ray or a config file: the same application on uvicorn alone.

The model is a folder, a preset, or ORGANISATION/NAME[@REVISION] of the hub; weights stay in the user's cache. Knows
neither Ray nor the operator.
"""

import asyncio
import contextlib
import errno
import importlib
import logging
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

import presets
from artifacts import docker
from artifacts.weights import hub
from artifacts.weights.config import Model, named
from artifacts.weights.errors import WeightsError
from serving import errors, model, settings, weights
from serving.app import create_app
from serving.config import Adapter, Adapters, Exit, ServingConfig
from serving.folders import Sources
from serving.images import Images
from serving.service import Service

CACHE = Path.home() / ".cache" / "kaito-hera" / "serving"
log = logging.getLogger("serving")


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    model: str
    adapters: tuple[str, ...]
    host: str
    port: int
    context: int | None
    dtype: str


def serve(asked: Asked) -> Exit:
    """Serve until Ctrl-C; the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    log.setLevel(logging.INFO)
    try:
        config, listed = understand(asked)
        with bound(asked.host, asked.port) as sockets, tempfile.TemporaryDirectory(prefix="kaito-hera-") as scratch:
            _tell(f"loading {asked.model}")
            own = Path(asked.model)
            folder = own if _is_folder(asked.model) else weights.fetch(config.model, CACHE, docker.own_file())
            return asyncio.run(_run(config, listed, folder.absolute(), sockets, Path(scratch)))
    except errors.Fatal as error:
        log.error("%s: %s", error.failure().reason, error)  # noqa: TRY400 (no traceback: the message is for people)
        return error.exit
    except KeyboardInterrupt:
        return Exit.DONE


def understand(asked: Asked) -> tuple[ServingConfig, tuple[Adapter, ...]]:
    """The same as the operator would write; raises BadConfig, ModelFiles for a folder that holds no model."""
    name, found = _model(asked.model)
    try:
        config = ServingConfig.model_validate(
            {
                "workspace": "laptop",
                "name": name,
                "model": found,
                "port": asked.port,
                "context": asked.context,
                "dtype": asked.dtype,
            }
        )
        return config, Adapters.validate_python(tuple(adapter(text) for text in asked.adapters))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise errors.BadConfig(f"{where}: {first['msg']}, found {str(first['input'])[:200]!r}") from error


def _model(text: str) -> tuple[str, Model]:
    """Its name and where its files are."""
    if _is_folder(text):
        try:
            hub.complete(f"MODEL {text}", Path(text))
        except WeightsError as error:
            raise errors.ModelFiles(error) from error
        return Path(text).resolve().name, Model(id=text, revision="", field="MODEL")
    if text.startswith((".", "/", "~")):
        raise errors.BadConfig(f"MODEL {text}: no such folder")
    name, _, revision = text.partition("@")
    try:
        found = named(name, "MODEL", revision)
    except presets.UnknownNameError as error:
        raise errors.BadConfig(f"MODEL {text} is no folder here, and no model that is known: {error}") from error
    return (name if presets.is_hub_id(name) else presets.preset(name).name), found


def adapter(text: str) -> Adapter:
    """NAME=FOLDER or NAME=IMAGE, with :STRENGTH behind it; raises BadConfig."""
    name, _, place = text.partition("=")
    if not name or not place:
        raise errors.BadConfig(f"--adapter {text}: write NAME=FOLDER or NAME=IMAGE, and :STRENGTH behind it if not 1")
    front, _, last = place.rpartition(":")
    strength = _number(last) if _is_folder(front) or front.rpartition("/")[2].count(":") else None
    where = front if strength is not None else place
    if _is_folder(where):
        folder = str(Path(where).absolute())
        return Adapter(name=name, volume=folder, folder=folder, strength=1.0 if strength is None else strength)
    if where.startswith((".", "/")):
        raise errors.BadConfig(f"--adapter {text}: there is no folder {where}")
    return Adapter(name=name, image=where, strength=1.0 if strength is None else strength)


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:  # longer than a name can be
        return False


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@contextlib.contextmanager
def bound(host: str, port: int) -> Iterator[list[socket.socket]]:
    """A socket at each of the host's addresses, nobody else's from now on; raises BadConfig."""
    if not 0 <= port < 2**16:  # the resolver would take its last 16 bits
        raise errors.BadConfig(f"--port {port}: is no port; name one up to 65535")
    with contextlib.ExitStack() as opened:
        try:
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            places = dict.fromkeys((family, address) for family, _, _, _, address in found)
            sockets = [opened.enter_context(each) for each in listening(list(places))]
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise errors.BadConfig(f"--port {port}: is taken; name another") from error
            raise errors.BadConfig(f"--host {host} --port {port}: {error.strerror}; name others") from error
        yield sockets


def listening(places: Sequence[tuple[socket.AddressFamily, Any]]) -> Iterator[socket.socket]:
    """At each of these addresses; those that the machine lacks, as localhost's without IPv6, only if it has others."""
    some = False
    for family, at in places:
        try:
            made = socket.create_server(at, family=family)
        except OSError as error:
            last = (family, at) == places[-1]
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) or (last and not some):
                raise
        else:
            some = True
            yield made


async def _run(
    config: ServingConfig, listed: tuple[Adapter, ...], folder: Path, sockets: list[socket.socket], scratch: Path
) -> Exit:
    """The application until Ctrl-C or until the engine is beyond repair."""
    uvicorn: Any = importlib.import_module("uvicorn")
    own, ended = settings.read(), []
    adapters_file = scratch / "adapters.json"
    adapters_file.write_bytes(Adapters.dump_json(listed))

    def end(error: errors.Fatal) -> None:
        log.error("%s: %s", error.failure().reason, error)
        ended.append(error.exit)
        server.should_exit = True

    service = Service(
        config,
        load=lambda: model.load(config, folder, threads=own.threads, scratch=scratch),
        adapters_file=adapters_file,
        source=Sources(Images(CACHE / "adapters", authfile=docker.own_file())),
        on_fatal=end,
        limits=own.limits,
    )
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="error", ws="none"))
    announcing = asyncio.create_task(_announce(service, sockets[0]))
    await server.serve(sockets=sockets)
    announcing.cancel()
    return ended[0] if ended else Exit.DONE


async def _announce(service: Service, at: socket.socket) -> None:
    host, port = at.getsockname()[:2]
    while service.unready():  # noqa: ASYNC110 (polled)
        await asyncio.sleep(0.1)
    host = f"[{host}]" if at.family == socket.AF_INET6 else host
    _tell(f"http://{host}:{port}/ is a chat page; /chat and /v1 answer there too; Ctrl-C ends")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
