"""Loads what takes long to load, the engine and the text side of one model; imports torch only when it does."""

import gc
import importlib
from pathlib import Path

from serving import errors
from serving.config import ServingConfig
from serving.engine.protocol import Engine
from serving.service import Loaded
from serving.text.chat import Chat, TextRefused


def load(config: ServingConfig, weights: Path, *, threads: int, scratch: Path) -> Loaded:
    """The model in the folder `weights`; raises an error of `serving.errors`. Of `scratch`, `mixes` is the engine's."""
    tokenizer = importlib.import_module("serving.text.checkpoint").CheckpointTokenizer(weights)
    chat = Chat(tokenizer)
    if config.chat_template is not None:
        _try_template(chat, config.chat_template)
    loaded = Loaded(_engine(config, weights, threads, scratch / "mixes"), chat)
    gc.collect()
    gc.freeze()  # it lives as long as the process: to look at all of it again and again would hold up every answer
    return loaded


def _engine(config: ServingConfig, weights: Path, threads: int, mixes: Path) -> Engine:
    if config.runtime == "vllm":
        started: Engine = importlib.import_module("serving.engine.vllm.start").load(weights, config, mixes)
        return started
    own: Engine = importlib.import_module("serving.engine.choice").load(
        weights, threads=threads, require_gpu=config.require_gpu, dtype=config.dtype, context=config.context
    )
    return own


def _try_template(chat: Chat, template: str) -> None:
    """A template that takes no message at all would fail every request: better to say so before loading."""
    try:
        chat.conversation([{"role": "user", "content": "Hello"}], template)
    except TextRefused as error:
        raise errors.BadConfig(f"inference_config.yaml: vllm.chat-template: {error}; correct the template") from error
