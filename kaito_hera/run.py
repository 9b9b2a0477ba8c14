"""One step's view of the world: the cluster, the Workspace it was started for, who makes nodes."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable

from kaito_hera import cluster as clusters
from kaito_hera import errors, intent, lease, nodes, runtimes, sizing
from kaito_hera.api import Workspace
from kaito_hera.nodes import claims
from kaito_hera.nodes.byo import ByoProvider
from kaito_hera.settings import NO_AZURE, Azure, Settings
from kaito_hera.status import Status
from presets.kernels import Kernels


@dataclasses.dataclass(frozen=True)
class Run:
    """What every step works with."""

    cluster: clusters.Cluster
    workspace: Workspace
    settings: Settings
    provider: nodes.Provider
    candidate: str = ""
    """Which kind of node was launched; empty before that, or where there is but one."""
    pinned: str = ""
    """Commit or digest of the model; empty where presets pin it, or before it was looked at."""
    commits: tuple[str, ...] = ()
    """Of each address of data, in alphabetical order, the commit of its data set; none before it was looked at."""

    @classmethod
    def open(
        cls,
        workspace: Workspace,
        settings: Settings,
        candidate: str = "",
        pinned: str = "",
        *,
        commits: Iterable[str] = (),
    ) -> "Run":
        """Connect, and choose the node provider by the settings."""
        cluster = clusters.Cluster.connect()
        key = workspace.metadata.namespace, workspace.metadata.name
        inheriting = claims.Inheriting(provider(cluster, settings), cluster, key)
        return cls(cluster, workspace, settings, inheriting, candidate, pinned, tuple(commits))

    @property
    def candidates(self) -> tuple[nodes.Want, ...]:
        """The kinds of node that would do, in the user's order."""
        usual = sizing.ON_DEMAND if self.provider.makes_nodes else ""
        return nodes.candidates(self.workspace, usual, self._kernels)

    @property
    def want(self) -> nodes.Want:
        """The nodes that the Workspace needs."""
        return nodes.wanted(self.workspace, self.candidate, self._kernels)

    @property
    def _kernels(self) -> Kernels | None:
        """What GPUs must be able to run: nothing where our images may fall back to the CPU, or none of them runs."""
        ours = self.workspace.preset is not None and self.settings.gpu_capability_check == "refuse"
        return self.settings.kernels if ours else None

    def placement(self, hostnames: tuple[str, ...] = ()) -> nodes.Placement:
        """Where its pods may run."""
        return self.provider.placement(self.want, hostnames)

    def still_wanted(self) -> None:
        """Raise SupersededError unless the Workspace is there, stays, and asks for what this run was made for.

        Called before every write that costs money: a step may have slept through an edit.
        """
        metadata = self.workspace.metadata
        found = self.cluster.get(clusters.WORKSPACE, metadata.name, metadata.namespace)
        if found is None or found["metadata"]["uid"] != metadata.uid:
            raise errors.SupersededError(f"Workspace {self.workspace.key} of uid {metadata.uid} is gone")
        if found["metadata"].get("deletionTimestamp"):
            raise errors.SupersededError(f"Workspace {self.workspace.key} is being deleted")
        now, then = (runtimes.heeded(each, self.settings) for each in (Workspace.parse(found), self.workspace))
        if intent.of(now) != intent.of(then):
            raise errors.SupersededError(f"Workspace {self.workspace.key} was changed; a new attempt follows")


def releaser(run: Run) -> nodes.Provider:
    """Who gives its nodes back: AKS, which made them, though the settings name nodes that are brought by now."""
    metadata = run.workspace.metadata
    found = run.cluster.get(clusters.WORKSPACE, metadata.name, metadata.namespace)
    held = Status.of(found).nodes if found else None
    if run.settings.node_provider != "byo" or held is None or not held.held:
        return run.provider
    if run.settings.azure is None:
        raise errors.ConfigInvalidError(
            f"setting nodeProvider: byo, but AKS made nodes for Workspace {run.workspace.key}, which are billed: set it"
            " to aks, with the key azure, until they are given back"
        )
    return claims.Inheriting(_aks(run.cluster, run.settings), run.cluster, (metadata.namespace, metadata.name))


def provider(cluster: clusters.Cluster, settings: Settings) -> nodes.Provider:
    """The node provider that the settings name."""
    return ByoProvider(cluster) if settings.node_provider == "byo" else _aks(cluster, settings)


def _aks(cluster: clusters.Cluster, settings: Settings) -> nodes.Provider:
    if settings.azure is None:
        raise errors.ConfigInvalidError(f"setting azure: {NO_AZURE}")
    from kaito_hera.nodes.aks import AksProvider  # noqa: PLC0415 - half a second that other providers need not pay

    holder = os.environ.get("HOSTNAME", str(os.getpid()))
    turn = lease.Lease(cluster, lock_name(settings.azure), settings.namespace, holder, seconds=60)
    return AksProvider(settings.azure, turn)


def lock_name(azure: Azure) -> str:
    """The Lease of one AKS cluster. A hash, since Azure allows names that Kubernetes does not, and compares no case."""
    place = f"{azure.subscription_id}/{azure.resource_group}/{azure.cluster_name}".lower()
    return f"kaito-hera-aks-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
