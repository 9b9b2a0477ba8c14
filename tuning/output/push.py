"""Moves the finished image to its registry, with skopeo; the training is paid for, so this does not give up soon."""

import time
from pathlib import Path

from artifacts import skopeo
from tuning.errors import PushForbidden, TuningError
from tuning.eviction import Eviction
from tuning.output import credentials, image, registry
from tuning.report import log

BUDGET_SECONDS = 4 * 3600.0
"""The node is paid meanwhile, but to train again would cost more, and registries have been away for hours. The Job's
deadline holds too."""
_TRY_SECONDS = 1800.0
"""A copy that hangs is ended and begun anew; what the registry has taken by then is not sent again."""


def push(
    packed: image.Image,
    target: str,
    intent: str,
    secret: Path,
    *,
    scratch: Path,
    eviction: Eviction,
    budget: float = BUDGET_SECONDS,
    pause: float = 1.0,
) -> str:
    """Push the image and return it by digest; tries for `budget` seconds before it raises what was wrong last.

    `pause` seconds lie between tries at first, then more. The secret is read anew for each try: whoever mends it
    meanwhile saves the run.
    """
    end = time.monotonic() + budget
    while True:
        try:
            return _once(packed, registry.Registry(target, secret, pauses=()), intent, scratch, end)
        except TuningError as error:
            if time.monotonic() + pause > end:
                raise
            log.warning("push: %s; trying again in %.0f s", error, pause)
        eviction.sleep(pause)
        pause = min(2 * pause, 30)


def _once(packed: image.Image, to: registry.Registry, intent: str, scratch: Path, end: float) -> str:
    """One try: ask whether it may and whether it is there already, then copy."""
    if there := to.ask(intent):
        return f"{to.reference.name}@{there}"
    source = f"oci:{packed.layout}:{image.TAG}"
    left = min(max(60.0, end - time.monotonic()), _TRY_SECONDS)
    with to.explained():
        stored = skopeo.push(source, to.reference, to.credential, plain=to.plain, scratch=scratch, seconds=left)
    if stored != packed.digest:
        raise PushForbidden(f"{credentials.IMAGE}: {to.reference} stored {stored}, not {packed.digest}")
    return f"{to.reference.name}@{packed.digest}"
