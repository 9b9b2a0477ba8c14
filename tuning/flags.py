"""A run asked for by plain flags, on a laptop: from them to the same `TuningConfig` and places that a pod has."""

import argparse
import contextlib
import hashlib
import ipaddress
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import presets
from artifacts import docker, strangers
from artifacts.weights.config import Model, named
from tuning import training_config
from tuning.config import Input, Output, TuningConfig
from tuning.data import folder
from tuning.errors import ConfigInvalid, DataNotFound
from tuning.places import Places
from tuning.training_config import Method, TrainingConfig

NEEDED = ("model", "data", "output")
CHECKPOINT_SECONDS = 300
_IMAGE = "docker://"
T = TypeVar("T", int, float)


def add_to(command: argparse.ArgumentParser) -> None:
    """The flags that say what a CONFIG says."""
    group = command.add_argument_group("without CONFIG")
    _add_model(group)
    data = "files, one folder, URLs, or one image as docker://IMAGE (with CONFIG: where the input's volume is mounted)"
    group.add_argument("--data", nargs="+", metavar="FILE", help=data)
    group.add_argument("--output", metavar="WHERE", help="a folder, or an image (REGISTRY/REPOSITORY:TAG)")
    group.add_argument(
        "--allow-private",
        nargs="+",
        default=(),
        type=_range,
        metavar="CIDR",
        help="private ranges that data may come from",
    )


def add_load_to(command: argparse.ArgumentParser) -> None:
    """The flags that say what a GPU would have to hold."""
    _add_model(command)
    command.add_argument(
        "--max-length",
        type=between(int, 16, 1_000_000),
        help="tokens of a row (default: the training config's, else 2048)",
    )
    command.add_argument(
        "--rows", type=between(int, 1, 1024), help="rows at once (default: the training config's, else 2)"
    )
    command.add_argument(
        "--rank", type=between(int, 1, 512), help="of the adapter (default: the training config's, else 8)"
    )
    command.add_argument("--cloud", choices=["azure", "aws", "arc"], default="azure", help="whose GPU sizes to list")


def _add_model(group: Any) -> None:
    group.add_argument("--model", metavar="MODEL", help="ORG/NAME on the hub, a preset's name, or a folder")
    group.add_argument("--method", choices=["lora", "qlora"], default="qlora", help="default: %(default)s")
    group.add_argument(
        "--config", dest="training", type=Path, metavar="FILE", help="a training_config.yaml, as KAITO's"
    )


def between(kind: type[T], least: T, most: T) -> Callable[[str], T]:
    """Reads a flag's number; what is none, or is not between these, is wrong usage."""

    def read(text: str) -> T:
        with contextlib.suppress(ValueError):
            if least <= (number := kind(text)) <= most:
                return number
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no {kind.__name__} from {least:,} to {most:,}")

    return read


def _range(text: str) -> str:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; write a range such as 10.0.0.0/8") from error
    return text


def asked(flags: argparse.Namespace, places: Places) -> tuple[TuningConfig, Places]:
    """What the flags ask for."""
    model, weights = named_model(flags.model)
    given, data = _input(flags.data, _made(places.scratch, "--scratch"))
    output, results = _output(flags.output)
    changed = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in _files(flags.data, weights)]
    said = (flags.model, flags.data, flags.method, _text(flags.training), changed)
    config = TuningConfig(
        workspace="this command",
        preset=model.id,
        model=model,
        method=flags.method,
        training=training(flags.training, flags.method),
        input=given,
        output=output,
        intent=hashlib.sha256(repr(said).encode()).hexdigest()[:16],
        allowed_private_cidrs=tuple(flags.allow_private),
        checkpoint_seconds=CHECKPOINT_SECONDS if output.volume else 0,
    )
    return config, Places(
        scratch=places.scratch,
        push_auth=flags.push_auth or docker.own_file(),
        pull_auth=flags.pull_auth or docker.own_file(),
        data=data or places.data,
        results=results or places.results,
        model=weights,
        models=hub_cache(),
    )


def named_model(name: str) -> tuple[Model, Path | None]:
    """The model that is meant, and the folder that it is in, if it is in one."""
    if os.path.isdir(name):  # noqa: PTH112 -- pathlib raises for a name that is too long
        return Model(id=Path(name).resolve().name, revision="", field="--model"), Path(name)
    if name.startswith((".", "/", "~")):
        raise ConfigInvalid(f"--model {name[:200]}: no such folder")
    try:
        return named(name, "--model"), None
    except presets.UnknownNameError as error:
        raise ConfigInvalid(f"--model: {error}; or give a folder with its files") from error


def training(file: Path | None, method: Method) -> TrainingConfig:
    """The training config in the file, or the defaults."""
    try:
        return training_config.parse(_text(file) or "training_config: {}", method)
    except ValueError as error:
        raise ConfigInvalid(str(error)) from error


def _text(file: Path | None) -> str:
    try:
        return strangers.content(file).decode() if file else ""
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"--config: {file} cannot be read: {error}; give a training_config.yaml") from error


def hub_cache() -> Path:
    """Where the hub's client keeps a person's models."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub")


def _input(given: list[str], scratch: Path) -> tuple[Input, Path | None]:
    """Where the data is, and the folder that stands for a mounted volume if it is on this machine."""
    addresses = [each for each in given if each.startswith(("http://", "https://"))]
    if addresses:
        if len(addresses) != len(given):
            raise ConfigInvalid("--data: URLs and files together; give only URLs or only files")
        return Input(urls=tuple(given)), None
    if len(given) == 1 and given[0].startswith(_IMAGE):
        if not (image := given[0].removeprefix(_IMAGE)):
            raise ConfigInvalid(f"--data: {_IMAGE} names no image; write docker://REGISTRY/REPOSITORY:TAG")
        return Input(image=image), None
    paths = [Path(each) for each in given]
    if lacking := [each for each in given if not (each and os.path.exists(each))]:  # noqa: PTH110 -- bears long names
        raise DataNotFound(f"--data: {', '.join(lacking)[:500] or repr('')}: there is no such file; correct the path")
    if len(paths) == 1 and paths[0].is_dir():
        return Input(volume=given[0]), paths[0]
    if others := [str(path) for path in paths if not path.is_file()]:
        raise ConfigInvalid(f"--data: {', '.join(others)} is no regular file; give one folder, or files")
    return Input(volume="--data"), _gathered(paths, scratch / "given")


def _gathered(paths: list[Path], folder: Path) -> Path:
    """The files in one folder, in their order, under names of their own; without a copy where the disk allows it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, path in enumerate(paths):
        target = folder / (path.name if len(paths) == 1 else f"{number:04}-{path.name}")
        try:
            os.link(path.resolve(), target)
        except OSError:
            shutil.copyfile(path, target)
    return folder


def _files(given: list[str], weights: Path | None) -> list[Path]:
    """What on this machine decides what is learned, as the user has it: what is gathered has other dates.

    Of a folder only what is data: where a run's output lies in it too, each run would have another intent.
    """
    found: list[Path] = []
    for each in map(Path, filter(os.path.exists, given)):
        found += [data.path for data in folder.judged(folder.Folder(each, "--data"))[0]] if each.is_dir() else [each]
    return found + [path for path in sorted(weights.iterdir() if weights else []) if path.is_file()]


def _output(where: str) -> tuple[Output, Path | None]:
    """An image where the first part is a host, as docker tells them apart; else a folder, made if it is not there."""
    host, slash, _ = where.removeprefix(_IMAGE).partition("/")
    is_host = slash and host.strip(".") and ("." in host or ":" in host or host == "localhost")
    if where.startswith(_IMAGE) or (is_host and not Path(where).exists()):
        return Output(image=where.removeprefix(_IMAGE)), None
    return Output(volume=where), _made(Path(where), "--output")


def _made(folder: Path, flag: str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigInvalid(f"{flag}: {folder} cannot be made: {error.strerror}; name another folder") from error
    return folder
