"""The Workspace's status: a documented contract. `observe` computes it, one writer in `reconcile` stores it.

Condition names and True-reasons are KAITO's. What grows with time (money, age) is left to who shows it, so that nothing
is written while nothing changes.
"""

import datetime
from typing import Annotated, Any, Literal, Self

import pydantic

from kaito_hera import api
from kaito_hera.intent import Intent

PREFLIGHT_SUCCEEDED = "PreflightSucceeded"
NODE_CLAIM_READY = "NodeClaimReady"
RESOURCE_READY = "ResourceReady"
JOB_STARTED = "JobStarted"
INFERENCE_READY = "InferenceReady"
WORKSPACE_READY = "WorkspaceReady"
WORKSPACE_SUCCEEDED = "WorkspaceSucceeded"
READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"

TRUE_REASONS = {
    PREFLIGHT_SUCCEEDED: "PreflightSucceeded",
    NODE_CLAIM_READY: "NodeClaimsReady",
    RESOURCE_READY: "workspaceResourceStatusSuccess",
    JOB_STARTED: "WorkspaceTuningJobStatusStarted",
    INFERENCE_READY: "WorkspaceInferenceStatusSuccess",
    WORKSPACE_READY: "workspaceReady",
    WORKSPACE_SUCCEEDED: "workspaceSucceeded",
    READY: "workspaceReady",
}
PENDING_REASONS = {
    PREFLIGHT_SUCCEEDED: "PreflightPending",
    NODE_CLAIM_READY: "NodeClaimNotReady",
    RESOURCE_READY: "workspaceResourceStatusNotReady",
    JOB_STARTED: "WorkspaceTuningJobStatusPending",
    INFERENCE_READY: "WorkspaceInferenceStatusPending",
    WORKSPACE_READY: "workspacePending",
    WORKSPACE_SUCCEEDED: "workspacePending",
    READY: "workspacePending",
}
RELEASED = "Released"

_Text = Annotated[str, pydantic.StringConstraints(max_length=32768)]
_Verdict = Literal["True", "False", "Unknown"]


class Model(api.Model):
    """A part of the status. What a newer version has written beside is left alone, not taken for a mistake."""

    model_config = pydantic.ConfigDict(extra="ignore")


class Condition(Model):
    """One observation."""

    type: str
    """What is observed."""
    status: _Verdict
    """True, False or Unknown."""
    reason: str
    """One word for the state."""
    message: _Text = ""
    """The state in words: object, value seen, way out."""
    last_transition_time: str
    """When the status last changed (RFC 3339)."""
    observed_generation: int
    """Generation of the Workspace that it is true of: an earlier one while that is renewed after an edit."""


class WorkflowStatus(Model):
    """The attempt that runs or ran last."""

    name: str
    """Name of the Argo Workflow in the operator's namespace; written before the Workflow is made."""
    kind: Literal["serve", "tune", "push", "release"]
    """What the attempt does."""
    attempt: int
    """Rises by one with each Workflow of this Workspace."""
    generation: int
    """Generation of the Workspace that it was made for."""
    annotated: str = ""
    """Hash of the annotations that it was made for."""
    phase: str = ""
    """Argo's phase; empty until Argo was seen to have the Workflow."""
    failures: int = 0
    """Attempts in a row that failed for this generation."""
    url: str = ""
    """Where to watch it."""
    message: _Text = ""
    """Why it could not be made."""


class StepStatus(Model):
    """The step that runs now."""

    name: str
    """Name of the step."""
    since: str = ""
    """When it began (RFC 3339)."""
    message: _Text = ""
    """What it is doing or waiting for."""
    percent: int | None = None
    """How far it is, where that is known."""


class TuningStatus(Model):
    """The tuning run."""

    step: int | None = None
    """Optimizer steps done."""
    max_steps: int | None = None
    """Optimizer steps in all."""
    epoch: float | None = None
    """Passes over the data."""
    loss: float | None = None
    """Training loss of the last step."""
    eval_loss: float | None = None
    """Loss on the rows held out (`train_test_split`), when they were looked at last."""
    learning_rate: float | None = None
    """Learning rate of the last step."""
    tokens_per_second: float | None = None
    """Tokens trained on per second."""
    eta_seconds: int | None = None
    """Seconds that are left, estimated."""
    gpu_memory_gib: float | None = None
    """The most that training has held in the GPU's memory so far."""
    resumed_from_step: int | None = None
    """The step after which this attempt went on from a checkpoint of an earlier one."""
    adapter_image: str = ""
    """The pushed adapter by digest."""


class ServedAdapter(Model):
    """An adapter that the server took."""

    name: str
    """Its name."""
    strength: str
    """Its strength."""
    source: str
    """The image or volume that it came from."""


class Engine(Model):
    """How a server answers, in its own words: text of a pod in the user's namespace."""

    concurrent_requests: Annotated[int, pydantic.Field(ge=1, lt=2**31)]
    """So many requests are answered at the same time; others wait."""
    context: Annotated[int, pydantic.Field(ge=1, lt=2**31)]
    """Most tokens of a prompt and its answer together."""
    notes: Annotated[
        tuple[Annotated[str, pydantic.StringConstraints(max_length=1000)], ...], pydantic.Field(max_length=10)
    ] = ()
    """Why they are no more: what the architecture or the memory does not allow."""


class ServingStatus(Model):
    """What the server was rolled out with last. Whether it answers is the condition InferenceReady."""

    generation: int
    """Generation of the Workspace that asked for it."""
    adapters: tuple[ServedAdapter, ...] = ()
    """The adapters that it took and that were not taken out since."""
    engine: Engine | None = None
    """How it answers, as one of its replicas said at the end of the roll-out."""


class ModelStatus(Model):
    """The model as it was found, where no preset pins it: attempts that follow take the same."""

    source: str
    """The hub's id of it, or the image with its files, as the Workspace names it."""
    revision: str
    """Commit on the hub, or digest of the image."""


class DataSet(Model):
    """A data set of the hub as it was found."""

    source: str
    """Its address, as the Workspace has it."""
    revision: str
    """Commit on the hub; refs/convert/parquet@COMMIT where it is the hub's own conversion that is trained on."""


class DataStatus(Model):
    """The data sets of the hub as preflight found them: attempts that follow train on the same."""

    tune: str
    """Hash of the tuning that they are for: another one looks anew."""
    sets: tuple[DataSet, ...] = ()
    """Each with its commit."""


class Refusal(Model):
    """A kind of node that could not be had."""

    candidate: str
    """GPU size and kind of capacity."""
    reason: _Text
    """Why not, in the words of whoever refused it."""
    held_until: str = ""
    """It was launched and gave no usable nodes: until then (RFC 3339) it is tried last. Empty where it was refused."""
    unfit: bool = False
    """The images cannot use its nodes: it is not tried again until the Workspace is edited, or annotated to retry."""


class NodesStatus(Model):
    """The nodes that were asked for, and what they cost."""

    candidate: str = ""
    """GPU size and kind of capacity."""
    refused: tuple[Refusal, ...] = ()
    """What was tried before, or does not fit the model, and why."""
    usd_per_hour: float | None = None
    """List price of all nodes that were ordered last, while they run: an indication, not a bill. None: not known, as of
    spot. Nodes of an earlier kind, which stand until the server has moved, are not in it.
    """
    held: bool = False
    """Whether nodes were asked for and not given back since: something may be billed."""
    inherited: bool = False
    """KAITO's controller had this Workspace first: nodes that it made, and a server, may be there."""
    billed_since: str = ""
    """Since when nodes are running; empty when none are."""
    billed_seconds: int = 0
    """Seconds billed in earlier intervals that have ended: one ends with a release, or where the price changes."""
    priced_seconds: int = 0
    """Those of them whose price was known."""
    billed_usd: float = 0.0
    """What these have cost, each interval at the list price of the nodes that it had."""


class Satisfied(Model):
    """Hashes of the parts of the user's intent that were reached."""

    nodes: str = ""
    """Nodes were provisioned for this."""
    trained: str = ""
    """For this, wherever its image goes, the adapter is finished, on a volume from which it is yet to be pushed."""
    tune: str = ""
    """The adapter was pushed for this."""
    serve: str = ""
    """The server was rolled out for this."""

    def intent(self) -> Intent:
        """As hashes to compare."""
        return Intent(nodes=self.nodes, tune=self.tune, serve=self.serve)


class Status(Model):
    """What is known about a Workspace."""

    observed_generation: int = 0
    """Generation that this status is about."""
    state: Literal["Pending", "Running", "Ready", "NotReady", "Succeeded", "Failed", ""] = ""
    """One word for people, as in KAITO. A tuning that is to be served has Succeeded once its server answers."""
    instance_type: str = ""
    """The GPU size: what resource names, the one that was had of several, or that of nodes that were brought."""
    conditions: tuple[Condition, ...] = ()
    """What is true and what is not."""
    warnings: tuple[_Text, ...] = ()
    """What works but should be known: a retired GPU size, a setting without effect, a key that was renamed."""
    worker_nodes: tuple[str, ...] = ()
    """Names of the nodes, sorted."""
    target_node_count: int | None = None
    """Nodes wanted."""
    workflow: WorkflowStatus | None = None
    """The attempt that runs or ran last."""
    step: StepStatus | None = None
    """The step that runs now."""
    model: ModelStatus | None = None
    """Which commit or digest the model is, where no preset pins it."""
    data: DataStatus | None = None
    """Which commits of the hub the data is, where whole data sets are named."""
    tuning: TuningStatus | None = None
    """The tuning run."""
    serving: ServingStatus | None = None
    """What is served."""
    nodes: NodesStatus | None = None
    """The nodes and their cost."""
    satisfied: Satisfied = Satisfied()
    """Which parts of the intent were reached."""

    @classmethod
    def of(cls, obj: dict[str, Any]) -> Self:
        """The status of an object, without those of its fields that cannot be read (another version's)."""
        fields = obj.get("status") or {}
        try:
            return cls.model_validate(fields)
        except pydantic.ValidationError as cause:
            wrong = {error["loc"][0] for error in cause.errors()}
            return cls.model_validate({name: value for name, value in fields.items() if name not in wrong})

    def dump(self) -> dict[str, Any]:
        """JSON for a merge patch: what there is not, at whatever depth, is null."""
        return self.model_dump(by_alias=True, mode="json")

    def condition(self, name: str) -> Condition | None:
        """The condition of that type."""
        return next((c for c in self.conditions if c.type == name), None)

    def is_settled(self, generation: int) -> bool:
        """Whether nothing is under way for this generation of the Workspace."""
        under_way = self.condition(RECONCILING)
        current = self.observed_generation == generation
        return current and under_way is not None and under_way.status == "False"

    def is_true(self, name: str) -> bool:
        """Whether that condition is True."""
        condition = self.condition(name)
        return condition is not None and condition.status == "True"


def rfc3339(moment: datetime.datetime) -> str:
    """As the API server writes times."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime.datetime:
    """The reverse of `rfc3339`; fractions of seconds are understood too."""
    return datetime.datetime.fromisoformat(text)
