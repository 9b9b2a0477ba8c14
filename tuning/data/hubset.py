"""A whole data set of the hub, by its page's address: `https://huggingface.co/datasets/ORG/NAME?config=&split=&revision=`.

The revision is looked up once, and all files are asked for at that commit. A repository without files that are read
here (code, pictures) is taken from the hub's own conversion to parquet.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import requests

from artifacts import plain_yaml, strangers, web
from artifacts.weights import hub
from artifacts.weights.config import CONVERTED
from tuning.data import remote, splits
from tuning.data.remote import Remote, Source
from tuning.errors import ConfigInvalid, DataInvalid, DataNotFound, DataRefused, DataTooLarge, DataUnreachable

HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
KEYS = ("config", "split", "revision")
_PAGE = re.compile(r"/datasets/(?P<id>[\w.-]+(?:/[\w.-]+)?)(?:/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?)?/?")
_MOST_PAGES = 40
_MOST = 8 << 20


class Asked(NamedTuple):
    """What the address of a data set's page says."""

    id: str
    revision: str
    folder: str
    config: str
    split: str


class Files(NamedTuple):
    """What stands behind it."""

    sources: list[Source]
    said: str = ""
    """For people: which files of what."""
    url: str = ""
    """The data set's address; empty where it is a file's."""
    commit: str = ""
    """What it is pinned by, as `artifacts.weights.config.DataCommit`."""


def asked(source: Source, endpoint: str) -> Asked | None:
    """The data set that is meant; None when it is the address of a file."""
    try:
        parts = urlsplit(source.url)
        known = parts.hostname in HOSTS or parts.netloc == urlsplit(endpoint).netloc
        found = _PAGE.fullmatch(parts.path) if known else None
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError:
        return None
    if found is None:
        return None
    if odd := sorted(query.keys() - set(KEYS)):
        raise ConfigInvalid(f"{source.label}: {odd[0][:40]!r} means nothing here; write {', '.join(KEYS)} or nothing")
    in_path = unquote(found["revision"] or "")
    if in_path and query.get("revision", in_path) != in_path:
        raise ConfigInvalid(f"{source.label}: names two revisions; keep one")
    revision = in_path or query.get("revision") or "main"
    folder = unquote(found["folder"] or "").strip("/")
    return Asked(found["id"], revision, folder, query.get("config", ""), query.get("split", ""))


def files(source: Source, wanted: Asked, opened: Remote, *, limit: int, pinned: str = "") -> Files:
    """All files of the split, at one commit; `pinned` is one that was found before."""
    if hub.is_offline():
        raise DataRefused(
            f"{source.label}: the hub is not asked here (HF_HUB_OFFLINE); give a file, a volume or an image"
        )
    with remote.explained(source):
        found = _Repository(opened, wanted, pinned)
        paths, how = found.split()
        if (size := sum(found.sizes[path] for path in paths)) > limit:
            raise DataTooLarge(f"{how} has {size:,} bytes, more than {limit:,}; name a smaller split or folder")
        base = f"{opened.hub}/datasets/{found.id}/resolve/{found.commit}"
        made = [source._replace(url=f"{base}/{quote(path)}", size=found.sizes[path]) for path in paths]
        said = f"{len(made)} files of {how} at commit {found.commit}, {size:,} bytes"
        return Files(made, said, source.url, found.pin)


class _Repository:
    """The data set's repository at one commit."""

    def __init__(self, opened: Remote, wanted: Asked, pinned: str) -> None:
        self._opened = opened
        self._wanted = wanted
        self.id, self.commit = wanted.id, ""
        self._pinned = pinned
        branch, _, commit = pinned.rpartition("@")
        self.sizes = self._at(commit or wanted.revision)
        self._converted = bool(branch) or not splits.readable(self.sizes)
        if self._converted and wanted.revision == "main" and not pinned:
            with contextlib.suppress(DataNotFound):
                self.sizes = self._at(CONVERTED)
                branch = CONVERTED
        self.pin = f"{branch}@{self.commit}" if branch else self.commit

    def _at(self, revision: str) -> dict[str, int]:
        """The files and their sizes."""
        about = self._json(f"/api/datasets/{self._wanted.id}/revision/{quote(revision, safe='')}")
        self.commit, self.id = _text(about, "sha"), _text(about, "id")
        if not re.fullmatch("[0-9a-f]{40}", self.commit):
            raise DataUnreachable(f"the hub names no commit of revision {revision}: {self.commit[:60]!r}")
        below = f"{self._wanted.folder}/" if self._wanted.folder else ""
        return {path: size for path, size in self._listed() if path.startswith(below)}

    def _listed(self) -> Iterator[tuple[str, int]]:
        path, query = f"/api/datasets/{self.id}/tree/{self.commit}", "?recursive=true"
        for _ in range(_MOST_PAGES):
            body, following = self._get(path + query)
            entries = _parsed(body)
            for entry in entries if isinstance(entries, list) else []:
                if isinstance(entry, dict) and entry.get("type") == "file":
                    yield _text(entry, "path"), _size(entry)
            if not following:
                return
            query = f"?{following}"
        raise DataInvalid("the repository has more files than are looked at; name a folder by /tree/REVISION/FOLDER")

    def split(self) -> tuple[list[str], str]:
        """The paths of the split that is meant, and what it is called."""
        config, found = self._splits()
        found = {split: kept for split, paths in found.items() if (kept := splits.readable(paths))}
        if not found:
            raise DataInvalid(
                f"data set {self.id} has no parquet, JSON, JSON lines, CSV or Arrow files, and the hub has not"
                " converted it; archives of pictures and sounds (webdataset) are not trained on"
            )
        wanted = self._wanted.split or ("train" if "train" in found else next(iter(found)) if len(found) == 1 else "")
        names = list(found) if wanted == "all" else wanted.split("+")
        if missing := [name for name in names if name not in found]:
            raise ConfigInvalid(
                f"data set {self.id} has the splits {', '.join(found)}{config and f' in {config}'}; name one by"
                f" ?split={f', {missing[0][:60]} is none of them' if missing[0] else ''}"
            )
        paths = list(dict.fromkeys(path for name in names for path in found[name]))
        return paths, f"data set {self.id}{config and f', {config}'}, split {wanted}"

    def _splits(self) -> tuple[str, splits.Splits]:
        configs = self._configs()
        if not configs:
            if self._wanted.config not in {"", "default"}:
                raise ConfigInvalid(f"data set {self.id} has no config {self._wanted.config!r}; leave config out")
            return "", splits.of_names(self.sizes, self._wanted.folder)
        fallback = next(iter(configs)) if len(configs) == 1 else "default"
        name = self._wanted.config or next((name for name, each in configs.items() if each.get("default")), fallback)
        if name not in configs:
            raise ConfigInvalid(f"data set {self.id} has the configs {', '.join(configs)[:300]}; name one by ?config=")
        return f"config {name}", splits.of_config(self.sizes, configs[name])

    def _configs(self) -> dict[str, dict[str, Any]]:
        """By name: of the hub's conversion by its folders, else as the README has them."""
        if self._converted:
            found: dict[str, dict[str, Any]] = {}
            for path in self.sizes:
                config, split, *_ = *path.split("/"), ""
                entry = {"split": split.removeprefix("partial-"), "path": f"{config}/{split}/*.parquet"}
                made = found.setdefault(config, {"data_files": []})["data_files"]
                made += [entry] if path.count("/") == 2 and entry not in made else []
            return {name: each for name, each in found.items() if each["data_files"]}
        if self._wanted.folder or "README.md" not in self.sizes:  # who names a folder means its files
            return {}
        text = self._get(f"/datasets/{self.id}/resolve/{self.commit}/README.md")[0].decode(errors="replace")
        front = re.match(r"---\s*\n(.*?)\n---\s*\n", text.replace("\r\n", "\n"), re.DOTALL)
        try:
            said = plain_yaml.config(front[1]) if front else None
        except ValueError as error:
            raise DataInvalid(f"data set {self.id}: its README.md: {error}") from error
        configs = said.get("configs") if isinstance(said, dict) else None
        return {
            str(each["config_name"]): each
            for each in (configs if isinstance(configs, list) else [])
            if isinstance(each, dict) and each.get("config_name")
        }

    def _json(self, path: str) -> dict[str, Any]:
        found = _parsed(self._get(path)[0])
        return found if isinstance(found, dict) else {}

    def _get(self, path: str) -> tuple[bytes, str]:
        """The body, and the query of the next page."""
        with self._opened.open(self._opened.hub + path, {}) as answer:
            if answer.status_code in (401, 403, 404):
                raise self._refusal(answer)
            remote.length(answer)
            body = web.head(answer, _MOST + 1)
            following = urlsplit(answer.links.get("next", {}).get("url", "")).query
        if len(body) > _MOST:
            raise DataInvalid(f"the hub says more than {_MOST:,} bytes at once; name a folder by /tree/REVISION/FOLDER")
        return body, following

    def _refusal(self, answer: requests.Response) -> Exception:
        code = strangers.inert(answer.headers.get("X-Error-Code", ""))[:60]
        if code == "RevisionNotFound":
            if self._pinned:
                return DataNotFound(
                    f"the hub has data set {self._wanted.id}, but no more at {self._pinned}, where it was when"
                    " this tuning began (status.data); name another by ?revision=, and training begins anew"
                )
            return DataNotFound(f"the hub has data set {self._wanted.id}, but not revision {self._wanted.revision}")
        if code == "GatedRepo" or answer.status_code == 403:
            return DataNotFound(
                f"data set {self._wanted.id} is gated ({answer.status_code}); accept its terms on the hub, and name the"
                " Secret with HF_TOKEN of that account in presetOptions.modelAccessSecret"
            )
        return DataNotFound(
            f"data set {self._wanted.id} is not on the hub, or is private ({answer.status_code}); correct the address,"
            " or name a Secret with an HF_TOKEN that may read it in presetOptions.modelAccessSecret"
        )


def _parsed(body: bytes) -> Any:
    try:
        return strangers.parsed(body)
    except ValueError as error:
        raise DataUnreachable(f"the hub's answer is no JSON: {body[:80]!r}") from error


def _text(entry: dict[str, Any], key: str) -> str:
    found = entry.get(key)
    if not isinstance(found, str):
        raise DataUnreachable(f"the hub's answer has no {key}: {str(entry)[:80]!r}")
    return found


def _size(entry: dict[str, Any]) -> int:
    found = entry.get("size")
    return found if isinstance(found, int) and 0 <= found < 1 << 60 else 0
