"""The model that a Workspace names, as far as a file here describes it, and what is known not to work with it. Pure.

What is refused of it is the admission rules' matter.
"""

import presets
from kaito_hera import errors
from kaito_hera.api import Workspace
from kaito_hera.findings import Finding

_OF_TUNING = "cannot be tuned"
"""How the limits begin that only tuning meets."""


def find(workspace: Workspace) -> presets.Preset | None:
    """The preset; None where the user brings a pod of his own, or no file here describes the model."""
    if workspace.preset is None:
        return None
    try:
        return presets.preset(workspace.preset.name)
    except presets.UnknownNameError:
        return None


def notes(workspace: Workspace) -> list[Finding]:
    """What should be known of the model though it stops nothing."""
    if workspace.preset is None:
        return []
    name, model = workspace.preset.name, find(workspace)
    field = f"{'tuning' if workspace.tuning else 'inference'}.preset.name"
    asked = [limit for limit in model.limits if workspace.tuning or not limit.startswith(_OF_TUNING)] if model else []
    limits = [f"{name}: {limit}" for limit in asked]
    if presets.is_hub_id(name):
        limits = [f"{name} is described by no file here: preflight asks the hub what it is and what it needs"]
    return [Finding(errors.UnknownPresetError, field, limit, fatal=False) for limit in limits]
