"""Waiting until a rolled-out server answers on every replica, with every adapter that is wanted.

A pod of the user's own is asked nothing: it is there when Kubernetes calls every replica ready, by the probes that the
user wrote, and what it leaves behind as it ends is no word of ours.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import json
import socket
import threading
import time
from typing import Any, NamedTuple

import pydantic

from kaito_hera import cluster as clusters
from kaito_hera import errors, fetching, live, names, rayservice, rollout
from kaito_hera.rollout import Server
from kaito_hera.run import Run
from kaito_hera.status import Engine

_HOT = "kaito.sh/hot-config-hash"
_COLD = "kaito.sh/config-hash"

_BYTES = 2**20
_CHARACTERS = 2000  # of what a server says of itself

Words = dict[str, errors.KaitoError]
"""What servers said, where trying again cannot help; by who said it when."""


class _Heard(NamedTuple):
    """What was seen of one replica, or of all."""

    lacks: str
    """What is still waited for; empty when nothing."""
    refused: Words
    engine: Engine | None = None
    """How a replica answers, by its own word."""
    far: int = 0
    """How far the roll-out is: replicas that are up to date, and that are ready."""


def await_answering(
    run: Run, server: Server | None, *, look: float = 2.0, patience: float = 10.0, pause: float = fetching.PAUSE
) -> None:
    """Return when every replica answers `/health` and lists the wanted adapters as loaded, or is ready (no `server`).

    Looks at every change of a pod, and every `look` seconds; a whole answer may take `patience` seconds. Meanwhile how
    the weights come is noted every `pause` seconds. Raises what a server says of itself when trying again cannot help,
    ServerNotReadyError at the timeout, which each of several replicas has that are replaced one after another.
    """
    cluster, workspace, timeout = run.cluster, run.workspace, rollout.deadline(run.workspace, run.settings)
    labels = clusters.selector(rollout.selector(workspace))
    arrival = fetching.Arrival(run, pause)
    began = time.monotonic()
    told, furthest = "", 0
    earlier: frozenset[str] | None = None
    while True:
        page = cluster.page(clusters.POD, workspace.metadata.namespace, labels=labels)
        waiting, words, engine, far = _look(run, server, page["items"], patience)
        if far > furthest:
            furthest, began = far, time.monotonic()
        # What was said before this roll-out is about what it replaces: if it still holds, it will be said again.
        earlier = frozenset(words) if earlier is None else earlier
        if new := words.keys() - earlier:
            raise words[min(new)]
        if not waiting:
            _note(run, engine)
            return
        if time.monotonic() - began > timeout:
            kind, _ = rollout.standing(cluster, workspace)
            raise errors.ServerNotReadyError(f"{kind.name} {workspace.key}: {waiting} after {timeout} s")
        if waiting != told:
            told = waiting
            print(told, flush=True)
        if server:
            arrival.look(page["items"])
        cluster.await_change(clusters.POD, workspace.metadata.namespace, page, labels=labels, seconds=look)


def _note(run: Run, engine: Engine | None) -> None:
    """On the server's object, for status; what an earlier server said goes."""
    kind, found = rollout.standing(run.cluster, run.workspace)
    name = found["metadata"]["name"] if found else run.workspace.metadata.name
    said = engine.model_dump_json(by_alias=True) if engine else None
    told = {"metadata": {"annotations": {names.ENGINE: said, names.PROGRESS: None}}}
    run.cluster.patch(kind, name, run.workspace.metadata.namespace, told)


def _look(run: Run, server: Server | None, found: list[dict[str, Any]], patience: float) -> _Heard:
    """What is still waited for, and what the replicas say where trying again cannot help."""
    cluster = run.cluster
    kind, deployment = rollout.standing(cluster, run.workspace)
    several = kind == clusters.RAY_SERVICE
    name = rayservice.name(run.workspace) if several else run.workspace.metadata.name
    pods = [pod for pod in found if _counts(pod, name, "RayCluster" if several else "ReplicaSet")]
    unready = _unready(deployment, "answer /health" if server else "are ready")
    if server is None:
        kept = _kept(pods, deployment)
        return _Heard("; ".join(filter(None, (unready, unready and kept))), {}, far=_far(deployment))
    _refresh(cluster, pods, server)
    # A server that is not ready answers /v1/models all the same, and there it says why.
    asked = _Asked(server, server.key(cluster), patience)
    heard = _ask([pod for pod in pods if not several or _is_head(pod)], asked, deployment)
    waiting = "; ".join(filter(None, (unready, heard.lacks)))
    words = _final_words(pods) | _served_words(deployment) | heard.refused
    return _Heard(waiting, words, heard.engine, _far(deployment))


def _far(deployment: dict[str, Any] | None) -> int:
    status = (deployment or {}).get("status", {})
    return int(status.get("updatedReplicas", 0)) + int(status.get("readyReplicas", 0))


def _kept(pods: list[dict[str, Any]], deployment: dict[str, Any] | None) -> str:
    """What keeps a pod from running, in the scheduler's or the kubelet's words; raises what never gets better."""
    wanted = _images(deployment["spec"]["template"]["spec"]) if deployment else []
    for pod in pods:
        if why := live.waiting(pod):
            text = f"pod {pod['metadata']['name']}: {why.reason}: {why.message}"
            if not why.retryable and _images(pod["spec"]) == wanted:  # another one is about to be replaced
                raise errors.reported(why.reason, text, retryable=False)
            return text
    return ""


def _images(spec: dict[str, Any]) -> list[str]:
    return [container["image"] for container in (*spec.get("initContainers", []), *spec["containers"])]


def _is_head(pod: dict[str, Any]) -> bool:
    return bool(pod["metadata"]["labels"].get(rayservice.NODE) == "head")


def _counts(pod: dict[str, Any], server: str, owner_kind: str) -> bool:
    """Made for our server, neither on its way out nor evicted: those are left lying about."""
    metadata, phase = pod["metadata"], pod.get("status", {}).get("phase")
    ours = any(
        owner.get("controller") and owner["kind"] == owner_kind and owner["name"].startswith(f"{server}-")
        for owner in metadata.get("ownerReferences", [])
    )
    return ours and not metadata.get("deletionTimestamp") and phase not in {"Succeeded", "Failed"}


def _final_words(pods: list[dict[str, Any]]) -> Words:
    """What containers said as they ended."""
    found: Words = {}
    for pod in pods:
        status = pod.get("status", {})
        for container in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
            for state in (container.get("state", {}), container.get("lastState", {})):
                end = state.get("terminated") or {}
                try:
                    word = json.loads(end.get("message") or "{}")
                except ValueError:
                    continue
                if isinstance(word, dict) and word.get("retryable") is False:
                    key = f"{pod['metadata']['uid']} {json.dumps(end, sort_keys=True)}"
                    reason, message = word.get("reason", "ServerFailed"), word.get("message", "no reason given")
                    found[key] = errors.reported(reason, message, retryable=False)
    return found


def _served_words(deployment: dict[str, Any] | None) -> Words:
    """What a server over several nodes said as it failed to start."""
    server = deployment or {"metadata": {"uid": ""}}
    return {
        f"{server['metadata']['uid']} {json.dumps(word, sort_keys=True)}": errors.reported(
            word["reason"], str(word.get("message", "")), retryable=False
        )
        for word in server.get("status", {}).get("words", [])
        if word.get("retryable") is False
    }


def _unready(deployment: dict[str, Any] | None, wished: str) -> str:
    """What the Deployment still lacks; `wished` is what its replicas are to do."""
    if deployment is None:
        return "the Deployment is gone"
    kind = deployment.get("kind", clusters.DEPLOYMENT.name)
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return f"the {kind} is not looked at yet"
    if status.get("updatedReplicas", 0) < wanted or status.get("replicas", 0) > wanted:
        refused = live.refused(deployment)
        return f"{status.get('updatedReplicas', 0)} of {wanted} replicas are up to date{refused and f': {refused}'}"
    if status.get("readyReplicas", 0) < wanted:
        return f"{status.get('readyReplicas', 0)} of {wanted} replicas {wished}"
    return ""


def _refresh(cluster: clusters.Cluster, pods: list[dict[str, Any]], server: Server) -> None:
    """Touch pods whose adapters changed: the kubelet then looks at their ConfigMap at once, not in a minute."""
    hot = {name: server.files[name] for name in server.hot}
    digest = hashlib.sha256(json.dumps(hot, sort_keys=True).encode()).hexdigest()[:16]
    for pod in pods:
        metadata = pod["metadata"]
        if metadata.get("annotations", {}).get(_HOT) != digest:
            patch = {"metadata": {"annotations": {_HOT: digest}}}
            try:
                cluster.patch(clusters.POD, metadata["name"], metadata["namespace"], patch)
            except errors.ClusterUnavailableError:
                continue  # the pod went away; its successor is seen at the next look


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What every replica is asked, and how long it may take."""

    server: Server
    key: str
    patience: float


def _ask(pods: list[dict[str, Any]], asked: _Asked, deployment: dict[str, Any] | None) -> _Heard:
    """Which adapters a replica does not have yet, and which it refuses for good."""
    lacking, refused, engine = "", Words(), None
    template = deployment["spec"]["template"] if deployment else {}
    for pod in pods:
        lacks, refuses, said, _ = _ask_one(pod, asked)
        engine = engine or said
        lacking = lacking or (lacks and f"pod {pod['metadata']['name']}: {lacks}")
        if _cold(pod) == _cold(template):  # one that is to be replaced may have another model
            refused |= {f"{pod['metadata']['uid']} {key}": error for key, error in refuses.items()}
    return _Heard(lacking, refused, engine)


def _cold(template: dict[str, Any]) -> str:
    """What a pod was made for, adapters aside."""
    return str(template.get("metadata", {}).get("annotations", {}).get(_COLD, ""))


def _ask_one(pod: dict[str, Any], asked: _Asked) -> _Heard:
    address = pod.get("status", {}).get("podIP", "")
    if not address:
        return _Heard("has no address yet", {})
    try:
        status, body = _get(address, asked)
    except (OSError, http.client.HTTPException) as cause:  # its text may quote what was answered
        return _Heard(f"does not answer /v1/models: {type(cause).__name__}", {})
    if status == http.HTTPStatus.UNAUTHORIZED and asked.key:
        return _Heard("does not know the API key yet", {})
    try:
        answer = json.loads(body)
        server = asked.server
        return _Heard(server.lacks(answer)[:_CHARACTERS], server.refusals(answer), server.tells(answer))
    except (ValueError, RecursionError) as cause:
        said = _nonsense(cause) if status == http.HTTPStatus.OK else f"status {status}"
        return _Heard(f"answers nonsense on /v1/models: {said}", {})


def _get(address: str, asked: _Asked) -> tuple[int, bytes]:
    """Status and the beginning of the body, in limited time; follows no redirect and takes no proxy.

    A tenant may have written what answers there, and what it answers is shown to the tenant: we must not be made to
    ask others for it, nor be kept.
    """
    late = threading.Event()

    def hang_up() -> None:
        late.set()
        with contextlib.suppress(OSError):  # it is over already
            connected.shutdown(socket.SHUT_RDWR)

    signed = {"Authorization": f"Bearer {asked.key}"} if asked.key else {}
    connection = http.client.HTTPConnection(address, asked.server.port, timeout=min(5.0, asked.patience))
    with contextlib.closing(connection):
        connection.connect()
        connected = connection.sock
        end = threading.Timer(asked.patience, hang_up)
        end.start()
        try:
            connection.request("GET", "/v1/models", headers=signed)
            with connection.getresponse() as answer:
                found = answer.status, answer.read(_BYTES)
        finally:
            end.cancel()
    if late.is_set():
        raise TimeoutError
    return found


def _nonsense(cause: Exception) -> str:
    """What is wrong, without a word of the answer: it may be somebody else's."""
    if not isinstance(cause, pydantic.ValidationError):
        return "no JSON of ours"
    first = cause.errors(include_input=False, include_context=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")[:_CHARACTERS]
