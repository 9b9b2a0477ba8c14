"""`kaito-hera loss`: the loss of a tuning run as a curve in the terminal, while it runs and afterwards.

While it runs the pods' logs tell; afterwards the card in the adapter's image, which is asked for with the passwords
that docker or podman keep on this machine. A card or metrics.jsonl on the disk will do as well, and needs no cluster.
"""

import argparse
import datetime
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kaito_hera import show, status
from kaito_hera.paper import Paper, inert
from kaito_hera.status import Status
from workflows.commands import curves
from workflows.commands.curves import METRICS, SUMMARY, Curve
from workflows.outlook.documents import UnreadableError

_PAUSE_SECONDS = 5.0
_FILE_BYTES, _LAYER_BYTES = 64 << 20, 256 << 20


def add_to(commands: Any) -> None:
    """The command and its arguments."""
    command = commands.add_parser("loss", help="the loss of a tuning run, as a curve")
    command.add_argument("name", help=f"of a Workspace; or a file, a folder with {SUMMARY} or {METRICS}, an image")
    command.add_argument("-n", "--namespace", default="default", help="of the Workspace (default: default)")
    command.add_argument("-f", "--follow", action="store_true", help="go on until the Workspace is settled")
    command.add_argument("-o", "--output", choices=["text", "json"], default="text")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Draw it. Raises UnreadableError for what is not there or tells nothing."""
    name, path = arguments.name, Path(arguments.name)
    if path.exists():
        _show(of_path(path), name, arguments.output)
    elif path.suffix in {".json", ".jsonl"} or name.startswith((".", "/", "~")):
        raise UnreadableError(f"{name}: there is no such file or folder")
    elif "/" in name:
        _show(of_image(name), name, arguments.output)
    else:
        _of_workspace(arguments)


def of_path(path: Path) -> Curve:
    """Of a file, or of the folder that has one."""
    found = next((path / name for name in (METRICS, SUMMARY) if (path / name).is_file()), path)
    try:
        with found.open("rb") as file:
            text = file.read(_FILE_BYTES).decode(errors="replace")
    except OSError as error:
        hint = f"; it has neither {METRICS} nor {SUMMARY}" if path.is_dir() else ""
        raise UnreadableError(f"{found}: {error.strerror}{hint}") from error
    return _told(curves.of_text(text), str(found))


def of_image(image: str) -> Curve:
    """Of the card in an adapter's image: of its last layers, which are small."""
    from artifacts import errors as artifacts  # noqa: PLC0415 - a tenth of a second that files need not pay
    from artifacts import manifest, registry, unpack  # noqa: PLC0415

    try:
        with registry.of(image, None) as asked, tempfile.TemporaryDirectory(prefix="kaito-hera-") as folder:
            found = manifest.read(image, asked.manifest)
            wanted = {f"data/{name}": _FILE_BYTES for name in (METRICS, SUMMARY)}
            for layer in reversed(found.layers):
                if layer.size <= _LAYER_BYTES:
                    blob, tree = Path(folder, "blob"), unpack.Tree(Path(folder, "files"), wanted.get)
                    asked.blob(layer.digest, layer.size, blob)
                    tree.add(blob, layer, hashed=True)
                if any(Path(folder, "files", name).is_file() for name in wanted):
                    return of_path(Path(folder, "files", "data"))
    except artifacts.ArtifactError as error:
        way_in = "; log in there (docker login, az acr login)" if isinstance(error, artifacts.Denied) else ""
        raise UnreadableError(f"{image}: {error}{way_in}") from error
    raise UnreadableError(f"{image}: has no card ({SUMMARY}); adapters that were not tuned here have none")


def _told(curve: Curve, what: str) -> Curve:
    if not curve.losses and not curve.evals:
        raise UnreadableError(f"{what}: tells of no loss; give {SUMMARY} or {METRICS} of an adapter")
    return curve


def _of_workspace(arguments: argparse.Namespace) -> None:
    from kaito_hera import cluster  # noqa: PLC0415 - files and images need none
    from workflows.commands import standing  # noqa: PLC0415
    from workflows.commands.logs import Logs  # noqa: PLC0415

    connection = cluster.Cluster.connect()
    logs, before, was = Logs(connection), list[show.Line](), Curve()
    while True:
        found = standing.workspace(connection, arguments.name, arguments.namespace)
        seen = Status.of(found)
        curve = _of_adapter(found, seen) or logs.curve(found)
        if not arguments.follow or seen.is_settled(found["metadata"]["generation"]):
            _finish(curve, found, seen, before, arguments.output)
            return
        if sys.stdout.isatty():
            lines = [show.Line(line, line) for line in _lines(curve, _title(found, seen))]
            print(show.redrawn(lines, before, shutil.get_terminal_size().columns), flush=True)
            before = lines
        else:
            _news(curve, was)
        was = curve
        time.sleep(_PAUSE_SECONDS)


def _of_adapter(found: dict[str, Any], seen: Status) -> Curve | None:
    """Of the finished adapter's card, where it went into a registry that may be asked."""
    adapter = seen.tuning.adapter_image if seen.tuning else ""
    if not adapter or not ((found.get("tuning") or {}).get("output") or {}).get("image"):
        return None
    try:
        return of_image(adapter)
    except UnreadableError as error:
        print(inert(f"note: {error}"), file=sys.stderr)
        return None


def _finish(curve: Curve, found: dict[str, Any], seen: Status, before: list[show.Line], output: str) -> None:
    if not curve.losses and not curve.evals and not found.get("tuning"):
        name = f"{found['metadata']['namespace']}/{found['metadata']['name']}"
        raise UnreadableError(f"Workspace {name} tunes nothing: it has no `tuning`")
    lines = [show.Line(line, line) for line in _lines(curve, _title(found, seen))]
    if output == "text" and before:
        print(show.redrawn(lines, before, shutil.get_terminal_size().columns), flush=True)
        return
    _show(curve, _title(found, seen), output)
    if output == "text" and not curve.losses and seen.tuning and seen.tuning.adapter_image:
        where = seen.tuning.adapter_image
        print(inert(f"the pod's log is gone; give {METRICS} of the adapter, {where}, to `kaito-hera loss`"))


def _title(found: dict[str, Any], seen: Status) -> str:
    name = f"{found['metadata']['namespace']}/{found['metadata']['name']}"
    run = seen.tuning or status.TuningStatus()
    parts = [f"step {run.step}" + (f" of {run.max_steps}" if run.max_steps else "")] if run.step is not None else []
    parts += [f"{datetime.timedelta(seconds=run.eta_seconds)} left"] if run.eta_seconds and seen.step else []
    return f"{name}  {', '.join(parts)}"


def _lines(curve: Curve, title: str) -> list[str]:
    return curves.drawn(curve, title, Paper.of(sys.stdout))


def _show(curve: Curve, title: str, output: str) -> None:
    if output == "json":
        print(json.dumps(curve._asdict()))
    else:
        print("\n".join(_lines(curve, title)))


def _news(curve: Curve, was: Curve) -> None:
    """In a pipe: a line for each step that was not told before."""
    for step, loss in sorted(set(curve.losses) - set(was.losses)):
        print(f"step {step:g}: loss {loss:.4f}", flush=True)
    for step, loss in sorted(set(curve.evals) - set(was.evals)):
        print(f"step {step:g}: loss {loss:.4f} on rows held out", flush=True)
