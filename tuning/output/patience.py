"""Waiting with a finished adapter in hand: the training is paid for, so whatever refuses it now is asked again later.

While its only copy is on the pod's own disk the process does not end, though the refusal may sound final: passwords are
mended, quotas raised, claims made larger. What the waiting costs is told where people look.
"""

import time
from collections.abc import Callable

from tuning.errors import TuningError
from tuning.eviction import Eviction
from tuning.report import log

_LONGEST = 30.0
_SPARE = 10.0
"""Seconds that a pod that has to go needs for its last words."""


class Patience:
    """That of one run, from now on."""

    def __init__(
        self,
        eviction: Eviction,
        *,
        seconds: float,
        usd_per_hour: float | None = None,
        tell: Callable[[str], None] = lambda _text: None,
        pause: float = 1.0,
    ) -> None:
        self.eviction = eviction
        self._began = time.monotonic()
        self._seconds = seconds
        self._usd_per_hour = usd_per_hour
        self._tell = tell
        self._pause = pause

    def left(self) -> float:
        """Seconds."""
        return self._began + self._seconds - time.monotonic()

    def no_time_left(self) -> bool:
        """Whether the pod goes, and has but the time for its last words: a try that runs has to end."""
        return self.eviction.requested and self.eviction.left() < _SPARE

    def bear(self, error: TuningError) -> None:
        """Sleep until the next try; raises the error once there is no time for one, and Evicted once the pod goes."""
        if self.left() < self._pause:
            raise error
        log.warning("%s: %s; trying again in %.0f s", self._so_far(), error, self._pause)
        self._tell(f"{self._so_far()}: {error}")
        self.eviction.sleep(self._pause, spare=_SPARE)
        self._pause = min(2 * self._pause, _LONGEST)

    def _so_far(self) -> str:
        waited = time.monotonic() - self._began
        cost = f", about {waited / 3600 * self._usd_per_hour:.2f} USD so far" if self._usd_per_hour else ""
        return f"the adapter is finished and has waited {waited / 60:.0f} min for its place{cost}"
