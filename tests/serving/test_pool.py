"""The rows of keys and values, apart from any model."""

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from serving.engine.slot.kv import Pool, Shape

SHAPE = Shape(layers=1, heads=1, size=4, dtype=torch.float32, device=torch.device("cpu"))


def test_a_row_that_has_nothing_yet_is_kept_as_rows_are_laid_anew():
    """More rows remember a beginning than there are longer rows, and each of them was there first."""
    pool = Pool(SHAPE, budget=20 * 65 * SHAPE.bytes, slots=12, cap=64)
    assert (len(pool.rows), pool.fit(128)) == (20, 10)
    for first in range(20):
        row = pool.claim([first] * 40, None)
        row.count = 40
    for row in pool.rows:
        pool.release(row)
    mine = [pool.claim([100 + number] * 40, None) for number in range(10)]
    assert [row.count for row in mine] == [0] * 10
    pool.lay(128)
    assert sorted(row.index for row in mine) == list(range(10))
    assert all(pool.rows[row.index] is row for row in mine)


def test_keys_stay_with_their_rows_and_the_last_remembered_are_kept():
    pool = Pool(SHAPE, budget=20 * 65 * SHAPE.bytes, slots=12, cap=64)
    for first in range(20):
        row = pool.claim([first] * 40, None)
        row.count = 40
        pool.keys[0][row.index] = first
    held, *others = pool.rows
    for row in others:
        pool.release(row)
    pool.lay(128)
    assert {row.tokens[0] for row in pool.rows} == {held.tokens[0], *(row.tokens[0] for row in others[-9:])}
    assert all((pool.keys[0][row.index, 0, :40] == row.tokens[0]).all() for row in pool.rows)
