"""A model served without a cluster, Ray or a config file: the same application on uvicorn alone.

The model is a folder, a preset, or ORGANISATION/NAME[@REVISION] of the hub; weights stay in the user's cache. Knows
neither Ray nor the operator.
"""

import asyncio
import importlib
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

import presets
from artifacts import docker
from artifacts.weights.config import Model, named
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
        folder = (
            Path(asked.model) if Path(asked.model).is_dir() else weights.fetch(config.model, CACHE, docker.own_file())
        )
        with tempfile.TemporaryDirectory(prefix="kaito-hera-") as scratch:
            return asyncio.run(_run(config, listed, folder.absolute(), asked.host, Path(scratch)))
    except errors.Fatal as error:
        log.error("%s: %s", error.failure().reason, error)  # noqa: TRY400 (no traceback: the message is for people)
        return error.exit
    except KeyboardInterrupt:
        return Exit.DONE


def understand(asked: Asked) -> tuple[ServingConfig, tuple[Adapter, ...]]:
    """The same as the operator would write; raises BadConfig."""
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
    if Path(text).is_dir():
        return Path(text).resolve().name, Model(id=text, revision="", field="MODEL")
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
    strength = _number(last) if Path(front).is_dir() or front.rpartition("/")[2].count(":") else None
    where = front if strength is not None else place
    if Path(where).is_dir():
        folder = str(Path(where).absolute())
        return Adapter(name=name, volume=folder, folder=folder, strength=1.0 if strength is None else strength)
    if where.startswith((".", "/")):
        raise errors.BadConfig(f"--adapter {text}: there is no folder {where}")
    return Adapter(name=name, image=where, strength=1.0 if strength is None else strength)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


async def _run(config: ServingConfig, listed: tuple[Adapter, ...], folder: Path, host: str, scratch: Path) -> Exit:
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
        load=lambda: model.load(config, folder, threads=own.threads),
        adapters_file=adapters_file,
        source=Sources(Images(CACHE / "adapters", authfile=docker.own_file())),
        on_fatal=end,
        limits=own.limits,
    )
    server = uvicorn.Server(
        uvicorn.Config(create_app(service), host=host, port=config.port, log_level="error", ws="none")
    )
    print(f"http://{host}:{config.port}/ is a chat page; /chat and /v1 answer there too; Ctrl-C ends", file=sys.stderr)  # noqa: T201
    await server.serve()
    return ended[0] if ended else Exit.DONE
