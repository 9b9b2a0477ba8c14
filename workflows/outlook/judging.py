"""Fills an Outlook: what the operator's own pure code says of a Workspace and of what was read beside it."""

import datetime
from typing import Any

import presets
from kaito_hera import decide, errors, live, models, refusals, sizing, status
from kaito_hera.api import Workspace
from kaito_hera.findings import Finding
from kaito_hera.intent import Parts
from kaito_hera.nodes import fitting
from kaito_hera.settings import Settings
from serving import inference_config
from serving.inference_config import InferenceConfig
from tuning import training_config
from tuning.training_config import TrainingConfig
from workflows import configs, needs, outlook
from workflows.outlook import slips, telling
from workflows.outlook.documents import Documents


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
        return _unread(obj, found)
    found += refusals.findings(workspace, settings, on)
    model = models.find(workspace)
    training, of_training = _training(workspace, beside, settings)
    serving, of_serving = _serving(workspace, model, beside)
    demands = _demands(workspace, model, training, serving)
    found += [*of_training, *of_serving]
    found += sizing.size_findings(workspace, settings, on, demands, region)
    found += [*sizing.memory_findings(workspace, demands, region), *_unsold(workspace, region)]
    found += fitting.partition_findings(workspace, settings, demands)
    tried = _tried(workspace, settings, found)
    found = fitting.mild(workspace, found)
    if parts is None:
        parts = decide.missing(workspace, status.Status(), live.Live(now=datetime.datetime.now(datetime.UTC)))
    candidates = telling.candidates(workspace, settings, demands, tried=tried, region=region)
    return telling.tell(workspace, settings, parts, demands=demands, found=found, candidates=candidates, region=region)


def _unread(obj: dict[str, Any], found: list[Finding]) -> outlook.Outlook:
    metadata = obj.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    namespace, name = (str(metadata.get(key, usual))[:63] for key, usual in (("namespace", "default"), ("name", "?")))
    return outlook.Outlook(
        workspace=f"{namespace}/{name}",
        does="cannot be read",
        works=False,
        errors=tuple(telling.finding(one) for one in found),
    )


def _tried(workspace: Workspace, settings: Settings, found: list[Finding]) -> tuple[sizing.Candidate, ...]:
    """The kinds of node without those that are left out."""
    left_out = {refusal.candidate for refusal in fitting.left_out(workspace, settings, found)}
    return tuple(one for one in sizing.candidates(workspace, sizing.usual(settings)) if one.name not in left_out)


def _demands(
    workspace: Workspace, model: presets.Preset | None, training: TrainingConfig | None, serving: InferenceConfig
) -> tuple[sizing.Demand, ...]:
    if model is None:
        return ()
    batch = needs.batch(training) if training else None
    return sizing.demands(workspace, needs.as_loaded(model, serving), batch, serving.max_model_len or 0)


def _training(
    workspace: Workspace, beside: Documents, settings: Settings
) -> tuple[TrainingConfig | None, list[Finding]]:
    """The config of a tuning run; the image's defaults where the ConfigMap is not among what was read."""
    tuning = workspace.tuning
    if tuning is None:
        return None, []
    usual = training_config.parse("training_config: {}", tuning.method)
    where, name, field = workspace.metadata.namespace, tuning.config, "tuning.config"
    if not name:
        where, name = settings.namespace, f"{tuning.method}-params-template"
        field = f"the operator's ConfigMap {where}/{name}"
        if beside.config_map(where, name) is None:
            return usual, []
    text, found = _text(beside, where, name, key="training_config.yaml", field=field)
    if text is None:
        return usual, found
    try:
        config = training_config.parse(text, tuning.method)
    except ValueError as cause:
        return usual, [Finding(errors.ConfigInvalidError, field, str(cause))]
    named = f"ConfigMap {where}/{name}: " if tuning.config else ""
    return config, [_idle(field, named + warning) for warning in config.warnings]


def _serving(
    workspace: Workspace, model: presets.Preset | None, beside: Documents
) -> tuple[InferenceConfig, list[Finding]]:
    """The same of a server's config."""
    name = workspace.inference.config if workspace.inference else None
    field, where = "inference.config", workspace.metadata.namespace
    if not name:
        return InferenceConfig(), []
    if workspace.preset is None:
        return InferenceConfig(), [_idle(field, f"{name} has no effect, a pod of your own mounts its own settings")]
    text, found = _text(beside, where, name, key=inference_config.FILE, field=field)
    if text is None:
        return InferenceConfig(), found
    named = f"ConfigMap {where}/{name}: "
    try:
        config, warnings = configs.inference(workspace, model, text)
    except ValueError as cause:
        return InferenceConfig(), [Finding(errors.ConfigInvalidError, field, f"{named}{cause}")]
    return config, [_idle(field, named + warning) for warning in warnings]


def _idle(field: str, text: str) -> Finding:
    return Finding(errors.ConfigInvalidError, field, text, fatal=False)


def _text(beside: Documents, namespace: str, name: str, *, key: str, field: str) -> tuple[str | None, list[Finding]]:
    """One key of a ConfigMap; None, and why, where it was not read."""
    data, called = beside.config_map(namespace, name), f"ConfigMap {namespace}/{name}"
    if data is None:
        problem = f"{called} is not among what was read: memory is that of the defaults"
        remedy = "put it into the same file, or name its file with --config"
        return None, [Finding(errors.ConfigMapNotFoundError, field, problem, remedy, fatal=False)]
    if key not in data:
        problem = f"{called} has no key {key}, it has {', '.join(data) or 'nothing'}"
        return None, [Finding(errors.ConfigInvalidError, field, problem)]
    return data[key], []


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
