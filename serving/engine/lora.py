"""Several LoRA adapters on one base model: kept apart, and added up in any mix for each token.

`y = W x + ((x down) * gate) up`: the factors of all adapters lie side by side, and a token's row of the gate has the
strength of each of its adapters in that one's columns and 0 elsewhere. That is the exact weighted sum, in any order,
and the base to the bit where nobody uses an adapter. Only the columns between the first and last in use are computed.
Where each of many rows uses one of many adapters, a CPU multiplies each adapter with its own rows alone: the gate would
throw away most of what it computes.
Knows neither files nor requests; whoever calls it sees to it that no forward pass runs meanwhile.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from serving.engine.lora_files import Pair
from serving.engine.packed import PackedLinear, packed, times, times_plus

Linear = (nn.Linear, PackedLinear)
MOST_ORDERS = 2
FEW = 32
"""Columns, for which torch's own products are as fast as packed ones, and twice as fast in small models."""


class Groups(NamedTuple):
    """The tokens of a pass adapter by adapter, each of which has as many places; those left over have strength 0."""

    tokens: torch.Tensor
    """[adapters x places], which token is there."""
    strengths: torch.Tensor
    """[adapters, places, 1]."""

    @classmethod
    def of(cls, rows: torch.Tensor, width: int) -> "Groups | None":
        """Of the gate's rows [tokens, columns], `width` columns for each adapter; None where it would not pay."""
        by_adapter = rows.view(len(rows), -1, width)[:, :, 0].T
        used = by_adapter != 0
        places = int(used.sum(1).max())
        if int(used.sum(0).max()) != 1 or places * 2 > len(rows):
            return None
        tokens = by_adapter.abs().topk(places).indices
        return cls(tokens.reshape(-1), by_adapter.gather(1, tokens)[..., None])


class Gate:
    """What all layers look at during one forward pass."""

    groups: Groups | None = None
    """The same as `values` in another order, where that is less work."""

    def __init__(self) -> None:
        self._values: torch.Tensor | None = None
        self._copies: dict[torch.device, torch.Tensor] = {}
        self.columns = slice(0)

    @property
    def values(self) -> torch.Tensor | None:
        """[tokens, columns], or [1, columns] for all tokens alike; None: the bare base."""
        return self._values

    @values.setter
    def values(self, values: torch.Tensor | None) -> None:
        self._values = values
        self._copies.clear()

    def on(self, device: torch.device) -> torch.Tensor:
        """The same beside a layer, which may be on another GPU."""
        assert self._values is not None
        if self._values.device == device:
            return self._values
        if device not in self._copies:
            self._copies[device] = self._values.to(device)
        return self._copies[device]


class LoraLinear(nn.Module):
    """A linear layer of the base model with room for adapters beside it."""

    def __init__(self, base: Any, gate: Gate, columns: int) -> None:
        super().__init__()
        self.base = base
        self.gate = gate
        self.of: set[str] = set()
        self._orders: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        like = base.weight
        dtype = like.dtype if like.is_floating_point() else torch.float32  # 4-bit weights are bytes
        self.down = torch.zeros((columns, base.in_features), dtype=dtype, device=like.device)
        self.up = torch.zeros((columns, base.out_features), dtype=dtype, device=like.device)

    @property
    def weight(self) -> torch.Tensor:
        """The base's: some models look at it."""
        weight: torch.Tensor = self.base.weight
        return weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The base's output plus that of the selected mix."""
        output: torch.Tensor = self.base(hidden)
        gate = self.gate
        if gate.values is None:
            return output
        if isinstance(self.base, PackedLinear) and gate.columns.stop - gate.columns.start > FEW:
            if gate.groups is not None:
                return self._by_groups(hidden, output, gate.groups)
            down, up = self._packed(gate.columns)
            return times_plus(times(hidden, down) * gate.values, up, output)
        low = nn.functional.linear(hidden.to(self.down.dtype), self.down[gate.columns]) * gate.on(hidden.device)
        if output.dtype == low.dtype:
            output.view(-1, output.shape[-1]).addmm_(low.view(-1, low.shape[-1]), self.up[gate.columns])
            return output
        return output + (low @ self.up[gate.columns]).to(output.dtype)

    def _by_groups(self, hidden: torch.Tensor, output: torch.Tensor, groups: Groups) -> torch.Tensor:
        adapters, places = groups.strengths.shape[:2]
        down, up = (each[self.gate.columns].view(adapters, -1, each.shape[1]) for each in (self.down, self.up))
        own = hidden.view(-1, hidden.shape[-1])[groups.tokens].view(adapters, places, -1)
        more = torch.bmm(torch.bmm(own, down.mT) * groups.strengths, up)
        output.view(-1, output.shape[-1]).index_add_(0, groups.tokens, more.view(adapters * places, -1))
        return output

    def _packed(self, columns: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The factors of these columns as PackedLinear has its weights; a few of the latest are kept."""
        key = columns.start, columns.stop
        if key not in self._orders:
            if len(self._orders) >= MOST_ORDERS:
                self._orders.pop(next(iter(self._orders)))
            self._orders[key] = packed(self.down[columns]), packed(self.up[columns].T.contiguous())
        return self._orders[key]

    def widen(self, adapter: str, pair: Pair | None, width: int) -> None:
        """Columns for one more adapter, which may have nothing to say here."""
        down, up = self.down.new_zeros(width, self.down.shape[1]), self.up.new_zeros(width, self.up.shape[1])
        if pair is not None:
            down[: len(pair.down)], up[: len(pair.down)] = pair.down, pair.up.T
        self.down, self.up = torch.cat((self.down, down)), torch.cat((self.up, up))
        if pair is not None:
            self.of.add(adapter)
        self._orders.clear()

    def unwiden(self, adapter: str, columns: int) -> None:
        """Leave the first so many columns, without asking for memory: there may be none."""
        self.of.discard(adapter)
        self.down, self.up = self.down[:columns], self.up[:columns]
        self._orders.clear()

    def narrow(self, adapter: str, columns: slice) -> None:
        """Drop the columns of an adapter."""
        self.of.discard(adapter)
        self.down = torch.cat((self.down[: columns.start], self.down[columns.stop :]))
        self.up = torch.cat((self.up[: columns.start], self.up[columns.stop :]))
        self._orders.clear()


class Adapters:
    """The adapters beside one model, and which token uses which."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.linears: dict[str, tuple[int, int]] = {
            name: (module.in_features, module.out_features)
            for name, module in model.named_modules()
            if isinstance(module, Linear)
        }
        """The base's linear layers and their (in, out) features; never changes."""
        head = getattr(model, "get_output_embeddings", lambda: None)()
        self._head = next((name for name, module in model.named_modules() if module is head), "")
        self.layers: dict[str, LoraLinear] = {}
        self.widths: dict[str, int] = {}
        """Adapter to its number of columns, in the order in which they lie."""
        self._gate = Gate()
        self._head_gate = Gate()
        """The head sees no other tokens than those whose scores are wanted."""
        self._rows = torch.zeros(0)
        self._groups: dict[tuple[int, int], Groups | None] = {}

    @property
    def names(self) -> set[str]:
        """The adapters there are."""
        return set(self.widths)

    def add(self, adapter: str, pairs: Mapping[str, Pair]) -> None:
        """Keep an adapter's factors beside their layers; nothing changes until it is used, or if memory does not do.

        Those of an adapter that was there by this name go.
        """
        self.remove(adapter)
        width, before = max(len(pair.down) for pair in pairs.values()), sum(self.widths.values())
        for name in pairs.keys() - self.layers.keys():
            gate = self._head_gate if name == self._head else self._gate
            self.layers[name] = LoraLinear(self.model.get_submodule(name), gate, before)
            self.model.set_submodule(name, self.layers[name])
        try:
            for name, layer in self.layers.items():
                layer.widen(adapter, pairs.get(name), width)
        except Exception:
            for layer in self.layers.values():
                layer.unwiden(adapter, before)
            raise
        self.widths[adapter] = width
        self.use([])

    def remove(self, adapter: str) -> None:
        """Forget an adapter; a layer without adapters is the base's own again."""
        if adapter not in self.widths:
            return
        columns = self._columns(adapter)
        for name, layer in list(self.layers.items()):
            layer.narrow(adapter, columns)
            if not layer.of:
                self.model.set_submodule(name, self.layers.pop(name).base)
        del self.widths[adapter]
        self.use([])

    def select(self, strengths: Mapping[str, float]) -> None:
        """Make the following forward passes those of the base plus this mix, for all tokens."""
        self.use([strengths])
        self.gate(0, 1, [])

    def use(self, rows: Sequence[Mapping[str, float] | None]) -> None:
        """Say which mix each row of the pool has."""
        active = {name for row in rows for name, strength in (row or {}).items() if strength != 0}
        for gate in (self._gate, self._head_gate):
            gate.values = gate.groups = None
        self._groups.clear()
        if not active:
            self._rows = torch.zeros(0)
            return
        columns = [self._columns(name) for name in active]
        first, last = min(each.start for each in columns), max(each.stop for each in columns)
        self._gate.columns = self._head_gate.columns = slice(first, last)
        like = next(iter(self.layers.values())).down
        table = torch.zeros((len(rows), last))
        for index, row in enumerate(rows):
            for name, strength in (row or {}).items():
                table[index, self._columns(name)] = strength
        self._rows = table[:, first:].to(like.device, like.dtype)

    def gate(self, low: int, singles: int, chunks: Iterable[tuple[int, int]], wanted: torch.Tensor | int = 0) -> None:
        """For the next pass: one token of each of `singles` rows from `low` on, then chunks as (row, tokens).

        `wanted`: which of them the head is given, as transformers' `logits_to_keep`.
        """
        if not self._rows.numel():
            return
        parts = [self._rows[low : low + singles]]
        parts += [self._rows[row].expand(count, -1) for row, count in chunks]
        alone = len(parts) == 1
        values = parts[0] if alone else torch.cat(parts)
        self._gate.values, self._gate.groups = values, self._grouped(low, singles) if alone else None
        if self._head in self.layers:
            everybody = isinstance(wanted, int) and wanted == 0
            self._head_gate.values = values[-wanted:] if isinstance(wanted, int) else values[wanted]
            self._head_gate.groups = self._gate.groups if everybody else None

    def _grouped(self, low: int, singles: int) -> Groups | None:
        """The single tokens by adapter, found once for as long as the rows stay the same; a CPU's alone."""
        if self._rows.device.type != "cpu":
            return None
        if (low, singles) not in self._groups:
            spanned = [self._columns(name) for name in self.widths]
            seen = self._gate.columns
            widths = {each.stop - each.start for each in spanned if seen.start <= each.start < seen.stop}
            rows = self._rows[low : low + singles]
            self._groups[low, singles] = Groups.of(rows, *widths) if len(widths) == 1 else None
        return self._groups[low, singles]

    def _columns(self, adapter: str) -> slice:
        start = 0
        for name, width in self.widths.items():
            if name == adapter:
                return slice(start, start + width)
            start += width
        raise KeyError(adapter)
