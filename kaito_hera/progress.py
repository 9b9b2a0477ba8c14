"""What a Job of ours that tunes or pushes, or a server that starts, said last of how far it is. Pure."""

import contextlib
from typing import Annotated

import pydantic

from artifacts.weights import pace
from kaito_hera import names, status
from kaito_hera.live import Live, Object

_Count = Annotated[int, pydantic.Field(ge=0, lt=2**31)]


class Progress(status.Model):
    """A line of the tuning image, copied to its Job; anybody who may edit the Job may have written it."""

    model_config = pydantic.ConfigDict(alias_generator=None)

    phase: Annotated[str, pydantic.Field(max_length=64)] = ""
    percent: Annotated[int, pydantic.Field(ge=0, le=100)] | None = None
    step: _Count | None = None
    max_steps: _Count | None = None
    epoch: pydantic.FiniteFloat | None = None
    loss: pydantic.FiniteFloat | None = None
    eval_loss: pydantic.FiniteFloat | None = None
    learning_rate: pydantic.FiniteFloat | None = None
    tokens_per_second: pydantic.FiniteFloat | None = None
    eta_seconds: _Count | None = None
    gpu_memory_gib: pydantic.FiniteFloat | None = None
    resumed_from_step: _Count | None = None
    message: Annotated[str, pydantic.Field(max_length=1000)] = ""


def last(seen: Live, job: str) -> Progress | None:
    """The last line of the Job of that name; None while there is none that can be read."""
    for each in seen.jobs:
        if each["metadata"]["name"] == job and (text := each["metadata"].get("annotations", {}).get(names.PROGRESS)):
            with contextlib.suppress(pydantic.ValidationError):
                return Progress.model_validate_json(text)
    return None


def fetching(server: Object) -> str:
    """How the weights of a server come, as the roll-out noted it; anybody who may edit the server may have."""
    return pace.heard(server["metadata"].get("annotations", {}).get(names.PROGRESS, ""))
