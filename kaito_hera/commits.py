"""Which commits model and data are, as preflight found them: what status keeps for the attempts that follow. Pure."""

import contextlib

import pydantic

from artifacts.weights.config import DataCommit
from kaito_hera import models
from kaito_hera.conditions import View
from kaito_hera.status import DataSet, DataStatus, ModelStatus

_Commits = pydantic.TypeAdapter(tuple[DataCommit, ...])


def model(view: View) -> ModelStatus | None:
    """What preflight found, for as long as the Workspace names the same model; another attempt's word is kept."""
    preset, known = view.workspace.preset, models.find(view.workspace)
    source = (preset.options.image or (known and known.image) or preset.name) if preset else ""
    before = view.before.model if view.before.model and view.before.model.source == source else None
    pinned = _said(view, "pinned") if view.made_for == view.wanted else ""
    return ModelStatus(source=source, revision=pinned) if pinned else before


def data(view: View) -> DataStatus | None:
    """The data sets' commits for as long as the same tuning is asked for: after an edit of it they are looked up."""
    tuning, tune = view.workspace.tuning, view.wanted.tune
    if tuning is None:
        return None
    said = _said(view, "commits") if view.made_for.tune == tune else ""
    with contextlib.suppress(pydantic.ValidationError):
        commits = _Commits.validate_json(said or "[]")
        pairs = zip(sorted(tuning.input.urls), commits, strict=False)  # no edit of their order is another tuning
        if found := tuple(DataSet(source=url, revision=commit) for url, commit in pairs if commit):
            return DataStatus(tune=tune, sets=found)
    return view.before.data if view.before.data and view.before.data.tune == tune else None


def _said(view: View, name: str) -> str:
    """An output of preflight, once it has passed."""
    step = view.steps.get("preflight")
    return step.outputs.get(name, "") if step and step.phase == "Succeeded" else ""
