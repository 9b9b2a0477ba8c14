"""What is tuned: model, method, data, and where the adapter goes."""

from typing import Annotated, Literal

import pydantic

from kaito_hera.api.base import MaybeName, Model, Rule, Seconds, worded
from kaito_hera.api.inference import Preset
from kaito_hera.api.sources import Input, Output

_INTERVAL = 300
"""Seconds: what an eviction costs at most, beside the minutes until another node is there."""
_ANEW = "cannot be changed: delete the Workspace and apply it anew, or apply another one"


_METHODS = ("lora", "qlora")


def _of_any_case(value: object) -> object:
    """A method as we write it; what is none stays as its user wrote it."""
    return value.lower() if isinstance(value, str) and value.lower() in _METHODS else value


_SCHEMA = {
    "type": "string",
    "maxLength": 253,
    **worded("self.lowerAscii() in ['lora', 'qlora']", "write lora or qlora"),
}
Method = Annotated[Literal["lora", "qlora"], pydantic.BeforeValidator(_of_any_case), pydantic.WithJsonSchema(_SCHEMA)]


class Checkpoint(Model):
    """How training is kept from being lost with its node: the next attempt goes on from the newest checkpoint."""

    rules = (
        Rule(
            "!has(self.intervalSeconds) || !has(self.destination) || self.destination != 'None'",
            "intervalSeconds says nothing where destination is None; take one of them out",
            lambda c: c.interval_seconds is None or c.destination != "None",
        ),
    )

    interval_seconds: Annotated[int, pydantic.Field(ge=10, le=86_400)] | None = None
    """Time between two checkpoints; default 300. They take a twentieth of the time at most.

    With output.image they are written to the pod's disk so often, and copied into the registry every 15 minutes at
    most, unless the operator keeps them on a volume (its setting tuningScratch). An edit counts from the next attempt
    on.
    """
    destination: Literal["Output", "None"] | None = None
    """Output, the default: beside the adapter until that is there. None: none are kept.

    With output.image that is one more tag in its repository, TAG-ckpt- and eight characters, of about 12 bytes for each
    trained weight: a copy costs cents, and the hours that an eviction takes cost dollars. What its push secret may not
    delete there stays, and is named in the end.
    """


class Tuning(Model):
    """Tune a model, push the adapter, then serve the model with it."""

    rules = (
        Rule("self.preset.name == oldSelf.preset.name", f"preset.name {_ANEW}"),
        Rule("self.method.lowerAscii() == oldSelf.method.lowerAscii()", f"method {_ANEW}"),
    )

    preset: Preset
    """The model to tune."""
    method: Method
    """lora trains beside 16-bit weights, qlora beside 4-bit ones and needs about half the memory."""
    config: MaybeName | None = None
    """ConfigMap in the Workspace's namespace with a training_config.yaml; default: the operator's template."""
    input: Input
    """The data to learn from."""
    output: Output
    """Where the adapter goes."""
    checkpoint: Checkpoint | None = None
    """How training is kept from being lost with its node."""
    serve: bool | None = None
    """false: push the adapter, give the nodes back, serve nothing. The annotation kaito.sh/serve says the same."""
    active_deadline_seconds: Seconds | None = None
    """How long the tuning Job may take; default: the operator's setting. An edit counts for a Job that runs, too."""

    @property
    def checkpoint_seconds(self) -> int:
        """Time between checkpoints; 0 where none are kept."""
        asked = self.checkpoint or Checkpoint()
        return 0 if asked.destination == "None" else asked.interval_seconds or _INTERVAL
