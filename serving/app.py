"""The HTTP application: one factory, run under Ray Serve and directly in tests.

Puts the interfaces of `serving.api` together and gives every error the shape of the interface that it happened in.
Knows neither Ray nor torch.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import fastapi
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving import errors, keys
from serving.api import chat, figures, guards, health, models, openai, page, refusals, tokenizing
from serving.service import Service

SERVED = ("POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models", "GET /v1/models/NAME")
ANSWERED = frozenset({"/chat", "/v1/chat/completions", "/v1/completions"})
"""What takes a place inside."""
VLLMS = ("/tokenize", "/detokenize")
"""Beside OpenAI's paths, and with errors of its shape."""


def create_app(service: Service) -> fastapi.FastAPI:
    """All interfaces over one service, which starts and ends with the application."""

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    async def refuse(request: fastapi.Request, error: Exception) -> fastapi.Response:
        response = await _refusal(request, error)
        service.metrics.refused(response.status_code)
        return response

    app = fastapi.FastAPI(title=service.config.name, lifespan=lifespan, docs_url=None, redoc_url=None)
    _guard(app, service, refuse)
    for kind in (errors.RequestError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, refuse)
    app.include_router(page.router())
    for interface in (health, figures, models, chat, openai, tokenizing):
        app.include_router(interface.router(service))
    return app


def _guard(app: fastapi.FastAPI, service: Service, refuse: guards.Refuse) -> None:
    """From the inside out: what is added last is asked first."""
    limits = service.limits
    app.add_middleware(guards.AskDoor, paths=ANSWERED, door=service.door, refuse=refuse)
    app.add_middleware(guards.LimitBody, max_body=limits.body_bytes, refuse=refuse)
    if limits.api_keys or limits.api_key_file:
        named = keys.Keys(limits.api_keys, limits.api_key_file)
        app.add_middleware(guards.RequireKey, keys=named, refuse=refuse)
    if limits.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=limits.cors_origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    app.add_middleware(guards.NameRequest)


async def _refusal(request: fastapi.Request, error: Exception) -> fastapi.Response:
    if isinstance(error, RequestValidationError):  # what the models of the bodies refuse, in place of FastAPI's 422
        error = refusals.of_body(error.errors(), error.body)
    if isinstance(error, errors.RequestError):
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        if isinstance(error, errors.TooLate):
            headers["X-Should-Retry"] = "false"  # OpenAI's clients would have it run into its deadline twice again
        return JSONResponse(_shape(request.url.path, error), error.status, headers)
    if isinstance(error, HTTPException):
        return await _framework_error(request, error)
    told = errors.told(error)
    return JSONResponse(_shape(request.url.path, told), told.status)


async def _framework_error(request: fastapi.Request, error: HTTPException) -> fastapi.Response:
    """No such path or method, a body that cannot be read."""
    if not _is_openai(request.url.path):
        return await http_exception_handler(request, error)
    told = str(error.detail)
    if error.status_code in (404, 405):
        told = f"{request.method} {request.url.path} is not served; there are {', '.join(SERVED)}"
    refused = errors.BadRequest(told)
    return JSONResponse(_shape(request.url.path, refused), error.status_code, error.headers)


def _is_openai(path: str) -> bool:
    return path.startswith("/v1/") or path in VLLMS


def _shape(path: str, error: errors.RequestError) -> dict[str, Any]:
    return openai.error_body(error) if _is_openai(path) else {"detail": str(error)}
