"""Who and where: the ids of the simulated tenant, subscription and AKS cluster, and the addresses made of them."""

import re
from typing import NamedTuple

HOSTS = {"login.microsoftonline.com": "entra", "management.azure.com": "arm"}
AUDIENCE = "https://management.azure.com"


class Account(NamedTuple):
    """What the operator's settings must name; the defaults are those of the cluster's own settings."""

    tenant: str = "00000000-0000-4000-8000-00000000000a"
    client: str = "00000000-0000-4000-8000-00000000000b"
    subscription: str = "00000000-0000-4000-8000-00000000000c"
    resource_group: str = "kaito-hera"
    aks: str = "kaito-hera"
    location: str = "eastus"

    @property
    def cluster_id(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.ContainerService/managedClusters/{self.aks}"
        )

    @property
    def node_resource_group(self) -> str:
        return f"MC_{self.resource_group}_{self.aks}_{self.location}"

    def vmss(self, pool: str) -> str:
        """The scale set of a pool; the digits are the same for all pools of a cluster, as AKS makes them."""
        return f"aks-{pool}-12345678-vmss"

    def node(self, pool: str, instance: int) -> str:
        return f"{self.vmss(pool)}{_base36(instance):0>6}"

    def provider_id(self, pool: str, instance: int) -> str:
        return (
            f"azure:///subscriptions/{self.subscription}/resourceGroups/{self.node_resource_group.lower()}"
            f"/providers/Microsoft.Compute/virtualMachineScaleSets/{self.vmss(pool)}/virtualMachines/{instance}"
        )


def same(one: str, other: str) -> bool:
    """Names in paths of ARM are compared without case."""
    return one.lower() == other.lower()


def valid_pool_name(name: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9]{0,11}", name) is not None


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = digits[number % 36]
    while number := number // 36:
        text = digits[number % 36] + text
    return text
