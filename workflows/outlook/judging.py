"""Fills an Outlook: what the operator's own pure code says of a Workspace and of what was read beside it."""

import datetime
from collections.abc import Callable
from typing import Any, TypeVar

from kaito_hera import decide, errors, live, models, refusals, runtimes, sizing, status
from kaito_hera.api import Workspace
from kaito_hera.findings import Finding
from kaito_hera.intent import Parts
from kaito_hera.nodes import fitting
from kaito_hera.settings import Settings
from serving.inference_config import InferenceConfig
from tuning.training_config import TrainingConfig
from workflows import configs, needs, outlook
from workflows.outlook import slips, telling
from workflows.outlook.documents import Documents

_T = TypeVar("_T")


def judge(
    obj: dict[str, Any],
    beside: Documents,
    settings: Settings,
    *,
    region: str | None = None,
    on: datetime.date,
    parts: Parts | None = None,
) -> outlook.Outlook:
    """What would happen to this Workspace; `parts` are what is left to be done, where that is known."""
    workspace, found = slips.parse(obj)
    if workspace is None:
        return _refused(obj, found)
    found += refusals.findings(workspace, settings, on)
    found += refusals.data(workspace, settings) if parts is None or parts.tune else []
    model = models.find(workspace)
    training, of_training = _training(workspace, settings, beside.config_map)
    runtime = runtimes.of(workspace, settings)
    server, of_server = _read(
        lambda: configs.inference(workspace, model, beside.config_map, runtime), InferenceConfig()
    )
    demands = needs.demands(workspace, model, training, server, runtime)
    found += [*of_training, *of_server]
    found += sizing.size_findings(workspace, settings, on, demands, region)
    found += [*fitting.findings(workspace, settings, demands, region), *_unsold(workspace, region)]
    tried = _tried(workspace, settings, found)
    found = fitting.mild(workspace, found)
    if parts is None:
        parts = decide.missing(workspace, status.Status(), live.Live(now=datetime.datetime.now(datetime.UTC)))
    candidates = telling.candidates(workspace, settings, demands, tried=tried, region=region)
    told = telling.tell(workspace, settings, parts, demands=demands, found=found, candidates=candidates, region=region)
    disk = needs.disk(workspace, settings, model, training) if parts.tune else {}
    parts_of_it = tuple(outlook.MemoryPart(name=name, gib=round(gib, 3)) for name, gib in disk.items())
    return told.model_copy(update={"disk": parts_of_it})


def _refused(obj: dict[str, Any], found: list[Finding]) -> outlook.Outlook:
    metadata = obj.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    namespace, name = (str(metadata.get(key, usual))[:63] for key, usual in (("namespace", "default"), ("name", "?")))
    return outlook.Outlook(
        workspace=f"{namespace}/{name}",
        does="is refused at kubectl apply",
        works=False,
        errors=tuple(telling.finding(one) for one in found),
    )


def _tried(workspace: Workspace, settings: Settings, found: list[Finding]) -> tuple[sizing.Candidate, ...]:
    """The kinds of node without those that are left out."""
    left_out = {refusal.candidate for refusal in fitting.left_out(workspace, settings, found)}
    return tuple(one for one in sizing.candidates(workspace, sizing.usual(settings)) if one.name not in left_out)


def _training(
    workspace: Workspace, settings: Settings, read: configs.Read
) -> tuple[TrainingConfig | None, list[Finding]]:
    """The config of a tuning run, if there is one."""
    if workspace.tuning is None:
        return None, []
    defaults = configs.defaults(workspace.tuning.method)
    return _read(lambda: configs.training(workspace, settings, read), defaults)


def _read(config: Callable[[], configs.Config[_T]], defaults: _T) -> tuple[_T, list[Finding]]:
    """What is honoured of a config, and what is found in it; its defaults where it was not read or cannot be."""
    try:
        found = config()
    except errors.ConfigMapNotFoundError as cause:
        field, _, problem = str(cause).partition(": ")
        problem = problem.partition(configs.MISSING)[0] + " is not among what was read: memory is that of the defaults"
        remedy = "put it into the same file, or name its file with --config"
        return defaults, [Finding(errors.ConfigMapNotFoundError, field, problem, remedy, fatal=False)]
    except errors.ConfigInvalidError as cause:
        return defaults, [_of_config(str(cause), fatal=True)]
    return found.honoured, [_of_config(warning, fatal=False) for warning in found.warnings]


def _of_config(text: str, *, fatal: bool) -> Finding:
    field, _, problem = text.partition(": ")
    return Finding(errors.ConfigInvalidError, field, problem, fatal=fatal)


def _unsold(workspace: Workspace, region: str | None) -> list[Finding]:
    """Sizes that the region does not sell, as far as prices were looked up there."""
    found = {}
    for candidate in sizing.candidates(workspace):
        size = candidate.size
        if region in size.priced_regions and size.usd(region) is None:
            problem = f"{size.name} is not sold in {region}, by the prices of {size.priced_on}"
            remedy = "take another size or region"
            error = errors.ProvisioningFailedError
            found[size.name] = Finding(error, candidate.field, problem, remedy, fatal=False)
    return list(found.values())
