"""Every Workspace that KAITO's repository ever showed to its users, read from a clone's objects without a checkout.

ConfigMaps with settings for one come along.

Taken are YAML files in the folders of examples, and fenced blocks of the manuals. Left out are proposals, since what
they show need not have been released, and fragments that show where an annotation goes. Two manifests with the same
content are one, however often and under whatever path they occur.
"""

import collections
import dataclasses
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CONFIGS = ("training_config.yaml", "inference_config.yaml")
_FILES = re.compile(r"(examples|config/samples|docs)/.*\.ya?ml")
_MANUALS = re.compile(r"(README|(docs|examples|presets|website/docs|website/versioned_docs)/(?!.*proposals/).*)\.mdx?")
_FENCED = re.compile(r"^([ \t>]*)```[^\n]*\n(.*?)^[ \t>]*```", re.MULTILINE | re.DOTALL)
_HERE_DOCUMENT = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?[^\n]*\n(.*?)\n\s*\1\b", re.DOTALL)
_RELEASE = re.compile(r"v(\d+)\.(\d+)\.(\d+)(-rc\.\d+)?")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """One Workspace, or one ConfigMap with its settings, as it was published."""

    digest: str
    path: str
    """Where the newest of the tags has it."""
    tags: tuple[str, ...]
    """Releases that have it, in order; HEAD comes last."""
    body: dict[str, Any]

    @property
    def span(self) -> str:
        """The first and the last of the tags."""
        return self.tags[0] if len(self.tags) == 1 else f"{self.tags[0]}..{self.tags[-1]}"


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What was found, and what was left aside."""

    manifests: tuple[Manifest, ...]
    others: collections.Counter[str]
    """Objects of other kinds in the same files, by kind."""
    fragments: int
    """Workspaces that say nothing beside who they are, or not of which version."""
    unreadable: tuple[str, ...]
    """`path: why`, of files and blocks that are not YAML."""


def read(repository: Path) -> Corpus:
    """Everything at every release and at HEAD; raises CalledProcessError where git cannot read it."""
    tags = [*_releases(repository), "HEAD"]
    places: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for tag in tags:
        for path, blob in _tree(repository, tag):
            if _FILES.fullmatch(path) or _MANUALS.fullmatch(path):
                places[path, blob].append(tag)
    texts = _blobs(repository, {blob for _, blob in places})
    return _collect({place: (found, texts.get(place[1], "")) for place, found in places.items()}, tags)


def _collect(places: dict[tuple[str, str], tuple[list[str], str]], order: list[str]) -> Corpus:
    seen: dict[str, dict[str, list[str]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    bodies: dict[str, dict[str, Any]] = {}
    others: collections.Counter[str] = collections.Counter()
    unreadable = []
    fragments = 0
    for (path, _), (tags, text) in places.items():
        try:
            found = list(_objects(path, text))
        except yaml.YAMLError as error:
            unreadable.append(f"{path}: {str(error).splitlines()[0]}")
            continue
        for body in found:
            if not _taken(body):
                others[str(body.get("kind"))] += 1
                continue
            if not body.keys() > {"apiVersion", "kind", "metadata"}:
                fragments += 1
                continue
            digest = hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()[:12]
            bodies[digest] = body
            seen[digest][path] += tags
    manifests = [_manifest(digest, bodies[digest], seen[digest], order) for digest in seen]
    manifests.sort(key=lambda one: (one.path, order.index(one.tags[0])))
    return Corpus(tuple(manifests), others, fragments, tuple(sorted(set(unreadable))))


def _taken(body: dict[str, Any]) -> bool:
    settings = isinstance(body.get("data"), dict) and any(key in body["data"] for key in CONFIGS)
    return body.get("kind") == "Workspace" or (body.get("kind") == "ConfigMap" and settings)


def _manifest(digest: str, body: dict[str, Any], paths: dict[str, list[str]], order: list[str]) -> Manifest:
    tags = sorted({tag for found in paths.values() for tag in found}, key=order.index)
    newest = [path for path, found in paths.items() if tags[-1] in found]
    return Manifest(digest, min(newest, key=lambda path: (path.count("/"), path)), tuple(tags), body)


def _objects(path: str, text: str) -> Iterator[dict[str, Any]]:
    """The objects of one file: of a manual only those in blocks that hold a Workspace."""
    blocks = [text] if _FILES.fullmatch(path) else _blocks(text)
    for block in blocks:
        for document in yaml.load_all(block, Loader=yaml.CSafeLoader):
            if isinstance(document, dict):
                yield document


def _blocks(text: str) -> Iterator[str]:
    for fenced in _FENCED.finditer(text):
        indent, body = fenced.groups()
        lines = [line.removeprefix(indent) for line in body.splitlines()]
        body = "\n".join(line for line in lines if not line.lstrip().startswith("$ "))  # a shell's prompt
        if re.search(r"^kind: Workspace\b", body, re.MULTILINE):
            inside = _HERE_DOCUMENT.search(body)
            yield inside.group(2) if inside else body


def _releases(repository: Path) -> list[str]:
    """Tags in the order of their numbers, a candidate before its release."""
    named = [match for tag in _git(repository, "tag").split() if (match := _RELEASE.fullmatch(tag))]
    named.sort(key=lambda m: (int(m[1]), int(m[2]), int(m[3]), m[4] is None, m[4] or ""))
    return [match[0] for match in named]


def _tree(repository: Path, tag: str) -> Iterator[tuple[str, str]]:
    for line in _git(repository, "ls-tree", "-r", "-z", tag).split("\0"):
        described, _, path = line.partition("\t")
        if path and not described.startswith("120000"):  # a symbolic link's target is in the tree by itself
            yield path, described.split()[2]


def _blobs(repository: Path, names: set[str]) -> dict[str, str]:
    """Contents by name; one that a partial clone lacks is left out."""
    command = ["git", f"--git-dir={repository}", "cat-file", "--batch"]
    asked = "\n".join(sorted(names)).encode()
    told = subprocess.run(command, input=asked, capture_output=True, check=True).stdout
    texts, position = {}, 0
    while position < len(told):
        end = told.index(b"\n", position)
        name, kind, *size = told[position:end].decode().split()
        position = end + 1
        if kind != "missing":
            length = int(size[0])
            texts[name] = told[position : position + length].decode(errors="replace")
            position += length + 1
    return texts


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", f"--git-dir={repository}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
