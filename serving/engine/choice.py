"""Which engine serves a checkpoint: the slot engine, or one request at a time where its model fits into no rows."""

import logging
from pathlib import Path

from serving.engine.loading import load_model
from serving.engine.protocol import Engine
from serving.engine.sequential import SequentialEngine
from serving.engine.slot.engine import SlotEngine
from serving.engine.slot.fits import Unfit

log = logging.getLogger("serving.engine")


def load(
    folder: Path, *, threads: int, require_gpu: bool = False, dtype: str = "auto", context: int | None = None
) -> Engine:
    """Load a checkpoint and run it once; takes as long as that takes. `context` may only lower the model's."""
    model = load_model(folder, threads=threads, require_gpu=require_gpu, wanted=dtype)
    try:
        return SlotEngine(model, threads=threads, context=context)
    except Unfit as error:
        log.warning("requests run one at a time: %s", error)
        return SequentialEngine(model, threads=threads, context=context, notes=(f"one request at a time: {error}",))
