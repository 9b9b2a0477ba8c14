"""How the rows of one optimizer step are laid out as micro-batches: arithmetic on lengths, a pure function of them.

Packed: rows stand one behind the other in lines of about the same width, each with positions of its own, so that
hardly a token is computed for nothing. Padded: one row a line, rows of like length together. Either way the step
learns from the same rows with the same weight; only what is computed at once differs.
"""

import bisect
import heapq
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_NARROW = 256
"""Lines narrower than this save no attention worth a thought."""


class Micro(NamedTuple):
    """What is computed at once: lines of one width, each with rows by their index."""

    lines: list[list[int]]
    width: int

    @property
    def tokens(self) -> int:
        """Those that fill up a line included."""
        return len(self.lines) * self.width


def packed(lengths: Sequence[int], limit: int, *, hidden: int, multiple: int = 1) -> list[Micro]:
    """Several rows a line, in as few micro-batches as there can be; `hidden` is the model's width.

    `limit`: tokens that may be computed at once; a row that is longer is computed alone. How many there can be is
    looked for in ever larger steps, then halfway between: rows held out are many, and each attempt sorts them all.
    """
    limit = max(limit, _up(max(lengths), multiple))
    low = math.ceil(sum(lengths) / limit)
    found, more = _within(limit, low, lengths, hidden, multiple), 1
    if found:
        return found
    while not (found := _within(limit, low + more, lengths, hidden, multiple)):
        low, more = low + more, 2 * more
    high = low + more
    while high - low > 1:
        middle = (low + high) // 2
        if fewer := _within(limit, middle, lengths, hidden, multiple):
            found, high = fewer, middle
        else:
            low = middle
    return found


def _within(limit: int, parts: int, lengths: Sequence[int], hidden: int, multiple: int) -> list[Micro]:
    """So many micro-batches; none where one of them would be too large."""
    found = []
    for group in _balanced(range(len(lengths)), lengths, parts):
        found.append(_lines(group, lengths, hidden, multiple))
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


def _lines(group: Sequence[int], lengths: Sequence[int], hidden: int, multiple: int) -> Micro:
    """The group in as many lines as cost least: many fill up badly, few compute attention between rows for nothing.

    A token costs 24 h^2 operations in the linear layers of a Llama-type layer and 4 h w in attention over a width of w.
    """
    total, longest = sum(lengths[row] for row in group), max(lengths[row] for row in group)
    most = math.ceil(total / max(longest, _NARROW))
    choices = [_arranged(_balanced(group, lengths, count), lengths, multiple) for count in range(1, most + 1)]
    return min(choices, key=lambda micro: micro.tokens * (1 + micro.width / (6 * hidden)))


def _arranged(lines: list[list[int]], lengths: Sequence[int], multiple: int) -> Micro:
    return Micro(lines, _up(max(sum(lengths[row] for row in line) for line in lines), multiple))


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
