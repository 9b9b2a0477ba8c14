"""Which tokens are computed next: admits requests to rows, plans steps, hands out what was chosen.

A step computes one token for every request that is answering and, within a budget, chunks of the prompts that are not
yet through: so a long prompt slows the others a little for a while, and never stops them. Runs in the engine's thread.
"""

import time
from collections import deque
from collections.abc import Mapping

import torch

from serving.engine import generation
from serving.engine.outbox import Outbox
from serving.engine.protocol import Delta, Stats
from serving.engine.slot.kv import Pool
from serving.engine.slot.runner import Runner, Work
from serving.engine.slot.sampler import Chosen, Sampler
from serving.engine.slot.sequence import Sequence

MOST_CHUNKS = 4
"""So many times the chunk in one step, where more requests wait than run."""
SLACK = 2
"""Rows between those in use that are borne, a share of them and so many more, before one is moved."""


class Scheduler:
    """The requests inside one engine."""

    def __init__(self, pool: Pool, runner: Runner, *, chunk: int) -> None:
        self.pool = pool
        self.runner = runner
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.changed = True
        """Whether the rows' adapters must be laid out again."""
        self._chunk = chunk
        self._sampler = Sampler()
        self._told: list[Outbox] = []
        self._prompt_tokens = self._generated = self._looked_up = self._found = self._steps = 0
        self._seconds = 0.0

    @property
    def busy(self) -> bool:
        """Whether there is something to compute."""
        return bool(self.running or self.waiting)

    def step(self) -> None:
        """Compute something for everybody who is inside."""
        began = time.perf_counter()
        self._sweep()
        self._admit()
        if self.running:
            self._compute()
        self._steps += 1
        self._seconds += time.perf_counter() - began
        self.tell()

    def stats(self) -> Stats:
        """See `Engine.stats`; from any thread."""
        running = len(self.running)
        done = (self._prompt_tokens, self._generated, self._looked_up, self._found)
        usage = running / max(1, len(self.pool.rows))
        return Stats(running, len(self.waiting), usage, *done, 0, self._steps, self._seconds)

    def uses(self, adapter: str) -> bool:
        """Whether a request inside uses this adapter."""
        return any(adapter in sequence.strengths for sequence in (*self.running, *self.waiting))

    def fail(self, error: Exception, *, waiting: bool = False) -> None:
        """End the running requests, and those that wait, with this error."""
        for sequence in list(self.running):
            self._end(sequence, error)
        while waiting and self.waiting:
            self._say(self.waiting.popleft(), error)
        self.tell()

    def recover(self, error: Exception) -> None:
        """A step failed: end those who were in it, or else the one who would have been, and begin with empty rows."""
        told = generation.explained(error)
        if not self.running and self.waiting:
            self._say(self.waiting.popleft(), told)
        self.fail(told)
        self.pool.reset()
        self.changed = True

    def tell(self) -> None:
        """Let everybody know who has news."""
        told, self._told = self._told, []
        if told:
            Outbox.wake(told)

    def _sweep(self) -> None:
        """Rows of requests that nobody waits for any more are free."""
        for sequence in [each for each in self.running if each.cancelled]:
            self._end(sequence, None)
        if any(sequence.cancelled for sequence in self.waiting):
            self.waiting = deque(each for each in self.waiting if not each.cancelled)

    def _admit(self) -> None:
        """Give rows to those who wait, in order; the first one that finds none holds up the others."""
        while self.waiting and len(self.running) < self.pool.slots and self._room(self.waiting[0]):
            sequence = self.waiting[0]
            limit = self.runner.limit
            sequence.long = limit is not None and len(sequence.tokens) > limit
            sequence.row = self.pool.claim(sequence.tokens, sequence.salt)
            if sequence.row is None:
                return
            self.running.append(self.waiting.popleft())
            self.changed = self.changed or bool(sequence.strengths)
            self._prompt_tokens += len(sequence.tokens)
            self._looked_up += len(sequence.tokens)
            self._found += sequence.row.count
            sequence.outbox.put(Delta(()))  # its turn has come
            self._told.append(sequence.outbox)
        self.tell()

    def _room(self, first: Sequence) -> bool:
        """Whether rows are as long as the first one needs, laid anew if that can be now."""
        pool = self.pool
        if first.need > pool.cap:
            if pool.fit(first.need) <= len(self.running) and self.running:
                return False
            self._lay(first.need)
        elif all(row.taken for row in pool.rows):
            longest = max(sequence.need for sequence in (first, *self.running))
            if pool.fit(longest) <= len(pool.rows) or longest > pool.cap // 2:
                return False
            self._lay(longest)
        return True

    def _lay(self, cap: int) -> None:
        self.pool.lay(cap)
        self.runner.reserve(self.pool.cap + 1)
        self.changed = True

    def _compute(self) -> None:
        self._cross()
        singles = [each for each in self.running if len(each.tokens) - each.row.count == 1]  # type: ignore[union-attr]
        chunks = self._chunks()
        self._compact(singles)
        if self.changed:
            self._use_adapters()
        scores = self.runner.run(singles, chunks)
        ended = [each for each, _ in chunks if each.row.count == len(each.tokens)]  # type: ignore[union-attr]
        if singles or ended:
            self._hand_out([*singles, *ended], scores)

    def _hand_out(self, sequences: list[Sequence], scores: torch.Tensor) -> None:
        for sequence, chosen in zip(sequences, self._sampler.choose(sequences, scores), strict=True):
            if not isinstance(chosen, Chosen):
                self._end(sequence, chosen, forget=True)
                continue
            self._generated += 1
            finish = sequence.accept(chosen.token, chosen.logprob)
            if finish is not None or sequence.news:
                self._told.append(sequence.outbox)
            if finish is not None:
                self._end(sequence, None)

    def _cross(self) -> None:
        """A sequence that outgrows longrope's short factors is computed again with the long ones, as in `generate`."""
        limit = self.runner.limit
        for sequence in self.running if limit is not None else ():
            if not sequence.long and len(sequence.tokens) > limit:  # type: ignore[operator]
                sequence.long = True
                sequence.row.count, sequence.row.salt = 0, sequence.salt  # type: ignore[union-attr]

    def _chunks(self) -> list[Work]:
        budget = self._chunk * min(MOST_CHUNKS, max(1, len(self.waiting) // max(1, len(self.running))))
        chunks: list[Work] = []
        for sequence in self.running:
            left = len(sequence.tokens) - sequence.row.count  # type: ignore[union-attr]
            if left > 1 and budget > 0:
                chunks.append((sequence, min(left, budget)))
                budget -= left
        return chunks

    def _compact(self, singles: list[Sequence]) -> None:
        """Bring answering rows together: what lies between them is computed for nobody."""
        low, high = self.pool.span(each.row for each in singles)  # type: ignore[misc]
        taken = sum(row.taken for row in self.pool.rows[low:high])
        if high - low <= taken + taken // 8 + SLACK:
            return
        last = next(each for each in singles if each.row.index == high - 1)  # type: ignore[union-attr]
        free = [row for row in self.pool.rows[low:high] if not row.taken]
        self.pool.move(last.row, min(free, key=lambda row: row.used))  # type: ignore[arg-type]
        self.changed = True

    def _use_adapters(self) -> None:
        mixes: list[Mapping[str, float] | None] = [None] * len(self.pool.rows)
        for sequence in self.running:
            mixes[sequence.row.index] = sequence.strengths  # type: ignore[union-attr]
        self.runner.adapters.use(mixes)
        self.changed = False

    def _end(self, sequence: Sequence, error: Exception | None, *, forget: bool = False) -> None:
        self.running.remove(sequence)
        self._sampler.forget(sequence)
        if sequence.row is not None:
            self.pool.release(sequence.row, forget=forget)
            sequence.row = None
        self.changed = self.changed or bool(sequence.strengths)
        if error is not None:
            self._say(sequence, error)

    def _say(self, sequence: Sequence, error: Exception) -> None:
        sequence.outbox.put(error)
        self._told.append(sequence.outbox)
