"""The GPU nodes: how many, of which sizes, found or made by which labels."""

from typing import Annotated, Literal

import pydantic

from kaito_hera.api.base import Key, Model, Name, Rule, Seconds, Text, Word

_FIXED = "cannot be changed, since the nodes were made or chosen by it: delete the Workspace and apply it anew"

RESERVED = (
    "kaito.sh/workspace",
    "kaito.sh/workspacenamespace",
    "kaito.sh/ragengine",
    "kaito.sh/ragenginenamespace",
    "karpenter.kaito.sh/workspace-name",
    "karpenter.kaito.sh/workspace-namespace",
    "karpenter.kaito.sh/inferenceset",
    "karpenter.kaito.sh/inferenceset-namespace",
)
"""Labels that say whose a node is: written by controllers, never by users."""

Capacity = Literal["spot", "on-demand"]


class MatchExpression(Model):
    """A requirement on one label."""

    key: Key
    operator: Literal["In"]
    """Only In: the labels are also put on new nodes, so each must have one value."""
    values: Annotated[tuple[Text, ...], pydantic.Field(min_length=1, max_length=1)]
    """Exactly one value."""


class LabelSelector(Model):
    """Labels that nodes carry: looked for on existing nodes, put on new ones."""

    match_labels: Annotated[dict[str, str], pydantic.Field(max_length=32)] = {}
    """Label and value."""
    match_expressions: Annotated[tuple[MatchExpression, ...], pydantic.Field(max_length=32)] = ()
    """The same in the long form; only the operator In with one value."""

    def labels(self) -> dict[str, str]:
        """Both forms as one map, without labels that only controllers write."""
        both = {**self.match_labels, **{e.key: e.values[0] for e in self.match_expressions}}
        return {key: value for key, value in both.items() if key not in RESERVED}


class Partition(Model):
    """A part of a GPU, or several GPUs of a node, on nodes you bring."""

    rules = (
        Rule(
            "self.mode == 'mig' ? has(self.profile) && !has(self.count) : has(self.count) && !has(self.profile)",
            "partition: mode mig takes a profile (for example 1g.10gb) and no count,"
            " mode accelerator takes a count and no profile",
            lambda p: (
                (p.profile is not None and p.count is None)
                if p.mode == "mig"
                else (p.count is not None and p.profile is None)
            ),
        ),
    )

    mode: Literal["mig", "accelerator"]
    """mig: one slice of a GPU that is cut by NVIDIA's MIG; accelerator: whole GPUs."""
    profile: (
        Annotated[str, pydantic.StringConstraints(max_length=32, pattern=r"^[1-9]g\.[1-9][0-9]{0,2}gb$")] | None
    ) = None
    """The slice, as in the node's resource nvidia.com/mig-PROFILE."""
    count: Annotated[int, pydantic.Field(ge=1, le=16)] | None = None
    """GPUs of each node."""

    @property
    def gib(self) -> float | None:
        """What the slice holds, as its name says; None for whole GPUs."""
        return float(self.profile.partition(".")[2].removesuffix("gb")) if self.profile else None


class Resource(Model):
    """The GPU nodes that the Workspace runs on."""

    rules = (
        Rule(
            "!has(oldSelf.instanceType) || oldSelf.instanceType == ''"
            " || (has(self.instanceType) && self.instanceType == oldSelf.instanceType)",
            f"instanceType {_FIXED}",
        ),
        Rule(
            "has(oldSelf.partition) == has(self.partition)"
            " && (!has(self.partition) || self.partition == oldSelf.partition)",
            f"partition {_FIXED}",
        ),
        Rule(
            "!has(self.instanceType) || self.instanceType == ''"
            " || !has(self.instanceTypes) || size(self.instanceTypes) == 0",
            "give instanceType (one size) or instanceTypes (several, in the order in which to try them), not both",
            lambda r: not (r.instance_type and r.instance_types),
        ),
    )

    count: Annotated[int, pydantic.Field(ge=1, le=100)] = 1
    """Number of nodes, one server on each; vLLM lays a model that one does not hold onto all. Tuning uses one."""
    instance_type: Word | None = None
    """The cloud's name of the GPU size, for example Standard_NC24ads_A100_v4. Leave it out on nodes you bring."""
    instance_types: Annotated[tuple[Name, ...], pydantic.Field(max_length=10)] = ()
    """Several GPU sizes in place of instanceType: the first that can be had, and that the model fits, is taken."""
    capacity: Annotated[tuple[Capacity, ...], pydantic.Field(max_length=2)] = ()
    """Kinds of capacity in the order in which to try them for each size; default: on-demand, on nodes you bring any."""
    label_selector: Annotated[
        LabelSelector,
        pydantic.Field(
            json_schema_extra={
                "x-kubernetes-validations": [Rule("self == oldSelf", f"labelSelector {_FIXED}").schema()]
            }
        ),
    ]
    """Labels of the nodes: new nodes get them, existing nodes (provider byo) are found by them."""
    preferred_nodes: Annotated[tuple[Name, ...], pydantic.Field(max_length=100)] = ()
    """Names of existing nodes to take first (provider byo)."""
    partition: Partition | None = None
    """A part of a GPU, or several GPUs, of nodes you bring (provider byo)."""
    provisioning_timeout_seconds: Seconds | None = None
    """How long nodes may take from the order to usable GPUs; default: the operator's setting.

    An edit counts from the next attempt on.
    """

    @property
    def sizes(self) -> tuple[str, ...]:
        """The GPU sizes asked for, in order; none on nodes that are brought."""
        return self.instance_types or ((self.instance_type,) if self.instance_type else ())
