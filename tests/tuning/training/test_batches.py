"""Rows as tensors, packed and padded, and the order of rows where they cannot be packed."""

from array import array

import pytest

from tuning.data.masks import IGNORED, Encoded
from tuning.training.batches import Batches, ByLength, supervised
from tuning.training.packing import Micro

ROWS = [Encoded(array("i", [5, 0, 0]), array("i", [IGNORED, 0, 0])), Encoded(array("i", [7, 8]), array("i", [7, 8]))]


@pytest.mark.torch
def test_padded_rows_are_filled_up_outside_of_the_loss():
    batch = Batches(0, None).tensors(ROWS, Micro([[0], [1]], 4), packed=False)
    assert batch["input_ids"].tolist() == [[5, 0, 0, 0], [7, 8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 0, 0, IGNORED], [IGNORED, 8, IGNORED, IGNORED]]
    assert "position_ids" not in batch


@pytest.mark.torch
def test_packed_rows_start_anew_and_none_learns_from_the_one_before():
    batch = Batches(9, None).tensors(ROWS, Micro([[0, 1]], 7), packed=True)
    assert batch["input_ids"].tolist() == [[5, 0, 0, 7, 8, 9, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1]]
    assert batch["labels"].tolist() == [[IGNORED, 0, 0, IGNORED, 8, IGNORED, IGNORED]]
    assert batch["row_lengths"] == [3, 2, 2]
    assert "attention_mask" not in batch


def test_what_was_trained_on_is_counted():
    batches = Batches(0, None)
    batches.count(ROWS)
    assert (batches.tokens, batches.supervised) == (5, 3)
    assert [supervised(row) for row in ROWS] == [2, 1]


def order(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_the_order_by_length_is_a_function_of_seed_and_epoch():
    lengths = [(7 * number) % 101 + 1 for number in range(203)]
    first = ByLength(lengths, 8, 42)
    orders = [order(first, epoch) for epoch in range(3)]
    assert all(sorted(each) == list(range(203)) for each in orders)
    assert order(ByLength(lengths, 8, 42), 1) == orders[1]
    assert len({tuple(each) for each in [*orders, order(ByLength(lengths, 8, 43), 0)]}) == 4


def test_rows_of_a_step_are_of_like_length_and_steps_are_not_sorted():
    lengths = [(7 * number) % 101 + 1 for number in range(203)]
    rows = order(ByLength(lengths, 8, 42), 0)
    steps = [[lengths[row] for row in rows[at : at + 8]] for at in range(0, len(rows), 8)]
    assert max(max(step) - min(step) for step in steps) <= 8
    assert steps != sorted(steps, reverse=True)
    assert [len(step) for step in steps] == [8] * 25 + [3]
