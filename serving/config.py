"""What the operator asks of the serving image: the one module of it that the operator imports.

The operator writes a `ServingConfig` and a list of `Adapter` as JSON into one ConfigMap, mounted as a folder. The config
is read once, the adapters whenever the file changes. Nothing here imports torch or ray.
"""

from pathlib import Path
from typing import Annotated

import pydantic

PORT = 5000
CONFIG_FILE = "serving.json"
ADAPTERS_FILE = "adapters.json"

REGISTRY_AUTH = Path("/etc/kaito/registry/config.json")
"""Where the merged pull secrets' `.dockerconfigjson` is mounted; the file may be missing."""

SCRATCH = Path("/mnt/scratch")
"""A writable volume for weights and adapters."""


class Strict(pydantic.BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Model(Strict):
    """A model on the hub, pinned."""

    id: str
    revision: str


class ServingConfig(Strict):
    """One server; a change of it is a new pod."""

    workspace: str
    """`namespace/name`, for messages."""
    name: str
    """The name that clients ask for: the preset's."""
    model: Model
    port: int = PORT


class Adapter(Strict):
    """One adapter beside the base model; a change of the list is no new pod."""

    name: str
    image: str
    """An image with /data/adapter_config.json and /data/adapter_model.safetensors."""
    strength: Annotated[float, pydantic.Field(ge=0, le=1)] = 1.0


Adapters = pydantic.TypeAdapter(tuple[Adapter, ...])
"""Reads and writes the adapters file: `Adapters.validate_json(text)`, `Adapters.dump_json(adapters)`."""
