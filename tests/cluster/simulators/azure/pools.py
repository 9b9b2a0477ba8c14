"""An agent pool as data: what was asked, what is there, and what has to happen next.

`next_step` is the whole behaviour of the cloud behind the API, as a pure function of a pool and the time. A machine is
written down before it is booted and struck off after it is removed, so that whoever dies in between loses none.
"""

import copy
import dataclasses
import datetime
import uuid
from typing import Any, Literal, NamedTuple

PREEMPTED = {
    "code": "AKSOperationPreemptedByDelete",
    "message": "This operation has been preempted by Deleting operation.",
}
Kind = Literal["create", "update", "delete", "abort"]


@dataclasses.dataclass
class Operation:
    """What Azure-AsyncOperation tells about."""

    kind: Kind
    started: float
    id: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "InProgress"
    error: dict[str, Any] | None = None
    begins: float = 0.0
    """Nothing happens before this time."""
    fails: dict[str, Any] | None = None
    """The error that this operation is going to end with ..."""
    fails_after: int = 0
    """... once so many machines have joined."""
    retry_after: int | None = None


@dataclasses.dataclass
class Machine:
    """One machine of a pool."""

    instance: int
    state: Literal["wanted", "booted", "joined"] = "wanted"
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    """As last given to the Node object."""


@dataclasses.dataclass
class Pool:
    """A pool that exists or existed; one that is gone is kept for its operations, which clients still ask for."""

    name: str
    properties: dict[str, Any]
    """As asked, in wire names."""
    state: str = "Creating"
    etag: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    error: dict[str, Any] | None = None
    machines: dict[str, Machine] = dataclasses.field(default_factory=dict)
    next_instance: int = 0
    operations: dict[str, Operation] = dataclasses.field(default_factory=dict)
    current: str = ""

    @property
    def gone(self) -> bool:
        return self.state == "Deleted"

    @property
    def operation(self) -> Operation | None:
        """The operation under way."""
        return self.operations.get(self.current)

    @property
    def count(self) -> int:
        return int(self.properties.get("count", 1))

    @property
    def spot(self) -> bool:
        return self.properties.get("scaleSetPriority") == "Spot"

    def dump(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def load(cls, document: dict[str, Any]) -> "Pool":
        document = copy.deepcopy(document)
        machines = {name: Machine(**one) for name, one in document.pop("machines").items()}
        operations = {key: Operation(**one) for key, one in document.pop("operations").items()}
        return cls(**document, machines=machines, operations=operations)


class Step(NamedTuple):
    """What has to happen next: a verb, and the machine it concerns or the time until which to wait."""

    verb: Literal["wait", "add", "boot", "await", "relabel", "remove", "finish", "fail"]
    machine: str = ""
    until: float = 0.0


def next_step(pool: Pool, now: float) -> Step | None:
    """None when nothing is under way."""
    operation = pool.operation
    if operation is None:
        return None
    if now < operation.begins:
        return Step("wait", until=operation.begins)
    if operation.kind == "abort":
        return Step("finish")
    if operation.kind == "delete":
        return Step("remove", newest(pool)) if pool.machines else Step("finish")
    return _towards_count(pool, operation)


def _towards_count(pool: Pool, operation: Operation) -> Step:
    joined = sum(1 for machine in pool.machines.values() if machine.state == "joined")
    if operation.fails is not None and joined >= operation.fails_after:
        return Step("fail")
    if len(pool.machines) > pool.count:
        return Step("remove", newest(pool))
    if len(pool.machines) < pool.count:
        return Step("add")
    for verb, state in (("boot", "wanted"), ("await", "booted")):
        # All are booted before any is waited for: machines start side by side.
        for name, machine in pool.machines.items():
            if machine.state == state:
                return Step(verb, name)  # type: ignore[arg-type]
    labels = pool.properties.get("nodeLabels") or {}
    for name, machine in pool.machines.items():
        if machine.labels != labels:
            return Step("relabel", name)
    return Step("finish")


def newest(pool: Pool) -> str:
    return max(pool.machines, key=lambda name: pool.machines[name].instance)


def begin(pool: Pool, operation: Operation, state: str) -> None:
    """Make an operation the current one; what was under way is pre-empted and says by what."""
    if pool.operation is not None:
        if operation.kind == "abort":
            _end(pool, "Canceled", None)
        else:
            _end(pool, "Failed", PREEMPTED)
    pool.operations[operation.id] = operation
    while len(pool.operations) > 20:
        del pool.operations[next(iter(pool.operations))]
    pool.current, pool.state, pool.error = operation.id, state, None
    pool.etag = str(uuid.uuid4())


def finish(pool: Pool) -> None:
    """The current operation has done what it was to do."""
    operation = pool.operation
    assert operation is not None
    pool.state = {"delete": "Deleted", "abort": "Canceled"}.get(operation.kind, "Succeeded")
    _end(pool, "Succeeded", None)
    pool.etag = str(uuid.uuid4())


def fail(pool: Pool, error: dict[str, Any]) -> None:
    """The current operation has failed; its machines stay, as AKS leaves them, until the pool is deleted."""
    pool.state, pool.error = "Failed", error
    _end(pool, "Failed", error)
    pool.etag = str(uuid.uuid4())


def _end(pool: Pool, status: str, error: dict[str, Any] | None) -> None:
    operation = pool.operation
    assert operation is not None
    operation.status, operation.error = status, error
    pool.current = ""


def find_operation(pools: dict[str, Pool], operation_id: str) -> Operation | None:
    return next((pool.operations[operation_id] for pool in pools.values() if operation_id in pool.operations), None)


def timestamp(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")
