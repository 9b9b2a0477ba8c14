"""Where the machines of agent pools come from: a Protocol, and the one-machine cluster that really boots them."""

import json
from typing import NamedTuple, Protocol


class Machine(NamedTuple):
    """One machine as a cloud hands it over; a taint reads key=value:Effect."""

    name: str
    labels: dict[str, str]
    taints: list[str]
    instance_type: str
    gpus: int
    provider_id: str


class Machines(Protocol):
    """Every method may be called again, also after a call that died halfway."""

    def boot(self, machine: Machine) -> None:
        """Switch it on; it joins the cluster by itself."""

    def joined(self, name: str) -> bool:
        """Its Node is Ready."""

    def relabel(self, name: str, labels: dict[str, str | None]) -> None:
        """Set labels of the Node, and drop those that are None."""

    def remove(self, name: str) -> None:
        """Nothing of it is left: no process, no Node."""


class ClusterMachines:
    """Nodes of the one-machine cluster of a name."""

    def __init__(self, cluster: str) -> None:
        from tests.cluster import layout

        self._cluster = layout.Cluster(cluster)

    def boot(self, machine: Machine) -> None:
        from tests.cluster import nodes

        nodes.boot(self._cluster, nodes.NodeSpec(**machine._asdict()))

    def joined(self, name: str) -> bool:
        from tests.cluster import nodes

        return nodes.ready(self._cluster, name)

    def relabel(self, name: str, labels: dict[str, str | None]) -> None:
        from tests.cluster import kubectl

        patch = json.dumps({"metadata": {"labels": labels}})
        kubectl.run(self._cluster, "patch", "node", name, "--type=merge", f"--patch={patch}")

    def remove(self, name: str) -> None:
        from tests.cluster import nodes

        nodes.remove(self._cluster, name)
