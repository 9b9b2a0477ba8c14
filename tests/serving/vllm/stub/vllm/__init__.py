"""A stand-in for vLLM: its names and signatures as recorded, and a tiny real model behind them.

Classes that are only fields are made of the record, so that a field that the release does not have is a TypeError here
too; functions are written by hand and held against the record by test_vllm_recorded.py. The model runs on
transformers and peft, one request beside the other, without a cache.
"""

import dataclasses
import json
from pathlib import Path

RECORDED = json.loads((Path(__file__).parents[2] / "recorded.json").read_text())


def made(path, name, *bases):
    """A recorded class: fields without a default are required, others begin as None or as their literal."""
    own = RECORDED["classes"][path][name]["fields"]
    columns = [(field, object) if text is None else (field, object, _default(text)) for field, text in own.items()]
    return dataclasses.make_dataclass(name, columns, bases=bases)


def _default(text):
    try:
        value = json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except ValueError:  # vLLM's own words
        value = None
    return dataclasses.field(default=value)


from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: F401
from vllm.sampling_params import SamplingParams  # noqa: F401
