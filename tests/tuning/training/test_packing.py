"""The layout of an optimizer step: every row once, never more at once than allowed, little computed for nothing."""

import random

import pytest

from tuning.training import packing


def dolly(count, seed):
    """Lengths as those of dolly-15k's rows: a few long ones among many short ones."""
    drawn = random.Random(seed)
    texts = [drawn.lognormvariate(2.6, 0.62) + drawn.lognormvariate(3.8, 1.1) for _ in range(count)]
    return [min(2048, int(text + (drawn.lognormvariate(5.2, 0.8) if drawn.random() < 0.3 else 8))) for text in texts]


def rows(micros):
    return sorted(row for micro in micros for line in micro.lines for row in line)


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_are_put_together_fill_lines_and_are_never_cut(seed):
    lengths = dolly(random.Random(seed).randint(1, 900), seed)
    groups = packing.together(lengths, 2048)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    full = [sum(lengths[row] for row in group) for group in groups]
    assert max(full) <= 2048
    assert len(groups) <= 1.1 * sum(lengths) / 2048 + 1


def test_a_row_goes_where_it_leaves_least_room():
    assert packing.together([60, 30, 70, 40, 10], 100) == [[2, 1], [0, 3], [4]]
    assert packing.together([60, 70, 25, 15], 100) == [[1, 2], [0, 3]]
    assert packing.together([], 100) == []


@pytest.mark.parametrize("limit", [64, 700, 4096])
@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("seed", range(20))
def test_every_row_comes_once_and_no_micro_batch_is_larger_than_it_may(limit, multiple, seed):
    lengths = dolly(random.Random(seed).randint(1, 40), seed)
    most = max(limit, -(-max(lengths) // multiple) * multiple)
    for micros in (
        packing.packed(lengths, limit, multiple=multiple),
        packing.padded(lengths, limit, multiple=multiple),
    ):
        assert rows(micros) == list(range(len(lengths)))
        assert max(micro.tokens for micro in micros) <= most
        for micro in micros:
            assert micro.width % multiple == 0
            assert all(sum(lengths[row] for row in line) <= micro.width for line in micro.lines)


class Counted(list):
    """Counts how often somebody looks into it."""

    looks = 0

    def __getitem__(self, index):
        self.looks += 1
        return super().__getitem__(index)


def test_four_times_the_rows_take_little_more_than_four_times_the_work():
    few, many = Counted(dolly(4000, 0)), Counted(dolly(16_000, 0))
    for lengths in (few, many):
        assert rows(packing.packed(lengths, 2048, multiple=32)) == list(range(len(lengths)))
    assert many.looks < 8 * few.looks


def share(micros, lengths):
    return sum(lengths) / sum(micro.tokens for micro in micros)


def test_little_is_computed_for_nothing():
    lengths = [dolly(8, seed) for seed in range(200)]
    useful = [share(packing.packed(each, 4096), each) for each in lengths]
    assert min(useful) == 1
    assert sum(share(packing.padded(each, 10**6), each) for each in lengths) / len(lengths) < 0.5


def test_many_short_rows_are_laid_out_too():
    micros = packing.packed([10] * 1024, 4096)
    assert len(micros) == 3
    assert rows(micros) == list(range(1024))


def test_padded_rows_of_like_length_are_together():
    assert packing.padded([3, 9, 4, 8], 18) == [packing.Micro([[1], [3]], 9), packing.Micro([[2], [0]], 4)]
