"""What would happen to a Workspace, told before it is applied: the structure that `kaito-hera plan` prints.

`-o json` and `-o yaml` print `Outlooks` as it stands here, with JSON names in camelCase; `text.py` draws the same for
people. `judging.py` fills it from what `documents.py` read. Pure, and without Hera, torch or a cluster's client.
"""

import datetime
from typing import Literal

import pydantic
from pydantic.alias_generators import to_camel

Use = Literal["tune", "serve"]


class Part(pydantic.BaseModel):
    """A part of what commands print; its JSON names are camelCase."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )


class Step(Part):
    """One step of the Workflow."""

    name: str
    """As the Argo UI shows it."""
    does: str


class Nodes(Part):
    """The nodes, whichever size they become."""

    count: int
    meaning: str
    """What `resource.count` means in this case."""
    bought: bool
    """False: they are there already, found by their labels, and nothing is paid to us or through us."""
    labels: dict[str, str]


class MemoryPart(Part):
    """One part of what a GPU, or a disk, must hold."""

    name: str
    gib: float


class Memory(Part):
    """What one GPU must hold for one use."""

    use: Use
    basis: str
    """The numbers that it follows from."""
    parts: tuple[MemoryPart, ...]
    gib: float
    """Their sum."""
    gib_with_margin: float
    """What is held against a GPU."""


class Fit(Part):
    """One use on one GPU of a candidate."""

    use: Use
    share: float
    """Of the usable memory, with as much at once as fits; above 1 nothing does. 0 where the memory is not known."""
    fits: bool


class Candidate(Part):
    """A kind of node, in the order in which they are tried."""

    size: str
    capacity: str
    """spot or on-demand; empty for nodes that are there already."""
    tried: bool
    """False: left out, since another can do it; warnings say why."""
    gpu: str
    gpus: int
    """Of a node; a server uses one of them where that holds the model."""
    gpu_gib: float
    usable_gib: float
    fits: tuple[Fit, ...]
    usd_per_hour: float | None
    """Of one node, on demand; None where it is not known."""
    at_most: bool
    """True for spot: its price moves, and stays below that of on-demand."""
    region: str | None
    """Whose price it is; None for the lowest of all regions."""
    priced_on: datetime.date | None
    retired_on: datetime.date | None


class Holder(Part):
    """A GPU size that holds all that is asked of it."""

    size: str
    usd_per_hour: float | None


class Price(Part):
    """All nodes together, per hour."""

    first: float | None
    """Of the first candidate that is tried."""
    at_most: bool
    """True where that one is spot."""
    lowest: float | None
    highest: float | None
    """Of all candidates that are tried."""
    until: str
    """When the nodes go back."""


class Finding(Part):
    """Something wrong, or something that works but should be known."""

    reason: str
    """As the condition would have it."""
    field: str
    problem: str
    """With the value that was seen."""
    remedy: str


class Outlook(Part):
    """One Workspace."""

    workspace: str
    """`namespace/name`."""
    does: str
    """In a few words."""
    model: str | None = None
    """Hub id and revision, or the image with the files; None where it is the user's own pod, or not known."""
    works: bool
    """False: it can never work as it is."""
    steps: tuple[Step, ...] = ()
    nodes: Nodes | None = None
    candidates: tuple[Candidate, ...] = ()
    memory: tuple[Memory, ...] = ()
    disk: tuple[MemoryPart, ...] = ()
    """What tuning needs of each node's own disk beside images and data; empty where nothing is tuned, or known."""
    holders: tuple[Holder, ...] = ()
    """The cheapest sizes that hold it, whatever the Workspace names."""
    price: Price | None = None
    """None where nothing is bought, or nothing that is named will do."""
    errors: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()


class Outlooks(Part):
    """All Workspaces that were read, in their order."""

    plans: tuple[Outlook, ...]

    @property
    def works(self) -> bool:
        """Whether each of them may work."""
        return all(plan.works for plan in self.plans)
