"""`GET /v1/models`: what can be asked for, and how far the listed adapters are. Answers also before it is ready."""

from collections.abc import Mapping
from typing import Any

import fastapi

from serving.api import documented
from serving.config import Engine, Served
from serving.service import Service

OWNER = "kaito-hera"


def router(service: Service) -> fastapi.APIRouter:
    """`/v1/models` and `/v1/models/NAME`."""
    routes = fastapi.APIRouter(responses=documented.OPENAI)

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        """`data` as OpenAI's clients read it; `ready`, `adapters` and `engine` beside it."""
        adapters = service.adapters
        served = Served(
            ready=not service.unready(),
            adapters=adapters.statuses(),
            engine=_engine(service),
            listing=adapters.refusal,
        )
        return {"object": "list", "data": list(_entries(service).values())} | served.model_dump()

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> Mapping[str, Any]:
        service.mix(name)  # raises ModelNotFound
        return _entries(service)[name]

    return routes


def _entries(service: Service) -> dict[str, Mapping[str, Any]]:
    """Served name (the sum of all adapters), each adapter, and the hub's id (the bare base)."""
    config = service.config
    common = {"object": "model", "created": service.started, "owned_by": OWNER, "root": config.model.id}
    loaded = service.adapters.loaded()
    strengths = {name: each.adapter.strength for name, each in loaded.items()}
    entries: dict[str, Mapping[str, Any]] = {
        config.model.id: {"id": config.model.id, **common, "parent": None, "strengths": {}}
    }
    for name, each in loaded.items():
        entries[name] = {
            "id": name,
            **common,
            "parent": config.model.id,
            "strengths": {name: each.adapter.strength},
            **({"image": each.adapter.image} if each.adapter.image else {"volume": each.adapter.volume}),
            "digest": each.digest,
        }
    served = {"id": config.name, **common, "parent": None if not loaded else config.model.id, "strengths": strengths}
    return {config.name: served} | {name: entry for name, entry in entries.items() if name != config.name}


def _engine(service: Service) -> Engine | None:
    if service.loaded is None:
        return None
    info = service.loaded.engine.info
    return Engine(
        kind=info.kind,
        concurrent_requests=info.concurrency,
        requests=service.admission.inside,
        context=info.context,
        features=tuple(sorted(info.features)),
        notes=info.notes,
        dtype=info.dtype,
        device=info.device,
    )
