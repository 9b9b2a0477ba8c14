"""Moves the finished image to its registry, with skopeo; the training is paid for, so this does not give up soon."""

from pathlib import Path

from artifacts import skopeo
from tuning.errors import PushForbidden, TuningError
from tuning.output import credentials, image, registry
from tuning.output.patience import Patience

_TRY_SECONDS = 1800.0
"""A copy that hangs is ended and begun anew; what the registry has taken by then is not sent again."""


def push(packed: image.Image, target: str, intent: str, secret: Path, *, scratch: Path, waits: Patience) -> str:
    """Push the image and return it by digest; tries for as long as `waits` bears what is wrong.

    The secret is read anew for each try: whoever mends it meanwhile saves the run.
    """
    while True:
        try:
            return _once(packed, registry.Registry(target, secret, pauses=()), intent, scratch, waits)
        except TuningError as error:
            waits.bear(error)


def _once(packed: image.Image, to: registry.Registry, intent: str, scratch: Path, waits: Patience) -> str:
    """One try: ask whether it may and whether it is there already, then copy."""
    if there := to.ask(intent):
        return f"{to.reference.name}@{there}"
    source = f"oci:{packed.layout}:{image.TAG}"
    seconds = min(max(60.0, waits.left()), _TRY_SECONDS)
    with to.explained():
        stored = skopeo.push(
            source,
            to.reference,
            to.credential,
            plain=to.plain,
            scratch=scratch,
            seconds=seconds,
            stop=waits.no_time_left,
        )
    if stored != packed.digest:
        raise PushForbidden(f"{credentials.IMAGE}: {to.reference} stored {stored}, not {packed.digest}")
    return f"{to.reference.name}@{packed.digest}"
