"""What can go wrong, in two trees: what ends one request, and what ends the process. Knows neither FastAPI nor Ray.

```
RequestError            status and OpenAI's type; /chat shows the message as `detail`
├── BadRequest     400  names the parameter; ContextExceeded is one
├── KeyMissing     401
├── ModelNotFound  404
├── TooBusy        429  with Retry-After
├── ClientGone     499  nobody reads it
├── EngineTrouble  500
├── NotReady       503  starting, draining, broken, or waited too long
└── TooLate        504  the deadline came first

Fatal                     class name = reason; exit code; whether trying again unchanged may help
├── BadConfig               the mounted config
├── ModelFiles              the model cannot be had: reason and code as in `artifacts.weights.errors`
├── BadModel                they can be had, and not be served
├── ModelDoesNotFit         not enough memory for the weights
├── AdapterFilesMissing     a volume without an adapter's files (yet)
├── VolumeNotMounted        this pod is older than the volume's place in the list
├── AdapterImageNotFound ┐
├── NotAnAdapter         ├  an adapter's image or volume
├── RegistryAuthFailed   │
├── RegistryUnavailable  ┘
├── NodeTrouble             disk, devices, Ray's own processes
└── EngineDied              the serving replica ended
```
"""

import json
import logging
from pathlib import Path
from typing import ClassVar

from artifacts.weights.errors import WeightsError
from serving.config import Exit, Failure

log = logging.getLogger("serving")


class RequestError(Exception):
    """Ends one request."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"
    code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(_sayable(message))
        self.param = param and _sayable(param)
        self.retry_after = retry_after


class BadRequest(RequestError):
    """The request cannot be honoured as it is."""

    status = 400
    type = "invalid_request_error"


class ContextExceeded(BadRequest):
    """More tokens than the model takes; clients know it by code or words, and shorten what they send."""

    code = "context_length_exceeded"


class ModelNotFound(BadRequest):
    """No model or adapter of that name is served."""

    status = 404
    code = "model_not_found"


class KeyMissing(RequestError):
    """The server wants a key and got none, or another."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class TooBusy(RequestError):
    """The queue is full."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"


class ClientGone(RequestError):
    """The client hung up before its answer."""

    status = 499


class EngineTrouble(RequestError):
    """The engine failed at this request."""


class NotReady(RequestError):
    """The server is starting, draining or broken."""

    status = 503
    type = "service_unavailable"


class TooLate(RequestError):
    """The deadline came before the end."""

    status = 504
    type = "timeout"
    code = "timeout"


def told(error: Exception) -> RequestError:
    """What a client is told of any error; of one that nobody foresaw, the traceback is in the log alone."""
    if isinstance(error, RequestError):
        return error
    log.error("a request failed", exc_info=error)
    return RequestError("the server failed at this request, and its log says why; another one may go well")


class Fatal(Exception):
    """Ends the process with a termination message."""

    exit: Exit = Exit.UNEXPECTED
    retryable: bool = False

    @property
    def reason(self) -> str:
        """CamelCase reason for a condition."""
        return type(self).__name__

    def failure(self) -> Failure:
        """The termination message."""
        return Failure(reason=self.reason, message=str(self), retryable=self.retryable)


class ModelFiles(Fatal):
    """The model's files cannot be had, in the words of whoever looked for them."""

    def __init__(self, cause: WeightsError) -> None:
        super().__init__(str(cause))
        self.exit, self.retryable, self._reason = Exit(cause.code), cause.retryable, cause.reason

    @property
    def reason(self) -> str:
        """As `artifacts.weights.errors` calls it."""
        return self._reason


class BadConfig(Fatal):
    """The mounted config or the pod's environment cannot work."""

    exit = Exit.BAD_CONFIG


class BadModel(Fatal):
    """The model is of a kind that cannot be served."""

    exit = Exit.BAD_MODEL


class ModelDoesNotFit(Fatal):
    """The weights need more memory than there is."""

    exit = Exit.DOES_NOT_FIT


class AdapterImageNotFound(Fatal):
    """The registry knows no such image."""

    exit = Exit.BAD_ADAPTER


class AdapterFilesMissing(Fatal):
    """The volume has no adapter at its top; whoever mends that does so outside of the Workspace."""

    exit = Exit.BAD_ADAPTER
    retryable = True


class VolumeNotMounted(Fatal):
    """The list names a volume that this pod does not have: the next one will."""

    exit = Exit.BAD_ADAPTER
    retryable = True


class NotAnAdapter(Fatal):
    """The image or volume is there and holds no adapter, or none for this model."""

    exit = Exit.BAD_ADAPTER


class RegistryAuthFailed(Fatal):
    """The registry wants other credentials, or must not be spoken to: nobody trusts its certificate."""

    exit = Exit.REGISTRY_AUTH


class RegistryUnavailable(Fatal):
    """The registry does not answer, or not now."""

    exit = Exit.REGISTRY_UNAVAILABLE
    retryable = True


class NodeTrouble(Fatal):
    """A full disk or a lost device."""

    exit = Exit.NODE_TROUBLE
    retryable = True


class EngineDied(Fatal):
    """The serving replica ended; the kubelet starts the container again."""

    exit = Exit.ENGINE_DIED
    retryable = True


def _sayable(text: str) -> str:
    """JSON can bring half of a surrogate pair, in names too, and no answer can be encoded with it."""
    return text.encode(errors="backslashreplace").decode()


def leave(failure: Failure, termination_log: Path) -> None:
    """Write the termination message; Kubernetes keeps 4,096 bytes of it."""
    room = 4096 - len(json.dumps(failure.model_copy(update={"message": ""}).model_dump()))
    message = failure.message if len(json.dumps(failure.message)) <= room else failure.message[: room // 8] + " ..."
    leave_text(failure.model_copy(update={"message": message}).model_dump_json(), termination_log)


def leave_text(text: str, termination_log: Path) -> None:
    """Write it as it is."""
    try:
        termination_log.write_text(text)
    except OSError as error:
        print(f"the termination message could not be written to {termination_log}: {error}")  # noqa: T201
