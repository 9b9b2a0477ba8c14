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
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import errors
from serving.api import chat, health, models, openai, refusals
from serving.service import Service

SERVED = ("POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models", "GET /v1/models/NAME")
MAX_BODY = 4 << 20
"""Bytes of a request's body."""


def create_app(service: Service, *, max_body: int = MAX_BODY) -> fastapi.FastAPI:
    """All interfaces over one service, which starts and ends with the application."""

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = fastapi.FastAPI(title=service.config.name, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(LimitBody, max_body=max_body)
    app.add_middleware(RequireJson)
    app.add_exception_handler(errors.RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    for interface in (health, models, chat, openai):
        app.include_router(interface.router(service))
    return app


async def _request_error(request: fastapi.Request, error: Exception) -> fastapi.Response:
    assert isinstance(error, errors.RequestError)
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else None
    return JSONResponse(_shape(request.url.path, error), error.status, headers)


async def _validation_error(request: fastapi.Request, error: Exception) -> fastapi.Response:
    """What the models of the bodies refuse, in place of FastAPI's 422."""
    assert isinstance(error, RequestValidationError)
    return await _request_error(request, refusals.of_body(error.errors(), error.body))


async def _http_error(request: fastapi.Request, error: Exception) -> fastapi.Response:
    """The framework's own: no such path or method, a body that cannot be read."""
    assert isinstance(error, HTTPException)
    if not request.url.path.startswith("/v1/"):
        return await http_exception_handler(request, error)
    told = str(error.detail)
    if error.status_code in (404, 405):
        told = f"{request.method} {request.url.path} is not served; there are {', '.join(SERVED)}"
    refused = errors.BadRequest(told)
    return JSONResponse(_shape(request.url.path, refused), error.status_code, error.headers)


def _shape(path: str, error: errors.RequestError) -> dict[str, Any]:
    return openai.error_body(error) if path.startswith("/v1/") else {"detail": str(error)}


class RequireJson:
    """Answers 415 to a body that is not called JSON, as `curl -d` without `-H`.

    A browser asks before it sends JSON to another site; a form it just sends, to a forwarded port too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        kind = dict(scope.get("headers", [])).get(b"content-type", b"").partition(b";")[0].strip().lower()
        if scope["type"] != "http" or scope["method"] != "POST" or kind == b"application/json":
            await self._app(scope, receive, send)
            return
        told = "a body is read with the header Content-Type: application/json alone"
        response = await _http_error(fastapi.Request(scope), HTTPException(415, told, {"Connection": "close"}))
        await response(scope, receive, send)


class LimitBody:
    """Answers 413 instead of reading a body without end."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read = 0
        too_large = HTTPException(413, f"the body is longer than {self._max_body} bytes", {"Connection": "close"})

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_body:
                raise too_large
            return message

        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._max_body:
            response = await _http_error(fastapi.Request(scope), too_large)
            await response(scope, receive, send)
            return
        await self._app(scope, counted, send)
