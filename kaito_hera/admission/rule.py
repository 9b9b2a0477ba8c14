"""One rule of the admission policies, once in the API server's language and once in ours, and the words they share.

A rule answers with the messages of what offends it, so both languages say the same, word for word.
"""

import dataclasses
import datetime
import re
from collections.abc import Callable
from typing import Literal

from kaito_hera import errors
from kaito_hera.admission.tables import Tables
from kaito_hera.api import Workspace
from kaito_hera.settings import Settings

Needs = Literal["", "tables", "settings", "author"]
Severity = Literal["error", "warning"]

_SHOWN = 80
_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


@dataclasses.dataclass(frozen=True)
class Case:
    """What a rule is asked about."""

    workspace: Workspace
    settings: Settings
    tables: Tables
    on: datetime.date
    """The day of its creation."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule; a test compares the verdicts of its two forms."""

    name: str
    """KAITO's number where it has one, and what it is about."""
    reads: tuple[str, ...]
    """Paths of the fields it judges: on an update it speaks only if one of them has changed."""
    cel: str
    """A list of messages: field, value seen, what is allowed, what to do. Empty when the rule holds."""
    found: Callable[[Case], list[str]] | None
    """The same; None where only the API server knows, as with the rights of whoever asks."""
    when: str = "true"
    """CEL that is false where there is nothing to judge: most objects have few of the fields."""
    needs: Needs = ""
    """What it looks at besides the object."""
    severity: Severity = "error"
    error: type[errors.KaitoError] = errors.InvalidWorkspaceError
    """What preflight ends with."""

    def guarded(self) -> str:
        """The messages, but none where an update leaves alone what the rule judges: a policy never ratchets."""
        changed = [f"object{_optional(path)} != oldObject{_optional(path)}" for path in self.reads]
        return f"{self.when} && (oldObject == null || {' || '.join(changed)}) ? ({self.cel}) : []"


def _optional(path: str) -> str:
    """`metadata.annotations[a/b]` as a chain of optional fields."""
    field, _, key = path.rstrip("]").partition("[")
    chain = "".join(f".?{part}" for part in field.split("."))
    return chain + (f"[?'{key}']" if key else "")


def quoted(value: str) -> str:
    """A value as a message shows it: quoted, escaped and cut."""
    cut = value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
    return '"' + "".join(_ESCAPES.get(letter, letter) for letter in cut) + '"'


def quote(cel: str) -> str:
    """CEL for `quoted`; `cel` is evaluated three times, so it should be a variable's name."""
    return f"strings.quote({cel}.size() > {_SHOWN} ? {cel}.substring(0, {_SHOWN}) + '...' : {cel})"


def matching(pattern: str, cel: str) -> str:
    """CEL: the whole of the text matches."""
    return f"{cel}.matches(r'^(?:{pattern})$')"


def matches(pattern: str, value: str) -> bool:
    """The same; patterns use what RE2 and Python agree on."""
    return re.fullmatch(pattern, value) is not None
