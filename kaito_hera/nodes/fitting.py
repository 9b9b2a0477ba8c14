"""Of several GPU sizes those that cannot do it are left out, which stops nothing while another is left. Pure."""

import dataclasses

from kaito_hera import errors, nodes, sizing
from kaito_hera.api import Workspace
from kaito_hera.findings import Finding
from kaito_hera.settings import Settings
from kaito_hera.status import Refusal

_UNFIT = (errors.UnsupportedGPUError, errors.InsufficientGPUMemoryError)
"""What is said of a size as such; a name that nobody knows is a slip, and stays an error."""


def mild(workspace: Workspace, found: list[Finding]) -> list[Finding]:
    """The same findings, as warnings where they speak against some of the sizes only."""
    left = _left(workspace, found)
    return [dataclasses.replace(f, fatal=f.fatal and not (left and f.error in _UNFIT)) for f in found]


def left_out(workspace: Workspace, settings: Settings, found: list[Finding]) -> tuple[Refusal, ...]:
    """The kinds of node that are not to be tried, with the reason; none where nothing would be left."""
    if not _left(workspace, found):
        return ()
    sizes = {candidate.field: candidate.size.name for candidate in sizing.candidates(workspace)}
    reasons = {sizes[f.field]: str(f) for f in reversed(found) if f.fatal and f.error in _UNFIT}
    usual = "" if settings.node_provider == "byo" else nodes.ON_DEMAND
    return tuple(
        Refusal(candidate=want.candidate, reason=reasons[want.size.name])
        for want in nodes.candidates(workspace, usual)
        if want.size and want.size.name in reasons
    )


def _left(workspace: Workspace, found: list[Finding]) -> set[str]:
    """Fields of the sizes against which nothing speaks."""
    bad = {finding.field for finding in found if finding.fatal and finding.error in _UNFIT}
    return {candidate.field for candidate in sizing.candidates(workspace)} - bad
