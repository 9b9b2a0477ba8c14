"""Why something did not work, as the Workspace's conditions say it.

    KaitoError                   class name without "Error" = condition reason
    ├── TerminalError            edit the Workspace                        exit code 70
    │   ├── InvalidWorkspaceError
    │   ├── UnknownPresetError
    │   ├── PresetNotTunableError
    │   ├── PresetNotServableError
    │   ├── UnknownInstanceTypeError
    │   ├── InsufficientGPUMemoryError
    │   ├── UnsupportedGPUError
    │   ├── InsufficientDiskError
    │   ├── ConfigInvalidError
    │   ├── AdapterRefusedError  the server cannot use what is in an adapter's image
    │   ├── ForbiddenError       a quota, a policy or a missing right said no
    │   └── InternalError        a fault of ours
    └── TransientError           try again                                 exit code 75
        ├── SupersededError      the Workspace was changed or deleted meanwhile: another attempt follows, or none
        ├── SecretNotFoundError
        ├── SecretInvalidError
        ├── ConfigMapNotFoundError
        ├── ClaimNotFoundError
        ├── ClaimInvalidError
        ├── AdapterGoneError     the volume that a finished adapter waited on for its push is gone
        ├── NodesNotReadyError
        ├── UnsupportedNodeError
        ├── ProvisioningFailedError  the cloud said no; the reason is the cloud's
        ├── NoNodesMatchError
        ├── KubeRayMissingError
        ├── KaitoJobRunsError
        ├── ServerNotReadyError
        └── ClusterUnavailableError

A message names the object or field, the value seen and the way out. What an image reports of itself travels as
`ReportedTerminalError` or `ReportedTransientError` with the image's own reason.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

_LIMIT = 3500  # Kubernetes keeps 4096 bytes


class KaitoError(Exception):
    """A known failure; `str(error)` is the message."""

    exit_code: ClassVar[int]
    retryable: ClassVar[bool]

    @property
    def reason(self) -> str:
        """CamelCase reason for a condition."""
        return type(self).__name__.removesuffix("Error")

    def report(self) -> str:
        """The JSON that a step leaves as its termination message."""
        message = str(self)
        if len(message) > _LIMIT:
            message = message[: _LIMIT - 4] + " ..."
        return json.dumps({"reason": self.reason, "message": message, "retryable": self.retryable})


class TerminalError(KaitoError):
    """Running it again cannot help; the user has to change the Workspace."""

    exit_code = 70
    retryable = False


class TransientError(KaitoError):
    """Running it again may help."""

    exit_code = 75
    retryable = True


class InvalidWorkspaceError(TerminalError):
    """A field of the Workspace has no meaning here."""


class UnknownPresetError(TerminalError):
    """No such model."""


class PresetNotTunableError(TerminalError):
    """The model cannot be tuned."""


class PresetNotServableError(TerminalError):
    """No runtime here can serve the model."""


class UnknownInstanceTypeError(TerminalError):
    """No such GPU size."""


class InsufficientGPUMemoryError(TerminalError):
    """The model does not fit the size."""


class UnsupportedGPUError(TerminalError):
    """The images have no code for this GPU, or the cloud no longer has it."""


class InsufficientDiskError(TerminalError):
    """What is tuned does not fit a node's disk."""


class ConfigInvalidError(TerminalError):
    """A ConfigMap that the Workspace names cannot be understood."""


class AdapterRefusedError(TerminalError):
    """The server says that an adapter's image cannot be served with this model."""


class SupersededError(TransientError):
    """The Workspace is not what this attempt was made for."""


class ForbiddenError(TerminalError):
    """The API server will not have it: a quota, Pod Security, a policy."""


class InternalError(TerminalError):
    """What must never be: stopping here is better than to go on with it. The message says what to report."""


class SecretNotFoundError(TransientError):
    """A Secret that the Workspace names is not there (yet)."""


class SecretInvalidError(TransientError):
    """A Secret is there but is not of the kind that is needed."""


class ConfigMapNotFoundError(TransientError):
    """A ConfigMap that the Workspace names is not there (yet)."""


class ClaimNotFoundError(TransientError):
    """A PersistentVolumeClaim that the Workspace names is not there (yet)."""


class ClaimInvalidError(TransientError):
    """A PersistentVolumeClaim is there and cannot be used as it has to be."""


class AdapterGoneError(TransientError):
    """What was trained and not yet pushed is not there any more."""


class NodesNotReadyError(TransientError):
    """Nodes were asked for and are not usable in time."""


class UnsupportedNodeError(TransientError):
    """The GPUs or the disk of a node will never do, and another of the sizes that were named may."""


class ProvisioningFailedError(TransientError):
    """The cloud refused or failed to make nodes."""


class NoNodesMatchError(TransientError):
    """Too few existing nodes fit the label selector."""


class KubeRayMissingError(TransientError):
    """The cluster has no RayService (yet), or an old one."""


class KaitoJobRunsError(TransientError):
    """KAITO's own tuning Job is not over yet."""


class ServerNotReadyError(TransientError):
    """The model server does not answer in time."""


class ClusterUnavailableError(TransientError):
    """The API server does not answer, or not with what was asked."""


class _Reported(KaitoError):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self._reason = reason

    @property
    def reason(self) -> str:
        return self._reason


class ReportedTerminalError(_Reported, TerminalError):
    """A Job of ours said that it cannot work."""


class ReportedTransientError(_Reported, TransientError):
    """A Job of ours said that it may work another time."""


def reported(reason: str, message: str, *, retryable: bool) -> KaitoError:
    """The error for what a Job said of itself."""
    return (ReportedTransientError if retryable else ReportedTerminalError)(reason, message)


def gather(looks: Iterable[Callable[[], object]]) -> None:
    """Look at everything, and raise what was found as one error: of the kind that an edit mends, if one is."""
    found: list[KaitoError] = []
    for look in looks:
        try:
            look()
        except KaitoError as error:
            found.append(error)
    if found:
        first = next((error for error in found if not error.retryable), found[0])
        raise type(first)("; and ".join(dict.fromkeys(map(str, found)))) from first


def write_termination_message(error: KaitoError) -> None:
    """Leave the reason where the kubelet, and through it Argo and `observe`, find it."""
    Path(os.environ.get("TERMINATION_LOG", "/dev/termination-log")).write_text(error.report(), encoding="utf-8")
