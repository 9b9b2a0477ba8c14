"""The serving image's process, as in a pod: driver, Ray, HAProxy, replica."""

import contextlib
import json

from tests.serving import modelhub
from tests.serving.pod import Pod

NAME = "bench"
REVISION = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"workspace": "bench/bench", "name": NAME, "model": {"id": "bench/model", "revision": REVISION}}


@contextlib.contextmanager
def running(folder, model, *, adapters=(), **environment):
    """One start that answers; `folder` may have had one before."""
    config = folder / "config"
    config.mkdir(parents=True, exist_ok=True)
    if not (config / "adapters.json").exists():
        (config / "adapters.json").write_text(json.dumps(adapters))
    with modelhub.running({"bench/model": (REVISION, model)}) as (_, url):
        pod = Pod(folder, CONFIG, HF_ENDPOINT=url, **environment)
        try:
            pod.await_status("/health", 200)
            yield pod
        finally:
            pod.close()
