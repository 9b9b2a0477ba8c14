"""Whether the server answers, and why not: what probes and people ask. Never limited, never waits for the engine."""

import fastapi
from fastapi.responses import JSONResponse

from serving.api import documented
from serving.service import STALLED_SECONDS, Service

UNWELL: documented.Responses = {503: {"model": documented.Detail, "description": "Not now; `detail` says why."}}


def router(service: Service) -> fastapi.APIRouter:
    """`/health`, `/healthz` (KAITO's answers) and `/livez`."""
    routes = fastapi.APIRouter()

    @routes.get("/health", responses=UNWELL)
    @routes.get("/healthz", responses=UNWELL)
    async def health() -> fastapi.Response:
        """Readiness: 200 once the model and all listed adapters are loaded, until the server drains or breaks."""
        reason = service.unready()
        if reason:
            return JSONResponse({"status": "Unhealthy", "detail": reason}, 503)
        return JSONResponse({"status": "Healthy"})

    @routes.get("/livez", responses=UNWELL)
    async def livez() -> fastapi.Response:
        """Liveness: 503 only when a restart is the cure; loading, draining and a long queue are life."""
        reason = service.failure
        if service.loaded and not reason:
            alive, why, stalled = service.loaded.engine.health()
            stuck = f"a request has produced nothing for {stalled:.0f} s" if stalled > STALLED_SECONDS else ""
            reason = stuck if alive or service.admission.draining else why
        return JSONResponse(
            {"status": "Unhealthy", "detail": reason} if reason else {"status": "Healthy"}, 503 if reason else 200
        )

    return routes
