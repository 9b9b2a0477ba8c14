"""The loss curve as an SVG, which hubs show in a card. Pure text: the same numbers are the same bytes."""

import math
from collections.abc import Sequence
from xml.sax import saxutils

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 28, 36
_TICKS = 5


def svg(losses: Points, evals: Points = (), resumed: Sequence[int] = (), title: str = "") -> str:
    """Steps to the right, loss upwards; rows held out as dots, steps that were resumed from as dashed lines."""
    values = [value for _, value in (*losses, *evals)]
    across = ticks(0, max((step for step, _ in (*losses, *evals)), default=1))
    up = ticks(min(values, default=0), max(values, default=1))

    def place(step: float, value: float) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (step - across[0]) / (across[-1] - across[0])
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - up[0]) / (up[-1] - up[0])
        return round(x, 1), round(y, 1)

    parts = [_text(_LEFT, 17, title, "start")]
    for tick in up:
        y = place(across[0], tick)[1]
        parts += [_line((_LEFT, y), (_WIDTH - _RIGHT, y), "#dddddd"), _text(_LEFT - 6, y + 4, f"{tick:g}", "end")]
    for tick in across:
        parts.append(_text(place(tick, up[0])[0], _HEIGHT - _BOTTOM + 16, f"{tick:g}", "middle"))
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 6, "optimizer step", "middle"))
    for step in resumed:
        x = place(step, up[0])[0]
        parts.append(_line((x, _TOP), (x, _HEIGHT - _BOTTOM), "#999999", "4 3"))
    drawn = " ".join(f"{x},{y}" for x, y in (place(*point) for point in losses))
    parts.append(f'<polyline points="{drawn}" fill="none" stroke="#2f6db5" stroke-width="1.5"/>')
    for x, y in (place(*point) for point in evals):
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="#d9822b"/>')
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    ground = f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>'
    whole = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">', ground, *parts]
    return "\n".join([*whole, "</svg>", ""])


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers, the first at or below `low`, the last at or above `high`."""
    span = (high - low) or abs(high) or 1.0
    raw = span / _TICKS
    size = 10.0 ** math.floor(math.log10(raw))
    width = next(size * many for many in (1, 2, 2.5, 5, 10) if size * many >= raw * 0.999)
    first = math.floor(low / width + 1e-9)
    last = max(first + 1, math.ceil(high / width - 1e-9))
    return [round(at * width, 12) for at in range(first, last + 1)]


def _line(start: tuple[float, float], end: tuple[float, float], colour: str, dashes: str = "") -> str:
    style = f' stroke-dasharray="{dashes}"' if dashes else ""
    ends = f'x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}"'
    return f'<line {ends} stroke="{colour}"{style}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="#333333">{saxutils.escape(text)}</text>'
