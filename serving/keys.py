"""The keys that clients must name: those of the environment, and of a mounted file, which may change at any time."""

import logging
from pathlib import Path

from serving import errors
from serving.config import keys_in

log = logging.getLogger("serving")

Stamp = tuple[int, int, int] | None


class Keys:
    """What is asked for now: a Secret's mounted file is read again once it is another one."""

    def __init__(self, fixed: tuple[str, ...], file: Path | None) -> None:
        self._fixed = fixed
        self._file = file
        self._read: tuple[str, ...] = ()
        self._seen: Stamp = (0, 0, 0)

    def __call__(self) -> tuple[str, ...]:
        """The keys; with a file that is gone or was never readable none, which nobody can name.

        It goes with its Secret, which somebody deleted for a key that leaked.
        """
        if self._file and (stamp := _stamp(self._file)) != self._seen:
            self._seen = stamp
            try:
                self._read = read(self._file)
            except errors.BadConfig as error:
                self._read = self._read if stamp else ()
                meanwhile = "the keys of before are asked for" if stamp else "none of its keys is taken"
                log.warning("%s; until then %s", error, meanwhile)
        return (*self._fixed, *self._read)


def read(file: Path) -> tuple[str, ...]:
    """The keys in a file; raises BadConfig without a word of them."""
    try:
        return keys_in(file.read_bytes())
    except (OSError, ValueError) as error:
        why = (error.strerror or "").lower() if isinstance(error, OSError) else str(error)
        raise errors.BadConfig(
            f"{file}: {why}; put the keys that clients must name under API_KEY into its Secret"
        ) from None


def _stamp(file: Path) -> Stamp:
    """Another one where the kubelet has put another file in its place; None where it has taken it away."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    except OSError:
        return (0, 0, 0)
    return found.st_dev, found.st_ino, found.st_mtime_ns
