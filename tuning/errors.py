"""What can go wrong with a run: one class per reason that a user reads, with the exit code the operator decides by.

    TuningError                  1   something that has no name here
    |-- ConfigInvalid           10   the TuningConfig cannot be obeyed
    |-- DataInvalid             11   the rows cannot be trained on
    |   |-- DataRefused              the address may not be fetched from
    |   |-- DataNotFound             the server has no such file, or not for us
    |   `-- DataTooLarge             the image has more bytes than there is room for
    |-- ModelFiles               -   the base model cannot be had: reason and code as in `artifacts.weights.errors`
    |-- ModelUnusable           12   the base model is of an unknown kind
    |-- OutOfMemory             20   it does not fit the GPU, or the pod's main memory
    |-- UnsupportedGPU          20   the image has no kernels for the GPU
    |-- LossDiverged            21   the loss is no longer a number
    |-- PushUnauthorized        30   the registry does not take the secret
    |-- PullUnauthorized        30   the registry does not give the data's image to the secrets
    |-- PushForbidden           31   the registry takes the secret, but not the image
    |-- VolumeRefused           31   the volume takes no files, or gives none
    |-- DataUnreachable         40   the data's server does not answer
    |-- RegistryUnavailable     41   the registry does not answer
    |-- NodeTrouble             42   disk or GPU of the node
    `-- Evicted                 75   the pod was asked to go

The class name is the condition's reason; the message names the field or object, the value seen and the way out.
"""

import contextlib
import errno
import json

from artifacts import errors as kinds
from artifacts.weights.errors import WeightsError
from tuning.config import RETRYABLE, Exit, Failure

MESSAGE_BYTES = 3500
"""Kubernetes keeps 4,096 bytes of a termination message; JSON needs some of them."""


class TuningError(Exception):
    """Something that has no name here."""

    code: Exit = Exit.UNEXPECTED

    def failure(self) -> Failure:
        """What the operator is told."""
        return Failure(reason=self.reason(), message=_cut(str(self)), retryable=self.code in RETRYABLE)

    def reason(self) -> str:
        """CamelCase; plain TuningErrors are called Unexpected."""
        return "Unexpected" if type(self) is TuningError else type(self).__name__


class ConfigInvalid(TuningError):
    """The TuningConfig cannot be obeyed."""

    code = Exit.BAD_CONFIG


class DataInvalid(TuningError):
    """The rows cannot be trained on."""

    code = Exit.BAD_DATA


class DataRefused(DataInvalid):
    """The address may not be fetched from."""


class DataNotFound(DataInvalid):
    """The server has no such file, or not for us."""


class DataTooLarge(DataInvalid):
    """The image has more bytes than there is room for."""


class ModelFiles(TuningError):
    """The base model's files cannot be had, in the words of whoever looked for them."""

    def __init__(self, cause: WeightsError) -> None:
        super().__init__(str(cause))
        self.code, self._reason = Exit(cause.code), cause.reason

    def reason(self) -> str:
        """As `artifacts.weights.errors` calls it."""
        return self._reason


class ModelUnusable(TuningError):
    """The base model is of an unknown kind."""

    code = Exit.BAD_MODEL


class OutOfMemory(TuningError):
    """It does not fit the GPU, or the pod's main memory: as of a container that the kernel ends, no other try helps."""

    code = Exit.DOES_NOT_FIT


class UnsupportedGPU(TuningError):
    """The image has no kernels for the GPU."""

    code = Exit.DOES_NOT_FIT


class LossDiverged(TuningError):
    """The loss is no longer a number."""

    code = Exit.DIVERGED


class PushUnauthorized(TuningError):
    """The registry does not take the secret."""

    code = Exit.REGISTRY_AUTH


class PullUnauthorized(TuningError):
    """The registry does not give the data's image to the secrets."""

    code = Exit.REGISTRY_AUTH


class PushForbidden(TuningError):
    """The registry takes the secret, but not the image."""

    code = Exit.REGISTRY_REFUSED


class VolumeRefused(TuningError):
    """The volume takes no files, or gives none."""

    code = Exit.REGISTRY_REFUSED


class DataUnreachable(TuningError):
    """The data's server does not answer."""

    code = Exit.NETWORK


class RegistryUnavailable(TuningError):
    """The registry does not answer."""

    code = Exit.REGISTRY_UNAVAILABLE


class NodeTrouble(TuningError):
    """Disk or GPU of the node."""

    code = Exit.NODE_TROUBLE


class Evicted(TuningError):
    """The pod was asked to go."""

    code = Exit.EVICTED


def of_image(what: str, way_in: str) -> contextlib.AbstractContextManager[None]:
    """Errors within are about the image of a field or name; `way_in` is what to do where its registry refuses it."""
    return kinds.translated(_OF_IMAGE, f"{what}: ", {kinds.Denied: way_in})


_OF_IMAGE: kinds.Table = {
    kinds.Denied: PullUnauthorized,
    kinds.HostRefused: DataRefused,
    kinds.NotFound: DataNotFound,
    kinds.TooLarge: DataTooLarge,
    kinds.Unusable: DataInvalid,
    kinds.Away: DataUnreachable,
    kinds.MachineTrouble: NodeTrouble,
}

_SIGNS: tuple[tuple[tuple[str, ...], type[TuningError], str], ...] = (
    (
        ("OutOfMemoryError", "CUDA out of memory", "CUDA error: out of memory"),
        OutOfMemory,
        (
            "training does not fit the GPU's memory ({}); take a larger resource.instanceType, lower "
            "TrainingArguments.max_length or per_device_train_batch_size, or use method qlora"
        ),
    ),
    (
        ("no kernel image is available",),
        UnsupportedGPU,
        "this image has no kernels for the node's GPU ({}); take a newer one",
    ),
    (
        ("CUDA error", "CUDA driver", "uncorrectable ECC"),
        NodeTrouble,
        "the node's GPU failed ({}); another node may do",
    ),
    (
        ("MemoryError", "can't allocate memory", "annot allocate memory"),
        OutOfMemory,
        "the pod ran out of main memory ({}); take a resource.instanceType with more, or use fewer rows",
    ),
)
"""How foreign errors are told: by name, since importing torch to ask would cost seconds."""


def again(failure: Failure) -> TuningError:
    """The error that another process of this run ended with."""
    kinds = [TuningError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    same = next((kind for kind in kinds if kind.__name__ == failure.reason), TuningError)
    return same(failure.message)


def explain(error: BaseException) -> TuningError:
    """The error in our words: itself, or what a foreign one means for the user."""
    if isinstance(error, TuningError):
        return error
    if isinstance(error, OSError) and error.errno in _DISK:
        where = error.filename or "an open file"
        return NodeTrouble(f"the node's disk failed at {where} ({error.strerror}); give it more room or another disk")
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0][:500]
    for signs, kind, message in _SIGNS:
        if any(sign in text for sign in signs):
            return kind(message.format(text))
    return TuningError(f"{text}; the pod's log has the traceback")


_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


def _cut(text: str) -> str:
    """At most MESSAGE_BYTES once it is JSON, where a character may take twelve."""
    while len(json.dumps(text)) > MESSAGE_BYTES:
        text = text[: len(text) * 9 // 10 - 1] + "…"
    return text
