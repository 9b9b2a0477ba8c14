"""A curve for a terminal, in braille: two dots by four in each character, axes with their numbers. Pure text."""

from collections.abc import Sequence

Points = Sequence[tuple[float, float]]

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Of a character, by column and by row from above."""
_BLANK = 0x2800
_NARROWEST = 8


def plot(
    curve: Points, width: int, height: int, *, marks: Points = (), rules: Sequence[float] = (), end: float = 0
) -> list[str]:
    """The curve from x = 0 on, as wide and as high as that many characters; at least `end` to the right.

    `marks` are drawn as ◆, `rules` as upright lines. What is narrower than a few characters is drawn as wide as those.
    """
    values = [y for _, y in (*curve, *marks)]
    if not values:
        return []
    low, high = min(values), max(values)
    right = max([end, *(x for x, _ in (*curve, *marks))]) or 1.0
    labels = [number(high), *([number((low + high) / 2)] if height > 4 else []), number(low)]
    indent = max(map(len, labels)) + 2
    columns, rows = max(_NARROWEST, width - indent), max(2, height - 2)

    def place(x: float, y: float) -> tuple[int, int]:
        up = (y - low) / (high - low) if high > low else 0.5
        return round(x / right * (columns * 2 - 1)), round((1 - up) * (rows * 4 - 1))

    cells = _line([place(*point) for point in curve])
    drawn = [
        [chr(_BLANK | cells.get((x, y), 0)).replace(chr(_BLANK), " ") for x in range(columns)] for y in range(rows)
    ]
    for rule in rules:
        at = place(rule, low)[0] // 2
        for row in drawn:
            row[at] = "┊" if row[at] == " " else row[at]
    for mark in marks:
        x, y = place(*mark)
        drawn[y // 4][x // 2] = "◆"
    heads = {0: labels[0], rows - 1: labels[-1]} | ({(rows - 1) // 2: labels[1]} if len(labels) == 3 else {})
    lines = [f"{heads.get(at, ''):>{indent - 2}} ┤{''.join(row).rstrip()}" for at, row in enumerate(drawn)]
    foot = f"0{number(right):>{columns - 1}}"
    return [*lines, f"{' ' * (indent - 1)}└{'─' * columns}", " " * indent + foot]


def number(value: float) -> str:
    """Short, and plain where that can be."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.3g}"


def _line(dots: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Characters with their dots: a straight line between each dot and the next."""
    cells: dict[tuple[int, int], int] = {}
    for (x1, y1), (x2, y2) in zip(dots, [*dots[1:], *dots[-1:]], strict=True):
        steps = max(abs(x2 - x1), abs(y2 - y1), 1)
        for at in range(steps + 1):
            x, y = round(x1 + (x2 - x1) * at / steps), round(y1 + (y2 - y1) * at / steps)
            cells[x // 2, y // 4] = cells.get((x // 2, y // 4), 0) | _DOTS[x % 2][y % 4]
    return cells
