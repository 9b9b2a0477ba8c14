"""Arguments of the engine."""

from vllm import made

EngineArgs = made("vllm/engine/arg_utils.py", "EngineArgs")
AsyncEngineArgs = made("vllm/engine/arg_utils.py", "AsyncEngineArgs", EngineArgs)
