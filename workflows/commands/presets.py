"""`kaito-hera presets`: the models that are known, with what they need; one of them in full."""

import argparse
import sys
from typing import Any

import presets
from kaito_hera import loads, offers
from kaito_hera.paper import Paper
from workflows.commands import printing
from workflows.outlook import Part, Use
from workflows.outlook.documents import UnreadableError

_SHOWN = 3
_SYSTEM = {
    "own": "a system message has a turn of its own",
    "folded": "a system message goes into the first question",
    "ignored": "a system message is left out",
}


class Holder(Part):
    """A GPU size of which one GPU is enough, or where there is none, all of a node."""

    size: str
    usd_per_hour: float | None


class Need(Part):
    """What one GPU must hold for one use, and what holds it."""

    use: Use
    method: str
    """lora or qlora; empty for serving."""
    basis: str
    """The numbers that it follows from."""
    gib: float
    """With the margin."""
    parts: dict[str, float]
    sizes: tuple[Holder, ...]
    """What holds it, cheapest first."""

    @property
    def name(self) -> str:
        """As `kaito-hera sizes --for` has it."""
        return self.method or self.use


class Model(Part):
    """One preset."""

    name: str
    hub_id: str
    revision: str | None
    license: str | None
    access: str
    upstream: str
    """How KAITO v0.12 takes the name."""
    architecture: str
    context_limit: int
    """Tokens."""
    weights_gib: float
    """On the hub."""
    quantisation: str | None
    runtimes: tuple[str, ...]
    tunable: bool
    lora_targets: tuple[str, ...]
    chat_template: str | None
    """The family of templates it belongs to."""
    system: str | None
    """What becomes of a system message."""
    needs: tuple[Need, ...]
    """To serve and to tune it, as far as that can be done here."""
    limits: tuple[str, ...]
    """What is known not to work."""

    def need(self, name: str) -> Need | None:
        """The need of that name."""
        return next((need for need in self.needs if need.name == name), None)


class Models(Part):
    """What `-o json` and `-o yaml` print."""

    presets: tuple[Model, ...]


def add_to(commands: Any) -> None:
    """The command and its arguments."""
    command = commands.add_parser("presets", help="the models that are known; one in full")
    command.add_argument("name", nargs="?", help="a preset's name or hub id")
    printing.add_arguments(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print them; exits with 2 for a name that nobody knows."""
    try:
        named = [presets.preset(arguments.name)] if arguments.name else list(presets.presets().values())
    except presets.UnknownNameError as cause:
        raise UnreadableError(str(cause)) from cause
    models = tuple(describe(model, arguments.region) for model in named)
    paper = Paper.of(sys.stdout)
    lines = _whole(models[0], paper) if arguments.name else _table(models, paper)
    printing.show(Models(presets=models), lines, arguments.output)


def describe(model: presets.Preset, region: str | None) -> Model:
    """The facts and what follows from them."""
    own = ("name", "hub_id", "revision", "license", "access", "upstream", "architecture", "context_limit")
    more = ("weights_gib", "quantisation", "runtimes", "tunable", "lora_targets", "limits")
    return Model(
        **{name: getattr(model, name) for name in (*own, *more)},
        chat_template=model.chat.template if model.chat else None,
        system=model.chat.system if model.chat else None,
        needs=tuple(_need(name, demand, region) for name, demand in demands(model).items()),
    )


def demands(model: presets.Preset) -> dict[str, loads.Demand]:
    """What is asked of one GPU by each use that the model has here: serve, qlora, lora."""
    found = {"serve": loads.serve(model)} if "transformers" in model.runtimes else {}
    if model.tunable:
        found |= {method: loads.tune(model, method, loads.Batch()) for method in ("qlora", "lora")}
    return found


def _need(name: str, demand: loads.Demand, region: str | None) -> Need:
    return Need(
        use=demand.verb,
        method="" if name == demand.verb else name,
        basis=demand.basis,
        gib=round(demand.gib, 3),
        parts={part: round(gib, 3) for part, gib in demand.need.parts.items() if gib},
        sizes=tuple(
            Holder(size=size.name, usd_per_hour=size.usd(region)) for size in offers.holders(demand, region=region)
        ),
    )


def _table(models: tuple[Model, ...], paper: Paper) -> list[str]:
    head = ["PRESET", "CONTEXT", "SERVE", "QLORA", "LORA", "FROM USD/H", "ACCESS", "LICENSE"]
    rows = [_row(model) for model in models]
    lines = paper.table(head, rows, right=head[1:6], drop=("LICENSE", "CONTEXT", "ACCESS", "FROM USD/H", "LORA"))
    text = "SERVE, QLORA, LORA: GiB on one GPU, margin included; a dash: not here. FROM: the cheapest size to serve it."
    return [*lines, *(paper.paint(line, "dim") for line in paper.wrap(text))]


def _row(model: Model) -> list[str]:
    gib = [f"{need.gib:.1f}" if need else "-" for need in map(model.need, ("serve", "qlora", "lora"))]
    serve = model.need("serve")
    price = serve.sizes[0].usd_per_hour if serve and serve.sizes else None
    usd = "-" if price is None else f"{price:.2f}"
    access = model.access.replace("_", " ")
    return [model.name, f"{model.context_limit:,}", *gib, usd, access, model.license or "?"]


def _whole(model: Model, paper: Paper) -> list[str]:
    chat = ", ".join(part for part in (model.chat_template, _SYSTEM.get(model.system or "")) if part)
    facts = {
        "hub": f"{model.hub_id}@{model.revision}" if model.revision else model.hub_id,
        "license": model.license or "not known",
        "access": model.access.replace("_", " "),
        "KAITO": f"{model.upstream} in v0.12",
        "runs with": ", ".join(model.runtimes),
        "context": f"{model.context_limit:,} tokens",
        "weights": f"{model.weights_gib:.2f} GiB" + (f", {model.quantisation}" if model.quantisation else ""),
        "chat": chat or "not known",
        "LoRA on": ", ".join(model.lora_targets) if model.tunable else "cannot be tuned",
    }
    lines = [paper.paint(model.name, "bold")]
    for name, text in facts.items():
        lines += paper.wrap(text, first=f"  {name:<11}", indent=" " * 13)
    for limit in model.limits:
        lines += paper.wrap(limit, first=f"  {'limits':<11}", indent=" " * 13)
    for need in model.needs:
        lines += ["", *_holders(need, model.name, paper)]
    return lines


def _holders(need: Need, model: str, paper: Paper) -> list[str]:
    lines = paper.wrap(f"{need.gib:.1f} GiB on one GPU to {need.use}: {need.basis}", first="  ", indent="    ")
    parts = ", ".join(f"{name} {gib:.2f}" for name, gib in need.parts.items())
    lines += paper.wrap(f"{parts}; and a margin", first="    ", indent="    ")
    shown = [f"{one.size}{_usd(one)}" for one in need.sizes[:_SHOWN]]
    if not shown:
        other = offers.smaller(presets.preset(model))
        such = f"; a smaller one of its family is {other}" if other else ""
        return [*lines, f"    no size that is known holds it{such}"]
    if more := len(need.sizes) - len(shown):
        shown.append(f"{more} more (kaito-hera sizes --fits {model} --for {need.name})")
    return lines + paper.wrap(f"fits on {', '.join(shown)}", first="    ", indent="    ")


def _usd(one: Holder) -> str:
    return "" if one.usd_per_hour is None else f" ({one.usd_per_hour:.2f} USD/h)"
