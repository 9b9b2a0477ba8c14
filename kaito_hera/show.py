"""A Workspace for people: its conditions, the step that runs, training, nodes and what they cost so far. Pure text."""

import datetime
from typing import Any

from kaito_hera import status
from kaito_hera.status import Status

_BAR = 24  # characters
_BLOCKS = "▁▂▃▄▅▆▇█"
_MARKS = {"True": "✔", "False": "·", "Unknown": "?"}
_SUMMARIES = frozenset({status.RECONCILING, status.STALLED, status.READY, status.WORKSPACE_SUCCEEDED})


def render(workspace: dict[str, Any], now: datetime.datetime, losses: tuple[float, ...] = ()) -> str:
    """Several lines; `losses` are those that were seen so far, oldest first."""
    seen = Status.of(workspace)
    metadata = workspace["metadata"]
    head = f"{metadata['namespace']}/{metadata['name']}  {seen.state or 'Pending'}"
    lines = [head, *_conditions(seen), *_step(seen, now), *_training(seen, losses), *_nodes(seen, now)]
    if seen.workflow:
        lines.append(f"  workflow  {seen.workflow.url or seen.workflow.name}")
    return "\n".join(lines)


def bar(percent: int) -> str:
    """A progress bar."""
    full = round(_BAR * percent / 100)
    return f"[{'#' * full}{'.' * (_BAR - full)}] {percent:3d} %"


def sparkline(values: tuple[float, ...], width: int = 40) -> str:
    """A plot of one line; long series are thinned out."""
    if not values:
        return ""
    picked = [values[at * len(values) // width] for at in range(width)] if len(values) > width else list(values)
    low, span = min(picked), (max(picked) - min(picked)) or 1.0
    return "".join(_BLOCKS[int((value - low) / span * (len(_BLOCKS) - 1))] for value in picked)


def _conditions(seen: Status) -> list[str]:
    stalled = seen.condition(status.STALLED)
    lines = []
    for condition in seen.conditions:
        if condition.type in _SUMMARIES:
            continue
        text = "" if condition.status == "True" else f"{condition.reason}: {condition.message}".rstrip(": ")
        lines.append(f"  {_MARKS[condition.status]} {condition.type:<19} {text}".rstrip())
    if stalled and stalled.status == "True":
        lines.append(f"  ✘ {'Stalled':<19} {stalled.reason}: {stalled.message}")
    return lines


def _step(seen: Status, now: datetime.datetime) -> list[str]:
    step = seen.step
    if step is None:
        return []
    age = f" for {_span((now - status.moment(step.since)).total_seconds())}" if step.since else ""
    progress = f"  {bar(step.percent)}" if step.percent is not None else ""
    return [f"  step      {step.name}{age}{progress}{'  ' + step.message if step.message else ''}"]


def _training(seen: Status, losses: tuple[float, ...]) -> list[str]:
    run = seen.tuning
    if run is None:
        return []
    lines = []
    if run.step is not None:
        parts = [f"step {run.step}" + (f" of {run.max_steps}" if run.max_steps else "")]
        parts += [f"loss {run.loss:.4f}"] if run.loss is not None else []
        parts += [f"{run.tokens_per_second:.0f} tokens/s"] if run.tokens_per_second else []
        parts += [f"{_span(run.eta_seconds)} left"] if run.eta_seconds else []
        lines.append(f"  training  {', '.join(parts)}")
    if len(losses) > 1:
        lines.append(f"  loss      {sparkline(losses)}  {losses[0]:.2f} to {losses[-1]:.2f}")
    if run.adapter_image:
        lines.append(f"  adapter   {run.adapter_image}")
    return lines


def _nodes(seen: Status, now: datetime.datetime) -> list[str]:
    nodes = seen.nodes
    names = ", ".join(seen.worker_nodes)
    if nodes is None:
        return [f"  nodes     {names}"] if names else []
    seconds = float(nodes.billed_seconds)
    if nodes.billed_since:
        seconds += (now - status.moment(nodes.billed_since)).total_seconds()
    price = f", {nodes.usd_per_hour:.2f} USD/h" if nodes.usd_per_hour is not None and nodes.billed_since else ""
    cost = f", about {seconds / 3600 * nodes.usd_per_hour:.2f} USD so far" if nodes.usd_per_hour is not None else ""
    state = names or ("on their way" if nodes.held else "given back")
    size = f"{nodes.candidate}: " if nodes.candidate else ""
    return [f"  nodes     {size}{state}{price}, {_span(seconds)} billed{cost}"]


def _span(seconds: float) -> str:
    """Seconds as people say them."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
