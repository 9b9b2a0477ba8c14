"""How the rows of one optimizer step are laid out as micro-batches: arithmetic on lengths, a pure function of them.

Packed: rows stand one behind the other in one line, each with positions of its own, so that hardly a token is computed
for nothing. Padded: one row a line, rows of like length together. Either way the step learns from the same rows with
the same weight; only what is computed at once differs.
"""

import bisect
import heapq
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Micro(NamedTuple):
    """What is computed at once: lines of one width, each with rows by their index."""

    lines: list[list[int]]
    width: int

    @property
    def tokens(self) -> int:
        """Those that fill up a line included."""
        return len(self.lines) * self.width


def packed(lengths: Sequence[int], limit: int, *, multiple: int = 1) -> list[Micro]:
    """All rows of a micro-batch in one line, in as few micro-batches as there can be, of about the same width.

    `limit`: tokens that may be computed at once; a row that is longer is computed alone. How many there can be is
    looked for in ever larger steps, then halfway between: rows held out are many, and each attempt sorts them all.
    """
    limit = max(limit, _up(max(lengths), multiple))
    low = math.ceil(sum(lengths) / limit)
    found, more = _within(limit, low, lengths, multiple), 1
    if found:
        return found
    while not (found := _within(limit, low + more, lengths, multiple)):
        low, more = low + more, 2 * more
    high = low + more
    while high - low > 1:
        middle = (low + high) // 2
        if fewer := _within(limit, middle, lengths, multiple):
            found, high = fewer, middle
        else:
            low = middle
    return found


def _within(limit: int, parts: int, lengths: Sequence[int], multiple: int) -> list[Micro]:
    """So many micro-batches; none where one of them would be too large."""
    found = []
    for group in _balanced(range(len(lengths)), lengths, parts):
        found.append(Micro([group], _up(sum(lengths[row] for row in group), multiple)))
        if found[-1].tokens > limit:
            return []
    return found


def together(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Rows in groups of at most so many tokens; the longest first, each where it leaves least room (best fit)."""
    groups: list[list[int]] = []
    with_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # in order, of groups that have some
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        at = bisect.bisect_left(rooms, lengths[row])
        if at == len(rooms):
            group, room = len(groups), most
            groups.append([])
        else:
            room = rooms[at]
            group = with_room[room].pop()
            if not with_room[room]:
                del rooms[at]
        groups[group].append(row)
        left = room - lengths[row]
        if not with_room.setdefault(left, []):
            bisect.insort(rooms, left)
        with_room[left].append(group)
    return groups


def padded(lengths: Sequence[int], limit: int, *, multiple: int = 1) -> list[Micro]:
    """One row a line, longest first."""
    found: list[Micro] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if found and (len(found[-1].lines) + 1) * found[-1].width <= limit:
            found[-1].lines.append([row])
        else:
            found.append(Micro([[row]], _up(lengths[row], multiple)))
    return found


def _balanced(rows: Iterable[int], lengths: Sequence[int], parts: int) -> list[list[int]]:
    """The rows in so many parts of about the same length: the longest first, each to the part that has least."""
    groups: list[list[int]] = [[] for _ in range(parts)]
    fill = [(0, part) for part in range(parts)]
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        least, part = fill[0]
        groups[part].append(row)
        heapq.heapreplace(fill, (least + lengths[row], part))
    return [group for group in groups if group]


def _up(length: int, multiple: int) -> int:
    return math.ceil(length / multiple) * multiple
