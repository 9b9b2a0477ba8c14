"""AKS agent pools: one per Workspace and GPU size, of as many nodes as wanted. The only module that imports azure.

The SDK's poller is not used: a PUT is accepted or not, and from then on the pool itself tells how far it is, so a step
that dies loses nothing. The pool's name follows from the Workspace's uid, so asking twice makes one pool.
"""

import functools
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.identity import WorkloadIdentityCredential
from azure.mgmt.containerservice import ContainerServiceClient

from kaito_hera import errors, lease, nodes
from kaito_hera.nodes import Order, Placement, Want
from kaito_hera.settings import Azure

TOKEN_FILE = Path("/var/run/secrets/azure/tokens/azure-identity-token")
_UID_TAG = "kaito-hera-workspace-uid"
_NAME_TAG = "kaito-hera-workspace"
_BUSY = re.compile(
    r"another (agentpool |managed ?cluster )?operation|aks-pending-operation|AKSOperationPreempted|EtagMismatch"
    r"|PutAgentPool_FailedPrecondition|is being deleted",
    re.IGNORECASE,
)
_BUSY_LIMIT = 600.0  # seconds to wait for our turn on a busy cluster before the attempt ends


class AksProvider:
    """Agent pools of one AKS cluster; `writes` is the Lease that lets one step at a time write to it."""

    makes_nodes = True

    def __init__(self, azure: Azure, writes: lease.Lease) -> None:
        self._azure = azure
        self._writes = writes

    def order(self, want: Want) -> Order:
        """Create the pool, or find it; one that failed is deleted first, since it holds machines and never recovers."""
        assert want.size is not None, "preflight refuses a Workspace without instanceType"
        name = pool_name(want)
        pool = self._get(name)
        if pool is not None and _state(pool) == "Failed":
            reason = _failure(pool)
            self._delete(name)
            raise errors.ProvisioningFailedError(
                f"agent pool {name} of {want.size.name} failed and is deleted: {reason}"
            )
        if pool is not None and _state(pool) == "Deleting":
            raise errors.ProvisioningFailedError(
                f"agent pool {name} is still being deleted; the next attempt makes it anew"
            )
        if pool is None:
            self._put(name, want)
        return Order(candidate=f"{want.size.name}/on-demand")

    def check(self, want: Want) -> None:
        """Raise ProvisioningFailedError when the pool failed or is gone."""
        pool = self._get(pool_name(want))
        if pool is None:
            raise errors.ProvisioningFailedError(
                f"agent pool {pool_name(want)} is gone; the next attempt makes it anew"
            )
        if _state(pool) == "Failed":
            raise errors.ProvisioningFailedError(f"agent pool {pool_name(want)} failed: {_failure(pool)}")

    def release(self, want: Want) -> bool:
        """Delete every pool that carries the Workspace's uid; True when the cloud lists none."""
        mine = [pool for pool in self._pools() if _tag(pool, _UID_TAG) == want.uid]
        for pool in mine:
            if _state(pool) != "Deleting":
                self._delete(str(pool.name))
        return not mine

    def placement(self, want: Want, hostnames: tuple[str, ...] = ()) -> Placement:
        """Nodes of the Workspace's own pool; repaired nodes come with new names, so names do not matter."""
        del hostnames
        return Placement(labels=nodes.owner_labels(want))

    # ------------------------------------------------------------------ Azure

    @functools.cached_property
    def _client(self) -> ContainerServiceClient:
        credential = WorkloadIdentityCredential(
            tenant_id=self._azure.tenant_id,
            client_id=self._azure.client_id,
            token_file_path=os.environ.get("AZURE_FEDERATED_TOKEN_FILE", str(TOKEN_FILE)),
        )
        return ContainerServiceClient(credential, self._azure.subscription_id)

    def _get(self, name: str) -> Any:
        try:
            return _asked(lambda: self._client.agent_pools.get(*self._where, name))
        except _MissingError:
            return None

    def _pools(self) -> Iterator[Any]:
        yield from _asked(lambda: list(self._client.agent_pools.list(*self._where)))

    def _put(self, name: str, want: Want) -> None:
        body: Any = pool_body(want)
        pools = self._client.agent_pools
        self._write(
            lambda: pools.begin_create_or_update(
                *self._where, name, body, polling=False, match_condition=MatchConditions.IfMissing
            )
        )

    def _delete(self, name: str) -> None:
        pools = self._client.agent_pools
        self._write(lambda: pools.begin_delete(*self._where, name, polling=False, ignore_pod_disruption_budget=True))

    @property
    def _where(self) -> tuple[str, str]:
        return self._azure.resource_group, self._azure.cluster_name

    def _write(self, call: Callable[[], object]) -> None:
        """One write at a time per AKS cluster, repeated while Azure is busy with another operation."""
        deadline = time.monotonic() + _BUSY_LIMIT
        pause = 2.0
        while True:
            try:
                with lease.turn(self._writes):
                    _asked(call)
            except _BusyError as busy:
                if time.monotonic() > deadline:
                    raise errors.ProvisioningFailedError(f"Azure stayed busy for {_BUSY_LIMIT:.0f} s: {busy}") from busy
                time.sleep(pause)
                pause = min(pause * 2, 30.0)
            except (_ExistsError, _MissingError):
                return  # an earlier try of ours was accepted
            else:
                return


def pool_name(want: Want) -> str:
    """The same for the same Workspace and size; at most 12 characters from a-z and 0-9, as AKS wants it."""
    size = want.size.name if want.size else ""
    return "g" + hashlib.sha256(f"{want.uid}/{size}".encode()).hexdigest()[:11]


def pool_body(want: Want) -> dict[str, Any]:
    """The agent pool in Azure's wire names."""
    assert want.size is not None
    taint = nodes.TAINT
    return {
        "properties": {
            "count": want.count,
            "vmSize": want.size.name,
            "type": "VirtualMachineScaleSets",
            "mode": "User",
            "osType": "Linux",
            "nodeLabels": {**want.labels, **nodes.owner_labels(want)},
            "nodeTaints": [f"{taint['key']}={taint['value']}:{taint['effect']}"],
            "tags": {_UID_TAG: want.uid, _NAME_TAG: want.workspace},
            "gpuProfile": {"driver": "Install"},
            # A surge node would need quota that is not there; the Workspace is down while its pool is upgraded.
            "upgradeSettings": {"maxSurge": "0", "maxUnavailable": "1"},
        }
    }


class _MissingError(Exception):
    pass


class _ExistsError(Exception):
    pass


class _BusyError(Exception):
    pass


def _asked(call: Callable[[], Any]) -> Any:
    """Call Azure; what it answers decides, not the exception's class: 409 is both "busy" and "no quota"."""
    try:
        return call()
    except ResourceNotFoundError as cause:
        raise _MissingError from cause
    except HttpResponseError as cause:
        story = _story(cause)
        if cause.status_code == 412:
            raise _ExistsError from cause
        if _BUSY.search(story):
            raise _BusyError(story) from cause
        raise errors.ProvisioningFailedError(f"Azure answered {cause.status_code}: {story}") from cause
    except AzureError as cause:  # no token, no network
        raise errors.ProvisioningFailedError(f"Azure cannot be asked: {cause.message}") from cause


def _story(error: HttpResponseError) -> str:
    """Codes and messages, outer and inner, each once: the true cause is often in the details."""
    parts: list[str] = []
    todo: list[Any] = [error.error or error]
    while todo:
        node = todo.pop(0)
        parts += [str(text) for text in (getattr(node, "code", None), getattr(node, "message", None)) if text]
        todo += getattr(node, "details", None) or []
    return ": ".join(dict.fromkeys(parts)) or str(error)


def _state(pool: Any) -> str:
    return str(pool.provisioning_state)


def _failure(pool: Any) -> str:
    error = pool.status.provisioning_error if pool.status else None
    return f"{error.code}: {error.message}" if error else "no reason given"


def _tag(pool: Any, name: str) -> str:
    return str((pool.tags or {}).get(name, ""))
