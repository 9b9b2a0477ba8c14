"""The server where several nodes hold the model: what Ray Serve runs on the head of a cluster that KubeRay has made.

There is no driver here. KubeRay starts Ray once a node has the weights (`python -m serving --fetch`) and gives Serve
its config, which names `application`. The model is loaded in the constructor, so that Serve counts the replica as
started when it can answer, and quotes why it cannot; Serve starts one that died again. Nothing is drained: who is being
answered as the head goes is cut off. Never run with GPUs.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import fastapi

from serving import driver, errors, model, replica, settings
from serving.app import create_app
from serving.config import ADAPTERS_FILE
from serving.folders import Sources
from serving.images import Images
from serving.service import Loaded, Service

ON_HEAD = {"node:__internal_head__": 0.001}
"""Ray's own mark of the head, which is where HTTP comes in."""


def application(args: dict[str, str]) -> Any:
    """The Serve application with its one replica, by the file that `config` names."""
    options = {"num_cpus": 0, "resources": ON_HEAD}
    return replica.of_one(Server, args["config"], graceful_shutdown_timeout_s=60, ray_actor_options=options)


class Server:
    """The replica."""

    def __init__(self, config_file: str) -> None:
        replica.log_to(logging.StreamHandler(sys.stderr))
        try:
            self._service = _service(Path(config_file), settings.read())
        except errors.Fatal as error:
            raise RuntimeError(error.failure().model_dump_json()) from None  # read out of Serve's words by the roll-out
        self._app = create_app(self._service)

    def __serve_build_asgi_app__(self) -> fastapi.FastAPI:
        """What Ray Serve runs."""
        return self._app


def _service(config_file: Path, surroundings: settings.Settings) -> Service:
    config = driver.read_config(config_file)
    loaded: Loaded = model.load(
        config,
        driver.weights_of(config.model, surroundings),
        threads=surroundings.threads,
        scratch=surroundings.scratch,
    )
    images = Images(surroundings.scratch / "adapters", authfile=surroundings.registry_auth)
    return Service(
        config,
        load=lambda: loaded,
        adapters_file=config_file.absolute().with_name(ADAPTERS_FILE),
        source=Sources(images),
        on_fatal=_end,
        limits=surroundings.limits,
    )


def _end(error: errors.Fatal) -> None:
    """The engine is beyond repair: the process ends, and Serve starts another."""
    failure = error.failure()
    logging.getLogger("serving").error("%s: %s", failure.reason, failure.message)
    os._exit(int(error.exit))
