"""The Kubernetes API server: the only module that imports kubernetes.

Objects are plain JSON dicts, as the server sends them. Credentials, TLS and proxies come from the kubernetes package;
of its 1,200 model classes nothing is used, since what we write is sent with `fieldValidation=Strict` and checked there.
"""

import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import client, config

from kaito_hera import errors, shallow

Object = dict[str, Any]
FIELD_MANAGER = "kaito-hera"
_CONNECT, _READ = 5.0, 30.0  # seconds
_MESSAGE = 1000  # characters
_JSON, _SLIM = "application/json", "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
_TAIL = 32768  # bytes


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of object and where the API server keeps it."""

    name: str
    plural: str
    version: str = "v1"
    group: str = ""
    namespaced: bool = True
    slim: bool = False  # what is listed and watched of it is metadata alone

    @property
    def api_version(self) -> str:
        """As in an object's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version


WORKSPACE = Kind("Workspace", "workspaces", "v1beta1", "kaito.sh")
WORKFLOW = Kind("Workflow", "workflows", "v1alpha1", "argoproj.io")
JOB = Kind("Job", "jobs", group="batch")
DEPLOYMENT = Kind("Deployment", "deployments", group="apps")
RAY_SERVICE = Kind("RayService", "rayservices", group="ray.io")
SERVICE = Kind("Service", "services")
POD = Kind("Pod", "pods")
CONFIG_MAP = Kind("ConfigMap", "configmaps")
SECRET = Kind("Secret", "secrets")
CLAIM = Kind("PersistentVolumeClaim", "persistentvolumeclaims")
STORAGE_CLASS = Kind("StorageClass", "storageclasses", group="storage.k8s.io", namespaced=False)
NODE = Kind("Node", "nodes", namespaced=False)
LEASE = Kind("Lease", "leases", group="coordination.k8s.io")
NETWORK_POLICY = Kind("NetworkPolicy", "networkpolicies", group="networking.k8s.io")


class ConflictError(errors.ClusterUnavailableError):
    """The object changed since it was read, or one of that name is there already."""


class ExpiredError(errors.ClusterUnavailableError):
    """The resourceVersion or continue token is too old: list anew."""


class InvalidObjectError(errors.TerminalError):
    """The API server refuses the object as it is written, or its name is none."""


class NotFoundError(errors.ClusterUnavailableError):
    """There is no such object, or not the namespace that it should go into."""


class UnknownKindError(NotFoundError):
    """The API server has no such kind: its CustomResourceDefinition is not installed."""


class Cluster:
    """A connection to one API server. Safe to share between threads."""

    def __init__(self, configuration: client.Configuration, *, patience: float = _READ) -> None:
        """`patience`: seconds to wait for an answer."""
        self._configuration = configuration
        self._timeout = urllib3.Timeout(connect=min(_CONNECT, patience), read=patience)
        configuration.connection_pool_maxsize = 32
        configuration.retries = False  # callers decide what is worth repeating
        self._http = client.rest.RESTClientObject(configuration).pool_manager

    @classmethod
    def connect(cls) -> "Cluster":
        """Connect as the pod's service account, or by $KUBECONFIG; raises ClusterUnavailableError without either."""
        configuration = client.Configuration()
        try:
            config.load_incluster_config(configuration)
        except config.ConfigException:
            file = os.environ.get("KUBECONFIG")
            try:
                config.load_kube_config(config_file=file, client_configuration=configuration)
            except config.ConfigException as cause:
                place = file or "~/.kube/config"
                raise errors.ClusterUnavailableError(
                    f"no pod's service account, no kubeconfig: {place}: {cause}; set KUBECONFIG or log in to a cluster"
                ) from cause
        return cls(configuration)

    def within(self, seconds: float) -> "Cluster":
        """A connection to the same API server for calls whose answer is of no use later than after some seconds."""
        return Cluster(self._configuration, patience=seconds)

    # ------------------------------------------------------------------ reading

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """The object, or None when there is none."""
        try:
            return self._json("GET", _path(kind, namespace, name))
        except NotFoundError:
            return None

    def page(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", limit: int = 500, token: str = ""
    ) -> Object:
        """One page of a list: `items`, and in `metadata` resourceVersion and, if there is more, `continue`."""
        query = {"labelSelector": labels, "limit": limit, "continue": token}
        accept = _SLIM.format("List") if kind.slim else _JSON
        page = self._json("GET", _path(kind, namespace), query, accept=accept)
        return {**page, "items": page["items"] or []}  # null where there are none, of metadata alone

    def items(self, kind: Kind, namespace: str | None = None, *, labels: str = "") -> list[Object]:
        """Every object of a kind, page by page."""
        found: list[Object] = []
        token = ""
        while True:
            page = self.page(kind, namespace, labels=labels, token=token)
            found += page["items"]
            token = page["metadata"].get("continue", "")
            if not token:
                return found

    def watch(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", since: str = "", seconds: float = 270
    ) -> Iterator[tuple[str, Object]]:
        """Yield (type, object) of each change for about `seconds`; ends quietly, raises `ExpiredError` when too late.

        Bookmarks come at least each minute, so silence for longer than that means a dead connection and raises
        `ClusterUnavailableError`.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": labels,
            "resourceVersion": since,
            "timeoutSeconds": max(1, int(seconds)),
        }
        accept = _SLIM.format("") if kind.slim else _JSON
        for line in self._lines(_path(kind, namespace), query, read=75, accept=accept):
            event = shallow.loads(line)
            if event["type"] == "ERROR":
                raise _error(event["object"].get("code", 500), event["object"])
            yield event["type"], event["object"]

    def await_change(self, kind: Kind, namespace: str | None, page: Object, *, labels: str, seconds: float) -> None:
        """Return when something changed since `page` was read with the same labels, or after about `seconds`."""
        since = page["metadata"]["resourceVersion"]
        end = time.monotonic() + seconds
        try:
            for happened, _ in self.watch(kind, namespace, labels=labels, since=since, seconds=math.ceil(seconds)):
                if happened != "BOOKMARK":
                    return
        except errors.KaitoError:
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))  # whoever waits will read again anyway

    def logs(self, namespace: str, pod: str, *, container: str, since: str = "", follow: bool = True) -> Iterator[str]:
        """The log of a container; each line has its time in front. Followed it ends when the container does.

        `since` counts by whole seconds. A log that is silent for minutes raises `ClusterUnavailableError`: it may be
        the connection that is dead.
        """
        query = {"container": container, "follow": "true" if follow else "", "timestamps": "true", "sinceTime": since}
        return self._lines(f"{_path(POD, namespace, pod)}/log", query, read=180)

    def tail(self, namespace: str, pod: str, *, container: str, lines: int = 50) -> str:
        """The last lines of a container's log as it is now, and not many bytes of them."""
        query = {"container": container, "tailLines": lines, "limitBytes": _TAIL}
        return "\n".join(self._lines(f"{_path(POD, namespace, pod)}/log", query, read=_CONNECT))

    # ------------------------------------------------------------------ writing

    def create(self, kind: Kind, obj: Object, *, dry_run: bool = False) -> Object:
        """Create; raises `ConflictError` when the name is taken, `ForbiddenError` when a quota or policy says no."""
        query = {**_STRICT, "dryRun": "All" if dry_run else ""}
        body = {"apiVersion": kind.api_version, "kind": kind.name, **obj}
        return self._json("POST", _path(kind, obj["metadata"].get("namespace")), query, body)

    def apply(self, kind: Kind, obj: Object, *, manager: str = FIELD_MANAGER, dry_run: bool = False) -> Object:
        """Server-side apply: fields in `obj` are the manager's and put back, all others are left alone."""
        metadata = obj["metadata"]
        body = {"apiVersion": kind.api_version, "kind": kind.name, **obj}
        query = {**_STRICT, "fieldManager": manager, "force": "true", "dryRun": "All" if dry_run else ""}
        path = _path(kind, metadata.get("namespace"), metadata["name"])
        return self._json("PATCH", path, query, body, content_type="application/apply-patch+yaml")

    def patch(self, kind: Kind, name: str, namespace: str | None, body: Object, *, subresource: str = "") -> Object:
        """Merge patch; a `metadata.resourceVersion` in it guards against a stale read.

        Fields of a status that the server's CRD does not know are dropped, not refused: an operator and a CRD of
        different versions must still get on.
        """
        path = _path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        query = {**_STRICT, "fieldValidation": "Ignore" if subresource == "status" else "Strict"}
        return self._json("PATCH", path, query, body, content_type="application/merge-patch+json")

    def replace(self, kind: Kind, obj: Object) -> Object:
        """Write the whole object back; raises `ConflictError` if it changed since it was read."""
        metadata = obj["metadata"]
        return self._json("PUT", _path(kind, metadata.get("namespace"), metadata["name"]), _STRICT, obj)

    def delete(
        self, kind: Kind, name: str, namespace: str | None = None, *, uid: str = "", foreground: bool = False
    ) -> bool:
        """Delete; True when there was something to delete. With `uid`, only the object of that uid."""
        options: Object = {"propagationPolicy": "Foreground" if foreground else "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self._json("DELETE", _path(kind, namespace, name), body=options)
        except (NotFoundError, ConflictError):
            return False
        return True

    # ------------------------------------------------------------------ the wire

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        body: Object | list[Object] | None = None,
        *,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> Object:
        response = self._request(
            method,
            path,
            query or {},
            body=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": content_type, "Accept": accept},
            timeout=self._timeout,
        )
        answer = _decode(response.data)
        if response.status >= 400:
            raise _error(response.status, answer)
        return answer

    def _lines(self, path: str, query: Mapping[str, object], *, read: float, accept: str = _JSON) -> Iterator[str]:
        timeout = urllib3.Timeout(connect=_CONNECT, read=read)
        response = self._request("GET", path, query, headers={"Accept": accept}, timeout=timeout, preload_content=False)
        try:
            if response.status >= 400:
                raise _error(response.status, _decode(response.read()))
            rest = b""
            for chunk in response.stream(amt=65536, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode("utf-8", "replace")
        except (urllib3.exceptions.HTTPError, OSError) as cause:
            raise errors.ClusterUnavailableError(f"the stream {path} broke off: {cause}") from cause
        finally:
            response.close()

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        *,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> urllib3.BaseHTTPResponse:
        words = urlencode({key: value for key, value in query.items() if value != ""})
        token = self._configuration.get_api_key_with_prefix("BearerToken")
        headers = {**(headers or {}), "User-Agent": FIELD_MANAGER}
        if token:
            headers["Authorization"] = token
        url = f"{self._configuration.host}{path}" + (f"?{words}" if words else "")
        try:
            response: urllib3.BaseHTTPResponse = self._http.request(method, url, headers=headers, **options)
        except (urllib3.exceptions.HTTPError, OSError) as cause:
            raise errors.ClusterUnavailableError(f"{method} {path}: no answer from the API server: {cause}") from cause
        return response


def selector(labels: Mapping[str, str]) -> str:
    """Labels as a selector that asks for all of them."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


_STRICT = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}


def _path(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    parts = ["/apis", kind.group, kind.version] if kind.group else ["/api", kind.version]
    if kind.namespaced and namespace is not None:
        parts += ["namespaces", _segment("namespace", namespace)]
    return "/".join([*parts, kind.plural, *([] if name is None else [_segment(kind.name, name)])])


def _segment(what: str, name: str) -> str:
    """One part of a path. Names come from users, and `../../victim/secrets/x` must not lead into another namespace."""
    if not name or name in {".", ".."} or "/" in name:
        raise InvalidObjectError(
            f"{what} {name!r}: is not a name; give it without '/', and neither empty, '.' nor '..'"
        )
    return quote(name, safe="")


def _decode(data: bytes) -> Object:
    try:
        answer = shallow.loads(data.decode() or "{}")
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {"message": data.decode("utf-8", "replace")[:500].strip()}


def _error(status: int, answer: Object) -> errors.KaitoError:
    message = answer.get("message") or f"the API server answered {status}"
    if len(message) > _MESSAGE:  # a refused patch is quoted in full, the reason comes last
        message = f"{message[: _MESSAGE // 2]} ... {message[-_MESSAGE // 2 :]}"
    reason = answer.get("reason", "")
    if status in {400, 422} or message.startswith(_UNTYPED):
        return InvalidObjectError(f"{reason}: {message}" if reason else message)
    if status == 404 and not reason:  # not a Status: nothing at all is served there
        return UnknownKindError(f"the API server does not know this kind, is its CRD installed? It says: {message}")
    if known := _ERRORS.get(status):
        return known(message)
    return errors.ClusterUnavailableError(f"{status} {reason}: {message}")


_UNTYPED = "failed to create typed patch object"
"""How a server-side apply begins, with status 500, when fields are unknown, of a wrong type or there twice."""
_ERRORS: dict[int, type[errors.KaitoError]] = {
    403: errors.ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: ExpiredError,
}
