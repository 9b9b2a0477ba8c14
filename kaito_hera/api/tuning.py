"""What is tuned: model, method, data, and where the adapter goes."""

from typing import Annotated, Literal

import pydantic

from kaito_hera.api.base import MaybeName, Model, Rule, Seconds
from kaito_hera.api.inference import Preset
from kaito_hera.api.sources import Input, Output

_ANEW = "cannot be changed: delete the Workspace and apply it anew, or apply another one"


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Method = Annotated[
    Literal["lora", "qlora"],
    pydantic.BeforeValidator(_lower),
    pydantic.WithJsonSchema({"type": "string", "maxLength": 5, "pattern": "^([lL][oO][rR][aA]|[qQ][lL][oO][rR][aA])$"}),
]


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
    serve: bool | None = None
    """false: push the adapter, give the nodes back, serve nothing. The annotation kaito.sh/serve says the same."""
    active_deadline_seconds: Seconds | None = None
    """How long the tuning Job may take; default: the operator's setting.

    An edit counts from the next attempt on.
    """
