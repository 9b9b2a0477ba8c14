"""What can be wrong with what is fetched or pushed: the one table from HTTP, its library and skopeo to a few kinds.

    ArtifactError
    |-- NotFound             there is no such image, or it is no image's name
    |-- Unusable             it is there, and is not what can be unpacked
    |   `-- TooLarge             it has more bytes than who asks can take
    |-- Denied               the registry does not let whoever asks do this
    |   `-- Unauthorized         it does not know the password, or wants one
    |-- HostRefused          the host must not be spoken to: its address, its certificate, its way of asking
    |-- Away                 nobody answers, or not now: asking again unchanged may help
    `-- MachineTrouble       a full disk, or no skopeo: another machine may do

A message tells what was seen. Which field named it, the way out and the reason for a user are told by who asks, with
`translated` and a table of its own. `web` knows the library's errors, `skopeo` its words.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping

from artifacts import strangers


class ArtifactError(strangers.Told):
    """Something is wrong with what is fetched or pushed, where it is kept, or this machine."""


class NotFound(ArtifactError):
    """There is no such image, or it is no image's name."""


class Unusable(ArtifactError):
    """It is there, and is not what can be unpacked."""


class TooLarge(Unusable):
    """It has more bytes than who asks can take."""


class Denied(ArtifactError):
    """The registry does not let whoever asks do this."""


class Unauthorized(Denied):
    """The registry does not know the password, or wants one."""


class HostRefused(ArtifactError):
    """The host must not be spoken to."""


class Away(ArtifactError):
    """Nobody answers, or not now."""


class MachineTrouble(ArtifactError):
    """The machine at this end: a full disk, no skopeo."""


Table = Mapping[type[ArtifactError], Callable[[str], Exception]]
"""By kind, or one above it in the tree: what it is called by who asks."""

UNTRUSTED = "shows a certificate that is not trusted ({}); give the operator a CA bundle that has its issuer"
NO_TLS = "does not speak TLS ({}); plain HTTP is spoken where it is allowed, and to this machine"

_STATUSES = {401: Unauthorized, 403: Denied, 404: NotFound, 408: Away, 425: Away, 429: Away}


def of_status(status: int) -> type[ArtifactError]:
    """What an HTTP status that is no success means; of those that nobody knows, waiting mends the server's own."""
    return _STATUSES.get(status, Away if status >= 500 else Denied)


@contextlib.contextmanager
def translated(
    table: Table, prefix: str = "", remedies: Mapping[type[ArtifactError], str] | None = None
) -> Iterator[None]:
    """Errors within become what the table calls them, with the field in front and the way out behind.

    What is not in the table stays as it is.
    """
    try:
        yield
    except ArtifactError as error:
        kinds = type(error).__mro__
        called = next((table[kind] for kind in kinds if kind in table), None)
        if called is None:
            raise
        remedy = next((f"; {text}" for kind, text in (remedies or {}).items() if kind in kinds), "")
        raise called(f"{prefix}{error}{remedy}") from error
