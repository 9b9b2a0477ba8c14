"""What one GPU must hold to tune a model and to serve it, and how a Workspace could ask for less. Pure.

The configs of training and serving are known here by their numbers alone (`Batch`, `Server`): whoever reads them is
above.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import presets
from kaito_hera.api import Workspace
from presets import memory

MARGIN = memory.MARGIN
"""What a need is multiplied with before it is held against a GPU."""
CONTEXT = 2048
"""Tokens that a server's memory is judged by where no config says: as many as KAITO's estimator takes."""
_EXCHANGE = 0.5
"""GiB that each of vLLM's GPUs takes to talk to the others, an assumption."""
_IN_LAYERS = "its layers go onto {gpus} GPUs, and requests are answered one at a time"
_OVER_NODES = "{nodes} nodes hold it together, as a RayService of KubeRay's, which was never run on GPUs"
_MOST_NODES = 8
"""That are advised."""
_UNSERVED = "set tuning.serve to false: the adapter is pushed, nothing is served"


@dataclasses.dataclass(frozen=True)
class Batch:
    """The numbers of a training_config that memory follows from; by default those of an empty one."""

    rows: int = 2
    """Rows at once."""
    length: int = 2048
    """Tokens that a row is cut at."""
    rank: int = 8
    recompute: bool = True
    """Activations are computed again for the backward pass."""
    whole_head: bool = False
    """The loss wants all logits at once."""
    stored: str | None = None
    """In how many bits qlora keeps the base model, as a key of memory.BYTES; None for its own default."""
    bfloat16: str = ""
    """What asks for bfloat16, for people; empty where nothing does."""

    @property
    def tokens(self) -> int:
        """Tokens at once, at most."""
        return self.rows * self.length


@dataclasses.dataclass(frozen=True)
class Server:
    """The numbers of an inference_config that a GPU must meet; by default those of an empty one."""

    context: int = 0
    """Tokens of the longest request, by which memory is judged; 0: not said."""
    bfloat16: str = ""
    """What asks for bfloat16, for people; empty where nothing does."""
    gpus: int = 0
    """Among how many vLLM is told to divide it; 0: not said."""
    vllm: bool = False
    """Whether vLLM serves: it divides each layer, and answers many requests however it does."""
    nodes: int = 1
    """So many may hold the model together, where one does not: vLLM's alone."""
    adapters: int = 0
    """For so many at once vLLM keeps room, whether they come or not."""
    rank: int = 0
    """Of up to so much each."""
    width: int = 2
    """Bytes of a number that it computes in."""


class Less(NamedTuple):
    """How a Workspace could ask for less."""

    advice: str
    gib: float
    """What it would take then, without the margin."""


class Way(NamedTuple):
    """One way of doing it."""

    basis: str
    """The numbers that it follows from, for people."""
    need: memory.Need


@dataclasses.dataclass(frozen=True)
class Demand:
    """What one GPU must hold to do one thing with the model."""

    verb: Literal["tune", "serve"]
    basis: str
    """The numbers that it follows from, for people."""
    need: memory.Need
    """As it is asked for."""
    fewer: tuple[Way, ...] = ()
    """What is done by itself where that does not fit, less and less at once: what is learned is the same."""
    note: str = ""
    """What else should be known of the numbers."""
    bfloat16: str = ""
    """What asks for bfloat16, for people; empty where nothing does."""
    less: tuple[Less, ...] = ()
    several: float = 0.0
    """GiB that each of several GPUs of a node holds beside that, where all of them are worked with."""
    spread: float = 0.0
    """GiB of it that several GPUs divide among each other, where one does not hold it."""
    copied: float = 0.0
    """GiB of that which no more than `heads` GPUs divide: each of more has as much."""
    heads: int = 1
    counts: tuple[int, ...] = ()
    """Of how many GPUs it can be divided among; empty where any number will do."""
    divided: str = ""
    """What follows for people where it is divided."""
    nodes: int = 1
    """So many nodes divide it, where all GPUs of one do not hold it."""

    @property
    def gib(self) -> float:
        """With the margin, of a GPU that works alone."""
        return self.need.gib * MARGIN

    @property
    def ways(self) -> tuple[Way, ...]:
        """As it is asked for, then with less at once."""
        return (Way(self.basis, self.need), *self.fewer)

    def gib_of(self, gpus: int, way: int = 0) -> float:
        """With the margin, of one of so many GPUs; -1 is the way that takes least."""
        if gpus == 1:
            return self.ways[way].need.gib * MARGIN
        shared = self.spread * (1 - 1 / gpus) - self.copied * (1 / min(gpus, self.heads) - 1 / gpus)
        return (self.ways[way].need.gib - shared + self.several) * MARGIN

    def most(self, gpus: int) -> int:
        """How many of a node's GPUs can work together."""
        return presets.shares(self.counts, gpus) if self.counts else gpus

    def lacks(self, gpus: int) -> str:
        """Why so many GPUs are too few, whatever they hold; empty where they are not."""
        told = f"vllm.tensor-parallel-size: {self.counts[0]} in inference.config" if self.counts else ""
        return f"{told} is more than the {gpus} GPUs that are worked with" if told and gpus < self.counts[0] else ""

    def aside(self, name: str, gib: float, gpus: int) -> str:
        """What is to be said of the model though so many GPUs of so many GiB hold it; empty where nothing is."""
        if (most := self.most(gpus)) < gpus:
            idle = f"vLLM divides {name} among {most} of {gpus} GPUs, the others are paid and idle"
            return f"{idle}; a size with {most} does as much"
        nodes = self.over_nodes(gib, gpus)
        follows = _OVER_NODES.format(nodes=nodes) if nodes > 1 else self.divided.format(gpus=gpus)
        if not follows or self.taken(gib, gpus) == 1:
            return ""
        return f"to {self.verb} {name} ({self.basis}) needs {self.gib:.1f} GiB; so {follows}"

    def taken(self, gib: float, gpus: int) -> int:
        """How many of a node's GPUs of so many GiB it is for: one, where that holds what they could divide.

        More than a node has where several nodes are.
        """
        if self.spread and self.gib_of(1) <= gib:
            return 1
        most = self.most(gpus)
        over = self.nodes > 1 and most == gpus and self.gib_of(gpus, -1) > gib
        return gpus * self.nodes if over else most

    def over_nodes(self, gib: float, gpus: int) -> int:
        """How many nodes it is for, of so many GPUs of so many GiB each."""
        return max(1, self.taken(gib, gpus) // gpus)

    def nodes_for(self, gib: float, gpus: int) -> int | None:
        """How many nodes, more than are asked for, would hold it together; None where not even many do."""
        several = range(self.nodes + 1, _MOST_NODES + 1)
        return next((n for n in several if dataclasses.replace(self, nodes=n).way(gib, gpus) is not None), None)

    def way(self, gib: float, gpus: int = 1) -> int | None:
        """The first of the ways that so many GiB hold, on each of so many GPUs; None where none is, or GPUs lack."""
        if self.lacks(max(gpus, 1)):
            return None
        taken = self.taken(gib, max(gpus, 1))
        return next((at for at in range(len(self.ways)) if self.gib_of(taken, at) <= gib), None)


def demands(
    workspace: Workspace, model: presets.Preset, batch: Batch | None, server: Server = Server()
) -> tuple[Demand, ...]:
    """What is asked of one GPU: to tune, if a batch says how, and to serve."""
    found = []
    if workspace.tuning and batch:
        found.append(tune(model, workspace.tuning.method, batch))
    if workspace.serves:
        less = (Less(_UNSERVED, 0.0),) if workspace.tuning else ()
        served = serve(model, server)
        found.append(dataclasses.replace(served, less=(*served.less, *less)))
    return tuple(found)


def tune(model: presets.Preset, method: str, batch: Batch) -> Demand:
    """The demand of a tuning run, which divides the rows of a batch where they do not fit together."""
    first, *fewer = _ways(model, method, batch)
    short = dataclasses.replace(batch, rows=1, length=min(batch.length, 128), recompute=True)
    less = [Less("lower max_length", _tuning(model, method, short).gib)]
    if method == "lora":
        less.append(Less("set tuning.method to qlora", _ways(model, "qlora", batch)[-1].need.gib))
    several = _tuning(model, method, batch, gpus=2).gib - first.need.gib
    return Demand("tune", *first, tuple(fewer), bfloat16=batch.bfloat16, less=tuple(less), several=several)


def _ways(model: presets.Preset, method: str, batch: Batch) -> list[Way]:
    """As the trainer tries them: fewer tokens at once, down to those of a row; then activations are computed twice."""
    tries = [(batch, batch.tokens)]
    while (tokens := tries[-1][1]) > batch.length:
        tries.append((batch, memory.fewer(tokens, batch.length)))
    if not batch.recompute:
        tries.append((dataclasses.replace(batch, recompute=True), batch.length))
    return [Way(_basis(method, one, tokens), _tuning(model, method, one, tokens)) for one, tokens in tries]


def _basis(method: str, batch: Batch, tokens: int) -> str:
    rows = tokens // batch.length
    kept = "" if batch.recompute else ", activations kept"
    return f"{method}, rank {batch.rank}, {rows} row{'s' if rows > 1 else ''} of {batch.length:,} tokens{kept}"


def _tuning(model: presets.Preset, method: str, batch: Batch, tokens: int = 0, *, gpus: int = 1) -> memory.Need:
    return memory.tuning(
        model,
        method,
        tokens=tokens or batch.tokens,
        rank=batch.rank,
        recompute=batch.recompute,
        head="whole" if batch.whole_head else None,
        stored=batch.stored,
        gpus=gpus,
    )


def serve(model: presets.Preset, server: Server = Server()) -> Demand:
    """The demand of a server."""
    usual = min(CONTEXT, model.context_limit)
    tokens, room = server.context or usual, _room(model, server)
    kept = sum(room)
    need = memory.serving(model, context=tokens, adapters=kept)
    less = [Less("lower vllm.max-model-len", memory.serving(model, context=usual, adapters=kept).gib)]
    less += [Less("write vllm.max-loras: 1", need.gib - kept * (1 - 1 / server.adapters))] if kept else []
    told = f", room for {server.adapters} adapters of rank {server.rank}" if kept else ""
    return Demand(
        "serve",
        f"cache for {tokens:,} tokens{told}",
        need,
        note="; ".join(_notes(model, server, usual)),
        bfloat16=server.bfloat16,
        less=tuple(each for each in less if each.gib < need.gib),
        spread=need.parts["weights"] + need.parts["cache"] + room.divided,
        several=_EXCHANGE if server.vllm else memory.uneven(model),
        nodes=server.nodes,
        **(_by_vllm(model, server, need) if server.vllm else {"divided": _IN_LAYERS}),
    )


def _room(model: presets.Preset, server: Server) -> memory.Room:
    """What vLLM keeps for adapters, as far as it follows from what is known of the model."""
    if not server.adapters or model.shape is None or not model.shape.complete:
        return memory.Room()
    return memory.room(model.shape, server.adapters * server.rank, width=server.width)


def _notes(model: presets.Preset, server: Server, usual: int) -> Iterator[str]:
    if not server.context and model.context_limit > usual:
        yield f"without max-model-len, requests of up to {model.context_limit:,} are taken as far as memory goes"
    if server.adapters and not any(_room(model, server)):
        yield "what vLLM keeps for adapters is not counted, since not all layers of this model are known here"


def _by_vllm(model: presets.Preset, server: Server, need: memory.Need) -> dict[str, Any]:
    """How it divides a model: by heads, so that a cache with fewer of them is held more than once."""
    counts = (server.gpus,) if server.gpus else presets.splits(model.shape)
    heads = 1 if model.shape is None or model.shape.kind == "latent" else model.shape.kv_heads
    return {"copied": need.parts["cache"], "heads": heads, "counts": counts}
