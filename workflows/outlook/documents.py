"""Manifests as people keep them: several documents in a file, Lists, ConfigMaps beside the Workspaces that name them.

Raises UnreadableError for what is no manifest at all; what a Workspace says is judged elsewhere.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pydantic
import yaml

from artifacts import plain_yaml
from kaito_hera.settings import CONFIG_MAP, Settings, problem

_LARGEST = 2 * 2**20  # bytes; an object of the API server has at most 1.5 MiB


class UnreadableError(ValueError):
    """The text says which file, and why it is no manifest."""


class _Loader(plain_yaml.Loader):
    """Dates stay what they are to Kubernetes: text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclasses.dataclass(frozen=True)
class Documents:
    """What was read."""

    workspaces: tuple[dict[str, Any], ...]
    config_maps: dict[tuple[str, str], dict[str, str]]
    """By namespace and name: their data."""
    others: tuple[str, ...] = ()
    """Kind and name of what nobody looks at."""

    def config_map(self, namespace: str, name: str) -> dict[str, str] | None:
        """The data of one, or None where it is not among them."""
        return self.config_maps.get((namespace, name))

    def settings(self) -> Settings | None:
        """The operator's settings if their ConfigMap is among them; raises UnreadableError."""
        data = next((data for (_, name), data in self.config_maps.items() if name == CONFIG_MAP), None)
        return None if data is None else _settings(data, f"ConfigMap {CONFIG_MAP}")


def read(text: str, source: str, namespace: str = "default") -> Documents:
    """All documents of a text; `namespace` is that of objects that name none. Raises UnreadableError."""
    workspaces, config_maps, others = [], {}, []
    for obj in _objects(text, source):
        metadata = obj.get("metadata")
        if isinstance(metadata, dict):
            metadata.setdefault("namespace", namespace)
        if obj["kind"] == "Workspace":
            workspaces.append(obj)
        elif obj["kind"] == "ConfigMap" and isinstance(metadata, dict):
            key = (str(metadata["namespace"]), str(metadata.get("name")))
            config_maps[key] = _data(obj)
        else:
            name = metadata.get("name") if isinstance(metadata, dict) else "without metadata"
            others.append(f"{obj['kind']} {name}")
    return Documents(tuple(workspaces), config_maps, tuple(others))


def file(path: Path) -> str:
    """A file's text; raises UnreadableError."""
    try:
        if path.stat().st_size > _LARGEST:
            raise UnreadableError(f"{path}: has more than {_LARGEST // 2**20} MiB; name a manifest")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise UnreadableError(f"{path}: cannot be read: {cause}") from cause


def stream(source: BinaryIO) -> str:
    """The same of standard input."""
    try:
        return source.read(_LARGEST + 1).decode()
    except UnicodeDecodeError as cause:
        raise UnreadableError(f"stdin: cannot be read: {cause}") from cause


def settings(path: Path) -> Settings:
    """The operator's settings: a folder with a file per setting, or a manifest of the ConfigMap.

    Raises UnreadableError.
    """
    if not path.is_dir():
        found = read(file(path), str(path)).settings()
        if found is None:
            raise UnreadableError(f"{path}: has no ConfigMap {CONFIG_MAP}; name a file that has, or a folder")
        return found
    try:
        texts = {entry.name: file(entry) for entry in path.iterdir() if entry.is_file() and entry.name[0] != "."}
    except OSError as cause:
        raise UnreadableError(f"{path}: cannot be read: {cause}") from cause
    return _settings(texts, str(path))


def _settings(data: dict[str, str], source: str) -> Settings:
    try:
        return Settings.of(data)
    except pydantic.ValidationError as cause:
        raise UnreadableError(f"{source}: {problem(cause)}") from cause


def _objects(text: str, source: str) -> Iterator[dict[str, Any]]:
    """Each object, those of a List one by one."""
    if len(text) > _LARGEST:
        raise UnreadableError(f"{source}: has more than {_LARGEST // 2**20} MiB; name a manifest")
    try:
        documents = [document for document in yaml.load_all(text, _Loader) if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as cause:
        raise UnreadableError(f"{source}: is no YAML: {' '.join(str(cause).split())[:300]}") from cause
    _refuse_others(documents, source)
    for document in documents:
        items = document.get("items") if isinstance(document, dict) and document.get("kind") == "List" else [document]
        for obj in items if isinstance(items, list) else []:
            if not isinstance(obj, dict) or not isinstance(obj.get("kind"), str):
                shown = f"{type(obj).__name__} {str(obj)[:40]!r}"
                raise UnreadableError(f"{source}: {shown} is no Kubernetes object: it has no kind")
            yield obj


def _refuse_others(documents: list[Any], source: str) -> None:
    """Only what JSON has, and not more of it than a machine holds."""
    unknown: Any = None
    try:
        for value in plain_yaml.values(documents):
            if isinstance(value, str):
                value.encode()
            elif not isinstance(value, dict | list | int | float | None):
                unknown = value
    except UnicodeEncodeError as cause:
        shown = ascii(cause.object)[:60]
        raise UnreadableError(f"{source}: {shown} has half of a character; write it whole") from cause
    except ValueError as cause:
        raise UnreadableError(f"{source}: {cause}, which no manifest has") from cause
    if unknown is not None:
        raise UnreadableError(f"{source}: has a {type(unknown).__name__}, which JSON has not; write it as text")


def _data(obj: dict[str, Any]) -> dict[str, str]:
    data = obj.get("data")
    return {str(key): str(value) for key, value in data.items()} if isinstance(data, dict) else {}
