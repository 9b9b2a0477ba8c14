"""What tests tell the cloud to do, in files that are read anew for every request.

`scenarios/NAME.json` is one thing to go wrong; the first in the order of names that fits a request decides it:

    {"method": "PUT",               which requests: the method (PUT unless given), and if given
     "pool": "g.*",                 a pattern of the pool's whole name,
     "vmSize": "Standard_NC6s_v3",  the pool's VM size,
     "path": "/usages",             a pattern found anywhere in the path (then pool and vmSize do not matter);
     "times": 2,                    only so often: the file is deleted with the last time
     "answer": {"status": 409, "code": "OperationNotAllowed", "message": "...", "details": [],
                "flat": false, "retryAfter": 1, "body": {}},
                                    answer at once; flat is AKS's own shape without the envelope, body any other
     "fail": {"code": "...", "message": "...", "details": [], "afterNodes": 0},
                                    accept, and end as Failed once so many machines have joined
     "delay": 30}                   accept, and do nothing for so many seconds

`limits.json` is what the subscription has; everything may be left out:

    {"quota": {"standardNCSv3Family": 12, "cores": 100, "lowPriorityCores": 0},
                                    vCPUs; 1000 unless given
     "used": {"cores": 6},          vCPUs that others use
     "capacity": {"Standard_NC6s_v3": 1},
                                    machines there are of a size; more are accepted and then fail (AllocationFailed)
     "notOffered": ["Standard_NC6s_v3"],
                                    refused at once, and restricted in the list of SKUs
     "busy": "Updating",            the managed cluster's state while something else happens to it; writes are a 409
     "power": "Stopped",            the managed cluster's power state
     "pageSize": 2}                 pools on a page of the list

Write such a file under another name first and rename it; a file that is not understood is a 500 that says why.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from pydantic.alias_generators import to_camel

from tests.cluster.simulators.azure.store import write_json


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


_Model = TypeVar("_Model", bound=_Strict)


class Failure(_Strict):
    """An error in ARM's words."""

    code: str = ""
    message: str = ""
    details: list[dict[str, Any]] = []

    def error(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message} | ({"details": self.details} if self.details else {})


class Answer(Failure):
    """An answer without any deed."""

    status: int
    flat: bool = False
    retry_after: int | None = None
    body: dict[str, Any] | None = None


class LateFailure(Failure):
    """How an accepted operation ends."""

    after_nodes: int = 0


class Scenario(_Strict):
    """One file of `scenarios/`."""

    method: str = "PUT"
    pool: str = ".*"
    vm_size: str = ""
    path: str = ""
    times: int | None = None
    answer: Answer | None = None
    fail: LateFailure | None = None
    delay: float = 0.0

    def fits(self, method: str, path: str, pool: str, vm_size: str) -> bool:
        if method != self.method:
            return False
        if self.path:
            return re.search(self.path, path) is not None
        wanted_size = not self.vm_size or self.vm_size.lower() == vm_size.lower()
        return bool(pool) and re.fullmatch(self.pool, pool) is not None and wanted_size


class Limits(_Strict):
    """`limits.json`."""

    quota: dict[str, int] = {}
    used: dict[str, int] = {}
    capacity: dict[str, int] = {}
    not_offered: tuple[str, ...] = ()
    busy: str = ""
    power: str = "Running"
    page_size: int = 0


class Script:
    """The files below a state folder."""

    def __init__(self, state: Path) -> None:
        self._scenarios = state / "scenarios"
        self._scenarios.mkdir(parents=True, exist_ok=True)
        self._limits = state / "limits.json"

    def limits(self) -> Limits:
        return _read(Limits, self._limits) if self._limits.exists() else Limits()

    def take(self, method: str, path: str, pool: str, vm_size: str) -> Scenario:
        """The scenario of a request, one time of it used up; one in which nothing happens where none fits."""
        for file, scenario in self._all():
            if scenario.fits(method, path, pool, vm_size):
                _use(file, scenario)
                return scenario
        return Scenario()

    def _all(self) -> Iterator[tuple[Path, Scenario]]:
        for file in sorted(self._scenarios.glob("[!.]*.json")):
            yield file, _read(Scenario, file)


def _use(file: Path, scenario: Scenario) -> None:
    if scenario.times is None:
        return
    if scenario.times <= 1:
        file.unlink()
    else:
        left = scenario.model_copy(update={"times": scenario.times - 1})
        write_json(file, left.model_dump(by_alias=True, exclude_unset=True))


def _read(model: type[_Model], file: Path) -> _Model:
    try:
        return model.model_validate_json(file.read_bytes())
    except pydantic.ValidationError as cause:
        raise ValueError(f"{file} is not understood: {cause}") from cause
