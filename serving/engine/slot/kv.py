"""Keys and values: one pool for each layer, a row for each request, laid anew where a longer request needs it.

Free rows keep what they hold until they are needed, so a prompt that begins like an earlier one finds its beginning
there. Knows tensors, tokens and bytes; nothing of requests.
"""

import itertools
import math
import mmap
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

LEAST_SHARED = 16
"""A shorter common beginning is computed again: that costs no more than to look after it."""
PARKED = 8
"""Rows beyond the running requests', where the memory allows them: they keep prefixes."""
GRAIN = 64
"""Rows are laid in multiples of so many tokens."""


class Shape(NamedTuple):
    """What one token takes."""

    layers: int
    heads: int
    size: int
    """Of one head."""
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes(self) -> int:
        """For one token, keys and values of all layers."""
        return 2 * self.layers * self.heads * self.size * self.dtype.itemsize


@dataclass(eq=False, slots=True)
class Row:
    """One row of the pool and what it holds."""

    index: int
    tokens: list[int] = field(default_factory=list)
    count: int = 0
    """Of so many of `tokens` the row has keys and values."""
    salt: Hashable = None
    taken: bool = False
    used: int = 0


class Pool:
    """The rows. One token more than `cap` fits into each: the spare place takes what nobody will read."""

    def __init__(self, shape: Shape, *, budget: int, slots: int, cap: int) -> None:
        self.shape = shape
        self.budget = budget
        self.slots = slots
        self.cap = 0
        self.rows: list[Row] = []
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self._clock = itertools.count(1)
        self.lay(cap)

    def fit(self, cap: int) -> int:
        """How many rows of this length the budget holds."""
        return min(self.slots + PARKED, self.budget // (self.shape.bytes * (_grained(cap) + 1)))

    def lay(self, cap: int) -> None:
        """Make rows of another length; taken ones are kept, then the remembered ones that were used last."""
        cap = _grained(cap)
        count = max(1, self.fit(cap))
        held = sorted((row for row in self.rows if row.taken or row.count), key=lambda row: (not row.taken, -row.used))
        kept = [row for row in held if row.taken or row.count <= cap][:count]
        for tensors in (self.keys, self.values):
            for _ in range(self.shape.layers):
                old = tensors.pop(0) if self.cap else None
                tensors.append(self._laid(old, kept, count, cap))
        self.rows = [*kept, *(Row(0) for _ in range(count - len(kept)))]
        for index, row in enumerate(self.rows):
            row.index = index
        self.cap = cap

    def _laid(self, old: torch.Tensor | None, kept: list[Row], count: int, cap: int) -> torch.Tensor:
        shape = self.shape
        new = _zeros((count, shape.heads, cap + 1, shape.size), shape)
        for index, row in enumerate(kept):
            assert old is not None
            new[index, :, : row.count] = old[row.index, :, : row.count]
        return new

    def reset(self) -> None:
        """Forget everything, and get new memory."""
        cap, self.cap, self.rows, self.keys, self.values = self.cap, 0, [], [], []
        self.lay(cap)

    def claim(self, tokens: list[int], salt: Hashable) -> Row | None:
        """A free row for these tokens, with their longest known beginning already in it; None if all are taken."""
        free = [row for row in self.rows if not row.taken]
        if not free:
            return None
        source, shared = self._longest(tokens, salt)
        low, high = self.span(row for row in self.rows if row.taken)

        def widening(row: Row) -> int:
            return max(high, row.index + 1) - min(low, row.index) - (high - low) if high else 0

        target = min(free, key=lambda row: (widening(row), row.used))
        if source is not None and not source.taken and widening(source) <= widening(target) + 1:
            target = source
        elif source is not None:
            self.copy(source, target, shared)
        target.tokens, target.count, target.salt, target.taken = tokens, shared, salt, True
        target.used = next(self._clock)
        return target

    def release(self, row: Row, *, forget: bool = False) -> None:
        """The row is free; what it holds may serve again, unless it is to be forgotten."""
        row.taken, row.used = False, next(self._clock)
        row.tokens = [] if forget else row.tokens[: row.count]
        if forget:
            self._clear(row)

    def forget(self, salt_has: str) -> None:
        """Forget what was computed with this adapter."""
        for row in self.rows:
            if not row.taken and row.salt and any(name == salt_has for name, _ in row.salt[0]):  # type: ignore[index]
                row.tokens, row.count = [], 0

    def copy(self, source: Row, target: Row, count: int) -> None:
        """The first `count` tokens of one row into another."""
        for tensor in itertools.chain(self.keys, self.values):
            tensor[target.index, :, :count] = tensor[source.index, :, :count]

    def move(self, source: Row, target: Row) -> None:
        """A taken row's place becomes a free one's; what was in that is lost."""
        self.copy(source, target, source.count)
        target.tokens, target.count = [], 0
        self.rows[source.index], self.rows[target.index] = target, source
        source.index, target.index = target.index, source.index

    def _clear(self, row: Row) -> None:
        """Values that are no numbers would reach every later holder of the row through its masked part."""
        row.count = 0
        for tensor in itertools.chain(self.keys, self.values):
            tensor[row.index].zero_()

    def _longest(self, tokens: list[int], salt: Hashable) -> tuple[Row | None, int]:
        """The row that begins with most of the tokens; the last one is always left to be computed."""
        best, most = None, LEAST_SHARED - 1
        for row in self.rows:
            if row.salt == salt and row.count > most:
                shared = _common(row.tokens, tokens, min(row.count, len(tokens) - 1))
                if shared > most:
                    best, most = row, shared
        return best, most if best else 0

    @staticmethod
    def span(rows: Iterable[Row]) -> tuple[int, int]:
        """The first index and the one behind the last; (0, 0) for none."""
        indices = [row.index for row in rows]
        return (min(indices), max(indices) + 1) if indices else (0, 0)


def _zeros(size: tuple[int, ...], shape: Shape) -> torch.Tensor:
    """On a CPU the kernel's own empty pages: torch would write zeros over gigabytes while everybody waits."""
    if shape.device.type != "cpu":
        return torch.zeros(size, dtype=shape.dtype, device=shape.device)
    pages = mmap.mmap(-1, math.prod(size) * shape.dtype.itemsize)
    return torch.frombuffer(pages, dtype=shape.dtype).view(size)


def _grained(cap: int) -> int:
    return -(-cap // GRAIN) * GRAIN


def _common(one: list[int], other: list[int], most: int) -> int:
    """How many tokens both begin with, up to `most`; halving, since slices compare fast."""
    if one[:most] == other[:most]:
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
