"""`/metrics` for Prometheus, and `/metrics.json`, what KAITO answered under `/metrics` from v0.3 to v0.8.

Never limited, and without the key: scrapers have none, and no text of anybody's is told.
"""

import asyncio
import contextlib
import importlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import fastapi
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from serving.service import Service

ASK_GPUS = (
    "nvidia-smi",
    "--query-gpu=index,name,utilization.gpu,temperature.gpu,memory.used,memory.total",
    "--format=csv,noheader,nounits",
)
SECONDS = 5.0
FRESH_SECONDS = 2.0
LOOK_SECONDS = 0.1
"""Over how long the processors' load is taken."""


def router(service: Service) -> fastapi.APIRouter:
    """`/metrics` and `/metrics.json`."""
    routes = fastapi.APIRouter()
    machine_now = _Seldom(_machine)

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> fastapi.Response:
        return fastapi.Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/metrics.json")
    async def machine() -> dict[str, Any]:
        """The GPUs, or the processors where there are none."""
        return await machine_now()

    return routes


class _Seldom:
    """One look at a time, which counts for a while: anybody may ask, and each look is a process or a thread."""

    def __init__(self, look: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._look = look
        self._one = asyncio.Lock()
        self._seen: dict[str, Any] = {}
        self._until = 0.0

    async def __call__(self) -> dict[str, Any]:
        async with self._one:
            if time.monotonic() >= self._until:
                self._seen, self._until = await self._look(), time.monotonic() + FRESH_SECONDS
            return self._seen


async def _machine() -> dict[str, Any]:
    gpus = parse_gpus(await _ask(ASK_GPUS))
    return {"gpu_info": gpus or None, "cpu_info": None if gpus else await asyncio.to_thread(_processors)}


def parse_gpus(told: str) -> list[dict[str, Any]]:
    """What `ASK_GPUS` answers, in KAITO's words."""
    gpus = []
    for line in told.splitlines():
        number, name, load, temperature, used, total = (part.strip() for part in line.split(","))
        memory = {"used": _gigabytes(used, 1 << 20), "total": _gigabytes(total, 1 << 20)}
        shown = {"load": _with_unit(load, ".2f", "%"), "temperature": _with_unit(temperature, ".0f", " C")}
        gpus.append({"id": number, "name": name} | shown | {"memory": memory})
    return gpus


def _processors() -> Mapping[str, Any]:
    psutil: Any = importlib.import_module("psutil")  # without types; peft brings it
    memory = psutil.virtual_memory()
    return {
        "load_percentage": psutil.cpu_percent(interval=LOOK_SECONDS),
        "physical_cores": psutil.cpu_count(logical=False),
        "total_cores": psutil.cpu_count(logical=True),
        "memory": {"used": _gigabytes(memory.used, 1), "total": _gigabytes(memory.total, 1)},
    }


async def _ask(command: tuple[str, ...]) -> str:
    """What a program prints; nothing if it is not there, fails or hangs."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
    except OSError:
        return ""
    try:
        told, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return ""
    return told.decode(errors="replace") if process.returncode == 0 else ""


def _gigabytes(count: float | str, unit: int) -> str:
    """GPUs on which this cannot be asked say `[N/A]`."""
    try:
        return f"{float(count) * unit / (1 << 30):.2f} GB"
    except ValueError:
        return str(count)


def _with_unit(value: str, form: str, unit: str) -> str:
    try:
        return f"{float(value):{form}}{unit}"
    except ValueError:
        return value
