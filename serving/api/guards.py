"""What stands before the routes: key, door, the size of a body, a name for each request, as plain ASGI; a body's kind.

A refusal is written by `refuse`, which gives it the shape of the interface that was asked. Knows no bodies.
"""

import hmac
import re
import uuid
from collections.abc import Awaitable, Callable, Collection

import fastapi
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import errors

Refuse = Callable[[fastapi.Request, Exception], Awaitable[fastapi.Response]]

OPEN = frozenset({"/", "/health", "/healthz", "/livez", "/metrics", "/metrics.json"})
"""What is answered without a key: probes and scrapers have none, and the page asks for it itself."""

REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class NameRequest:
    """Answers with X-Request-Id: the client's own, or a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        given = dict(scope.get("headers", ())).get(b"x-request-id", b"")
        name = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", name)]}
            await send(message)

        await self._app(scope, receive, named)


class RequireKey:
    """Answers 401 to who names none of the keys, in time that tells nothing of them."""

    def __init__(self, app: ASGIApp, keys: Callable[[], tuple[str, ...]], refuse: Refuse) -> None:
        self._app = app
        self._keys = keys
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "http" or scope["path"] in OPEN or self._knows(scope):
            await self._app(scope, receive, send)
            return
        told = errors.KeyMissing("this server wants a key: send the header Authorization: Bearer KEY")
        response = await self._refuse(fastapi.Request(scope), told)
        response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        given = given.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        return any([hmac.compare_digest(given, key.encode()) for key in self._keys()])  # noqa: C419 (all, whichever fits)


class LimitBody:
    """Answers 413 instead of reading a body without end."""

    def __init__(self, app: ASGIApp, max_body: int, refuse: Refuse) -> None:
        self._app = app
        self._max_body = max_body
        self._refuse = refuse

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
            response = await self._refuse(fastapi.Request(scope), too_large)
            await response(scope, receive, send)
            return
        await self._app(scope, counted, send)


class AskDoor:
    """Answers 429 or 503 where nobody is let in, before a body is read: what is refused under overload costs little."""

    def __init__(self, app: ASGIApp, paths: Collection[str], door: Callable[[], object], refuse: Refuse) -> None:
        self._app = app
        self._paths = paths
        self._door = door
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._paths:
            try:
                self._door()
            except errors.RequestError as error:
                await (await self._refuse(fastapi.Request(scope), error))(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def called_json(request: fastapi.Request) -> None:
    """Answers 415 to a body that is not called JSON, as `curl -d` without `-H`; a dependency of routes.

    A browser asks before it sends JSON to another site; a form it just sends, to a forwarded port too.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "a body is read with the header Content-Type: application/json alone")


JSON = fastapi.Depends(called_json)
