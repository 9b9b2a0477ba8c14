"""`/`: a chat page for browsers, KAITO's JSON for all others.

One file without anything from elsewhere; the browser is told to run its script alone and to speak to this server alone.
"""

import base64
import hashlib
import re
from pathlib import Path

import fastapi
from fastapi.responses import HTMLResponse, JSONResponse

PAGE = Path(__file__).with_name("page.html").read_text()


def router() -> fastapi.APIRouter:
    """`GET /`."""
    routes = fastapi.APIRouter()
    headers = {
        "Content-Security-Policy": _policy(PAGE),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
        "Vary": "Accept",
    }

    @routes.get("/", responses={200: {"content": {"text/html": {}, "application/json": {}}}})
    async def home(request: fastapi.Request) -> fastapi.Response:
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(PAGE, headers=headers)
        return JSONResponse({"message": "Server is running"}, headers={"Vary": "Accept"})

    return routes


def _policy(page: str) -> str:
    """The page's own script and style, by their digests, and nothing else."""
    script, style = (_digest(page, tag) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(page: str, tag: str) -> str:
    [content] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
