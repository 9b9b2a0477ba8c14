"""How tokens are chosen."""

import enum

from vllm import RECORDED, made
from vllm.exceptions import VLLMClientError

_PATH = "vllm/sampling_params.py"
StructuredOutputsParams = made(_PATH, "StructuredOutputsParams")
RequestOutputKind = enum.Enum(
    "RequestOutputKind",
    {name: int(value) for name, value in RECORDED["classes"][_PATH]["RequestOutputKind"]["fields"].items()},
)


class _Checked:
    """One of the real one's refusals."""

    def __post_init__(self):
        if not 0 <= self.temperature <= 2:
            raise VLLMClientError(f"temperature must be in [0, 2], got {self.temperature}.")


SamplingParams = made(_PATH, "SamplingParams", _Checked)
