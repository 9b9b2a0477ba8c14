"""The status of a Workspace of which nothing can be made here: stored by KAITO's CRD, or by another version of ours.

Pure. What runs of it is left alone, so what it serves goes on.
"""

from typing import Any

import pydantic

from kaito_hera import conditions, live, status
from kaito_hera.conditions import Verdict
from kaito_hera.live import Live, Object
from kaito_hera.status import Status

_REASON = "InvalidWorkspace"
_TOLD = 5
"""So many things that are wrong are named: the rest is seen after their edit."""
_SHOWN = 80


def words(cause: pydantic.ValidationError) -> str:
    """What cannot be read, by its fields and with the values seen."""
    return "; ".join(_told(dict(error)) for error in cause.errors(include_url=False)[:_TOLD])


def observe(obj: Object, seen: Live, why: str) -> Status:
    """Its status as it was, with what is true now: stalled, and ready only while our server of it answers."""
    before, generation = Status.of(obj), obj["metadata"].get("generation", 0)
    text = f"{why}; it is left as it is until it is edited, or deleted"
    served = before.serving.generation if before.serving else 0
    no, yes = Verdict("False", _REASON, text), Verdict("True", status.TRUE_REASONS[status.READY], "", served)
    server = next((d for d in seen.deployments if d["metadata"]["name"] == obj["metadata"]["name"]), None)
    ready, wanted = live.replicas(server) if server else (0, 0)
    answers = 0 < wanted <= ready
    verdicts: dict[str, Verdict] = {}
    if server:
        pending = status.PENDING_REASONS[status.INFERENCE_READY]
        verdicts[status.INFERENCE_READY] = (
            yes._replace(reason=status.TRUE_REASONS[status.INFERENCE_READY])
            if answers
            else Verdict("False", pending, f"{ready} of {wanted} replicas are ready")
        )
    if before.workflow:  # else the other summaries are KAITO's, of a server that we do not see
        verdicts[status.WORKSPACE_READY] = yes if answers else no
    verdicts |= {
        status.RECONCILING: Verdict("False", "Settled", "edit the Workspace"),
        status.STALLED: Verdict("True", _REASON, text),
        status.READY: yes if answers else no,
    }
    found = {condition.type: condition for condition in before.conditions}
    for name, verdict in verdicts.items():
        found[name] = conditions.stamped(before, name, verdict, now=seen.now, generation=generation)
    return before.model_copy(update={"conditions": tuple(found.values())})


def _told(error: dict[str, Any]) -> str:
    field, said = ".".join(str(part) for part in error["loc"]), error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":  # of a rule of ours, whose message has all that there is to say
        return f"{field}: {said}" if field else said
    if error["type"] == "extra_forbidden":
        return f"{field}: this version of kaito-hera has no such field: take it out, or install the version that has"
    value = error["input"]
    shown = f" (seen: {str(value)[:_SHOWN]!r})" if isinstance(value, str | int | float) else ""
    return f"{field}: {said}{shown}"
