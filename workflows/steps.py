"""The steps, in the order in which a Workspace meets them. Which condition each decides, `kaito_hera.conditions` says.

A step is a function: its Input is what it needs, its Output what later steps get. Nothing here touches a cluster until
Argo runs a step, and every step may run twice.
"""

import contextlib
from typing import Annotated

import pydantic
from hera.workflows.io import Input, Output

from artifacts.weights import config as weights
from kaito_hera import answering, checks, inherited, intent, jobs, nodes, rollout, scratch
from kaito_hera.api import Workspace
from kaito_hera.nodes import ordering, readiness
from kaito_hera.run import Run, releaser
from kaito_hera.settings import Settings
from kaito_hera.status import Refusal
from tuning import config as tuning
from workflows import asks, template
from workflows.asks import images


class Asked(Input):
    """What every step gets."""

    workspace: Workspace
    settings: Settings
    attempt: int


class Known(Asked):
    """With the adapter that was tuned, by digest, where tuning is done already."""

    adapter: str = ""
    pinned: str = ""
    """Commit or digest of the model that an earlier attempt found."""
    commits: list[weights.DataCommit] = []
    """Those of the data's addresses, in alphabetical order; likewise."""


class Ordered(Asked):
    """Before provisioning."""

    keep: bool = False
    """Nodes were chosen already: those that are in use stay, whichever are preferred by now."""
    refused: list[Refusal] = []
    """What earlier attempts found, where several kinds of node would do."""
    left_out: list[Refusal] = []
    """What preflight found not to fit."""


class Placed(Asked):
    """After provisioning: which kind of node it became, if several would do, and names that are known beforehand."""

    candidate: str = ""
    hostnames: list[str] = []
    fresh: bool = False
    """Nodes were ordered in this attempt, so that those of an earlier kind may be there too."""


class Trained(Placed):
    """With the adapter that was found or made, by digest; empty when there is none."""

    adapter: str = ""
    pinned: str = ""
    """Commit or digest of the model, where no preset pins it."""
    commits: list[weights.DataCommit] = []
    """Of the data's addresses, in alphabetical order, where data sets of the hub are among them."""


class Finished(Asked):
    """After training onto a volume of ours."""

    adapter: str = ""
    """By digest, where the registry has it already."""
    hurried: bool = False
    """The nodes are to serve it: they do not wait for it long, unless they serve something meanwhile."""


_DIGEST = r"^([a-z0-9][-a-zA-Z0-9._:/]*@sha256:[0-9a-f]{64})?$"
"""What a pod in the user's namespace answers becomes text of a Workflow, where Argo would evaluate an expression."""


class Adapter(Output):
    """An adapter image by digest; empty when there is none."""

    adapter: Annotated[str, template.output("adapter", default=""), pydantic.StringConstraints(pattern=_DIGEST)]


class Checked(Adapter):
    """What preflight found: perhaps the adapter, and what the user should know though it stops nothing."""

    warnings: Annotated[list[str], template.output("warnings", default="[]")]
    left_out: Annotated[list[Refusal], template.output("left-out", default="[]")]
    """Kinds of node that do not fit, where others do."""
    pinned: Annotated[weights.Pinned, template.output("pinned", default="")]
    """Commit or digest of the model, where no preset pins it."""
    commits: Annotated[list[weights.DataCommit], template.output("commits", default="[]")]
    """Of the data's addresses, in alphabetical order, where data sets of the hub are among them."""


class Provisioned(Output):
    """What the provider accepted."""

    candidate: Annotated[str, template.output("candidate", default="")]
    refused: Annotated[list[Refusal], template.output("refused", default="[]")]
    hostnames: Annotated[list[str], template.output("hostnames", default="[]")]


class Usable(Output):
    """The nodes that work can start on."""

    nodes: Annotated[list[str], template.output("nodes", default="[]")]


@template.step
def preflight(known: Known) -> Checked:
    """Everything that can be known without a GPU; raises the first reason why this cannot work.

    Answers with the adapter if the registry already holds what is to be tuned.
    """
    run = Run.open(known.workspace, known.settings, pinned=known.pinned, commits=known.commits)
    run.still_wanted()
    inherited.await_tuned(run.cluster, run.workspace)
    warnings = checks.pass_facts(run.workspace, run.settings)
    wanted = asks.wanted(run, known.attempt, adapter=known.adapter)
    more, left_out = checks.pass_memory(run.workspace, run.settings, wanted.demands)
    if run.workspace.serves:
        ordering.expect(run)
    learned = checks.pass_cluster(run, wanted)
    if learned.model.preset:  # of the hub: only now are its numbers known
        more, left_out = checks.pass_memory(
            run.workspace, run.settings, asks.demands(run, learned.model.preset, adapter=known.adapter)
        )
    return Checked(
        adapter=learned.adapter,
        warnings=template.inert((*warnings, *more, *wanted.warnings)),
        left_out=list(left_out),
        pinned=learned.model.pinned if asks.models.floats(run.workspace) else "",
        commits=list(learned.commits),
    )


@template.step
def provision_nodes(ordered: Ordered) -> Provisioned:
    """Ask for the nodes, of the first kind that can be had; asking again for nodes that exist changes nothing."""
    run = Run.open(ordered.workspace, ordered.settings)
    run.still_wanted()
    done = ordering.order(run, known=tuple(ordered.refused), left_out=tuple(ordered.left_out), keep=ordered.keep)
    order, refused = done.order, list(done.refused)
    return Provisioned(candidate=order.candidate, refused=refused, hostnames=list(order.hostnames))


@template.step
def await_nodes(placed: Placed) -> Usable:
    """Return once every node is Ready and offers its GPUs, or raise NodesNotReady naming those that do not."""
    run = Run.open(placed.workspace, placed.settings, placed.candidate)
    return Usable(nodes=readiness.await_ready(run, tuple(placed.hostnames)))


@template.step
def train(trained: Trained) -> Adapter:
    """Run the tuning Job in the user's namespace, or find the one that runs, and follow it to its end.

    Answers with no adapter where that is left on a volume, to be pushed.
    """
    if trained.adapter:
        return Adapter(adapter=trained.adapter)
    run = Run.open(trained.workspace, trained.settings, trained.candidate, trained.pinned, commits=trained.commits)
    run.still_wanted()
    placement = run.placement(tuple(trained.hostnames))
    inherited.take_over(run.cluster, run.workspace)
    task = asks.tuning.task(run, trained.attempt, placement)
    kept = intent.scratch(run.workspace, run.settings)
    if not jobs.exists(run, task):
        asks.tuning.keep(run)
        rollout.make_room(run, placement)
    with scratch.in_own_words(run) if kept else contextlib.nullcontext():
        made = jobs.run(run, task, read=tuning.Progress.parse)["adapter"]
    return Adapter(adapter="" if kept else made)


@template.step
def push(finished: Finished) -> Adapter:
    """Push the adapter from the volume that it was trained onto, without a GPU; empty where nobody waits for it now."""
    if finished.adapter:
        return Adapter(adapter=finished.adapter)
    run = Run.open(finished.workspace, finished.settings)
    run.still_wanted()
    hurried = finished.hurried and not scratch.serves_meanwhile(run)
    renewed = asks.tuning.renewed(run)
    task = asks.tuning.push_task(run, finished.attempt, run.placement(), hurried=hurried, renewed=renewed)
    return Adapter(adapter=scratch.push(run, task, read=tuning.Progress.parse, hurried=hurried))


@template.step
def roll_out(trained: Trained) -> None:
    """Serve the model with its adapters, or the user's own pod; return when every replica answers."""
    run = Run.open(trained.workspace, trained.settings, trained.candidate, trained.pinned)
    run.still_wanted()
    placement = run.placement(tuple(trained.hostnames))
    server = images.mounted(run, asks.serving.server(run, trained.adapter), placement)
    rollout.apply(run, server, placement)
    answering.await_answering(run, server)
    if trained.fresh:
        ordering.tidy(run)


@template.step
def release(asked: Asked) -> None:
    """Take the work off the nodes and give them back; return when nothing billable is left."""
    give_back(Run.open(asked.workspace, asked.settings))


def give_back(run: Run) -> None:
    """What `release` does, also where Argo does not run it."""
    rollout.remove(run)
    inherited.take_over(run.cluster, run.workspace)
    nodes.release(releaser(run), run.workspace.metadata.uid)
