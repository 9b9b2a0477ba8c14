"""An Outlook for people: what happens, on which nodes, whether it fits, what it costs, what is wrong. Pure text."""

from kaito_hera.paper import Paper, bar, inert
from workflows.outlook import Candidate, Finding, Memory, MemoryPart, Outlook, Price

_BAR = 32  # characters of the whole usable memory of a GPU
_NUMBERS = 31  # characters before a bar: the part and its GiB
_LABEL = 10


def render(plan: Outlook, paper: Paper) -> str:
    """Several lines, without the last line's end."""
    blocks = [
        _head(plan, paper),
        _steps(plan, paper),
        _nodes(plan, paper),
        _candidates(plan, paper),
        *(_memory(need, plan.candidates, paper) for need in plan.memory),
        _findings(plan, paper),
        _verdict(plan, paper),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _head(plan: Outlook, paper: Paper) -> list[str]:
    lines = paper.wrap(f"{plan.workspace}: {plan.does}")
    lines[0] = lines[0].replace(plan.workspace, paper.paint(plan.workspace, "bold"), 1)
    return lines + ([f"  {paper.paint(inert(plan.model), 'dim')}"] if plan.model else [])


def _steps(plan: Outlook, paper: Paper) -> list[str]:
    longest = max((len(step.name) for step in plan.steps), default=0)
    lines = []
    for at, step in enumerate(plan.steps, 1):
        head = f"  {at}  {step.name:<{longest}}  "
        lines += paper.wrap(step.does, first=head, indent=" " * len(head))
    return lines


def _nodes(plan: Outlook, paper: Paper) -> list[str]:
    if plan.nodes is None:
        return []
    nodes = plan.nodes
    labels = ", ".join(f"{key}={value}" for key, value in nodes.labels.items())
    where = "" if nodes.bought else f", yours already{f', with {labels}' if labels else ''}"
    lines = _labelled("nodes", f"{nodes.count}{where}: {nodes.meaning}", paper)
    if plan.holders and not plan.candidates:
        named = [f"{one.size}{_usd(one.usd_per_hour)}" for one in plan.holders]
        lines += _labelled("fits on", f"{', '.join(named)}, to name the cheapest", paper)
    if plan.disk:
        lines += _labelled("disk", _disk(plan.disk), paper)
    return lines + (_labelled("price", _price(plan.price, nodes.count), paper) if plan.price else [])


def _disk(parts: tuple[MemoryPart, ...]) -> str:
    named = ", ".join(f"{part.name} {part.gib:.2f}" for part in parts)
    return f"{sum(part.gib for part in parts):.2f} GiB of the node's own to tune, beside images and data: {named}"


def _usd(usd: float | None) -> str:
    return "" if usd is None else f" ({usd:.2f} USD/h)"


def _price(price: Price, count: int) -> str:
    if price.lowest is None:
        return f"not known, {price.until}"
    first = f"{price.first:.2f}" if price.first is not None else "not known of the first, of the others"
    between = f" (or {price.lowest:.2f} to {price.highest:.2f})" if price.highest != price.lowest else ""
    together = f" for {count} nodes" if count > 1 else ""
    return f"{'at most ' if price.at_most else ''}{first} USD/h{between}{together}, {price.until}"


def _candidates(plan: Outlook, paper: Paper) -> list[str]:
    if not plan.candidates:
        return []
    uses = [f"TO-{need.use.upper()}" for need in plan.memory]
    head = ["CANDIDATE", "CAPACITY", "GPU", "GPUS", "GIB/GPU", *uses, "USD/H", "NOTE"]
    rows = [_row_of(one) for one in plan.candidates]
    styles = ["" if one.tried and all(fit.fits for fit in one.fits) else "red" for one in plan.candidates]
    empty = [at for at in range(len(head)) if not any(row[at] for row in rows)]
    head, *rows = [[cell for at, cell in enumerate(row) if at not in empty] for row in (head, *rows)]
    numbers = ("GPUS", "GIB/GPU", "USD/H", *uses)
    lines = paper.table(head, rows, right=numbers, drop=("GPU", "GPUS"), indent="  ", styles=styles)
    return lines + _priced(plan.candidates, paper)


def _row_of(one: Candidate) -> list[str]:
    fits = [f"{fit.share:.0%} {' ' if fit.fits else '✘'}" for fit in one.fits]
    usd = "?" if one.usd_per_hour is None else f"{'< ' if one.at_most else ''}{one.usd_per_hour:.2f}"
    retired = f"retired {one.retired_on}" if one.retired_on else ""
    note = ", ".join(text for text in ("" if one.tried else "left out", retired) if text)
    return [one.size, one.capacity, one.gpu, str(one.gpus), f"{one.gpu_gib:.0f}", *fits, usd, note]


def _priced(candidates: tuple[Candidate, ...], paper: Paper) -> list[str]:
    one = next((one for one in candidates if one.usd_per_hour is not None), None)
    if one is None:
        return []
    where = f"in {one.region}" if one.region else "in the cheapest region"
    text = f"USD/H: a node on demand {where}, {one.priced_on}; an indication, not a bill"
    return [paper.paint(line, "dim") for line in paper.wrap(text, indent="  ")]


def _memory(need: Memory, candidates: tuple[Candidate, ...], paper: Paper) -> list[str]:
    """A line for each part; on each kind of GPU that it may meet, a bar that begins where the part before ended."""
    lines = paper.wrap(f"GiB on one GPU to {need.use}: {need.basis}", indent="    ", first="  ")
    sizes = {one.usable_gib: one.size for one in reversed(candidates) if one.usable_gib}
    rooms = list(reversed(sizes))
    line = paper.width or 10 * _BAR
    width = min(_BAR, line - _NUMBERS - 3)
    beside = max(1, (line - _NUMBERS) // (width + 3))
    for at in range(0, len(rooms), beside) or [0]:
        shown = {room: sizes[room] for room in rooms[at : at + beside]}
        lines += _bars(need, shown, width)
    divided = {
        one.size: fit.share
        for one in candidates
        for fit in one.fits
        if fit.use == need.use == "serve" and fit.fits and 0 < one.usable_gib < need.gib_with_margin
    }
    return lines + [f"  divided among the GPUs of {size}: {share:.0%} of each" for size, share in divided.items()]


def _bars(need: Memory, rooms: dict[float, str], width: int) -> list[str]:
    """The parts on some kinds of GPU, whose usable GiB are the keys of their names."""
    parts = [(part.name, part.gib) for part in need.parts] + [("margin", need.gib_with_margin - need.gib)]
    heads = "  ".join(f"|{size[:width]:<{width}}|" for size in rooms.values())
    lines, start = [f"{'':{_NUMBERS - 1}}{heads}"] if rooms else [], 0.0
    for name, gib in parts:
        bars = "   ".join(f"{bar(start / room, (start + gib) / room, width):<{width + 1}}" for room in rooms)
        lines.append(f"  {name:<{_NUMBERS - 12}} {gib:>7.2f}  {bars}".rstrip())
        start += gib
    shares = "  ".join(f"{need.gib_with_margin / room:>4.0%} of {room:<{width - 6}.1f}" for room in rooms)
    return [*lines, f"  {'in all':<{_NUMBERS - 12}} {need.gib_with_margin:>7.2f}  {shares}".rstrip()]


def _findings(plan: Outlook, paper: Paper) -> list[str]:
    lines = []
    for label, style, found in (("warning", "yellow", plan.warnings), ("error", "red", plan.errors)):
        for one in found:
            lines += _finding(label, style, one, paper)
    return lines


def _finding(label: str, style: str, one: Finding, paper: Paper) -> list[str]:
    lines = _labelled(label, f"{one.field}: {one.problem}", paper)
    lines[0] = lines[0].replace(label, paper.paint(label, style), 1)
    if not one.remedy:
        return lines
    indent = " " * (_LABEL + 2)
    return lines + paper.wrap(one.remedy, first=f"{indent}-> ", indent=f"{indent}   ")


def _labelled(label: str, text: str, paper: Paper) -> list[str]:
    return paper.wrap(text, first=f"  {label:<{_LABEL}}", indent=" " * (_LABEL + 2))


def _verdict(plan: Outlook, paper: Paper) -> list[str]:
    count = len(plan.errors)
    text = f"It can never work as it is: {count} error{'' if count == 1 else 's'}."
    if plan.works:
        text = "It can work; preflight asks the cluster, the data's host and the registry."
    return [paper.paint(line, "green" if plan.works else "red") for line in paper.wrap(text)]
