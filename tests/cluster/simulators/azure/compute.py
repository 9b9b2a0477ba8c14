"""What the subscription has: quotas and how much of them is used, sizes, capacity."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tests.cluster.simulators.azure import sizes
from tests.cluster.simulators.azure.account import Account
from tests.cluster.simulators.azure.errors import ArmError
from tests.cluster.simulators.azure.pools import Pool
from tests.cluster.simulators.azure.scenarios import Limits
from tests.cluster.simulators.azure.sizes import REGIONAL, SPOT, Size

PLENTY = 1000


def usages(pools: Iterable[Pool], limits: Limits) -> list[dict[str, Any]]:
    """Microsoft.Compute/locations/usages: one entry a quota."""
    used = _used(pools, limits)
    return [
        {
            "name": {"value": quota, "localizedValue": quota},
            "currentValue": used[quota],
            "limit": limits.quota.get(quota, PLENTY),
            "unit": "Count",
        }
        for quota in (REGIONAL, SPOT, *sizes.FAMILIES)
    ]


def skus(account: Account, limits: Limits) -> list[dict[str, Any]]:
    """Microsoft.Compute/skus: one entry a VM size, with a restriction where it is not offered."""
    hidden = {name.lower() for name in limits.not_offered}
    return [
        {
            "resourceType": "virtualMachines",
            "name": size.name,
            "family": size.family,
            "locations": [account.location],
            "capabilities": [
                {"name": "vCPUs", "value": str(size.vcpus)},
                {"name": "MemoryGB", "value": str(size.memory)},
                {"name": "GPUs", "value": str(size.gpus)},
            ],
            "restrictions": [_restriction(account)] if size.name.lower() in hidden else [],
        }
        for size in sizes.SIZES.values()
    ]


def check_offered(vm_size: str, account: Account, limits: Limits) -> Size:
    size = sizes.find(vm_size)
    if size is None or size.name.lower() in {name.lower() for name in limits.not_offered}:
        raise ArmError(
            400,
            "BadRequest",
            f"The VM size of {vm_size} is not allowed in your subscription in location '{account.location}'. "
            f"The available VM sizes are '{','.join(sorted(sizes.SIZES))}'. "
            "For more details, please visit https://aka.ms/cpu-quota",
            flat=True,
        )
    return size


def check_quota(pool: Pool, size: Size, others: Iterable[Pool], account: Account, limits: Limits) -> None:
    """Refuse a pool that does not fit beside the others; each layer of Azure has its own words for it."""
    used, need = _used(others, limits), size.vcpus * pool.count
    for quota in (SPOT,) if pool.spot else (size.family, REGIONAL):
        limit = limits.quota.get(quota, PLENTY)
        left = limit - used[quota]
        if need <= left:
            continue
        if quota == SPOT:
            raise ArmError(
                409,
                "OperationNotAllowed",
                "Operation could not be completed as it results in exceeding approved LowPriorityCores quota. "
                f"Additional details - Deployment Model: Resource Manager, Location: {account.location}, "
                f"Current Limit: {limit}, Current Usage: {used[quota]}, Additional Required: {need}, "
                f"(Minimum) New Limit Required: {used[quota] + need}.",
            )
        message = (
            f"Insufficient regional vcpu quota left for location {account.location}. "
            f"left regional vcpu quota {left}, requested quota {need}."
            if quota == REGIONAL
            else f"Insufficient vcpu quota requested {need}, remaining {left} for family {quota} "
            f"for region {account.location}. Surge nodes would also consume vcpu quota."
        )
        raise ArmError(400, "ErrCode_InsufficientVCPUQuota", message, flat=True)


def lack_of_capacity(
    pool: Pool, size: Size, others: Iterable[Pool], limits: Limits
) -> tuple[dict[str, Any], int] | None:
    """The error that a pool will end with, and how many machines it gets before; None if there are enough."""
    capacity = next((n for name, n in limits.capacity.items() if name.lower() == size.name.lower()), PLENTY)
    room = capacity - sum(machines(other) for other in others if _size(other) == size)
    if pool.count <= room:
        return None
    zonal = bool(pool.properties.get("availabilityZones"))
    cause = {
        "code": "ZonalAllocationFailed" if zonal else "AllocationFailed",
        "message": "Allocation failed. We do not have sufficient capacity for the requested VM size in this "
        f"{'zone' if zonal else 'region'}. Read more about improving likelihood of allocation success at "
        "http://aka.ms/allocation-guidance",
    }
    message = f'Code="{cause["code"]}" Message="{cause["message"]}"'
    return {"code": "ReconcileVMSSAgentPoolFailed", "message": message, "details": [cause]}, max(0, room)


def machines(pool: Pool) -> int:
    """What counts against quota and capacity: what is there, or will be."""
    return len(pool.machines) if pool.state in {"Deleting", "Failed"} else max(pool.count, len(pool.machines))


def _used(pools: Iterable[Pool], limits: Limits) -> Counter[str]:
    used = Counter(limits.used)
    for pool in pools:
        vcpus = machines(pool) * _size(pool).vcpus
        for quota in (SPOT,) if pool.spot else (_size(pool).family, REGIONAL):
            used[quota] += vcpus
    return used


def _size(pool: Pool) -> Size:
    size = sizes.find(pool.properties["vmSize"])
    assert size is not None, "a pool of an unknown size is refused"
    return size


def _restriction(account: Account) -> dict[str, Any]:
    return {
        "type": "Location",
        "values": [account.location],
        "reasonCode": "NotAvailableForSubscription",
        "restrictionInfo": {"locations": [account.location]},
    }
