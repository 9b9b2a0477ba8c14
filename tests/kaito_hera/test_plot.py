"""Curves in braille."""

import math

import pytest

from kaito_hera import plot

FALLS = [(step, 4 - step / 10) for step in range(1, 41)]


def body(lines):
    return [line.partition("┤")[2] for line in lines if "┤" in line]


def test_a_curve_that_falls_falls():
    lines = plot.plot(FALLS, 60, 12)
    assert len(lines) == 12
    assert max(map(len, lines)) <= 60
    columns = [next(at for at, cell in enumerate(row) if cell != " ") for row in body(lines)]
    assert columns == sorted(columns)
    assert columns[0] < 3
    assert columns[-1] > 40


def test_its_axes_have_their_numbers():
    lines = plot.plot(FALLS, 60, 12, end=80)
    assert [line.partition("┤")[0].strip() for line in lines if "┤" in line and line.split("┤")[0].strip()] == [
        "3.9", "1.95", "0",
    ]  # fmt: skip
    assert lines[-1].split() == ["0", "80"]


def test_marks_and_rules_are_where_they_belong():
    lines = plot.plot(FALLS, 60, 12, marks=[(40, 3.9)], rules=[20])
    rows = body(lines)
    assert rows[0].endswith("◆")
    assert sum("┊" in row for row in rows) >= len(rows) - 2
    assert len({row.index("┊") for row in rows if "┊" in row}) == 1


@pytest.mark.parametrize(
    "points", [[(1, 2.0)], [(0, 0.0)], [(1, 1.0), (2, 1.0)], [(1, -5.0), (2, 1e9)], [(10**9, 1e-9), (10**9 + 1, 2e-9)]]
)
@pytest.mark.parametrize("width", [1, 20, 200])
def test_any_points_fit_any_paper(points, width):
    lines = plot.plot(points, width, 10)
    assert len(lines) == 10
    assert len({line.index("┤") for line in lines if "┤" in line}) == 1


def test_no_points_are_no_lines():
    assert plot.plot([], 60, 10) == []


def test_lines_are_joined():
    wave = [(step, math.sin(step)) for step in range(1, 5)]
    rows = body(plot.plot(wave, 60, 12))
    filled = {at for row in rows for at, cell in enumerate(row) if cell != " "}
    assert filled == set(range(min(filled), max(filled) + 1))
