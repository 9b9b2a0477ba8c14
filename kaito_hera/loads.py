"""What one GPU must hold to tune a model and to serve it, and how a Workspace could ask for less. Pure.

The configs of training and serving are known here by their numbers alone (`Batch`, `Server`): whoever reads them is
above.
"""

import dataclasses
from typing import Literal, NamedTuple

import presets
from kaito_hera.api import Workspace
from presets import memory

MARGIN = memory.MARGIN
"""What a need is multiplied with before it is held against a GPU."""
CONTEXT = 2048
"""Tokens that a server's memory is judged by where no config says: as many as KAITO's estimator takes."""
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


class Less(NamedTuple):
    """How a Workspace could ask for less."""

    advice: str
    gib: float
    """What it would take then, without the margin."""


@dataclasses.dataclass(frozen=True)
class Demand:
    """What one GPU must hold to do one thing with the model."""

    verb: Literal["tune", "serve"]
    basis: str
    """The numbers that it follows from, for people."""
    need: memory.Need
    note: str = ""
    """What else should be known of the numbers."""
    bfloat16: str = ""
    """What asks for bfloat16, for people; empty where nothing does."""
    less: tuple[Less, ...] = ()
    several: float = 0.0
    """GiB that each of several GPUs of a node holds beside that, where all of them are worked with."""

    @property
    def gib(self) -> float:
        """With the margin, of a GPU that works alone."""
        return self.need.gib * MARGIN

    def gib_of(self, gpus: int) -> float:
        """With the margin, of one of so many."""
        return (self.need.gib + (self.several if gpus > 1 else 0.0)) * MARGIN


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
    """The demand of a tuning run."""

    def need(method: str, batch: Batch, gpus: int = 1) -> memory.Need:
        return memory.tuning(
            model,
            method,
            tokens=batch.tokens,
            rank=batch.rank,
            recompute=batch.recompute,
            head="whole" if batch.whole_head else None,
            stored=batch.stored,
            width=batch.tokens,
            gpus=gpus,
        )

    least = dataclasses.replace(batch, rows=1, length=min(batch.length, 128))
    less = [Less("lower per_device_train_batch_size or max_length", need(method, least).gib)]
    if method == "lora":
        less.append(Less("set tuning.method to qlora", need("qlora", batch).gib))
    rows = f"{batch.rows} row{'s' if batch.rows > 1 else ''} of {batch.length:,} tokens"
    kept = "" if batch.recompute else ", activations kept"
    basis = f"{method}, rank {batch.rank}, {rows}{kept}"
    several = need(method, batch, 2).gib - need(method, batch).gib
    return Demand("tune", basis, need(method, batch), bfloat16=batch.bfloat16, less=tuple(less), several=several)


def serve(model: presets.Preset, server: Server = Server()) -> Demand:
    """The demand of a server."""
    usual = min(CONTEXT, model.context_limit)
    tokens, note = server.context or usual, ""
    least = memory.serving(model, context=usual)
    less = (Less("lower vllm.max-model-len", least.gib),) if tokens > usual else ()
    if not server.context and model.context_limit > usual:
        note = f"without max-model-len, requests of up to {model.context_limit:,} are taken as far as memory goes"
    need = memory.serving(model, context=tokens)
    return Demand("serve", f"cache for {tokens:,} tokens", need, note, server.bfloat16, less)
