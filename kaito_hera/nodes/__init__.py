"""GPU nodes: one Protocol, a module per provider, and the waiting that is the same for all of them.

A provider orders, observes and gives back; whether a node is usable is judged here, by the Node object alone.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Protocol

import presets
from kaito_hera import errors, findings, models, names, sizing
from kaito_hera.api import Workspace, annotations
from kaito_hera.nodes import disk, drivers
from presets.kernels import Kernels

GPU = "nvidia.com/gpu"
SIZE = "node.kubernetes.io/instance-type"
"""The label that says which GPU size a node is."""
POOL = "kaito.sh/pool"
"""On nodes that are not as usual: spot, or of another image family. Usual ones carry no such label, as ever."""
TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}


class RefusedError(errors.ProvisioningFailedError):
    """A kind of node that cannot be had now; perhaps another one can."""

    @property
    def reason(self) -> str:
        """As for every other failure to get nodes."""
        return errors.ProvisioningFailedError("").reason


@dataclasses.dataclass(frozen=True)
class Want:
    """The nodes that a Workspace needs, of one of the kinds that would do: a candidate."""

    workspace: str
    """`namespace/name`."""
    namespace: str
    name: str
    uid: str
    count: int
    size: presets.Size | None
    """None on nodes that were brought: then any GPU node will do."""
    labels: dict[str, str]
    """The user's: put on new nodes, looked for on existing ones."""
    preferred: tuple[str, ...] = ()
    """Names of existing nodes to take first."""
    capacity: str = ""
    """spot or on-demand; empty where the user did not say."""
    family: str = ""
    """ubuntu or azurelinux; empty where the user did not say."""
    device: str = GPU
    """The resource that pods ask for: GPUs, or slices of one."""
    share: int | None = None
    """How many of them each pod gets, where the user said so."""
    kernels: Kernels | None = None
    """What the images have, where nodes whose GPUs cannot run it are no good."""
    weights_gib: float = 0.0
    """What is tuned is downloaded onto the node's own disk; 0 where nothing is, or nothing is known of it."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Of a pod of the user's own, beside those of all pods."""

    @property
    def gpus(self) -> int:
        """GPUs, or slices, that each node must offer."""
        return self.share or (self.size.gpus if self.size else 1)

    @property
    def candidate(self) -> str:
        """Size and kind of capacity, as status has it; what the user left open is left out."""
        return "/".join(part for part in (self.size.name if self.size else "", self.capacity) if part)


@dataclasses.dataclass(frozen=True)
class Order:
    """What a provider accepted."""

    candidate: str
    """GPU size and kind of capacity, or the nodes that were found."""
    hostnames: tuple[str, ...] = ()
    """Names of the nodes where they are known beforehand."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """What a pod needs to land on the Workspace's nodes and no others."""

    labels: dict[str, str]
    """Node labels to select by."""
    hostnames: tuple[str, ...] = ()
    """If set, only nodes of these names."""
    absent: tuple[str, ...] = ()
    """Labels that the nodes must not have."""
    device: str = GPU
    share: int = 1
    """What each of our pods gets of a node: so many of these."""
    whole: int | None = None
    """As many as a node has, or as were asked for, where that is known."""

    def allows(self, node: dict[str, Any]) -> bool:
        """Whether a node that has the labels is one of them."""
        named = not self.hostnames or node["metadata"]["name"] in self.hostnames
        return named and not any(label in node["metadata"].get("labels", {}) for label in self.absent)

    @property
    def limits(self) -> dict[str, str]:
        """The GPU limits of a container that works with a share."""
        return {self.device: str(self.share)}

    @property
    def all_limits(self) -> dict[str, str]:
        """Those of one that works with all there are; slices of GPUs cannot work together."""
        return {self.device: str(self.whole or self.share)} if self.device == GPU else self.limits

    @property
    def tolerations(self) -> list[dict[str, Any]]:
        """Of our taint, and of those that clouds and people put on GPU nodes."""
        keys = dict.fromkeys((GPU, self.device, "kubernetes.azure.com/scalesetpriority"))
        return [
            {"key": TAINT["key"], "operator": "Equal", "value": TAINT["value"], "effect": TAINT["effect"]},
            *({"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys),
        ]

    def pod_fields(self) -> dict[str, Any]:
        """`nodeSelector`, `affinity` and `tolerations` of a pod spec."""
        fields: dict[str, Any] = {"nodeSelector": dict(self.labels), "tolerations": self.tolerations}
        if terms := self._terms():
            required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
            fields["affinity"] = {"nodeAffinity": required}
        return fields

    def elsewhere(self) -> dict[str, Any]:
        """The same of a pod without GPUs that works with what these nodes have left: on others, if there are any."""
        absent = ("nvidia.com/gpu.present", "kubernetes.azure.com/accelerator")
        others = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in self.labels.items()]
        others += [{"key": key, "operator": "DoesNotExist"} for key in absent]
        preferred = [{"weight": 100, "preference": {"matchExpressions": others}}]
        return {
            "tolerations": self.tolerations,
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}},
        }

    def _terms(self) -> list[dict[str, Any]]:
        """One of these must hold."""
        lacks = [{"key": label, "operator": "DoesNotExist"} for label in self.absent]
        without = {"matchExpressions": lacks} if lacks else {}
        # By the Node's own name: the label kubernetes.io/hostname may be another. A field takes one value a term.
        named = [
            {**without, "matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}
            for name in self.hostnames
        ]
        return named or ([without] if without else [])


class Provider(Protocol):
    """Who makes GPU nodes. Every method may be called again at any time and after a crash."""

    makes_nodes: bool
    """Whether there is something to give back."""

    def standing(self, wants: tuple[Want, ...]) -> dict[str, str]:
        """Candidates of which something is there: empty when it is launched or held, else why it is no good."""

    def drop(self, want: Want, *, still_wanted: Callable[[], None]) -> None:
        """Begin to give back what was made for this candidate."""

    def drop_others(self, want: Want) -> None:
        """Begin to give back what was made for any other candidate than this one, named by the Workspace or not."""

    def order(self, want: Want, *, still_wanted: Callable[[], None], any_ready: Callable[[], bool]) -> Order:
        """Ask for the nodes and return once that is accepted; raises ProvisioningFailedError or NoNodesMatchError.

        RefusedError where another kind of node may be had.

        `still_wanted` raises when nobody wants the nodes any more, and is asked right before each write: its turn may
        come late. `any_ready` says whether a node of this Workspace is Ready: then nothing is deleted.
        """

    def check(self, want: Want) -> None:
        """Raise ProvisioningFailedError if the order has failed since; silent while it is under way or done."""

    def release(self, uid: str) -> bool:
        """Give back all that was made for the Workspace of this uid, whatever it asks for by now.

        True when nothing billable is left, False while that is under way.
        """

    def placement(self, want: Want, hostnames: tuple[str, ...] = ()) -> Placement:
        """Where pods of this Workspace may run; `hostnames` are those of its order."""


def candidates(workspace: Workspace, usual: str = "", has: Kernels | None = None) -> tuple[Want, ...]:
    """Every kind of node that would do, in the user's order; raises UnknownInstanceTypeError.

    `usual`: the kind of capacity where the user named none. `has`: kernels that the GPUs must be able to run.
    """
    findings.settle(sizing.unknown(workspace))
    resource, metadata = workspace.resource, workspace.metadata
    partition = resource.partition
    device = f"nvidia.com/mig-{partition.profile}" if partition and partition.profile else GPU
    kinds: list[tuple[presets.Size | None, str]] = []
    kinds += [(one.size, one.capacity) for one in sizing.candidates(workspace, usual)]
    return tuple(
        Want(
            workspace=workspace.key,
            namespace=metadata.namespace,
            name=metadata.name,
            uid=metadata.uid,
            count=workspace.node_count,
            size=size,
            labels=resource.label_selector.labels(),
            preferred=resource.preferred_nodes,
            capacity=capacity,
            family=workspace.annotation(annotations.IMAGE_FAMILY),
            device=device,
            share=(partition.count or 1) if partition else None,
            kernels=has,
            weights_gib=_weights_gib(workspace),
            tolerations=_tolerations(workspace),
        )
        for size, capacity in kinds or [(None, each) for each in dict.fromkeys(resource.capacity or (usual,))]
    )


def _tolerations(workspace: Workspace) -> tuple[dict[str, Any], ...]:
    """Of the user's own pod, as far as they can be read: preflight says what is wrong with it."""
    spec = ((workspace.inference and workspace.inference.template) or {}).get("spec")
    written = spec.get("tolerations") if isinstance(spec, dict) else None
    return tuple(each for each in written if isinstance(each, dict)) if isinstance(written, list) else ()


def _weights_gib(workspace: Workspace) -> float:
    model, tuning = models.find(workspace), workspace.tuning
    return model.weights_gib if model and tuning and not tuning.preset.options.image else 0.0


def wanted(workspace: Workspace, candidate: str = "", has: Kernels | None = None) -> Want:
    """What this Workspace needs: the candidate of that name, else its first; raises UnknownInstanceTypeError."""
    wants = candidates(workspace, has=has)
    found = [want for want in wants if candidate in {want.candidate, f"{want.candidate}/{sizing.ON_DEMAND}"}]
    return (found or list(wants))[0]


def several(workspace: Workspace) -> bool:
    """Whether more than one kind of node would do, known or not."""
    resource = workspace.resource
    return len(set(resource.sizes)) > 1 or len(set(resource.capacity)) > 1


def release(provider: Provider, uid: str, *, pause: float = 2.0) -> None:
    """Give everything back and wait until nothing billable is left; asked slowly, since a cloud takes minutes."""
    while not provider.release(uid):
        time.sleep(pause)
        pause = min(pause * 1.5, 15.0)


def owner_labels(want: Want) -> dict[str, str]:
    """Labels by which nodes that were made for a Workspace are known."""
    return {names.WORKSPACE: names.label(want.name), names.NAMESPACE: want.namespace, names.UID: want.uid}


def unusable(node: dict[str, Any], want: Want) -> str:
    """Why this Node object cannot be worked on yet; empty when it can."""
    status = node.get("status", {})
    if node["metadata"].get("deletionTimestamp"):
        return "is being deleted"
    ready: dict[str, Any] = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    if ready.get("status") != "True":
        return f"is not Ready: {ready.get('reason', 'no report yet')}: {ready.get('message', '')}".rstrip(": ")
    kind = node["metadata"].get("labels", {}).get(SIZE, "")
    if want.size and kind and kind.lower() != want.size.name.lower():
        return f"is a {kind}, not a {want.size.name}"
    offered = int(status.get("allocatable", {}).get(want.device, "0"))
    if offered < want.gpus:
        cut = "" if want.device == GPU else " and MIG cut that way"
        return f"is Ready but offers {offered} of {want.gpus} {want.device} (is the device plugin running on it{cut}?)"
    gpus = drivers.refused(node, want.kernels) if want.kernels else ""
    return gpus or disk.refused(node, want.weights_gib)
