"""Several GPUs of one node: process 0 is the run itself; the others are started here, and end with it or end it.

Not by torchrun: its agent ends all at SIGTERM within its own time and keeps no one's exit code, where here process 0
decides what follows a step, and the reason of whoever died is the run's. What processes say to each other is
torch.distributed's: gloo for words, NCCL for gradients.
"""

import contextlib
import datetime
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tuning import errors
from tuning.config import Exit, Failure
from tuning.errors import NodeTrouble, TuningError
from tuning.eviction import Eviction
from tuning.report import Report, leave, log, log_to
from tuning.training.work import Work
from tuning.training.world import World

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_WORK = "work.pickle"
_PATIENCE = datetime.timedelta(minutes=30)
"""What a process waits for another that is there and says nothing: longer than a checkpoint takes to write."""
_LAST_WORDS_SECONDS = 10.0
"""What process 0 has to end by itself once another one has died: it may be waiting for it where nothing wakes it."""
_LOST = 3
"""Exit code of one that ended because another did: its own words say nothing."""
_SIGNS = ("closed by peer", "reset by peer", "Broken pipe")


def members(asked: int, rows: int) -> list[str]:
    """What CUDA calls the GPU of each process, nothing on a CPU; this process sees the first alone from now on.

    As many as are `asked` for, or all that there are, but no more than a step has rows. Comes before CUDA begins.
    """
    import torch  # noqa: PLC0415

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get(_VISIBLE, "").split(",") if name]
    found = (named or [str(number) for number in range(count)])[:count] or [""] * max(asked, 1)
    if asked > len(found):
        raise NodeTrouble(f"{asked} processes are to train, each with its GPU, and this pod sees {len(found)} GPUs")
    chosen = found[: min(asked or len(found), rows)]
    if len(chosen) < len(found) and not asked:
        log.warning(
            "%d of %d GPUs are idle: a step has %d rows; raise gradient_accumulation_steps or"
            " per_device_train_batch_size to use them",
            len(found) - len(chosen), len(found), rows,
        )  # fmt: skip
    if count:
        os.environ[_VISIBLE] = chosen[0]
    return chosen


@contextlib.contextmanager
def launched(work: Work, scratch: Path, names: list[str]) -> Iterator[Callable[[], World]]:
    """The other processes, one for each further name of a GPU (or nothing, on a CPU), which load the model meanwhile.

    What is yielded joins them, once this process has loaded it too.
    """
    if len(names) < 2:
        yield World
        return
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # noqa: PLC0415

    folder = scratch / "world"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _WORK).write_bytes(pickle.dumps(work))
    store = TCPStore("127.0.0.1", 0, len(names), is_master=True, wait_for_workers=False)
    watch = _Watch([_started(folder, rank, names, store.port) for rank in range(1, len(names))], folder)
    log.info("%d processes train together", len(names))
    try:
        yield lambda: _joined(store, World(0, len(names)))
    except Exception as error:
        raise watch.cause(error) from error
    finally:
        watch.close()
        _leave()


def _started(folder: Path, rank: int, names: list[str], port: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tuning.training.distributed", folder, rank, len(names), port]
    one = {_VISIBLE: names[rank]} if names[rank] else {}
    return subprocess.Popen(  # noqa: S603
        [str(part) for part in command],
        stdin=subprocess.PIPE,  # closed when this process is no more, which ends that one
        stdout=subprocess.DEVNULL,
        env=os.environ | one,
        start_new_session=True,  # SIGTERM and Ctrl-C are for process 0
    )


def _joined(store: Any, world: World) -> World:
    import torch  # noqa: PLC0415

    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(
        backend, store=store, rank=world.rank, world_size=world.size, timeout=_PATIENCE
    )
    return world


def _leave() -> None:
    """NCCL is not told: it may wait for those that are gone, and what it holds ends with this process."""
    import torch  # noqa: PLC0415

    if torch.distributed.is_initialized() and not torch.cuda.is_available():
        torch.distributed.destroy_process_group()


class _Watch:
    """Over the other processes."""

    def __init__(
        self, peers: "list[subprocess.Popen[bytes]]", folder: Path, patience: float = _LAST_WORDS_SECONDS
    ) -> None:
        self._peers = peers
        self._folder = folder
        self._patience = patience
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def cause(self, error: Exception) -> Exception:
        """What this process's error comes from: the reason of one that died before it, if there is one."""
        if isinstance(error, TuningError):
            return error
        end = time.monotonic() + self._patience / 2
        while (died := self._died()) is None and time.monotonic() < end:
            time.sleep(0.1)
        if died:
            return died
        if _is_lost(error) or "imed out" in str(error):
            return NodeTrouble(f"the GPUs of this node waited for each other in vain ({error}); another node may do")
        return error

    def close(self) -> None:
        """The others are no longer needed."""
        self._closed.set()
        for peer in self._peers:
            peer.kill()
            peer.wait()
            if peer.stdin:
                peer.stdin.close()

    def _watch(self) -> None:
        """End this process where it waits for one that died and nothing wakes it."""
        while not self._closed.wait(0.5):
            died = self._died()
            if died and not self._closed.wait(self._patience):
                log.error("%s: %s", died.reason(), died)
                leave(died.failure())
                os._exit(died.code)

    def _died(self) -> TuningError | None:
        for rank, peer in enumerate(self._peers, start=1):
            if peer.poll() in {None, Exit.DONE, _LOST}:
                continue
            try:
                failure = Failure.model_validate_json(_said(self._folder, rank).read_bytes())
                text = f"{failure.message} (the process of GPU {rank})"
                return errors.again(failure.model_copy(update={"message": text}))
            except (OSError, ValueError):
                how = f"signal {-peer.returncode}" if peer.returncode < 0 else f"exit code {peer.returncode}"
                return TuningError(  # as of a container that ends so: a few attempts, since each may end like this
                    f"the process of GPU {rank} died without a word ({how}); if the node ran out of main memory, take"
                    " one with more"
                )
        return None


def _is_lost(error: Exception) -> bool:
    return any(sign in str(error) for sign in _SIGNS)


def _said(folder: Path, rank: int) -> Path:
    return folder / f"failure-{rank}.json"


def main(folder: Path, world: World, port: int) -> int:
    """Be one of the others; returns the exit code."""
    log_to(sys.stderr)
    log.setLevel(logging.ERROR)  # what process 0 says is said once
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # noqa: PLC0415

    try:
        work: Work = pickle.loads((folder / _WORK).read_bytes())  # noqa: S301 -- of our own process 0
        adapted = work.load()
        _joined(TCPStore("127.0.0.1", port, world.size, is_master=False), world)
        work.learn(adapted, world, report=Report(None), eviction=Eviction(), scratch=folder / f"process-{world.rank}")
    except Exception as error:  # noqa: BLE001 -- process 0 tells it
        if _is_lost(error):
            return _LOST
        known = errors.explain(error)
        log.error("GPU %d: %s: %s", world.rank, known.reason(), known, exc_info=known.code == Exit.UNEXPECTED)
        _said(folder, world.rank).write_text(known.failure().model_dump_json())
        return known.code
    return Exit.DONE


def _end_with_the_first() -> None:
    """Nobody would know of this process any more."""
    sys.stdin.buffer.read()
    os._exit(Exit.UNEXPECTED)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), World(int(sys.argv[2]), int(sys.argv[3])), int(sys.argv[4]))
    sys.stderr.flush()
    os._exit(code)
