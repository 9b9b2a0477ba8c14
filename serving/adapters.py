"""Keeps the engine's adapters as the adapters file lists them: pulled, loaded, re-weighted and removed while it serves.

The file's content is what counts: a ConfigMap volume swaps a symlink and keeps times. A change is applied to requests
that come after it; an adapter that cannot be had leaves everything that already works as it is and is reported with its
reason. Knows the engine by its Protocol and adapters as folders that a `Source` has; no HTTP, no Ray, no torch.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from serving import errors
from serving.config import Adapter, Adapters, AdapterStatus
from serving.engine.protocol import AdapterRefused, Engine, EngineDown

log = logging.getLogger("serving.adapters")

RETRY_SECONDS = 15.0
RETRY_SECONDS_MOST = 120.0


@dataclass(frozen=True)
class Pulled:
    """An adapter's files on disk."""

    digest: str
    folder: Path


@dataclass(frozen=True)
class Loaded:
    """An adapter that the engine has."""

    adapter: Adapter
    digest: str
    template: str | None
    """The chat template that it was trained with, if there is one beside it."""

    @property
    def id(self) -> str:
        """Its id in the engine: one name's old and new image can be there side by side."""
        return f"{self.adapter.name}@{self.digest}"


class Failed(NamedTuple):
    """Why an adapter could not be had."""

    reason: str
    retryable: bool
    times: int
    """In a row."""


class Source(Protocol):
    """Where adapters come from; `serving.folders.Sources` is one."""

    async def pull(self, adapter: Adapter) -> Pulled:
        """The adapter's files, checked; raises an error of `serving.errors`."""

    def keep_only(self, digests: Iterable[str]) -> None:
        """Give back the disk of all other images."""


class AdapterSet:
    """What is listed, what is loaded, and why the rest is not."""

    def __init__(self, file: Path, source: Source, engine: Callable[[], Awaitable[Engine]]) -> None:
        self._file = file
        self._source = source
        self._engine = engine
        self._wanted: tuple[Adapter, ...] = ()
        self._loaded: Mapping[str, Loaded] = {}
        self._failed: dict[str, Failed] = {}
        self.refusal = ""
        """Why the adapters file cannot be used; what was loaded stays."""
        self._content: bytes | None = None
        self._retry_at = 0.0
        self._retry_after = RETRY_SECONDS
        self._leases: Counter[str] = Counter()
        self._leaving: set[str] = set()
        self.complete = False
        """Whether, since the start, there was a moment when all that was listed was loaded."""

    def statuses(self) -> tuple[AdapterStatus, ...]:
        """One entry for each listed adapter, in the file's order."""
        return tuple(self._status(adapter) for adapter in self._wanted)

    def loaded(self) -> Mapping[str, Loaded]:
        """What can be asked for by name."""
        return self._loaded

    def lacking(self) -> str:
        """Why not all that is listed is loaded; an empty string if it is."""
        if self._content is None:
            return "the adapters file has not been read yet"
        reasons = [
            f"adapter {each.name}: {each.reason or each.state}" for each in self.statuses() if each.state != "loaded"
        ]
        return "; ".join(([self.refusal] if self.refusal else []) + reasons)

    @contextlib.contextmanager
    def lease(self, ids: Iterable[str]) -> Iterator[None]:
        """Keep adapters in the engine while a request uses them, whatever the file says meanwhile."""
        held = tuple(ids)
        self._leases.update(held)
        try:
            yield
        finally:
            self._leases.subtract(held)

    def in_use(self) -> tuple[str, ...]:
        """The names of those that requests use right now."""
        return tuple(sorted({each.partition("@")[0] for each, count in self._leases.items() if count > 0}))

    async def watch(self, *, seconds: float = 1.0) -> None:
        """Apply the file now and whenever its content changes; try again what may work later. Ends when cancelled."""
        while True:
            content = await asyncio.to_thread(self._read)
            if content != self._content or (self.lacking() and time.monotonic() >= self._retry_at):
                await self.apply(content)
            await self._unload_unused()
            await asyncio.sleep(seconds)

    async def apply(self, content: bytes) -> None:
        """Bring the engine to what `content` lists; requests see the old list or the new one, never half of it."""
        changed, self._content = content != self._content, content
        self._retry_after = RETRY_SECONDS if changed else min(self._retry_after * 2, RETRY_SECONDS_MOST)
        try:
            self._wanted, self.refusal = Adapters.validate_json(content), ""
        except ValueError as error:
            self.refusal = f"the adapters file {self._file.name} cannot be used: {error}".replace("\n", " ")
            log.log(logging.ERROR if changed else logging.DEBUG, "%s; what was loaded stays", self.refusal)
        else:
            before, failures = self._loaded, {name: failed.times for name, failed in self._failed.items()}
            self._failed = {}
            have = await asyncio.gather(*[self._obtain(each, failures.get(each.name, 0)) for each in self._wanted])
            self._loaded = {loaded.adapter.name: loaded for loaded in have if loaded is not None}
            self._leaving |= {loaded.id for loaded in before.values()}
            self._leaving -= {loaded.id for loaded in self._loaded.values()}
            self._source.keep_only(loaded.digest for loaded in self._loaded.values())
            self.complete = self.complete or not self._failed
            self._report(sorted(before.keys() - self._loaded.keys()))
        self._retry_at = time.monotonic() + self._retry_after

    def _read(self) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return self._file.read_bytes()
        return b"[]"

    async def _obtain(self, adapter: Adapter, failures: int) -> Loaded | None:
        """The adapter as listed; if that cannot be had, what served under its name before, and a reason."""
        have = self._loaded.get(adapter.name)
        if have is not None and have.adapter.source == adapter.source:
            return Loaded(adapter, have.digest, have.template)
        try:
            return await self._load(adapter, have)
        except (errors.Fatal, AdapterRefused, EngineDown, OSError) as error:
            self._failed[adapter.name] = Failed(str(error), _may_pass(error), failures + 1)
        except Exception as error:  # files that nobody vouches for must not end a server that serves
            log.exception("adapter %s cannot be loaded", adapter.name)
            self._failed[adapter.name] = Failed(f"{type(error).__name__}: {error}", _may_pass(error), failures + 1)
        return have

    async def _load(self, adapter: Adapter, have: Loaded | None) -> Loaded:
        pulled = await self._source.pull(adapter)
        new = Loaded(adapter, pulled.digest, await asyncio.to_thread(_template, pulled.folder))
        engine = await self._engine()
        there = new.id in self._leaving or (have is not None and have.id == new.id)
        if not there:  # who leaves is there until the last of his requests has ended
            await engine.load_adapter(new.id, pulled.folder)
        return new

    async def _unload_unused(self) -> None:
        for adapter in [each for each in self._leaving if not self._leases[each]]:
            self._leaving.discard(adapter)
            engine = await self._engine()
            with contextlib.suppress(EngineDown):
                await engine.unload_adapter(adapter)

    def _status(self, adapter: Adapter) -> AdapterStatus:
        have = self._loaded.get(adapter.name)
        failed = self._failed.get(adapter.name)
        loaded = have is not None and have.adapter == adapter
        return AdapterStatus(
            **adapter.model_dump(),
            state="loaded" if loaded else "failed" if failed else "loading",
            digest=have.digest if have else "",
            reason=failed.reason if failed else "",
            retryable=failed.retryable if failed else True,
            failures=failed.times if failed else 0,
        )

    def _report(self, removed: list[str]) -> None:
        """One line on what is served now."""
        if not self._wanted and not removed:
            return
        served = [f"{name} ({each.adapter.strength:g}, {each.digest[:19]})" for name, each in self._loaded.items()]
        parts = [", ".join(served) or "none"]
        parts += [f"removed {', '.join(removed)}"] if removed else []
        parts += [f"FAILED {name}: {failed.reason}" for name, failed in self._failed.items()]
        log.log(logging.ERROR if self._failed else logging.INFO, "adapters: %s", "; ".join(parts))


def _may_pass(error: Exception) -> bool:
    """What is in an image stays wrong; secrets, and images in a registry's replicas, may come late.

    Files may come onto a volume too, but nobody knows when, and the GPUs that wait for them are paid for.
    """
    return not isinstance(error, AdapterRefused | errors.NotAnAdapter | errors.AdapterFilesMissing)


def _template(folder: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        return (folder / "chat_template.jinja").read_text() or None
    return None
