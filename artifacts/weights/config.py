"""Which model is meant and where its files are, as the operator tells the images; what a look at it answers.

Part of both images' configs. The token is no part of it: it is a file, see `hub`.
"""

import fnmatch
from pathlib import Path
from typing import Annotated

import pydantic

import presets
from presets import Preset

TOKEN = Path("/etc/kaito/hub/token")
"""Where the key HF_TOKEN of the access Secret is mounted; HF_TOKEN_PATH tells the hub's client."""

TOKEN_KEY = "HF_TOKEN"  # noqa: S105 -- the key, not what it holds

_WANTED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "tokenizer*")
_UNWANTED = ("*/*", "consolidated*", "*.index.fp16.json", "*.onnx.json")
"""Other formats of the same weights: folders such as `onnx/`, and Mistral's own files."""

Pinned = Annotated[str, pydantic.StringConstraints(pattern=r"^([0-9a-f]{40}|sha256:[0-9a-f]{64})?$")]
"""A commit of the hub or the digest of an image; empty while neither is known."""

CONVERTED = "refs/convert/parquet"
"""The branch of a data set in which the hub keeps its own conversion."""

DataCommit = Annotated[str, pydantic.StringConstraints(pattern=rf"^(({CONVERTED}@)?[0-9a-f]{{40}})?$")]
"""Commit of a data set of the hub, or of the hub's conversion of it; empty while it is not known."""


class Model(pydantic.BaseModel):
    """A model, and where its files are."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    id: str
    """ORGANISATION/NAME on the hub; of a model out of an image, only its name."""
    revision: str
    """A commit, or a branch while none is pinned."""
    image: str = ""
    """An image that holds the files, by digest once it was looked at; empty where they come from the hub."""
    field: str = "inference.preset"
    """The Workspace's field that names it, for messages."""
    secret: str = ""
    """Name of the Secret whose HF_TOKEN is mounted, for messages; empty when there is none."""
    ask: bool = False
    """Whether a check asks for it: it may be forbidden, or its numbers are not known."""
    known: bool = True
    """Whether presets/ has its numbers; else a check reads them."""

    @property
    def what(self) -> str:
        """It, in messages."""
        at = f" at {self.revision}" if self.revision else ""  # a folder's model has none
        return f"{self.field}.name: model {self.id}{at}"


class Found(pydantic.BaseModel):
    """What a check answers: text of a pod in the user's namespace, so it is read strictly."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    pinned: Pinned = ""
    bytes: Annotated[int, pydantic.Field(ge=0, lt=2**60)] = 0
    """Of the weights as they are stored; of an image that does not say, of all its layers."""
    preset: Preset | None = None
    """Its numbers, where presets/ has none."""


def named(name: str, field: str, revision: str = "") -> Model:
    """The model that a preset's name or a hub id means, at its own revision or another; raises UnknownNameError."""
    try:
        known = presets.preset(name)
    except presets.UnknownNameError:
        if not presets.is_hub_id(name):
            raise
        return Model(id=name, revision=revision or "main", field=field)
    return Model(id=known.hub_id, revision=revision or known.hub_revision, field=field)


def is_wanted(name: str) -> bool:
    """Whether this file of a repository is fetched: configuration, tokenizer, safetensors; no pickles, no code."""
    return _matches(name, _WANTED) and not _matches(name, _UNWANTED)


def patterns() -> tuple[list[str], list[str]]:
    """The same as what the hub's client takes: allowed and ignored."""
    return list(_WANTED), list(_UNWANTED)


def _matches(name: str, among: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in among)
