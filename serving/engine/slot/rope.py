"""Rotations by position, from a table, with longrope's two sets of factors side by side.

transformers switches longrope for all of a batch by its longest position; here each token has its own. The table is
made by the model's own module, so it is exact, whatever the kind.
"""

from typing import Any

import torch
from torch import nn

from serving.engine.slot.attention import current

Pair = tuple[torch.Tensor, torch.Tensor]


class RopeTable(nn.Module):
    """In place of a model's rotary embedding; outside the slot engine it is that."""

    def __init__(self, own: nn.Module, limit: int | None) -> None:
        super().__init__()
        self.own = own
        self.limit = limit
        """The longest sequence of longrope's short factors; None: one set of factors for all."""
        self.length = 0
        self._tables: dict[Any, Pair] = {}

    def reserve(self, length: int) -> None:
        """Have rotations for this many positions from now on."""
        if length > self.length:
            self.length = length
            self._tables.clear()

    def forward(self, hidden: torch.Tensor, position_ids: torch.Tensor, layer_type: str | None = None) -> Pair:
        """Cosine and sine, [1, tokens, size]."""
        kind = {} if layer_type is None else {"layer_type": layer_type}
        if (step := current.step) is None:
            pair: Pair = self.own(hidden, position_ids, **kind)
            return pair
        if layer_type not in self._tables:
            self._tables[layer_type] = self._table(hidden, kind)
        cosine, sine = self._tables[layer_type]
        return cosine[:, step.turns], sine[:, step.turns]

    def _table(self, hidden: torch.Tensor, kind: dict[str, Any]) -> Pair:
        def turned(length: int) -> Pair:
            pair: Pair = self.own(hidden, torch.arange(length, device=hidden.device)[None], **kind)
            return pair

        if self.limit is None:
            return turned(self.length)
        if self.length <= self.limit:
            return turned(self.limit)
        short, long = turned(self.limit), turned(self.length)  # a longest position above the limit: long factors
        return torch.cat((short[0], long[0]), 1), torch.cat((short[1], long[1]), 1)
