"""The one Ray Serve deployment: ingress and engine in one process, started, drained and ended by the driver.

Serve would start a dead replica again behind everybody's back; here the driver ends with the reason and the kubelet
starts the container, so there is one restarter. Everything that takes long runs after the constructor, beside HAProxy's
start.
"""

import asyncio
import logging
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastapi
from ray import serve
from ray.serve.schema import LoggingConfig

from serving import errors, model, settings
from serving.app import create_app
from serving.config import ServingConfig
from serving.folders import Sources
from serving.images import Images
from serving.link import Link, LinkHandler, obey
from serving.service import Service

MAX_ONGOING = 4096
"""HAProxy's own limit: ours answers long before, with 429."""


@dataclass(frozen=True)
class Launch:
    """What the driver tells its replica."""

    config: ServingConfig
    weights: Path
    adapters_file: Path
    scratch: Path
    registry_auth: Path
    socket: Path
    threads: int


def application(launch: Launch) -> Any:
    """The Serve application with its one replica."""
    return of_one(
        Server,
        launch,
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.1,
        ray_actor_options={"num_cpus": 0},
    )


def of_one(server: type, told: Any, **options: Any) -> Any:
    """The Serve application of one such replica, which is told this; `options` are Serve's own."""
    deployment = serve.deployment(
        name="server",
        num_replicas=1,
        max_ongoing_requests=MAX_ONGOING,
        health_check_timeout_s=300,
        logging_config=LoggingConfig(enable_access_log=False, log_level="ERROR"),
        **options,
    )
    return deployment(serve.ingress()(server)).bind(told)


class Server:
    """The replica."""

    def __init__(self, launch: Launch) -> None:
        self._link = Link.connect(launch.socket)
        log_to(LinkHandler(self._link))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._service = Service(
            launch.config,
            load=lambda: model.load(launch.config, launch.weights, threads=launch.threads, scratch=launch.scratch),
            adapters_file=launch.adapters_file,
            source=Sources(Images(launch.scratch / "adapters", authfile=launch.registry_auth)),
            on_fatal=self._end,
            limits=settings.read().limits,
        )
        self._app = create_app(self._service)
        obey(self._link, self._drain)

    def __serve_build_asgi_app__(self) -> fastapi.FastAPI:
        """What Ray Serve runs."""
        self._loop = asyncio.get_event_loop()
        return self._app

    def _drain(self, seconds: float) -> None:
        async def drain() -> None:
            self._link.send(drained=await self._service.drain(seconds))

        if self._loop is None:
            self._link.send(drained=True)
        else:
            asyncio.run_coroutine_threadsafe(drain(), self._loop)

    def _end(self, error: errors.Fatal) -> None:
        """The engine is beyond repair: say why and end the process, so that the driver ends too."""
        self._link.send(failed=error.failure().model_dump(), exit=int(error.exit))
        os._exit(int(error.exit))


class Lines(logging.Formatter):
    """Python prints a traceback's lines, and the `print` that Ray Serve puts into replicas makes tuples of them."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 (the standard library's name)
        """The traceback."""
        return "".join(traceback.format_exception(*ei)).rstrip()


def log_to(handler: logging.Handler) -> None:
    """Nowhere else does the replica log."""
    handler.setFormatter(Lines("%(levelname)s %(message)s"))
    logger = logging.getLogger("serving")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)
