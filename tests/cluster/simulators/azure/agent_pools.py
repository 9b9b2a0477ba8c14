"""Agent pools as ARM resources: what may be asked of one, and how it looks.

Nothing is done here: an accepted request is an operation written to the store, and the fleet does the rest. A DELETE
pre-empts whatever is under way, as AKS documents it (AKSOperationPreemptedByDelete); every other second operation on a
pool is refused as busy.
"""

import json
import re
import time
from typing import Any

from tests.cluster.simulators import web
from tests.cluster.simulators.azure import account as accounts
from tests.cluster.simulators.azure import compute, pools
from tests.cluster.simulators.azure.account import Account
from tests.cluster.simulators.azure.errors import ArmError, busy
from tests.cluster.simulators.azure.fleet import Fleet
from tests.cluster.simulators.azure.pools import Operation, Pool
from tests.cluster.simulators.azure.scenarios import Limits, Scenario
from tests.cluster.simulators.azure.store import Store

CHANGEABLE = {
    "count", "nodeLabels", "tags", "upgradeSettings", "enableAutoScaling", "minCount", "maxCount", "powerState",
}  # fmt: skip
"""Of the properties that AKS lets one change; nodeTaints is another, which this simulator does not know to change."""

SYSTEM = Pool(
    "nodepool1",
    {"count": 1, "vmSize": "Standard_D4s_v5", "mode": "System"},
    state="Succeeded",
    etag="00000000-0000-4000-8000-000000000001",
)
"""Every cluster has a pool for itself; nobody may take it away."""


class AgentPools:
    """The agent pools of one managed cluster."""

    def __init__(self, account: Account, store: Store, fleet: Fleet) -> None:
        self._account, self._store, self._fleet = account, store, fleet

    def all(self) -> list[Pool]:
        return sorted([SYSTEM, *self._store.living()], key=lambda pool: pool.name)

    def get(self, name: str) -> web.Answer:
        return web.json_answer(200, self.shown(self._find(name)))

    def listing(self, request: web.Request, page_size: int) -> web.Answer:
        rows = [self.shown(pool) for pool in self.all()]
        start = int(request.query.get("$skiptoken", 0))
        end = start + page_size if page_size else len(rows)
        page: dict[str, Any] = {"value": rows[start:end]}
        if end < len(rows):
            version = request.query["api-version"]
            page["nextLink"] = (
                f"https://{request.host}{self._account.cluster_id}/agentPools?api-version={version}&$skiptoken={end}"
            )
        return web.json_answer(200, page)

    def put(self, request: web.Request, name: str, scenario: Scenario, limits: Limits) -> web.Answer:
        asked = _properties(request)
        with self._store.changed:
            pool = next((pool for pool in self.all() if pool.name == name), None)
            _check_conditions(request, pool)
            if pool is SYSTEM:
                raise ArmError(400, "OperationNotAllowed", f"{name} is the system pool: this simulator leaves it alone")
            self._check_idle(pool, limits)
            size = compute.check_offered(_checked(name, asked)["vmSize"], self._account, limits)
            if pool is not None:
                _check_changes(pool, asked)
                if pool.state == "Succeeded" and asked == pool.properties:
                    return web.json_answer(200, self.shown(pool))
            wanted = self._wanted(name, pool, asked)
            others = [other for other in self.all() if other.name != name]
            compute.check_quota(wanted, size, others, self._account, limits)
            operation = _operation("update" if pool else "create", scenario)
            lack = compute.lack_of_capacity(wanted, size, others, limits)
            if lack is not None and operation.fails is None:
                operation.fails, operation.fails_after = lack
            pools.begin(wanted, operation, _state(pool, wanted))
            self._store.put(wanted)
            answer = web.json_answer(200 if pool else 201, self.shown(wanted), self._headers(request, operation))
        self._fleet.tend(name)
        return answer

    def delete(self, request: web.Request, name: str, scenario: Scenario, limits: Limits) -> web.Answer:
        if name == SYSTEM.name:
            raise ArmError(400, "OperationNotAllowed", "There has to be at least one system agent pool.")
        with self._store.changed:
            pool = self._store.pools.get(name)
            if pool is None or pool.gone:
                return web.Answer(204)
            _check_conditions(request, pool)
            if limits.busy:
                raise busy(f"operation ({limits.busy})")
            if pool.state == "Deleting":
                raise busy(f"agentpool operation ({name} - Deleting)")
            operation = _operation("delete", scenario)
            with self._store.changing(name):
                pools.begin(pool, operation, "Deleting")
        self._fleet.tend(name)
        return web.Answer(202, b"", self._headers(request, operation, location=True))

    def abort(self, request: web.Request, name: str, scenario: Scenario) -> web.Answer:
        with self._store.changed:
            pool = self._find(name)
            if pool.operation is None or pool.operation.kind in {"delete", "abort"}:
                message = f"agent pool {name} is {pool.state}: there is no operation that could be aborted"
                raise ArmError(409, "OperationNotAllowed", message)
            operation = _operation("abort", scenario)
            with self._store.changing(name):
                pools.begin(pool, operation, "Canceling")
        self._fleet.tend(name)
        return web.Answer(202, b"", self._headers(request, operation, location=True))

    def shown(self, pool: Pool) -> dict[str, Any]:
        """The resource as a GET shows it."""
        defaults = {
            "count": 1,
            "enableAutoScaling": False,
            "maxPods": 30,
            "mode": "User",
            "osDiskSizeGB": 128,
            "osSKU": "Ubuntu",
            "osType": "Linux",
            "scaleDownMode": "Delete",
            "type": "VirtualMachineScaleSets",
        }
        told = {
            "eTag": pool.etag,
            "nodeImageVersion": "AKSUbuntu-2204gen2containerd-202611.01.0",
            "powerState": {"code": "Running"},
            "provisioningState": pool.state,
        }
        if pool.error is not None:
            told["status"] = {"provisioningError": pool.error}
        return {
            "id": f"{self._account.cluster_id}/agentPools/{pool.name}",
            "name": pool.name,
            "type": "Microsoft.ContainerService/managedClusters/agentPools",
            "properties": defaults | pool.properties | told,
        }

    def _find(self, name: str) -> Pool:
        pool = next((pool for pool in self.all() if pool.name == name), None)
        if pool is None:
            raise ArmError(404, "NotFound", f"Agent Pool not found: could not find agent pool {name}")
        return pool

    def _check_idle(self, pool: Pool | None, limits: Limits) -> None:
        if limits.busy:
            raise busy(f"operation ({limits.busy})")
        if pool is not None and pool.operation is not None:
            raise busy(f"agentpool operation ({pool.name} - {pool.state})")

    def _wanted(self, name: str, pool: Pool | None, asked: dict[str, Any]) -> Pool:
        """The pool as it would be: the one that is there, or a new one that still answers for its namesake."""
        if pool is not None:
            copy = Pool.load(pool.dump())
            copy.properties = pool.properties | asked
            return copy
        former = self._store.pools.get(name)
        return Pool(name, asked, operations=dict(former.operations) if former else {})

    def _headers(self, request: web.Request, operation: Operation, *, location: bool = False) -> dict[str, str]:
        base = (
            f"https://{request.host}/subscriptions/{self._account.subscription}"
            f"/providers/Microsoft.ContainerService/locations/{self._account.location}"
        )
        headers = {"Azure-AsyncOperation": f"{base}/operations/{operation.id}?api-version=2017-08-31"}
        if location:
            headers["Location"] = f"{base}/operationresults/{operation.id}?api-version=2017-08-31"
        if operation.retry_after is not None:
            headers["Retry-After"] = str(operation.retry_after)
        return headers


def _operation(kind: pools.Kind, scenario: Scenario) -> Operation:
    now = time.time()
    fail = scenario.fail
    return Operation(
        kind,
        started=now,
        begins=now + scenario.delay,
        fails=fail.error() if fail else None,
        fails_after=fail.after_nodes if fail else 0,
    )


def _state(pool: Pool | None, wanted: Pool) -> str:
    if pool is None or pool.state in {"Failed", "Canceled"}:
        return "Creating"
    return "Scaling" if wanted.count != pool.count else "Updating"


def _properties(request: web.Request) -> dict[str, Any]:
    try:
        properties = json.loads(request.body)["properties"]
    except (ValueError, KeyError, TypeError) as cause:
        message = f"The request content was invalid and could not be deserialized: {cause!r}"
        raise ArmError(400, "InvalidRequestContent", message) from cause
    return {key: value for key, value in properties.items() if value is not None}


def _check_conditions(request: web.Request, pool: Pool | None) -> None:
    """If-Match and If-None-Match; AKS refuses both at once."""
    none, match = request.headers.get("If-None-Match"), request.headers.get("If-Match")
    if none and match:
        raise ArmError(400, "BadRequest", "If-Match and If-None-Match may not be sent together")
    if none and pool is not None and none.strip('"') in {"*", pool.etag}:
        message = f"If-None-Match {none}: agent pool {pool.name} exists with eTag {pool.etag}"
        raise ArmError(412, "PreconditionFailed", message)
    if match and (pool is None or match.strip('"') not in {"*", pool.etag}):
        found = pool.etag if pool else "no agent pool"
        raise ArmError(412, "PreconditionFailed", f"If-Match {match}: found {found}")


def _check_changes(pool: Pool, asked: dict[str, Any]) -> None:
    for key, value in asked.items():
        if key not in CHANGEABLE and key in pool.properties and pool.properties[key] != value:
            message = f"Changing property 'properties.{key}' is not allowed."
            raise ArmError(400, "PropertyChangeNotAllowed", message)


def _checked(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """The rules of AKS for a pool's own fields."""
    if not accounts.valid_pool_name(name):
        raise _invalid("agentPool.name", name, "must match ^[a-z][a-z0-9]{0,11}$")
    if not properties.get("vmSize"):
        raise _invalid("agentPool.properties.vmSize", None, "is required")
    count = properties.get("count", 1)
    if not isinstance(count, int) or not 0 <= count <= 1000:
        raise _invalid("agentPool.properties.count", count, "must be from 0 to 1000")
    if properties.get("scaleSetPriority") == "Spot" and properties.get("upgradeSettings"):
        raise _invalid("agentPool.properties.upgradeSettings", properties["upgradeSettings"], "Spot pools can't set it")
    for key, value in (properties.get("nodeLabels") or {}).items():
        domain = key.rpartition("/")[0]
        if re.search(r"(^|\.)(kubernetes\.azure\.com|kubernetes\.io|k8s\.io)$", domain):
            raise _invalid("agentPool.properties.nodeLabels", key, "has a reserved prefix")
        if not re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", str(value)):
            raise _invalid("agentPool.properties.nodeLabels", f"{key}={value}", "is no value of a label")
    for taint in properties.get("nodeTaints") or []:
        if not re.fullmatch(r"[^=:]+(=[^=:]*)?:(NoSchedule|PreferNoSchedule|NoExecute)", taint):
            raise _invalid("agentPool.properties.nodeTaints", taint, "must be key=value:Effect")
    return properties


def _invalid(parameter: str, value: object, rule: str) -> ArmError:
    return ArmError(400, "InvalidParameter", f"The value of parameter {parameter} is invalid: {value!r} {rule}")
