"""Text as wide as the terminal: aligned tables, wrapped sentences, bars, and colour only where somebody looks. Pure."""

import dataclasses
import os
import shutil
import textwrap
from collections.abc import Collection, Sequence
from typing import Self, TextIO

from artifacts import strangers

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_NARROWEST = 40
_GAP = "  "
_LONGEST = 2000
"""Characters of a sentence: more is nobody's to read."""


@dataclasses.dataclass(frozen=True)
class Paper:
    """What is written on."""

    width: int | None = None
    """Characters of a line; None where it has no end, in a pipe or a file."""
    colour: bool = False

    @classmethod
    def of(cls, stream: TextIO) -> Self:
        """The terminal behind a stream, if there is one. NO_COLOR, set to anything, and TERM=dumb mean no colour."""
        if not stream.isatty():
            return cls()
        colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(max(_NARROWEST, shutil.get_terminal_size().columns), colour)

    def paint(self, text: str, style: str) -> str:
        """The text in a style: bold, dim, red, green, yellow; nothing where there is no colour."""
        return f"\033[{_STYLES[style]}m{text}\033[0m" if self.colour and style and text else text

    def wrap(self, text: str, *, indent: str = "", first: str | None = None) -> list[str]:
        """A sentence in lines that begin with `indent`, the first one with `first`."""
        head = indent if first is None else first
        text = inert(text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ...")
        if self.width is None:
            return [head + text]
        lines = textwrap.wrap(
            text,
            max(self.width, len(indent) + 16),
            initial_indent=head,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return lines or [head]

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Collection[str] = (),
        drop: Sequence[str] = (),
        indent: str = "",
        styles: Sequence[str] = (),
    ) -> list[str]:
        """Aligned columns under their heads; those named in `right` are numbers.

        Where the line is too short the columns of `drop` go, first named first, then the last one is cut.
        """
        columns = list(zip(head, *([inert(cell) for cell in row] for row in rows), strict=True))
        gone = list(drop)
        while gone and self._too_wide(columns, indent):
            columns = [column for column in columns if column[0] != gone[0]]
            gone.pop(0)
        widths = [max(map(len, column)) for column in columns]
        lines = []
        for at in range(len(rows) + 1):
            cells = [
                column[at].rjust(width) if column[0] in right else column[at].ljust(width)
                for column, width in zip(columns, widths, strict=True)
            ]
            style = "bold" if at == 0 else styles[at - 1] if at <= len(styles) else ""
            lines.append(self.paint(self._cut((indent + _GAP.join(cells)).rstrip()), style))
        return lines

    def _too_wide(self, columns: list[tuple[str, ...]], indent: str) -> bool:
        if self.width is None:
            return False
        return len(indent) + sum(max(map(len, column)) for column in columns) + 2 * (len(columns) - 1) > self.width

    def _cut(self, line: str) -> str:
        return line if self.width is None or len(line) <= self.width else f"{line[: self.width - 1]}…"


inert = strangers.inert


def bar(start: float, end: float, width: int) -> str:
    """A bar from one share of `width` to another; an arrow where it goes on beyond the end."""
    if start >= 1:
        return ""
    left = round(start * width)
    full = min(round(end * width), width) - left
    return " " * left + ("█" * full or "▏") + ("▶" if end > 1 else "")
