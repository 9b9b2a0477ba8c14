"""Rows of token ids as tensors, and in which order rows come where they cannot be packed. Knows no model."""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tuning.data.masks import IGNORED, Encoded
from tuning.training.packing import Micro

WIDTH = 32
"""What widths are multiples of unless somebody asks for another number: libraries prepare their kernels for each new
shape of a product (in 16 bits a CPU takes ten times as long for the first), and GPUs compute in tiles."""
_POOL = 50
"""Steps whose rows are sorted by length together: the library's number."""


class Batches:
    """Makes tensors, and counts what they hold."""

    def __init__(self, pad: int, multiple: int | None) -> None:
        self._pad = pad
        self.multiple = multiple or WIDTH
        """What a line's width is a multiple of."""
        self.tokens = 0
        """Of all batches that were trained on so far, without what fills up lines."""
        self.supervised = 0
        """Those of them that were learned from."""

    def count(self, rows: Sequence[Encoded]) -> None:
        """Rows were trained on."""
        self.tokens += sum(len(row.ids) for row in rows)
        self.supervised += sum(map(supervised, rows))

    def tensors(self, rows: Sequence[Encoded], micro: Micro, *, packed: bool) -> dict[str, Any]:
        """Token ids and labels of one width.

        Packed: one line, with positions that start anew with each row, and the rows' lengths, by which `attention`
        tells them apart; what fills up the line is a row too. Else with an attention mask.
        Labels are made before lines are filled up, so that pad may be the token that ends an answer; the first token of
        a row is never learned, as it is not from the row before.
        """
        import torch  # noqa: PLC0415

        shape = (len(micro.lines), micro.width)
        ids, labels = torch.full(shape, self._pad), torch.full(shape, IGNORED)
        positions, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for index, line in enumerate(micro.lines):
            end = 0
            for row in (rows[number] for number in line):
                start, end = end, end + len(row.ids)
                ids[index, start:end] = torch.frombuffer(row.ids, dtype=torch.int32)
                labels[index, start + 1 : end] = torch.frombuffer(row.labels, dtype=torch.int32)[1:]
                positions[index, start:end] = torch.arange(end - start)
            positions[index, end:] = torch.arange(micro.width - end)
            mask[index, :end] = 1
        there = {"input_ids": ids, "labels": labels}
        if not packed:
            return {**there, "attention_mask": mask}
        (line,) = micro.lines
        lengths = [len(rows[number].ids) for number in line]
        filler = [micro.width - sum(lengths)]
        return {**there, "position_ids": positions, "row_lengths": lengths + filler * any(filler)}


Item = Encoded | list[Encoded]
"""What a step counts as one row: a row, or several that were put together."""


def rows(items: Iterable[Item]) -> list[Encoded]:
    """All rows of them."""
    return [row for item in items for row in (item if isinstance(item, list) else [item])]


def tokens(item: Item) -> int:
    """Of all its rows."""
    return sum(len(row.ids) for row in rows([item]))


def supervised(row: Encoded) -> int:
    """Tokens that are learned from: a row's first has none before it that could tell it."""
    return len(row.labels) - 1 - row.labels[1:].count(IGNORED)


class ByLength:
    """An order in which the rows of a step are of like length: a pure function of seed and epoch.

    transformers' own draws from the generator that dropout draws from too, so that a run that was cut off goes on
    in another way.
    """

    def __init__(self, lengths: Sequence[int], rows_a_step: int, seed: int) -> None:
        self._lengths = lengths
        self._step = rows_a_step
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by whoever iterates, before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        drawn = random.Random(f"{self._seed} {self._epoch}")  # noqa: S311
        rows = drawn.sample(range(len(self._lengths)), len(self._lengths))
        pool = self._step * _POOL
        steps: list[list[int]] = []
        for start in range(0, len(rows), pool):
            ordered = sorted(rows[start : start + pool], key=lambda row: -self._lengths[row])
            steps += [ordered[at : at + self._step] for at in range(0, len(ordered), self._step)]
        whole = [step for step in steps if len(step) == self._step]
        drawn.shuffle(whole)
        rest = [step for step in steps if len(step) < self._step]
        return (row for step in (*whole, *rest) for row in step)
