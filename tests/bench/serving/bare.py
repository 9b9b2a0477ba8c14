"""Our server without Ray: the same application on uvicorn alone, to tell what Ray Serve costs.

python -m tests.bench.serving.bare FOLDER PORT
"""

import sys
import tempfile
from pathlib import Path

import uvicorn

from serving import model as models
from serving.app import create_app
from serving.config import ServingConfig
from serving.folders import Sources
from serving.images import Images
from serving.service import Service

ASKED = {"workspace": "b/b", "name": "bench", "model": {"id": "b/b", "revision": "0"}}


def application(model, folder):
    config = ServingConfig.model_validate(ASKED)
    (folder / "adapters.json").write_text("[]")
    service = Service(
        config,
        load=lambda: models.load(config, model, threads=1, scratch=folder),
        adapters_file=folder / "adapters.json",
        source=Sources(Images(folder / "adapters", authfile=folder / "none")),
        on_fatal=sys.exit,
    )
    return create_app(service)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        app = application(Path(sys.argv[1]), Path(scratch))
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", ws="none")
