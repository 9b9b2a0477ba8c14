"""login.microsoftonline.com: federated service account tokens in, bearer tokens for ARM out.

    GET  /common/discovery/instance                          which hosts are Entra
    GET  /TENANT/v2.0/.well-known/openid-configuration       where the token endpoint is
    POST /TENANT/oauth2/v2.0/token                           client_credentials with a client_assertion

An assertion is verified for real: signature, issuer, audience and expiry by the cluster's own keys, and its subject
must be one of the federated ones. What is refused is worded as Entra words it, AADSTS number and all.
"""

import secrets
import time
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs

import jwt

from tests.cluster.simulators import web
from tests.cluster.simulators.azure import pools
from tests.cluster.simulators.azure.account import AUDIENCE, Account

EXCHANGE = "api://AzureADTokenExchange"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Verifier(Protocol):
    """Who vouches for assertions."""

    def verify(self, assertion: str, audience: str) -> dict[str, Any]:
        """The claims of a good token; a jwt.PyJWTError says what is wrong with another."""


class Tokens:
    """Bearer tokens: issued here, checked by ARM. The secret outlives a restart, and so do the tokens."""

    def __init__(self, secret_file: Path, lifetime: float = 3600.0) -> None:
        if not secret_file.exists():
            secret_file.touch(mode=0o600)
            secret_file.write_text(secrets.token_hex(32), encoding="utf-8")
        self._secret = secret_file.read_text(encoding="utf-8")
        self.lifetime = lifetime

    def issue(self, account: Account) -> str:
        now = time.time()
        about = {"iss": f"https://sts.windows.net/{account.tenant}/", "appid": account.client, "tid": account.tenant}
        return jwt.encode(about | {"aud": AUDIENCE, "iat": now, "exp": now + self.lifetime}, self._secret, "HS256")

    def check(self, token: str) -> None:
        """Raises jwt.PyJWTError."""
        jwt.decode(token, self._secret, algorithms=["HS256"], audience=AUDIENCE)


NO_MATCH = (
    "No matching federated identity record found for presented assertion {} '{{}}'. Check your federated identity "
    "credential Subject, Audience and Issuer against the presented assertion. "
    "https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
)
ERRORS = {  # AADSTS number: status, error, message about what was seen
    90002: (400, "invalid_request", "Tenant '{}' not found. Check to make sure you have the correct tenant ID."),
    700016: (400, "unauthorized_client", "Application with identifier '{}' was not found in the directory."),
    500011: (400, "invalid_resource", "The resource principal named {} was not found in the tenant."),
    7000216: (
        401,
        "invalid_client",
        "'client_assertion', 'client_secret' or 'request' is required for the '{}' grant.",
    ),
    50013: (401, "invalid_client", "Assertion failed signature validation. [Reason - {}]"),
    700024: (401, "invalid_client", "Client assertion is not within its valid time range. Current time: {}."),
    700211: (401, "invalid_client", NO_MATCH.format("issuer")),
    700212: (401, "invalid_client", NO_MATCH.format("audience")),
    700213: (401, "invalid_client", NO_MATCH.format("subject")),
}


class RefusedError(Exception):
    """An error of the token endpoint, by its AADSTS number and what was seen."""

    def __init__(self, number: int, seen: object) -> None:
        self.number = number
        self.status, self.error, message = ERRORS[number]
        super().__init__(f"AADSTS{number}: {message.format(seen)}")


class Entra(NamedTuple):
    """One tenant with one application."""

    account: Account
    verifier: Verifier
    subjects: Collection[str]
    tokens: Tokens

    def handle(self, request: web.Request) -> web.Answer:
        match request.segments:
            case ("common", "discovery", "instance"):
                return web.json_answer(200, self._instance(request))
            case (tenant, "v2.0", ".well-known", "openid-configuration"):
                return web.json_answer(200, _openid(request, tenant))
            case (_, "discovery", "v2.0", "keys"):
                return web.json_answer(200, {"keys": []})
            case (tenant, "oauth2", "v2.0", "token") if request.method == "POST":
                return self._token(request, tenant)
        return web.json_answer(404, {"error": "not_found", "error_description": f"no route {request.target}"})

    def _instance(self, request: web.Request) -> dict[str, Any]:
        discovery = f"https://{request.host}/{self.account.tenant}/v2.0/.well-known/openid-configuration"
        hosts = {"preferred_network": request.host, "preferred_cache": request.host, "aliases": [request.host]}
        return {"tenant_discovery_endpoint": discovery, "api-version": "1.1", "metadata": [hosts]}

    def _token(self, request: web.Request, tenant: str) -> web.Answer:
        form = {key: values[0] for key, values in parse_qs(request.body.decode()).items()}
        try:
            self._check(form, tenant)
        except RefusedError as refused:
            return web.json_answer(refused.status, _error(refused))
        lifetime = int(self.tokens.lifetime)
        answer = {"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime}
        return web.json_answer(200, answer | {"access_token": self.tokens.issue(self.account)})

    def _check(self, form: dict[str, str], tenant: str) -> None:
        if tenant != self.account.tenant:
            raise RefusedError(90002, tenant)
        if form.get("client_id") != self.account.client:
            raise RefusedError(700016, form.get("client_id"))
        if form.get("grant_type") != "client_credentials" or form.get("client_assertion_type") != JWT_BEARER:
            raise RefusedError(7000216, form.get("grant_type"))
        if form.get("scope") != f"{AUDIENCE}/.default":
            raise RefusedError(500011, form.get("scope"))
        subject = self._subject(form.get("client_assertion", ""))
        if subject not in self.subjects:
            raise RefusedError(700213, subject)

    def _subject(self, assertion: str) -> str:
        try:
            return str(self.verifier.verify(assertion, EXCHANGE)["sub"])
        except jwt.ExpiredSignatureError as cause:
            raise RefusedError(700024, pools.timestamp(time.time())) from cause
        except jwt.InvalidAudienceError as cause:
            raise RefusedError(700212, _claim(assertion, "aud")) from cause
        except jwt.InvalidIssuerError as cause:
            raise RefusedError(700211, _claim(assertion, "iss")) from cause
        except jwt.PyJWTError as cause:
            raise RefusedError(50013, cause) from cause


def _openid(request: web.Request, tenant: str) -> dict[str, Any]:
    base = f"https://{request.host}/{tenant}"
    return {
        "issuer": f"{base}/v2.0",
        "token_endpoint": f"{base}/oauth2/v2.0/token",
        "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
        "jwks_uri": f"{base}/discovery/v2.0/keys",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "tenant_region_scope": None,
        "cloud_instance_name": "microsoftonline.com",
    }


def _error(refused: RefusedError) -> dict[str, Any]:
    trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
    now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    return {
        "error": refused.error,
        "error_description": f"{refused} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {now}",
        "error_codes": [refused.number],
        "timestamp": now,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"https://login.microsoftonline.com/error?code={refused.number}",
    }


def _claim(assertion: str, name: str) -> Any:
    return jwt.decode(assertion, options={"verify_signature": False}).get(name)
