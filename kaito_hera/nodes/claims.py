"""Nodes that KAITO had made for a Workspace before ours took over: used as its own, and given back with the rest.

KAITO asked for machines by objects of Karpenter's API, which gpu-provisioner or Karpenter turns into machines and, when
such an object is deleted, back into nothing. They are known by labels, since nothing owns them. Where none of these
kinds is installed there are none.
"""

import dataclasses
import datetime
import time
from collections.abc import Callable
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors, live, names, nodes, sizing
from kaito_hera.nodes import Order, Placement, Provider, Want
from kaito_hera.status import NodesStatus, Status, moment

_GROUP = "karpenter.sh"
_POOL = clusters.Kind("NodePool", "nodepools", "v1", _GROUP, namespaced=False)
_CLAIMS = (
    clusters.Kind("NodeClaim", "nodeclaims", "v1", _GROUP, namespaced=False),
    clusters.Kind("NodeClaim", "nodeclaims", "v1beta1", _GROUP, namespaced=False),
    clusters.Kind("Machine", "machines", "v1alpha5", _GROUP, namespaced=False),
)
_LABELS = (
    ("kaito.sh/workspace", "kaito.sh/workspacenamespace"),
    ("karpenter.kaito.sh/workspace-name", "karpenter.kaito.sh/workspace-namespace"),
)
"""Of a claim: name and namespace of its Workspace; the second pair since KAITO v0.11 with Karpenter."""
_LAUNCH, _REPAIR = datetime.timedelta(minutes=20), datetime.timedelta(minutes=10)
"""How long a machine may take to join, and a node may be away, before it counts as lost."""

Found = tuple[clusters.Kind, dict[str, Any]]


def made_for(cluster: clusters.Cluster, namespace: str, name: str) -> list[Found]:
    """Every object by which KAITO asked for machines for this Workspace; what makes others comes first."""
    found: dict[str, Found] = {}
    for kind in (_POOL, *_CLAIMS):
        for of_name, of_namespace in _LABELS:
            labels = clusters.selector({of_name: names.label(name), of_namespace: namespace})
            for obj in _listed(cluster, kind, labels):
                found.setdefault(obj["metadata"]["uid"], (kind, obj))  # one kind may be served in two versions
    return list(found.values())


def _listed(cluster: clusters.Cluster, kind: clusters.Kind, labels: str) -> list[dict[str, Any]]:
    try:
        return cluster.items(kind, labels=labels)
    except clusters.UnknownKindError:
        return []


class Inheriting:
    """A provider that counts, before it makes nodes, those that KAITO has made."""

    def __init__(
        self, inner: Provider, cluster: clusters.Cluster, workspace: tuple[str, str], *, patience: float = 900.0
    ) -> None:
        """`workspace`: namespace and name; `patience`: seconds to wait for a claim to go before that is an error."""
        self._inner = inner
        self._cluster = cluster
        self._workspace = workspace
        self._patience = patience
        self._since: float | None = None
        self.makes_nodes = inner.makes_nodes

    def standing(self, wants: tuple[Want, ...]) -> dict[str, str]:
        """The provider's, and candidates of which KAITO made nodes."""
        theirs = {want.candidate: "" for want in wants if self._adopted(want)}
        return self._inner.standing(wants) | theirs

    def drop(self, want: Want, *, still_wanted: Callable[[], None]) -> None:
        """What the provider made."""
        self._inner.drop(want, still_wanted=still_wanted)

    def drop_others(self, want: Want) -> None:
        """What the provider made: KAITO's are of the one size that cannot be changed.

        Also of this candidate, where KAITO's nodes are enough since fewer are wanted: no order tells the provider so.
        """
        self._inner.drop_others(want)
        if self.makes_nodes and self._adopted(want) >= want.count:
            self._inner.drop(want, still_wanted=lambda: None)

    def order(self, want: Want, *, still_wanted: Callable[[], None], any_ready: Callable[[], bool]) -> Order:
        """Ask for as many nodes as KAITO's own leave over; its lost ones are given back first, as nobody else would."""
        if not self.makes_nodes:  # KAITO's nodes carry the user's labels, by which brought ones are found
            return self._inner.order(want, still_wanted=still_wanted, any_ready=any_ready)
        theirs = self._adopted(want)
        self._give_back_lost(still_wanted)
        left = want.count - theirs
        if left <= 0:
            print(f"{theirs} nodes that KAITO has made are this Workspace's own: none is bought", flush=True)
            assert want.size is not None, "preflight refuses a Workspace without instanceType"
            return Order(candidate=f"{want.size.name}/{want.capacity or sizing.ON_DEMAND}")
        rest = dataclasses.replace(want, count=left)
        return self._inner.order(rest, still_wanted=still_wanted, any_ready=any_ready)

    def check(self, want: Want) -> None:
        """Take in nodes that have joined since; raise if the provider's part has failed."""
        left = want.count - self._adopted(want)
        if left > 0:
            self._inner.check(dataclasses.replace(want, count=left))

    def release(self, uid: str) -> bool:
        """Give back what the provider made, and delete KAITO's claims; True when both are gone."""
        try:
            gone = self._inner.release(uid)
        finally:  # each whatever becomes of the other: both cost money
            claims = self._give_back(uid)
        if claims:
            self._wait_for(claims)
        return gone and not claims

    def placement(self, want: Want, hostnames: tuple[str, ...] = ()) -> Placement:
        """The provider's: nodes that are taken over get its labels."""
        return self._inner.placement(want, hostnames)

    # ------------------------------------------------------------------ claims

    def _made(self) -> list[Found]:
        """Nothing where nothing was taken over: who may not see Karpenter's kinds must not lose the rest for it."""
        namespace, name = self._workspace
        found = self._cluster.get(clusters.WORKSPACE, name, namespace)
        held = Status.of(found).nodes if found else NodesStatus(inherited=True)  # who knows, once it is gone
        return made_for(self._cluster, namespace, name) if held and held.inherited else []

    def _give_back(self, uid: str) -> list[Found]:
        claims = [] if self._is_anothers(uid) else self._made()
        for kind, obj in claims:
            if "deletionTimestamp" not in obj["metadata"]:
                self._cluster.delete(kind, obj["metadata"]["name"], uid=obj["metadata"]["uid"])
        return claims

    def _adopted(self, want: Want) -> int:
        """Label KAITO's nodes of this kind as ours; how many there are, those included that are on their way."""
        if not self.makes_nodes or want.capacity == "spot" or want.size is None:
            return 0
        labels = self._inner.placement(want).labels
        claims = [obj for kind, obj in self._made() if kind != _POOL]
        count = 0
        for claim in claims:
            node = self._node(claim)
            if _is_lost(claim, node) or _size(claim, node).lower() != want.size.name.lower():
                continue
            count += 1
            if node and not labels.items() <= node["metadata"]["labels"].items():
                self._cluster.patch(clusters.NODE, node["metadata"]["name"], None, {"metadata": {"labels": labels}})
        return count

    def _give_back_lost(self, still_wanted: Callable[[], None]) -> None:
        """Claims whose machine never came or does not come back; a NodePool replaces its own by itself."""
        claims = self._made()
        if any(kind == _POOL for kind, _ in claims):
            return
        for kind, claim in claims:
            if _is_lost(claim, self._node(claim)) and "deletionTimestamp" not in claim["metadata"]:
                still_wanted()
                print(f"{kind.name} {claim['metadata']['name']} of KAITO's gives no node: it is given back", flush=True)
                self._cluster.delete(kind, claim["metadata"]["name"], uid=claim["metadata"]["uid"])

    def _node(self, claim: dict[str, Any]) -> dict[str, Any] | None:
        name = claim.get("status", {}).get("nodeName")
        return self._cluster.get(clusters.NODE, name) if name else None

    def _is_anothers(self, uid: str) -> bool:
        """Whether a newer Workspace has this name by now: then the claims are its own."""
        namespace, name = self._workspace
        found = self._cluster.get(clusters.WORKSPACE, name, namespace)
        return found is not None and found["metadata"]["uid"] != uid

    def _wait_for(self, claims: list[Found]) -> None:
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since > self._patience:
            left = ", ".join(f"{kind.name} {obj['metadata']['name']}" for kind, obj in claims)
            raise errors.ProvisioningFailedError(
                f"{left} of KAITO's: deleted {self._patience:.0f} s ago and still there; gpu-provisioner or Karpenter"
                " gives their machines back: look whether it runs and what it says; the next attempt looks again"
            )


def _is_lost(claim: dict[str, Any], node: dict[str, Any] | None) -> bool:
    now = datetime.datetime.now(datetime.UTC)
    if "deletionTimestamp" in claim["metadata"]:
        return True
    if node is None:
        return now - moment(claim["metadata"]["creationTimestamp"]) > _LAUNCH
    if node["metadata"].get("deletionTimestamp"):
        return True
    conditions = node.get("status", {}).get("conditions", [])
    ready: dict[str, Any] = next((c for c in conditions if c["type"] == "Ready"), {})
    away = ready.get("lastTransitionTime") or node["metadata"]["creationTimestamp"]
    return not live.is_ready(node) and now - moment(away) > _REPAIR


def _size(claim: dict[str, Any], node: dict[str, Any] | None) -> str:
    """The node's size, or, before it is there, the one that was asked for."""
    if node:
        return str(node["metadata"]["labels"].get(nodes.SIZE, ""))
    asked = claim.get("spec", {}).get("requirements", [])
    keys = (nodes.SIZE, "karpenter.azure.com/sku-name")
    return next((str(one["values"][0]) for key in keys for one in asked if one["key"] == key and one.get("values")), "")
