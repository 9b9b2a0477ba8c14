"""A Workspace for people: its conditions, the step that runs, training, nodes and what they cost so far. Pure text."""

import datetime
from typing import Any, NamedTuple

import pydantic

from artifacts.weights import pace
from kaito_hera import observe, paper, status
from kaito_hera.api import Workspace
from kaito_hera.status import Condition, NodesStatus, ServedAdapter, Status

_BAR = 24  # characters
_BLOCKS = "▁▂▃▄▅▆▇█"
_MARKS = {"True": "✔", "False": "·", "Unknown": "?"}
_SUMMARIES = frozenset({status.RECONCILING, status.STALLED, status.READY, status.WORKSPACE_SUCCEEDED})


class Line(NamedTuple):
    """One line, and what of it is news: times and amounts that only grow are not."""

    text: str
    gist: str


def render(workspace: dict[str, Any], now: datetime.datetime, losses: tuple[float, ...] = ()) -> str:
    """Several lines; `losses` are those that were seen so far, oldest first."""
    return "\n".join(line.text for line in lines(workspace, now, losses))


def lines(workspace: dict[str, Any], now: datetime.datetime, losses: tuple[float, ...] = ()) -> list[Line]:
    """The same, line by line."""
    seen = Status.of(workspace)
    metadata = workspace["metadata"]
    head = _line(f"{metadata['namespace']}/{metadata['name']}  {seen.state or 'Pending'}")
    found = [head, *_conditions(seen), *_next(seen), *_step(seen, now), *_training(seen, losses), *_nodes(seen, now)]
    found += [_line(f"  warning   {text}") for text in seen.warnings]
    if seen.model:
        found.append(_line(f"  model     {seen.model.source} at {seen.model.revision}"))
    if seen.workflow:
        found.append(_line(f"  workflow  {seen.workflow.url or seen.workflow.name}"))
    return found + _answers(workspace, seen)


def news(shown: list[Line], before: list[Line]) -> list[str]:
    """The lines to print below what was printed before: those that say something else."""
    told = {line.gist for line in before}
    return [line.text for line in shown if line.gist not in told]


def redrawn(shown: list[Line], before: list[Line], columns: int) -> str:
    """The lines in the place of those before, on a terminal of that width."""
    rows = sum(max(1, -(-len(line.text) // columns)) for line in before)
    up = f"\033[{rows}A\033[J" if rows else ""
    return up + "\n".join(line.text for line in shown)


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


def _line(text: str, gist: str = "") -> Line:
    """The status has words of servers, of data and of logs in it."""
    return Line(paper.inert(text), gist or text)


def _conditions(seen: Status) -> list[Line]:
    """One line each; after the one that stopped everything there is nothing to say of the others."""
    doing = f"; {seen.step.message}" if seen.step else ""  # which the step's line says
    named = (condition for condition in seen.conditions if condition.type not in _SUMMARIES)
    shown = [each.model_copy(update={"message": each.message.removesuffix(doing)}) for each in named]
    stalled = seen.condition(status.STALLED)
    if stalled is None or stalled.status != "True":
        return [_condition(condition, repeats=_repeats(condition, shown)) for condition in shown]
    why = f"{stalled.reason}: {stalled.message}"
    culprit = next((c for c in shown if c.status != "True" and c.reason == stalled.reason), None)
    found = []
    for at, condition in enumerate(shown):
        if condition is culprit:
            found.append(_line(f"  ✘ {condition.type:<19} {why}"))
        else:
            after = culprit is not None and at > shown.index(culprit)
            found.append(_condition(condition, repeats=after or condition.type == status.WORKSPACE_READY))
    return found if culprit else [*found, _line(f"  ✘ {'Stalled':<19} {why}")]


def _condition(condition: Condition, *, repeats: bool) -> Line:
    bare = f"  {_MARKS[condition.status]} {condition.type}"
    if condition.status == "True" and condition.message:  # why is told by another line
        return _line(f"  {_MARKS['True']} {condition.type:<19} {condition.message.partition(': ')[0]}")
    if condition.status == "True" or repeats:
        return _line(bare)
    text = f"  {_MARKS[condition.status]} {condition.type:<19} {condition.reason}: {condition.message}".rstrip(": ")
    pending = condition.reason == status.PENDING_REASONS.get(condition.type)
    return _line(text, bare if pending and condition.message.startswith("step ") else text)  # the step has its own line


def _repeats(condition: Condition, shown: list[Condition]) -> bool:
    """Whether the summary only says what is said by another line."""
    others = [other.reason for other in shown if other.status != "True" and other is not condition]
    return condition.type == status.WORKSPACE_READY and any(reason in condition.message for reason in others)


def _next(seen: Status) -> list[Line]:
    """When or why it goes on, where that is not just the step that runs, and what is to be done where it does not."""
    waits = seen.condition(status.RECONCILING)
    if waits is None or waits.reason == "Progressing" or not waits.message:
        return []
    text = waits.message
    for condition in seen.conditions:  # whose line says already why the attempt failed
        if condition is not waits and condition.message:
            text = text.removesuffix(f": {condition.message}")
    return [_line(f"  next      {text}")]


def _step(seen: Status, now: datetime.datetime) -> list[Line]:
    step = seen.step
    if step is None:
        return []
    age = f" for {_span((now - status.moment(step.since)).total_seconds())}" if step.since else ""
    progress = f"  {bar(step.percent)}" if step.percent is not None else ""
    text = f"  step      {step.name}{age}{progress}{'  ' + step.message if step.message else ''}"
    gist = pace.WORDS.sub(r"\1", step.message)
    return [_line(text, f"step {step.name} {gist} {(step.percent or 0) // 10}")]


def _training(seen: Status, losses: tuple[float, ...]) -> list[Line]:
    run = seen.tuning
    if run is None:
        return []
    found = []
    tenth = run.step * 10 // run.max_steps if run.step and run.max_steps else 0
    if run.step is not None:
        parts = [f"step {run.step}" + (f" of {run.max_steps}" if run.max_steps else "")]
        parts += [f"resumed from step {run.resumed_from_step}"] if run.resumed_from_step else []
        parts += [f"loss {run.loss:.4f}"] if run.loss is not None else []
        parts += [f"{run.eval_loss:.4f} on rows held out"] if run.eval_loss is not None else []
        parts += [f"rate {run.learning_rate:.2g}"] if run.learning_rate is not None else []
        parts += [f"{run.tokens_per_second:.0f} tokens/s"] if run.tokens_per_second else []
        parts += [f"{run.gpu_memory_gib:.1f} GiB of GPU memory"] if run.gpu_memory_gib else []
        parts += [f"{_span(run.eta_seconds)} left"] if run.eta_seconds else []
        found.append(_line(f"  training  {', '.join(parts)}", f"training {tenth}"))
    if len(losses) > 1:
        text = f"  loss      {sparkline(losses)}  {losses[0]:.2f} to {losses[-1]:.2f}"
        found.append(_line(text, f"loss {tenth // 5}"))
    if run.adapter_image:
        found.append(_line(f"  adapter   {run.adapter_image}"))
    return found


def _nodes(seen: Status, now: datetime.datetime) -> list[Line]:
    nodes = seen.nodes
    names = ", ".join(seen.worker_nodes)
    if nodes is None:
        return [_line(f"  nodes     {names}")] if names else []
    size = f"{nodes.candidate}: " if nodes.candidate else ""
    text = f"  nodes     {size}{names or _where(nodes)}{_price(nodes)}"
    under_way = seen.is_true(status.RECONCILING)  # the end is news: that is what it has cost
    lines = [_line(f"{text}{_cost(nodes, now)}", f"{text} {under_way}")]
    return lines + [_line(f"  not       {refusal.candidate}: {refusal.reason}") for refusal in nodes.refused]


def _where(nodes: NodesStatus) -> str:
    """Where the nodes are, while there are none."""
    if nodes.held:
        return "on their way"
    if nodes.billed_seconds:
        return "given back"
    return "those that KAITO made, if any" if nodes.inherited else "none in use"


def _price(nodes: NodesStatus) -> str:
    if not nodes.billed_since:
        return ""
    if nodes.usd_per_hour is not None:
        return f", {nodes.usd_per_hour:.2f} USD/h"
    return ", a spot price that changes" if nodes.candidate.endswith("/spot") else ""


def _cost(nodes: NodesStatus, now: datetime.datetime) -> str:
    runs = (now - status.moment(nodes.billed_since)).total_seconds() if nodes.billed_since else 0.0
    seconds, priced, usd = nodes.billed_seconds + runs, float(nodes.priced_seconds), nodes.billed_usd
    if not nodes.held and not seconds:
        return ""
    if nodes.usd_per_hour is not None:
        priced, usd = priced + runs, usd + runs / 3600 * nodes.usd_per_hour
    elif not priced:
        return f", {_span(seconds)} billed"
    other = f", but for {_span(seconds - priced)} whose price is not known" if seconds > priced else ""
    return f", {_span(seconds)} billed, about {usd:.2f} USD so far{other}"


def _answers(workspace: dict[str, Any], seen: Status) -> list[Line]:
    """How to ask the server, once it answers, for what it was rolled out with; and what it is still to get."""
    if not seen.is_true(status.INFERENCE_READY):
        return []
    address = f"http://{workspace['metadata']['name']}.{workspace['metadata']['namespace']}"
    preset = (workspace.get("tuning") or workspace.get("inference") or {}).get("preset")
    if preset is None:
        return [_line(f"  answers   {address}")]
    taken = seen.serving.adapters if seen.serving else ()
    served = [f"{one.name} x {one.strength}" for one in taken]
    model = preset["name"] + (f", adapters {', '.join(served)}" if served else "")
    lines = [_line(f"  answers   {address} (/chat, /v1)  model: {model}")]
    asked = (f"{one.name} x {one.strength}" for one in _asked(workspace, seen) if one not in taken)
    engine = seen.serving.engine if seen.serving else None
    lines += [_line(f"  note      {note}") for note in (engine.notes if engine else ())]
    lacking = ", ".join(f"another {one}" if one in served else one for one in asked)
    return [*lines, _line(f"  asked     adapters {lacking}: not served yet")] if lacking else lines


def _asked(workspace: dict[str, Any], seen: Status) -> tuple[ServedAdapter, ...]:
    """The adapters that are to be served; none of a Workspace that is refused."""
    try:
        return observe.adapters(Workspace.parse(workspace), seen.tuning.adapter_image if seen.tuning else "")
    except pydantic.ValidationError:
        return ()


def _span(seconds: float) -> str:
    """Seconds as people say them."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
