"""The model's files from the hub, at a pinned revision, before anything else starts.

huggingface_hub does the work: HF_ENDPOINT, HF_TOKEN, proxies and HF_HUB_OFFLINE mean what they mean everywhere, and a
download that was cut goes on where it was. Only configuration, tokenizer and safetensors are fetched: no pickles, no
code. Knows neither torch nor ray.
"""

import errno
import logging
import time
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors as hub_errors

from serving import errors
from serving.config import Model

log = logging.getLogger("serving.weights")

WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "tokenizer*"]
UNWANTED = ["*/*", "consolidated*", "*.index.fp16.json"]
"""Other formats of the same weights: folders such as `onnx/`, and Mistral's own files."""


def fetch(model: Model, scratch: Path) -> Path:
    """The folder with the model's files; raises BadModel, HubUnavailable or NodeTrouble."""
    began = time.monotonic()
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                model.id,
                revision=model.revision,
                cache_dir=scratch / "hub",
                allow_patterns=WANTED,
                ignore_patterns=UNWANTED,
            )
        )
    except Exception as error:
        raise _explain(model, error) from error
    files = list(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise errors.BadModel(f"model {model.id} at {model.revision} has no config.json or no .safetensors files")
    size = sum(file.stat().st_size for file in files) / 1e9
    log.info("weights of %s: %.2f GB in %.1f s", model.id, size, time.monotonic() - began)
    return folder


def _explain(model: Model, error: Exception) -> errors.Fatal:
    """The hub's many errors as ours; what is not known may pass."""
    what = f"model {model.id} at revision {model.revision}"
    while isinstance(error, hub_errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "not on disk either": what the hub said is below
    match error:
        case hub_errors.GatedRepoError():
            return errors.BadModel(f"{what} is gated: accept its terms and give HF_TOKEN a token that may read it")
        case hub_errors.RepositoryNotFoundError():
            return errors.BadModel(f"{what} is not on the hub, or HF_TOKEN may not read it")
        case hub_errors.RevisionNotFoundError() | hub_errors.HFValidationError():
            return errors.BadModel(f"{what} is not on the hub: {_first_line(error)}")
        case hub_errors.HfHubHTTPError() if error.response is not None and error.response.status_code in (401, 403):
            return errors.BadModel(f"the hub refuses {what}: {_first_line(error)}; set or correct HF_TOKEN")
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            return errors.NodeTrouble(f"{what} could not be stored: {error}; give the scratch volume more room")
    return errors.HubUnavailable(f"{what} could not be fetched: {type(error).__name__}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
