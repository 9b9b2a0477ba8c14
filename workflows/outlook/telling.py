"""From what was judged to the words and numbers of an Outlook: steps in running order, nodes, candidates, price."""

from kaito_hera import findings, intent, loads, models, offers, sizing
from kaito_hera.api import Workspace
from kaito_hera.intent import Parts
from kaito_hera.settings import Settings
from workflows.outlook import Candidate, Finding, Fit, Holder, Memory, MemoryPart, Nodes, Outlook, Price, Step

_HOLDERS = 3


def tell(
    workspace: Workspace,
    settings: Settings,
    parts: Parts,
    *,
    demands: tuple[loads.Demand, ...],
    found: list[findings.Finding],
    candidates: tuple[Candidate, ...],
    region: str | None,
) -> Outlook:
    """All of it."""
    fatal = tuple(finding(one) for one in found if one.fatal)
    together = _together(workspace, demands)
    return Outlook(
        workspace=workspace.key,
        does=_does(workspace, own=settings.node_provider == "byo"),
        model=_model(workspace),
        works=not fatal,
        steps=steps(workspace, settings, parts, together=together),
        nodes=_nodes(workspace, settings, together=together),
        candidates=candidates,
        memory=tuple(_memory(demand) for demand in demands),
        holders=_holders(demands, settings, region),
        price=_price(workspace, settings, candidates) if settings.node_provider != "byo" else None,
        errors=fatal,
        warnings=tuple(finding(one) for one in found if not one.fatal),
    )


def candidates(
    workspace: Workspace,
    settings: Settings,
    demands: tuple[loads.Demand, ...],
    *,
    tried: tuple[sizing.Candidate, ...],
    region: str | None,
) -> tuple[Candidate, ...]:
    """The kinds of node in the order in which they are tried; of nodes that are there nobody asks the capacity."""
    return tuple(
        Candidate(
            size=one.size.name,
            capacity=one.capacity,
            tried=one in tried,
            gpu=one.size.gpu,
            gpus=one.size.gpus,
            gpu_gib=one.gpu_gib,
            usable_gib=round(one.usable_gib, 2),
            fits=tuple(_fit(one, demand) for demand in demands),
            usd_per_hour=one.size.usd(region),
            at_most=one.capacity == "spot",
            region=region if region in one.size.priced_regions else None,
            priced_on=one.size.priced_on,
            retired_on=one.size.retired_on,
        )
        for one in sizing.candidates(workspace, sizing.usual(settings))
    )


def finding(one: findings.Finding) -> Finding:
    """As an Outlook has it."""
    return Finding(reason=one.reason if one.fatal else "", field=one.field, problem=one.problem, remedy=one.remedy)


def _together(workspace: Workspace, demands: tuple[loads.Demand, ...]) -> bool:
    """Whether several nodes hold one model together, of each kind of node that may be had."""
    served = [demand for demand in demands if demand.verb == "serve"]
    sizes = sizing.candidates(workspace)
    return bool(served and sizes) and all(served[0].over_nodes(one.usable_gib, one.gpus) > 1 for one in sizes)


def steps(workspace: Workspace, settings: Settings, parts: Parts, *, together: bool = False) -> tuple[Step, ...]:
    """The steps of the next attempt, as `workflows.plan` makes it of these parts; none where there is nothing to do."""
    if not parts:
        return ()
    placed = parts.nodes or settings.node_provider == "byo"
    names = ["preflight", *(["provision-nodes", "await-nodes"] if placed else [])]
    if parts.push:
        names = ["push"]
    elif parts.tune:
        pushes = ["push"] if intent.scratch(workspace, settings) else []
        names += ["train", *([*pushes, "roll-out"] if workspace.serves else ["release", *pushes])]
    elif parts.serve:
        names.append("roll-out")
    texts = _texts(workspace, settings)
    if together:
        over = f"a RayService over {workspace.node_count} nodes behind Service {workspace.metadata.name}, port 80"
        texts["roll-out"] = f"{over}: /chat and /v1; never run on GPUs"
    return tuple(Step(name=name, does=texts[name]) for name in names)


def _texts(workspace: Workspace, settings: Settings) -> dict[str, str]:
    name, resource, tuning = workspace.metadata.name, workspace.resource, workspace.tuning
    nodes = _several(workspace.node_count, "node")
    wait = _span(resource.provisioning_timeout_seconds or settings.node_timeout_seconds)
    own = settings.node_provider == "byo"
    texts = {
        "preflight": "model, size, memory, Secrets, quotas; data and registry from your namespace; nothing is bought",
        "provision-nodes": f"finds {nodes} of yours" if own else f"asks for {nodes}: from now on it costs",
        "await-nodes": f"Ready and steady with their GPUs, at most {wait} from the order",
        "roll-out": f"{_several(workspace.node_count, 'replica')} behind Service {name}, port 80",
        "release": "leaves your nodes as they are" if own else "gives the nodes back: from now on nothing costs",
    }
    if workspace.preset:
        texts["roll-out"] += ": /chat and /v1"
    if tuning:
        limit = _span(tuning.active_deadline_seconds or settings.tuning_timeout_seconds)
        to, kept = tuning.output.image or "a volume", intent.scratch(workspace, settings)
        place = f"a volume of StorageClass {kept}" if kept else to
        texts["train"] = f"Job {name} on one node, at most {limit}; the adapter goes to {place}"
        goes = "; if that takes long, the nodes are given back meanwhile" if workspace.serves and not own else ""
        texts["push"] = f"from there to {to}, by a pod without GPUs{goes}"
    return texts


def _does(workspace: Workspace, *, own: bool) -> str:
    if workspace.preset is None:
        return "serve a pod of your own"
    name = workspace.preset.name
    if workspace.tuning is None:
        adapters = f" with {_several(len(workspace.adapters), 'adapter')}" if workspace.adapters else ""
        return f"serve {name}{adapters}"
    after = "serve it" if workspace.serves else "leave your nodes" if own else "give the nodes back"
    return f"tune {name} ({workspace.tuning.method}), then {after}"


def _model(workspace: Workspace) -> str | None:
    if workspace.preset and workspace.preset.options.image:
        return workspace.preset.options.image
    model = models.find(workspace)
    return f"{model.hub_id}@{model.revision}" if model and model.revision else model.hub_id if model else None


def _nodes(workspace: Workspace, settings: Settings, *, together: bool) -> Nodes:
    return Nodes(
        count=workspace.node_count,
        meaning="together they hold the model, as one server" if together else meaning(workspace),
        bought=settings.node_provider != "byo",
        labels=workspace.resource.label_selector.labels(),
    )


def meaning(workspace: Workspace) -> str:
    """What `resource.count` means for this Workspace."""
    if workspace.tuning:
        then = ", and the server takes the same" if workspace.serves else ""
        return f"tuning runs on one node{then}"
    whole = "your pod" if workspace.preset is None else "the whole model"
    if workspace.resource.count == 1:
        return "one pod of yours" if workspace.preset is None else "one server with the whole model"
    spread = "; KAITO's newest would spread one model over them" if workspace.preset else ""
    return f"a server on each, with {whole}, behind one Service{spread}"


def _fit(one: sizing.Candidate, demand: loads.Demand) -> Fit:
    way = one.way(demand)
    gpus = demand.taken(one.usable_gib, one.gpus)
    share = demand.gib_of(gpus, -1 if way is None else way) / one.usable_gib if one.usable_gib else 0.0
    return Fit(use=demand.verb, share=round(share, 3), fits=way is not None)


def _memory(demand: loads.Demand) -> Memory:
    return Memory(
        use=demand.verb,
        basis="; ".join(part for part in (demand.basis, demand.note) if part),
        parts=tuple(MemoryPart(name=name, gib=round(gib, 3)) for name, gib in demand.need.parts.items() if gib),
        gib=round(demand.need.gib, 2),
        gib_with_margin=round(demand.gib, 2),
    )


def _holders(demands: tuple[loads.Demand, ...], settings: Settings, region: str | None) -> tuple[Holder, ...]:
    if not demands:
        return ()
    able = offers.able(demands, region=region, has=settings.kernels)
    return tuple(Holder(size=size.name, usd_per_hour=size.usd(region)) for size in able[:_HOLDERS])


def _price(workspace: Workspace, settings: Settings, candidates: tuple[Candidate, ...]) -> Price | None:
    bypassed = sizing.bypassed(workspace)
    able = [one for one in candidates if one.tried and (bypassed or all(fit.fits for fit in one.fits))]
    if not able:
        return None
    each = [one.usd_per_hour for one in able]
    known = [round(usd * workspace.node_count, 4) for usd in each if usd is not None]
    first = round(each[0] * workspace.node_count, 4) if each[0] is not None else None
    return Price(
        first=first,
        at_most=able[0].at_most,
        lowest=min(known, default=None),
        highest=max(known, default=None),
        until=_until(workspace, settings),
    )


def _until(workspace: Workspace, settings: Settings) -> str:
    if workspace.tuning and not workspace.serves:
        return f"until the adapter is {'finished' if intent.scratch(workspace, settings) else 'pushed'}"
    return "until the Workspace is deleted"


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _span(seconds: int) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
