"""AKS agent pools: one per Workspace and kind of node, of as many nodes as wanted. The only module that imports azure.

The SDK's poller is not used: a PUT is accepted or not, and from then on the pool itself tells how far it is, so a step
that dies loses nothing. The pool's name follows from the Workspace's uid, so asking twice makes one pool.
"""

import functools
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from azure.core import AzureClouds, MatchConditions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.identity import AzureAuthorityHosts, WorkloadIdentityCredential
from azure.mgmt.containerservice import ContainerServiceClient

from kaito_hera import errors, lease, nodes, sizing
from kaito_hera.nodes import Order, Placement, Want, words
from kaito_hera.settings import Azure

TOKEN_FILE = Path("/var/run/secrets/azure/tokens/azure-identity-token")
_UID_TAG = "kaito-hera-workspace-uid"
_NAME_TAG = "kaito-hera-workspace"
_OVER = frozenset({"Failed", "Canceled"})
"""States of a pool that never recovers by itself and may hold machines."""
_USUAL_FAMILY = "Ubuntu"
"""AKS's own default."""
_FAMILIES = {"ubuntu": _USUAL_FAMILY, "azurelinux": "AzureLinux"}
"""KAITO's word for an operating system, and AKS's."""
_CLOUDS = {
    "AzureCloud": (AzureClouds.AZURE_PUBLIC_CLOUD, AzureAuthorityHosts.AZURE_PUBLIC_CLOUD),
    "AzureUSGovernment": (AzureClouds.AZURE_US_GOVERNMENT, AzureAuthorityHosts.AZURE_GOVERNMENT),
    "AzureChinaCloud": (AzureClouds.AZURE_CHINA_CLOUD, AzureAuthorityHosts.AZURE_CHINA),
}


class AksProvider:
    """Agent pools of one AKS cluster; `writes` is the Lease that lets one step at a time write to it."""

    makes_nodes = True

    def __init__(self, azure: Azure, writes: lease.Lease, *, pause: float = 2.0, busy_limit: float = 600.0) -> None:
        """`pause`: seconds before a repetition, twice as long each time; `busy_limit`: seconds to wait for our turn."""
        self._azure = azure
        self._writes = writes
        self._pause = pause
        self._busy_limit = busy_limit

    def standing(self, wants: tuple[Want, ...]) -> dict[str, str]:
        """Candidates that have a pool: empty when it is made or being made, else why it gives no nodes."""
        pools = {str(pool.name): pool for pool in self._list()}
        found = {want.candidate: pools.get(pool_name(want)) for want in wants}
        return {candidate: _wrong(pool) for candidate, pool in found.items() if pool is not None}

    def drop(self, want: Want, *, still_wanted: Callable[[], None]) -> None:
        """Delete the candidate's pool, if that is not under way."""
        pool = self._get(pool_name(want))
        if pool is not None and _state(pool) != "Deleting":
            self._delete(pool_name(want), still_wanted)

    def drop_others(self, want: Want) -> None:
        """Delete every pool of the Workspace but this candidate's."""
        self._delete_all([pool for pool in self._mine(want.uid) if pool.name != pool_name(want)])

    def order(self, want: Want, *, still_wanted: Callable[[], None], any_ready: Callable[[], bool]) -> Order:
        """Create the pool, or find it and bring it to the wanted count and labels.

        One that failed is asked again while a node of it is Ready, since a server may run there; without one it is
        deleted, since it holds machines and never recovers.
        """
        assert want.size is not None, "preflight refuses a Workspace without instanceType"
        name = pool_name(want)
        pool = self._get(name)
        if pool is not None and _state(pool) in _OVER and not any_ready():
            reason = _failure(pool)
            self._delete(name, still_wanted)
            raise nodes.RefusedError(f"agent pool {name} of {want.size.name} failed and is deleted: {reason}")
        if pool is not None and _state(pool) == "Deleting":
            raise nodes.RefusedError(f"agent pool {name} is still being deleted; the next attempt makes it anew")
        if pool is None or _differs(pool, want):
            self._write(lambda: self._put(name, want, still_wanted))
        return Order(candidate=f"{want.size.name}/{want.capacity or sizing.ON_DEMAND}")

    def check(self, want: Want) -> None:
        """Raise ProvisioningFailedError when the pool failed or is gone."""
        name = pool_name(want)
        try:
            pool = self._get(name)
        except errors.ProvisioningFailedError:
            return  # Azure is away for a while: that says nothing about the pool
        if pool is None:
            raise errors.ProvisioningFailedError(f"agent pool {name} is gone; the next attempt makes it anew")
        if _state(pool) in _OVER:
            raise errors.ProvisioningFailedError(f"agent pool {name} failed: {_failure(pool)}")

    def release(self, uid: str) -> bool:
        """Delete every pool that carries the Workspace's uid, of whatever size; True when the cloud lists none."""
        mine = self._mine(uid)
        self._delete_all(mine)
        return not mine

    def placement(self, want: Want, hostnames: tuple[str, ...] = ()) -> Placement:
        """Nodes of the candidate's own pool; repaired nodes come with new names, so names do not matter.

        Those of another candidate's pool carry other labels: it may be there for a while yet.
        """
        del hostnames
        size = {nodes.SIZE: want.size.name} if want.size else {}
        pool = _pool_label(want)
        absent = () if pool else (nodes.POOL,)
        return Placement(labels=nodes.owner_labels(want) | size | pool, absent=absent, whole=want.gpus)

    # ------------------------------------------------------------------ Azure

    @functools.cached_property
    def _client(self) -> ContainerServiceClient:
        azure = self._azure
        cloud, authority = _CLOUDS[azure.cloud]
        patience: dict[str, Any] = {
            "connection_timeout": 10,
            "read_timeout": 60,
            "retry_backoff_factor": self._pause * 0.4,
        }
        credential = WorkloadIdentityCredential(
            tenant_id=azure.tenant_id,
            client_id=azure.client_id,
            token_file_path=_token_file(),
            authority=authority,
            **patience,
        )
        return ContainerServiceClient(credential, azure.subscription_id, cloud_setting=cloud, **patience)

    def _get(self, name: str) -> Any:
        try:
            return self._asked(lambda: self._client.agent_pools.get(*self._where, name))
        except words.MissingError:
            return None

    def _list(self) -> list[Any]:
        pools: list[Any] = self._asked(lambda: list(self._client.agent_pools.list(*self._where)))
        return pools

    def _mine(self, uid: str) -> list[Any]:
        return [pool for pool in self._list() if _tag(pool, _UID_TAG) == uid]

    def _delete_all(self, pools: list[Any]) -> None:
        refused: errors.ProvisioningFailedError | None = None
        for pool in pools:
            try:
                if _state(pool) != "Deleting":
                    self._delete(str(pool.name))
            except errors.ProvisioningFailedError as error:
                refused = error  # the others cost money too
        if refused:
            raise refused

    def _put(self, name: str, want: Want, still_wanted: Callable[[], None]) -> None:
        """Guarded by the pool as it is now: whoever else writes it meanwhile has the word."""
        pool, body, pools = self._get(name), pool_body(want), self._client.agent_pools
        if pool is None:
            guard: dict[str, Any] = {"match_condition": MatchConditions.IfMissing}
        elif _differs(pool, want):
            guard = {"match_condition": MatchConditions.IfNotModified, "etag": pool.e_tag}
        else:
            return
        still_wanted()
        self._asked(
            lambda: pools.begin_create_or_update(*self._where, name, body, polling=False, **guard),  # type: ignore[call-overload]
            ordered=True,
        )

    def _delete(self, name: str, still_wanted: Callable[[], None] | None = None) -> None:
        pools = self._client.agent_pools

        def delete() -> None:
            if still_wanted:
                still_wanted()
            self._asked(
                lambda: pools.begin_delete(*self._where, name, polling=False, ignore_pod_disruption_budget=True)
            )

        self._write(delete)

    @property
    def _where(self) -> tuple[str, str]:
        return self._azure.resource_group, self._azure.cluster_name

    def _write(self, write: Callable[[], object]) -> None:
        """One write at a time per AKS cluster, repeated while Azure is busy with another operation."""
        deadline = time.monotonic() + self._busy_limit
        pause = self._pause
        while True:
            try:
                with lease.turn(self._writes):
                    write()
            except words.BusyError as busy:
                if time.monotonic() + pause > deadline:
                    raise errors.ProvisioningFailedError(
                        f"Azure stayed busy for {self._busy_limit:.0f} s: {busy}; the next attempt asks again"
                    ) from busy
                time.sleep(pause)
                pause = min(pause * 2, 30.0)
            except (words.ExistsError, words.MissingError):
                return  # an earlier try of ours was accepted
            else:
                return

    def _asked(self, call: Callable[[], Any], *, ordered: bool = False) -> Any:
        """Call Azure; what it answers decides, not the exception's class: 409 is both "busy" and "no quota"."""
        try:
            return call()
        except ResourceNotFoundError as cause:
            raise words.missing(cause, self._azure) from cause
        except ClientAuthenticationError as cause:
            raise words.refused(cause, self._azure, _token_file()) from cause
        except HttpResponseError as cause:
            guarded = not isinstance(cause, ResourceModifiedError)
            raise words.answered(cause, self._azure, made_if_missing=guarded, ordered=ordered) from cause
        except AzureError as cause:  # no network
            raise errors.ProvisioningFailedError(f"Azure cannot be asked: {cause.message}") from cause
        except (OSError, ValueError) as cause:  # no token file, an empty id
            raise errors.ProvisioningFailedError(f"setting azure: no login is possible: {cause}") from cause


def pool_name(want: Want) -> str:
    """The same for the same Workspace and kind of node; at most 12 characters from a-z and 0-9, as AKS wants it.

    What is as usual does not count, so that a pool of an earlier version keeps its name.
    """
    size = want.size.name if want.size else ""
    return "g" + hashlib.sha256("/".join([want.uid, size, *_unusual(want)]).encode()).hexdigest()[:11]


def pool_body(want: Want) -> dict[str, Any]:
    """The agent pool in Azure's wire names."""
    assert want.size is not None
    taint = nodes.TAINT
    # AKS taints and labels spot nodes by itself. -1: whatever the price is, up to that on demand.
    spot = {"scaleSetPriority": "Spot", "scaleSetEvictionPolicy": "Delete", "spotMaxPrice": -1}
    # A surge node would need quota that is not there; the Workspace is down while its pool is upgraded. AKS refuses
    # spot pools with either, and upgrades those without a surge by itself.
    lasting = {"upgradeSettings": {"maxSurge": "0", "maxUnavailable": "1"}}
    return {
        "properties": {
            **(spot if want.capacity == "spot" else lasting),
            **({"osSKU": _FAMILIES[want.family]} if want.family else {}),
            "count": want.count,
            "vmSize": want.size.name,
            "type": "VirtualMachineScaleSets",
            "mode": "User",
            "osType": "Linux",
            "nodeLabels": _labels(want),
            "nodeTaints": [f"{taint['key']}={taint['value']}:{taint['effect']}"],
            "tags": {_UID_TAG: want.uid, _NAME_TAG: want.workspace},
            "gpuProfile": {"driver": "Install"},
        }
    }


def _unusual(want: Want) -> list[str]:
    """What makes it another kind of pool than there ever was; all of it is fixed when a pool is made."""
    family = _FAMILIES.get(want.family, _USUAL_FAMILY)
    return [*(["spot"] if want.capacity == "spot" else []), *([family] if family != _USUAL_FAMILY else [])]


def _pool_label(want: Want) -> dict[str, str]:
    return {nodes.POOL: pool_name(want)} if _unusual(want) else {}


def _wrong(pool: Any) -> str:
    if _state(pool) == "Deleting":
        return f"agent pool {pool.name} is still being deleted"
    return f"agent pool {pool.name} failed: {_failure(pool)}" if _state(pool) in _OVER else ""


def _state(pool: Any) -> str:
    return str(pool.provisioning_state)


def _failure(pool: Any) -> str:
    error = pool.status.provisioning_error if pool.status else None
    return words.story(error) if error else f"it is {_state(pool)}, no reason given"


def _differs(pool: Any, want: Want) -> bool:
    """Whether the pool failed, has another count, or lacks a label; what else makes a pool is fixed at its creation."""
    labels = pool.node_labels or {}
    failed = _state(pool) in _OVER
    return bool(
        failed or pool.count != want.count or any(labels.get(key) != value for key, value in _labels(want).items())
    )


def _labels(want: Want) -> dict[str, str]:
    return {**want.labels, **nodes.owner_labels(want), **_pool_label(want)}


def _tag(pool: Any, name: str) -> str:
    return str((pool.tags or {}).get(name, ""))


def _token_file() -> str:
    return os.environ.get("AZURE_FEDERATED_TOKEN_FILE", str(TOKEN_FILE))
