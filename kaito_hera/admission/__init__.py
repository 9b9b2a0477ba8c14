"""What is refused, or warned of, at `kubectl apply` beyond the CRD: rules in CEL for the API server, and in Python.

Blind to Kubernetes: `policy` writes the objects, an API server reads them.
"""

import dataclasses
import datetime

from kaito_hera import errors
from kaito_hera.admission import rules
from kaito_hera.admission.rule import Case, Rule, Severity
from kaito_hera.admission.tables import Tables
from kaito_hera.api import Workspace
from kaito_hera.settings import Settings

RULES = rules.RULES


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that a rule found."""

    rule: Rule
    message: str
    """Field, value seen, what is allowed, what to do."""

    @property
    def severity(self) -> Severity:
        """error: an apply is refused. warning: kubectl prints it."""
        return self.rule.severity

    @property
    def error(self) -> type[errors.KaitoError]:
        """What preflight ends with."""
        return self.rule.error


def problems(workspace: Workspace, settings: Settings, on: datetime.date | None = None) -> tuple[Problem, ...]:
    """What the API server would say on that day (today's, if none is given), rule by rule.

    But for the rights of whoever asks, which only it knows.
    """
    case = Case(workspace, settings, Tables(), on or datetime.datetime.now(datetime.UTC).date())
    return tuple(Problem(asked, message) for asked in RULES if asked.found is not None for message in asked.found(case))
