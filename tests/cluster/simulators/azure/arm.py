"""management.azure.com: who may ask, which route it is, and what a scenario says about it.

PUT GET DELETE .../managedClusters/AKS/agentPools/POOL      GET .../agentPools      POST .../agentPools/POOL/abort
GET            .../managedClusters/AKS
GET            .../locations/LOCATION/operations/ID         GET .../operationresults/ID
GET            .../Microsoft.Compute/locations/LOCATION/usages              GET .../Microsoft.Compute/skus
"""

import json
import uuid
from typing import Any

import jwt

from tests.cluster.simulators import web
from tests.cluster.simulators.azure import account as accounts
from tests.cluster.simulators.azure import compute, pools
from tests.cluster.simulators.azure.account import Account
from tests.cluster.simulators.azure.agent_pools import AgentPools
from tests.cluster.simulators.azure.entra import Tokens
from tests.cluster.simulators.azure.errors import ArmError
from tests.cluster.simulators.azure.scenarios import Scenario, Script
from tests.cluster.simulators.azure.store import Store


class Arm:
    """One subscription with one AKS cluster."""

    def __init__(self, account: Account, store: Store, agent_pools: AgentPools, tokens: Tokens, script: Script) -> None:
        self._account, self._store, self._pools = account, store, agent_pools
        self._tokens, self._script = tokens, script

    def handle(self, request: web.Request) -> web.Answer:
        try:
            answer = self._answer(request)
        except ArmError as error:
            answer = error.answer()
        ids = {"x-ms-request-id": str(uuid.uuid4()), "x-ms-correlation-request-id": str(uuid.uuid4())}
        return answer._replace(headers={**ids, **answer.headers})

    def _answer(self, request: web.Request) -> web.Answer:
        self._authenticate(request)
        if "api-version" not in request.query:
            message = "The api-version query parameter (?api-version=) is required for all requests."
            raise ArmError(400, "MissingApiVersionParameter", message)
        scenario = self._scenario(request)
        if scenario.answer is not None:
            return _scripted(scenario)
        match [part if place % 2 else part.lower() for place, part in enumerate(request.segments)]:
            case ["subscriptions", subscription, *_] if not accounts.same(subscription, self._account.subscription):
                raise ArmError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
            case [
                "subscriptions",
                _,
                "resourcegroups",
                group,
                "providers",
                provider,
                "managedclusters",
                cluster,
                *rest,
            ]:
                self._check_cluster(group, provider, cluster)
                return self._cluster(request, rest, scenario)
            case ["subscriptions", _, "providers", provider, *rest]:
                return self._provider(provider.lower(), rest)
        raise ArmError(404, "InvalidResourceType", f"The resource type could not be found for {request.target}")

    def _authenticate(self, request: web.Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        challenge = {
            "WWW-Authenticate": f'Bearer authorization_uri="https://login.microsoftonline.com/{self._account.tenant}", '
            'error="invalid_token", error_description="The authentication failed."'
        }
        if scheme != "Bearer":
            message = "Authentication failed. The 'Authorization' header is missing."
            raise ArmError(401, "AuthenticationFailed", message, headers=challenge)
        try:
            self._tokens.check(token)
        except jwt.ExpiredSignatureError as cause:
            message = "The access token expiry UTC time is earlier than current UTC time."
            raise ArmError(401, "ExpiredAuthenticationToken", message, headers=challenge) from cause
        except jwt.PyJWTError as cause:
            message = f"The access token is invalid: {cause}"
            raise ArmError(401, "InvalidAuthenticationToken", message, headers=challenge) from cause

    def _scenario(self, request: web.Request) -> Scenario:
        path = "/" + "/".join(request.segments)
        pool = request.segments[9] if len(request.segments) > 9 else ""
        return self._script.take(request.method, path, pool, self._vm_size(request, pool))

    def _vm_size(self, request: web.Request, pool: str) -> str:
        """As the request has it, or else the pool that it is about."""
        known = self._store.pools.get(pool)
        properties = known.properties if known else {}
        if request.method == "PUT":
            try:
                properties = json.loads(request.body)["properties"]
            except (ValueError, KeyError, TypeError):
                properties = {}
        return str(properties.get("vmSize", ""))

    def _check_cluster(self, group: str, provider: str, cluster: str) -> None:
        if not accounts.same(group, self._account.resource_group):
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
        if not accounts.same(provider, "Microsoft.ContainerService") or not accounts.same(cluster, self._account.aks):
            message = (
                f"The Resource '{provider}/managedClusters/{cluster}' under resource group '{group}' was not found."
            )
            raise ArmError(404, "ResourceNotFound", message)

    def _cluster(self, request: web.Request, rest: list[str], scenario: Scenario) -> web.Answer:
        limits = self._script.limits()
        match request.method, rest:
            case "GET", []:
                return web.json_answer(200, self._managed_cluster(limits.busy or "Succeeded", limits.power))
            case "GET", ["agentpools"]:
                return self._pools.listing(request, limits.page_size)
            case "GET", ["agentpools", name]:
                return self._pools.get(name)
            case "PUT", ["agentpools", name]:
                return self._pools.put(request, name, scenario, limits)
            case "DELETE", ["agentpools", name]:
                return self._pools.delete(request, name, scenario, limits)
            case "POST", ["agentpools", name, "abort"]:
                return self._pools.abort(request, name, scenario)
        raise ArmError(405, "MethodNotAllowed", f"{request.method} is not simulated for {request.target}")

    def _provider(self, provider: str, rest: list[str]) -> web.Answer:
        limits = self._script.limits()
        match provider, [part.lower() for part in rest]:
            case "microsoft.containerservice", ["locations", _, "operations", number]:
                return self._operation(number)
            case "microsoft.containerservice", ["locations", _, "operationresults", number]:
                return self._operation_result(number)
            case "microsoft.compute", ["locations", _, "usages"]:
                return web.json_answer(200, {"value": compute.usages(self._pools.all(), limits)})
            case "microsoft.compute", ["skus"]:
                return web.json_answer(200, {"value": compute.skus(self._account, limits)})
        raise ArmError(404, "InvalidResourceType", f"{provider}/{'/'.join(rest)} is not simulated")

    def _operation(self, number: str) -> web.Answer:
        operation = self._find_operation(number)
        told = {"name": number, "status": operation.status, "startTime": pools.timestamp(operation.started)}
        if operation.error is not None:
            told["error"] = operation.error  # type: ignore[assignment]
        return web.json_answer(200, told, _retry_after(operation))

    def _operation_result(self, number: str) -> web.Answer:
        operation = self._find_operation(number)
        return web.Answer(202 if operation.status == "InProgress" else 204, b"", _retry_after(operation))

    def _find_operation(self, number: str) -> pools.Operation:
        with self._store.changed:
            operation = pools.find_operation(self._store.pools, number)
        if operation is None:
            raise ArmError(404, "NotFound", f"operation {number} was not found")
        return operation

    def _managed_cluster(self, state: str, power: str) -> dict[str, Any]:
        account = self._account
        return {
            "id": account.cluster_id,
            "name": account.aks,
            "location": account.location,
            "type": "Microsoft.ContainerService/ManagedClusters",
            "properties": {
                "provisioningState": state,
                "powerState": {"code": power},
                "kubernetesVersion": "1.34",
                "nodeResourceGroup": account.node_resource_group,
                "agentPoolProfiles": [
                    {"name": pool.name, **self._pools.shown(pool)["properties"]} for pool in self._pools.all()
                ],
            },
        }


def _scripted(scenario: Scenario) -> web.Answer:
    answer = scenario.answer
    assert answer is not None
    headers = {} if answer.retry_after is None else {"Retry-After": str(answer.retry_after)}
    if answer.body is not None:
        return web.json_answer(answer.status, answer.body, headers)
    refusal = ArmError(
        answer.status, answer.code, answer.message, flat=answer.flat, details=answer.details, headers=headers
    )
    return refusal.answer()


def _retry_after(operation: pools.Operation) -> dict[str, str]:
    return {} if operation.retry_after is None else {"Retry-After": str(operation.retry_after)}
