"""What a Workspace that is gone has left: somebody took our finalizer away before its nodes were given back.

The nodes tell of it: those that were made for a Workspace carry its uid, and a node that the API server has is this
cluster's. A uid that no Workspace has never comes back, so what carries it, in the cloud too, is nobody's: the usual
release gives it back. Nothing is asked for at rest, since the watches have it all.
"""

import dataclasses
import datetime
import logging

from kaito_hera import api, live, names, status
from kaito_hera import cluster as clusters
from kaito_hera.actions import DeleteWorkflow, LookAgain
from kaito_hera.api import Workspace
from kaito_hera.live import Live, Object
from kaito_hera.reconcile import Planner
from kaito_hera.reflector import Key
from kaito_hera.settings import Settings

log = logging.getLogger(__name__)

_GRACE = datetime.timedelta(minutes=10)
"""A Node may outlive its machine, and whoever took a finalizer away may give the machines back by hand."""
_AGAIN = datetime.timedelta(minutes=30)
"""From the end of a release to the next one, if there are nodes still."""
_WORKSPACE = dataclasses.replace(clusters.WORKSPACE, slim=True)


@dataclasses.dataclass(frozen=True)
class Release:
    """Give back what carries the uid; the attempt is a number that none of its Workflows has."""

    attempt: int


def decide(left: Live, since: datetime.datetime) -> list[Release | DeleteWorkflow | LookAgain]:
    """What to do about the objects of one uid that no Workspace has; `since` is when that was first seen. Pure.

    A release that runs may end, though no node is left: it takes pools without nodes too.
    """
    releases = [w for w in left.workflows if w["metadata"]["labels"].get(names.WORKFLOW) == "release"]
    others = [DeleteWorkflow(_name(w)) for w in left.workflows if w not in releases]
    over = [w for w in releases if live.is_done(w)]
    ended = [DeleteWorkflow(_name(w)) for w in over]
    if len(over) < len(releases) or not left.nodes:
        return [*others, *ended]
    ends = [status.moment(w["status"].get("finishedAt") or w["metadata"]["creationTimestamp"]) for w in over]
    due = [since + _GRACE, *(end + _AGAIN for end in ends)]
    wait = (max(due) - left.now).total_seconds()
    if wait > 0:
        return [*others, LookAgain(wait)]
    return [Release(attempt=1 + max(map(live.attempt, left.workflows), default=0)), *others, *ended]


class Sweeper:
    """Looks at one Workspace's name after another, whether there is a Workspace of it or not."""

    def __init__(self, cluster: clusters.Cluster, settings: Settings, plan: Planner) -> None:
        self._cluster = cluster
        self._settings = settings
        self._plan = plan
        self._since: dict[Key, dict[str, datetime.datetime]] = {}

    def look(self, key: Key, obj: Object | None, seen: Live) -> float | None:
        """Do what is to be done for all uids but that of `obj`, the Workspace; seconds until the next look, if any."""
        if self._settings.node_provider == "byo":  # nobody pays us for those
            seen = dataclasses.replace(seen, nodes=())
        known = {"", obj["metadata"]["uid"] if obj else ""}
        uids = {_uid(each) for each in (*seen.workflows, *seen.nodes)} - known
        before = self._since.pop(key, {})
        if uids:
            self._since[key] = {uid: before.get(uid, seen.now) for uid in uids}
        looks = [self._sweep(uid, seen.of(uid), self._since[key][uid]) for uid in uids]
        return min((look for look in looks if look is not None), default=None)

    def _sweep(self, uid: str, left: Live, since: datetime.datetime) -> float | None:
        look = None
        for action in decide(left, since):
            match action:
                case LookAgain(seconds):
                    look = seconds
                case DeleteWorkflow(workflow):
                    self._cluster.delete(clusters.WORKFLOW, workflow, self._settings.namespace)
                case Release(attempt):
                    self._release(uid, left.nodes, attempt)
        return look

    def _release(self, uid: str, nodes: tuple[Object, ...], attempt: int) -> None:
        """Asked of the API server itself, right before: who cannot list all Workspaces gives nothing back."""
        named = ", ".join(map(_name, nodes))
        if uid in {obj["metadata"]["uid"] for obj in self._cluster.items(_WORKSPACE)}:
            log.warning("nodes %s: labelled with the uid %s of a Workspace of another name; left alone", named, uid)
            return
        labels = nodes[0]["metadata"]["labels"]
        metadata = api.Metadata(name=labels[names.WORKSPACE], namespace=labels[names.NAMESPACE], uid=uid, generation=0)
        workspace = Workspace.bare(metadata, f"{api.GROUP}/v1beta1")
        manifest = self._plan(workspace, self._settings, attempt=attempt, parts=None)
        self._cluster.create(clusters.WORKFLOW, manifest)
        story = "nodes %s: Workspace %s of uid %s is gone without having given them back; Workflow %s does"
        log.warning(story, named, workspace.key, uid, _name(manifest))


def _uid(obj: Object) -> str:
    return str((obj["metadata"].get("labels") or {}).get(names.UID, ""))


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])
