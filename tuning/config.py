"""What the operator asks of the tuning image and what the image answers: all of it that the operator imports.

The operator writes a `TuningConfig` as JSON; the image prints `Progress` lines, ends with an `Exit` code and leaves a
`Result` (or a reason, see `Failure`) as its termination message. Nothing here imports torch or touches the network.
"""

import enum
import re
from pathlib import Path
from typing import Annotated, Literal, Self

import pydantic

from artifacts.addresses import Ranges
from artifacts.weights.config import DataCommit, Found, Model
from tuning.training_config import TrainingConfig

PUSH_AUTH = Path("/etc/kaito/push/config.json")
"""Where the push secret's `.dockerconfigjson` is mounted; it may be missing (a registry that needs no password)."""

PULL_AUTH = Path("/etc/kaito/registry/config.json")
"""Where the merged pull secrets' `.dockerconfigjson` is mounted; it may be missing (a public image)."""

DATA = Path("/mnt/data")
"""Where the input's volume is mounted, read-only."""

RESULTS = Path("/mnt/results")
"""Where the output's volume is mounted; KAITO mounts it there too, so its top is where its users look."""

INTENT = "sh.kaito.hera.intent"
"""The annotation of the pushed image's manifest that holds the intent."""

SCRATCH = Path("/mnt/scratch")
"""A writable volume for downloads, weights and results."""

GRACE_SECONDS = 60
"""Between SIGTERM and SIGKILL: the pod's terminationGracePeriodSeconds."""

METRICS_PORT = 5000
"""Of the pod, as KAITO has it."""

MOST_PROCESSES = 64
"""That train together: the largest nodes have 16 GPUs, or 8 that are cut into 7 slices each."""

MESSAGE_LENGTH = 300
"""Characters of a progress line's message; what is longer is cut."""


class Exit(enum.IntEnum):
    """Exit codes of the image; the operator maps them to retry or terminal with `RETRYABLE`.

    64, 65, 126, 127 and 128+n belong to Argo's emissary, the kubelet and signals.
    """

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    BAD_CONFIG = 10
    BAD_DATA = 11
    BAD_MODEL = 12
    DOES_NOT_FIT = 20
    DIVERGED = 21
    REGISTRY_AUTH = 30
    REGISTRY_REFUSED = 31
    NETWORK = 40
    REGISTRY_UNAVAILABLE = 41
    NODE_TROUBLE = 42
    EVICTED = 75


RETRYABLE = frozenset({Exit.UNEXPECTED, Exit.NETWORK, Exit.REGISTRY_UNAVAILABLE, Exit.NODE_TROUBLE, Exit.EVICTED})
"""Another attempt may do: what nobody expected a few times, the others for ever."""


class Strict(pydantic.BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Input(Strict):
    """Where the data set comes from: one of these."""

    urls: tuple[str, ...] = ()
    image: str = ""
    """An image with data files in /data, or at its top."""
    volume: str = ""
    """What messages call the volume that is mounted at DATA."""
    commits: tuple[DataCommit, ...] = ()
    """Of each of the addresses, in alphabetical order, the commit that its data set was found at before."""

    @pydantic.model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.urls) + bool(self.image) + bool(self.volume) != 1:
            raise ValueError("give exactly one of urls, image and volume")
        return self

    def commit(self, url: str) -> str:
        """The commit that the data set at this address was found at before; empty where it was not."""
        return dict(zip(sorted(self.urls), self.commits, strict=False)).get(url, "")


class Output(Strict):
    """Where the adapter goes: one of these."""

    image: str = ""
    """An image reference with a tag."""
    volume: str = ""
    """What the volume that is mounted at RESULTS is called, in messages and in the adapter's name."""

    @pydantic.model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.image) == bool(self.volume):
            raise ValueError("give exactly one of image and volume")
        return self


def _is_name(intent: str) -> str:
    """Folders and files are called by it; an empty one is that of an adapter without a card, as KAITO leaves it."""
    if intent and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", intent):
        raise ValueError("it is no name for a folder; write a hash, or at most 64 letters, digits, - and _")
    return intent


class TuningConfig(Strict):
    """One tuning run."""

    workspace: str
    """`namespace/name`, for messages."""
    preset: str
    model: Model
    method: Literal["lora", "qlora"]
    training: TrainingConfig
    input: Input
    output: Output
    intent: Annotated[str, pydantic.AfterValidator(_is_name)]
    """Hash of what the user asked for; what is made is marked with it, and what has the mark is not made again."""
    allowed_private_cidrs: Ranges = ()
    """Private ranges that data may be fetched from; none by default."""
    require_gpu: bool = False
    """True refuses to train on a CPU: a node whose GPU torch cannot use is broken."""
    processes: Annotated[int, pydantic.Field(ge=0, le=MOST_PROCESSES)] = 0
    """How many train together, each with a GPU of its own; 0: as many as there are GPUs, on a CPU one."""
    metrics_port: Annotated[int, pydantic.Field(ge=0, lt=2**16)] = 0
    """Where Prometheus and whoever knows KAITO's metrics may ask; 0 answers nobody."""
    checkpoint_seconds: Annotated[float, pydantic.Field(ge=0)] = 0
    """Time between checkpoints, on the output's volume or the pod's disk; 0 takes none."""
    checkpoint_push_seconds: Annotated[float, pydantic.Field(ge=0)] = 900
    """Those on the pod's disk are copied into the output's registry no more often than this."""
    push_seconds: Annotated[float, pydantic.Field(ge=0)] = 7200
    """How long a finished adapter may wait for what it is to go to."""
    usd_per_hour: Annotated[float, pydantic.Field(ge=0)] | None = None
    """What the nodes cost meanwhile, where that is known."""


class Progress(Strict):
    """One progress line; see `line` and `parse`."""

    phase: Literal["fetch", "load", "train", "push"]
    percent: Annotated[int, pydantic.Field(ge=0, le=100)]
    """Of the whole run; never falls."""
    step: int | None = None
    max_steps: int | None = None
    epoch: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    """On the rows held out, when they were looked at last."""
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens: int | None = None
    """That this attempt has trained on."""
    supervised_tokens: int | None = None
    """Those of them that were learned from."""
    tokens_per_second: float | None = None
    eta_seconds: int | None = None
    gpu_memory_gib: float | None = None
    """The most that the GPU's memory has held."""
    resumed_from_step: int | None = None
    """The step after which this run went on from an earlier one's checkpoint."""
    message: Annotated[str, pydantic.AfterValidator(lambda text: text[:MESSAGE_LENGTH])] = ""
    """What is being done, where the phase does not say it."""

    def line(self) -> str:
        """The line to print, without its newline."""
        return "progress: " + self.model_dump_json(exclude_none=True, exclude=None if self.message else {"message"})

    @classmethod
    def parse(cls, line: str) -> "Progress | None":
        """The progress in one log line, or None when the line is something else."""
        head, _, body = line.partition("progress: ")
        if head or not body:
            return None
        try:
            return cls.model_validate_json(body)
        except pydantic.ValidationError:
            return None


class Result(Strict):
    """The termination message of a run or check that ended well."""

    adapter: str = ""
    """What was made, by digest: `repository@sha256:...`, `VOLUME@sha256:...`; empty when a check found none yet."""
    loss: float | None = None
    left: str = ""
    """What of the run's checkpoints nobody here may delete."""
    model: Found | None = None
    """What a check knows of the model, where it was asked for."""
    data: tuple[DataCommit, ...] = ()
    """The commits that a check found data sets at, as `Input.commits`."""


class Failure(Strict):
    """The termination message of a run or check that failed."""

    reason: str
    """CamelCase, becomes the condition's reason."""
    message: str
    """Names the field or object, the value seen and the way out."""
    retryable: bool
