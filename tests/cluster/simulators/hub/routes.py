"""The routes of the hub that the real clients use, and the shapes of its answers and errors.

GET  /api/{models,datasets}/ID[/revision/REV]       what a repository is, and its files
GET  /api/{models,datasets}/ID/tree/REV[/FOLDER]    a listing, folders among it; ?recursive=true goes down
POST /api/{models,datasets}/ID/paths-info/REV       the same for named paths
GET  /api/{models,datasets}/ID/refs                 branches
GET  [/datasets]/ID/resolve/REV/PATH                a file; HEAD tells size, ETag and commit
"""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from tests.cluster.simulators import web
from tests.cluster.simulators.hub.repositories import File, Repository

DATE = "2024-07-01T00:00:00.000Z"

LOGIN_PAGE = ("datasets", "kaito-hera", "login-page", "resolve", "main", "data.parquet")
"""What a proxy or a lapsed session gives for a data set: a page that is no data, with the best of statuses."""


class Hub(NamedTuple):
    """Everything the hub knows."""

    repositories: dict[tuple[str, str], Repository]
    gated: frozenset[str] = frozenset()
    tokens: frozenset[str] = frozenset()
    cdn: str = ""

    def handle(self, request: web.Request) -> web.Answer:
        try:
            return self._route(request)
        except RefusedError as refused:
            return refused.answer()

    def _route(self, request: web.Request) -> web.Answer:
        match request.segments:
            case ("healthz",):
                return web.Answer(200, b"ok\n", {"Content-Type": "text/plain"})
            case path if path == LOGIN_PAGE:
                page = b"<!DOCTYPE html><html><title>Sign in</title><body>Please sign in.</body></html>\n"
                return web.Answer(200, page, {"Content-Type": "text/html; charset=utf-8"})
            case ("cdn", kind, owner, name, sha256) if self.cdn:
                return self._from_cdn(request, self._repository(kind, f"{owner}/{name}"), sha256)
            case ("api", ("models" | "datasets") as kind, owner, name, *rest):
                return _api(request, self._repository(kind, f"{owner}/{name}"), rest, self.gated)
            case ("datasets", owner, name, "resolve", revision, *path):
                return self._resolve(request, self._repository("datasets", f"{owner}/{name}"), revision, "/".join(path))
            case (owner, name, "resolve", revision, *path):
                return self._resolve(request, self._repository("models", f"{owner}/{name}"), revision, "/".join(path))
        raise RefusedError(404, "", f"Sorry, we can't find the page {request.target}")

    def _repository(self, kind: str, identity: str) -> Repository:
        repository = self.repositories.get((kind, identity))
        if repository is None and identity not in self.gated:
            raise RefusedError(404, "RepoNotFound", "Repository not found")
        return repository or Repository(kind, identity, "0" * 40, {})

    def _resolve(self, request: web.Request, repository: Repository, revision: str, path: str) -> web.Answer:
        self._check_access(request, repository)
        commit = _commit(repository, revision)
        file = repository.files.get(path)
        if file is None:
            raise RefusedError(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        headers = _file_headers(file, commit)
        if file.large and self.cdn:
            where = f"https://{self.cdn}/cdn/{repository.kind}/{repository.id}/{file.sha256}?signature=valid"
            return web.Answer(302, b"", {**headers, "Location": where})
        return web.Answer(200, file.location, headers)

    def _from_cdn(self, request: web.Request, repository: Repository, sha256: str) -> web.Answer:
        if "Authorization" in request.headers:
            # Object stores refuse two kinds of credentials at once; and the token was not meant for this host.
            raise RefusedError(400, "", "Only one auth mechanism allowed: the signature in the address is it")
        if request.query.get("signature") != "valid":
            raise RefusedError(403, "", "The address is not signed")
        file = next((file for file in repository.files.values() if file.sha256 == sha256), None)
        if file is None:
            raise RefusedError(404, "", "No such object")
        return web.Answer(200, file.location, {"ETag": file.etag, "Content-Type": "application/octet-stream"})

    def _check_access(self, request: web.Request, repository: Repository) -> None:
        if repository.id not in self.gated:
            return
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        ask = f"Access to {repository.kind[:-1]} {repository.id} is restricted"
        if not token:
            raise RefusedError(
                401, "GatedRepo", f"{ask}. You must have access to it and be authenticated to access it."
            )
        if token not in self.tokens:
            raise RefusedError(403, "GatedRepo", f"{ask} and you are not in the authorized list.")


class RefusedError(Exception):
    """An error as the hub words it: in headers, and again in the body."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}

    def answer(self) -> web.Answer:
        headers = {"X-Error-Message": self.message, **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return web.json_answer(self.status, {"error": self.message}, headers)


def _api(request: web.Request, repository: Repository, rest: list[str], gated: frozenset[str]) -> web.Answer:
    match rest:
        case []:
            return web.json_answer(200, _about(repository, repository.commit, gated))
        case ["revision", revision]:
            return web.json_answer(200, _about(repository, _commit(repository, revision), gated))
        case ["refs"]:
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commit}
            return web.json_answer(200, {"branches": [main], "converts": [], "tags": []})
        case ["tree", revision, *path]:
            commit, folder = _commit(repository, revision), "/".join(path)
            if folder and folder not in repository.folders():
                raise RefusedError(
                    404, "EntryNotFound", f"{folder} does not exist on {revision}", {"X-Repo-Commit": commit}
                )
            deep = request.query.get("recursive", "").lower() in {"true", "1"}
            return web.json_answer(200, list(_tree(repository, commit, folder, deep=deep)), {"X-Repo-Commit": commit})
        case ["paths-info", revision]:
            commit = _commit(repository, revision)
            return web.json_answer(200, list(_entries(repository, commit, _asked_paths(request))))
    raise RefusedError(404, "", f"no such route: {request.target}")


def _commit(repository: Repository, revision: str) -> str:
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    if revision == "main":
        return repository.commit
    raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")


def _about(repository: Repository, commit: str, gated: frozenset[str]) -> dict[str, Any]:
    about = {
        "_id": commit[:24],
        "id": repository.id,
        "author": repository.id.partition("/")[0],
        "sha": commit,
        "createdAt": DATE,
        "lastModified": DATE,
        "private": False,
        "gated": "manual" if repository.id in gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": path} for path in repository.files],
    }
    if repository.kind == "models":
        about |= {"modelId": repository.id, "library_name": "transformers", "pipeline_tag": "text-generation"}
    return about


def _tree(repository: Repository, commit: str, folder: str, *, deep: bool) -> Iterable[dict[str, Any]]:
    start = f"{folder}/" if folder else ""
    below = [path for path in sorted({*repository.files, *repository.folders()}) if path.startswith(start)]
    return _entries(repository, commit, [path for path in below if deep or "/" not in path[len(start) :]])


def _entries(repository: Repository, commit: str, paths: Iterable[str]) -> Iterable[dict[str, Any]]:
    folders = repository.folders()
    last = {"id": commit, "title": "Upload files", "date": DATE}
    for path in paths:
        if path in folders:
            yield {"type": "directory", "oid": commit, "size": 0, "path": path, "lastCommit": last}
        elif file := repository.files.get(path):
            lfs = {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.large else {}
            yield {"type": "file", "oid": file.oid, "size": file.size, "path": path, "lastCommit": last, **lfs}


def _asked_paths(request: web.Request) -> list[str]:
    if request.headers.get_content_type() == "application/json":
        return list(json.loads(request.body)["paths"])
    return parse_qs(request.body.decode())["paths"]


def _file_headers(file: File, commit: str) -> dict[str, str]:
    name = file.location.name
    headers = {
        "ETag": file.etag,
        "X-Repo-Commit": commit,
        "Content-Type": "application/octet-stream" if file.large else "text/plain; charset=utf-8",
        "Content-Disposition": f'inline; filename="{name}"',
        "Access-Control-Expose-Headers": "X-Repo-Commit,X-Error-Code,X-Error-Message,ETag,Link,Accept-Ranges",
    }
    if file.large:
        headers |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": file.etag}
    return headers
