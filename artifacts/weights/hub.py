"""The hub: what it says of a model, asked without its client, and the model's files, fetched with it.

HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE and proxies mean what they mean to huggingface_hub. The token goes
to the hub's own host and never along a redirect to another one.
"""

import errno
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import requests

from artifacts import addresses, strangers, web
from artifacts import errors as kinds
from artifacts.weights import config, errors, pace
from artifacts.weights.config import Model

log = logging.getLogger("weights")

COMMIT = 40
"""Letters of a commit."""

TIMEOUT = (5.0, 10.0)
"""Seconds to connect and between bytes."""
_MOST = 8 << 20
_PAGES = 20
_PROGRESS = 1 << 20
"""Bytes that a try must have brought for the patience to begin anew."""
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})


class Hub:
    """The hub of this environment, asked with its token."""

    def __init__(self) -> None:
        self.endpoint = endpoint()
        self._token = token()
        self._session = web.Session(addresses.ANY_PRIVATE)
        self._session.auth = self._sign

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def may_read(self, model: Model) -> None:
        """Raise unless the hub gives the model's config.json to this token."""
        self._get(model, f"/{model.id}/resolve/{quote(model.revision, safe='')}/config.json")

    def commit(self, model: Model) -> str:
        """The commit that the revision is now."""
        about = self._json(model, f"/api/models/{model.id}/revision/{quote(model.revision, safe='')}")
        return str(about.get("sha", "")) if isinstance(about, dict) else ""

    def config(self, model: Model) -> dict[str, Any]:
        """The model's config.json."""
        found = self._json(model, f"/{model.id}/resolve/{model.revision}/config.json")
        if not isinstance(found, dict):
            raise errors.ModelUnusable(f"{model.what}: its config.json is no JSON object")
        return found

    def file(self, model: Model, name: str, *, most: int) -> bytes | None:
        """A small file of the model's; None where it has none of this name, or a larger one."""
        try:
            body, _ = self._get(model, f"/{model.id}/resolve/{quote(model.revision, safe='')}/{name}", most + 1)
        except errors.ModelUnusable:  # what `refusal` makes of the hub's EntryNotFound
            return None
        return body if len(body) <= most else None

    def weights_bytes(self, model: Model) -> int:
        """The size of the safetensors files that would be fetched."""
        path, query, total = f"/api/models/{model.id}/tree/{model.revision}", "", 0
        for _ in range(_PAGES):
            body, query = self._get(model, path + query)
            try:
                sizes = {str(entry["path"]): int(entry["size"]) for entry in _parsed(model, body)}
            except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
                raise errors.HubUnavailable(f"{model.what}: the hub lists no files: {body[:80]!r}") from error
            wanted = [name for name in sizes if config.is_wanted(name) and name.endswith(".safetensors")]
            total += sum(sizes[name] for name in wanted)
            if not query:
                break
        return total

    def _json(self, model: Model, path: str) -> Any:
        return _parsed(model, self._get(model, path)[0])

    def _get(self, model: Model, path: str, most: int = _MOST) -> tuple[bytes, str]:
        """The body, as far as it may go, and the query of the next page."""
        if is_offline():
            raise errors.ModelNotFound(
                f"{model.what}: is not described here, and the hub is not asked (HF_HUB_OFFLINE); name an image that"
                " `kaito-hera model push` made, which says what is in it"
            )
        away = kinds.translated({kinds.ArtifactError: errors.HubUnavailable}, f"{model.what}: ")
        url = self.endpoint + path
        with (
            away,
            web.asking(f"the hub {self.endpoint}"),
            self._session.get(url, timeout=TIMEOUT, stream=True) as answer,
        ):
            body = web.head(answer, most)
            following = urlsplit(answer.links.get("next", {}).get("url", "")).query
        if answer.status_code != requests.codes.ok:
            code = answer.headers.get("X-Error-Code", "")[:60]
            raise refusal(model, answer.status_code, code, given=bool(self._token))
        return body, f"?{following}" if following else ""

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """The token, for the hub's own address: requests takes it off before it follows a redirect elsewhere."""
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _parsed(model: Model, body: bytes) -> Any:
    try:
        return strangers.parsed(body)
    except ValueError as error:
        raise errors.HubUnavailable(f"{model.what}: the hub's answer is no JSON: {body[:80]!r}") from error


def endpoint() -> str:
    """Where this environment's hub is."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def is_offline() -> bool:
    """Whether it must not be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def token() -> str:
    """What it is asked with; empty for what everybody may have."""
    if given := os.environ.get("HF_TOKEN", "").strip():
        return given
    try:
        return Path(os.environ.get("HF_TOKEN_PATH", "")).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def refusal(model: Model, status: int, code: str, *, given: bool) -> errors.WeightsError:
    """What a status that is not 200, and the hub's word for it, mean to the user; `given` says whether with a token."""
    options = f"{model.field}.presetOptions"
    secret = f"Secret {model.secret}" if model.secret else config.TOKEN_KEY
    if code == "RevisionNotFound":
        return errors.ModelNotFound(f"{model.what}: the hub has the model, but not this revision")
    if code == "EntryNotFound":
        return errors.ModelUnusable(f"{model.what}: the repository has no config.json; it is no model of transformers")
    hidden = status == requests.codes.not_found or code == "RepoNotFound"
    if hidden and not (given and model.known):  # a model that is known is there: it is hidden from this token
        why = f"the token in {secret} may not see it" if given else "it is private and needs a modelAccessSecret"
        return errors.ModelNotFound(f"{model.what}: is not on the hub, or {why}; correct {model.field}.name")
    if status not in {401, 403} and not hidden:
        return errors.HubUnavailable(f"{model.what}: the hub answers {status}; it is asked again")
    if given:
        return errors.GatedModel(
            f"{model.what}: the hub refuses the token in {secret} ({status}{' ' if code else ''}{code}); see that it is"
            " valid and may read gated repositories, and accept the model's terms on the hub with its account"
        )
    return errors.GatedModel(
        f"{model.what}: is gated ({status}); accept its terms on the hub, put a token of that account as"
        f" {config.TOKEN_KEY} into a Secret and name it in {options}.modelAccessSecret, or name an image that has its"
        f" files in {options}.image"
    )


def place(model: Model, cache: Path) -> Path:
    """Where the client keeps a model in its cache, by a name of its own; others' models lie beside it."""
    return cache / f"models--{model.id.replace('/', '--')}"


def fetch(model: Model, cache: Path, *, patience: float = 0.0) -> Path:
    """The folder with the model's files, all of them; a hub that sends nothing is asked for `patience` seconds."""
    files = place(model, cache)
    since, pause, before = time.monotonic(), 1.0, pace.written(files)
    while True:
        try:
            folder = download(model, cache)
        except errors.HubUnavailable as error:
            if (there := pace.written(files)) >= before + _PROGRESS:
                since, pause, before = time.monotonic(), 1.0, there
            if time.monotonic() + pause - since > patience:
                raise
            log.warning("%s; trying again in %.0f s", error, pause)
            time.sleep(pause)
            pause = min(2 * pause, 15)
        else:
            return complete(model.what, folder)


def complete(what: str, folder: Path) -> Path:
    """The folder, if it has what a model needs; `what` it is, for messages."""
    lacks = "" if any(folder.glob("*.safetensors")) else ".safetensors files"
    lacks = lacks if (folder / "config.json").is_file() else "config.json"
    if lacks:
        raise errors.ModelUnusable(
            f"{what}: has no {lacks}; a model is config.json and .safetensors files, other formats may run code and are"
            " not loaded"
        )
    return folder


def download(model: Model, cache: Path | None) -> Path:
    """One try, with the hub's client; None is its own cache, where a person's models are."""
    import huggingface_hub  # noqa: PLC0415 -- not in the operator's image

    allowed, ignored = config.patterns()
    try:
        found = huggingface_hub.snapshot_download(
            model.id,
            revision=model.revision,
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            token=token() or None,
            cache_dir=cache and str(cache),
            allow_patterns=allowed,
            ignore_patterns=ignored,
        )
    except Exception as error:
        raise _explained(model, error) from error
    return Path(found)


def _explained(model: Model, error: Exception) -> Exception:
    """The client's many errors as ours; what is not known may pass."""
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno in _DISK:
            return errors.StorageTrouble(f"{model.what}: could not be stored: {cause}; give the volume more room")
        if type(cause).__name__ == "DisabledRepoError":
            return errors.ModelUnusable(f"{model.what}: is disabled on the hub; choose another model")
        if type(cause).__name__ == "HFValidationError":
            return errors.ModelNotFound(f"{model.what}: is no name of the hub's; write ORGANISATION/MODEL")
        answer = getattr(cause, "response", None)
        if answer is not None:
            return refusal(model, answer.status_code, answer.headers.get("X-Error-Code", ""), given=bool(token()))
    line = str(error).strip().partition("\n")[0][:400]
    return errors.HubUnavailable(f"{model.what}: could not be fetched: {type(error).__name__}: {line}")


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that led to it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
