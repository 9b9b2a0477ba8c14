"""Several LoRA adapters on one base model: kept apart, and added up in any mix from one request to the next.

`y = W x + sum(strength * up @ down @ x)`: the exact weighted sum, in any order, and the base to the bit where no
strength is above 0. The factors of a mix are laid side by side once, so a mix of many costs two small products a layer,
as one does. Knows neither files nor requests; whoever calls it sees to it that no forward pass runs meanwhile.
"""

from collections.abc import Mapping

import torch
from torch import nn

from serving.engine.lora_files import Pair


class LoraLinear(nn.Module):
    """A linear layer of the base model with room for adapters beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.pairs: dict[str, Pair] = {}
        self.mixed: Pair | None = None

    @property
    def weight(self) -> torch.Tensor:
        """The base's: some models look at it."""
        return self.base.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The base's output plus that of the selected mix."""
        output: torch.Tensor = self.base(hidden)
        if self.mixed is None:
            return output
        low = nn.functional.linear(hidden.to(self.mixed.down.dtype), self.mixed.down)
        return output + nn.functional.linear(low, self.mixed.up).to(output.dtype)

    def mix(self, strengths: Mapping[str, float]) -> None:
        """Select the adapters of `strengths` that this layer has."""
        chosen = [(self.pairs[adapter], strength) for adapter, strength in strengths.items() if adapter in self.pairs]
        if not chosen:
            self.mixed = None
            return
        down = torch.cat([pair.down for pair, _ in chosen])
        up = torch.cat([pair.up * strength for pair, strength in chosen], dim=1)
        like = self.base.weight
        dtype = like.dtype if like.is_floating_point() else torch.float32  # 4-bit weights are bytes
        self.mixed = Pair(down.to(like.device, dtype), up.to(like.device, dtype))


class Adapters:
    """The adapters beside one model, and which mix of them is selected."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.linears = {
            name: (module.in_features, module.out_features)
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
        }
        """The base's linear layers and their (in, out) features; never changes."""
        self.layers: dict[str, LoraLinear] = {}
        self.names: set[str] = set()
        self.selected: dict[str, float] = {}

    def add(self, adapter: str, pairs: Mapping[str, Pair]) -> None:
        """Keep an adapter's factors beside their layers; nothing changes until it is selected."""
        for name, pair in pairs.items():
            if name not in self.layers:
                base = self.model.get_submodule(name)
                assert isinstance(base, nn.Linear)
                self.layers[name] = LoraLinear(base)
                self.model.set_submodule(name, self.layers[name])
            self.layers[name].pairs[adapter] = pair
        self.names.add(adapter)

    def remove(self, adapter: str) -> None:
        """Forget an adapter; a layer without adapters is the base's own again."""
        self.select({name: strength for name, strength in self.selected.items() if name != adapter})
        for name, layer in list(self.layers.items()):
            layer.pairs.pop(adapter, None)
            if not layer.pairs:
                self.model.set_submodule(name, self.layers.pop(name).base)
        self.names.discard(adapter)

    def select(self, strengths: Mapping[str, float]) -> None:
        """Make the following forward passes those of the base plus this mix."""
        wanted = {adapter: strength for adapter, strength in strengths.items() if strength != 0}
        if wanted == self.selected:
            return
        for layer in self.layers.values():
            layer.mix(wanted)
        self.selected = wanted
