"""What is wrong with a Workspace, or works but should be known, as data: `plan` prints all of it, preflight raises.

Pure, and blind to where a finding comes from.
"""

import dataclasses
from collections.abc import Iterable

from kaito_hera import errors


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    error: type[errors.KaitoError]
    """What it is when it stops the work; its class name is the reason."""
    field: str
    """Of the Workspace, or another object's name."""
    problem: str
    """What is wrong, with the value that was seen."""
    remedy: str = ""
    """What to do; empty where nothing helps or nothing need be done."""
    fatal: bool = True
    """False: it is said and stops nothing."""

    @property
    def reason(self) -> str:
        """CamelCase, as a condition has it."""
        return self.error.__name__.removesuffix("Error")

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}" + (f"; {self.remedy}" if self.remedy else "")


def settle(found: Iterable[Finding]) -> tuple[str, ...]:
    """Raise the first that stops the work; the others as warnings."""
    all_of_them = tuple(found)
    for finding in all_of_them:
        if finding.fatal:
            raise finding.error(str(finding))
    return tuple(str(finding) for finding in all_of_them)
