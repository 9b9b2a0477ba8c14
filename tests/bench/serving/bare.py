"""Our server without Ray: the same application on uvicorn alone, to tell what Ray Serve costs.

python -m tests.bench.serving.bare FOLDER PORT
"""

import sys
import tempfile
from pathlib import Path

import uvicorn

from serving import replica
from serving.app import create_app
from serving.config import ServingConfig
from serving.folders import Sources
from serving.images import Images
from serving.service import Service

ASKED = {"workspace": "b/b", "name": "bench", "model": {"id": "b/b", "revision": "0"}}


def application(model, folder):
    config = ServingConfig.model_validate(
        {"workspace": "b/b", "name": "bench", "model": {"id": "b/b", "revision": "0"}}
    )
    (folder / "adapters.json").write_text("[]")
    launch = replica.Launch(
        config=config,
        weights=model,
        adapters_file=folder / "adapters.json",
        scratch=folder,
        registry_auth=folder / "none",
        socket=folder / "none",
        threads=1,
    )
    service = Service(
        config,
        load=lambda: replica._load(launch),
        adapters_file=launch.adapters_file,
        source=Sources(Images(folder / "adapters", authfile=launch.registry_auth)),
        on_fatal=sys.exit,
    )
    return create_app(service)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        app = application(Path(sys.argv[1]), Path(scratch))
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", ws="none")
