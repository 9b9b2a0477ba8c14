"""Adapters as vLLM takes them: one folder for each mix of adapters and strengths, with the strengths folded in.

vLLM knows no strength and one adapter for each request. One adapter at a strength is its own weights below another
`lora_alpha`; several are one adapter whose factors lie side by side, which is their exact sum and has the sum of their
ranks. Knows files; what vLLM does with the folders is the engine's matter.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch

from serving.engine import lora_files
from serving.engine.lora_files import CONFIG, PREFIX, WEIGHTS
from serving.engine.protocol import AdapterRefused, RequestRefused
from serving.inference_vllm import RANKS

KEPT = 32
"""Mixes that stay on the disk and in vLLM though no request uses them; the least recently used go first."""


class Mix(NamedTuple):
    """One mix of adapters."""

    number: int
    """Its id in vLLM, from 1 on and never used twice."""
    name: str
    """By which vLLM tells what its prefix cache holds, so no two mixes share one."""
    folder: Path


class Mixes:
    """The adapters there are, and the mixes of them that were asked for; called from one thread at a time.

    `folder` is theirs alone, and empty when they begin.
    """

    def __init__(self, folder: Path, linears: Mapping[str, tuple[int, int]], *, rank: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)  # left by a process that was killed: nobody knows by now what is in it
        self._folder = folder
        self._linears = linears
        self._rank = rank
        self._ranks: dict[str, int] = {}
        self._made: dict[str, Mix] = {}
        self._used: Counter[int] = Counter()
        self._number = 0

    def add(self, adapter: str, folder: Path) -> None:
        """Take an adapter's files; raises AdapterRefused for what our own engine refuses, and a rank beyond vLLM's."""
        if not self._rank:
            raise AdapterRefused(
                "vLLM was started without adapters: take enable-lora out of inference_config.yaml, and start it again"
            )
        pairs = lora_files.read(folder, self._linears)
        rank = max(len(pair.down) for pair in pairs.values())
        if rank > self._rank:
            raise AdapterRefused(
                f"{CONFIG} has rank {rank}, and vLLM was started for ranks of up to {self._rank}: write"
                f" max-lora-rank: {_next_rank(rank)} below vllm in inference_config.yaml"
            )
        own = self._own(adapter)
        own.mkdir(parents=True, exist_ok=True)
        for file in (CONFIG, WEIGHTS):  # the folder may be given back while requests still use the adapter
            _link(folder / file, own / file)
        self._ranks[adapter] = rank

    def remove(self, adapter: str) -> list[Mix]:
        """Forget an adapter; the mixes that held it, which are gone too."""
        if self._ranks.pop(adapter, None) is None:
            return []
        shutil.rmtree(self._own(adapter), ignore_errors=True)
        return [self._drop(key) for key in [key for key in self._made if adapter in dict(json.loads(key))]]

    def superfluous(self) -> list[Mix]:
        """Take back what is kept beyond KEPT and not in use."""
        idle = [key for key, mix in self._made.items() if not self._used[mix.number]]
        return [self._drop(key) for key in idle[: max(0, len(self._made) - KEPT)]]

    def hold(self, strengths: Mapping[str, float]) -> Mix | None:
        """The mix as a folder, kept until it is released; None for the bare base. Raises RequestRefused."""
        wanted = {adapter: strength for adapter, strength in sorted(strengths.items()) if strength}
        if unknown := wanted.keys() - self._ranks.keys():
            raise RequestRefused(f"adapter {min(unknown)} is not loaded")
        if not wanted:
            return None
        key = json.dumps(list(wanted.items()))
        self._made[key] = self._made.pop(key) if key in self._made else self._make(wanted)  # the latest used is last
        self._used[self._made[key].number] += 1
        return self._made[key]

    def release(self, mix: Mix | None) -> None:
        """A request is done with it."""
        if mix:
            self._used[mix.number] -= 1

    def _make(self, wanted: Mapping[str, float]) -> Mix:
        together = sum(self._ranks[adapter] for adapter in wanted)
        if together > self._rank:
            raise RequestRefused(
                f"{len(wanted)} adapters together have rank {together}, and vLLM was started for {self._rank}: ask for"
                f" one of them by its name in model, or write max-lora-rank: {_next_rank(together)} below vllm in"
                " inference_config.yaml"
            )
        self._number += 1
        mix = Mix(self._number, f"mix {self._number}", self._folder / f"mix-{self._number}")
        mix.folder.mkdir(parents=True)
        if len(wanted) == 1:
            ((adapter, strength),) = wanted.items()
            _scaled(self._own(adapter), mix.folder, strength)
        else:
            self._together(wanted, mix.folder)
        return mix

    def _together(self, wanted: Mapping[str, float], folder: Path) -> None:
        """The weighted sum of several adapters as one, each factor beside the other."""
        parts: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for adapter, strength in wanted.items():
            for module, pair in lora_files.read(self._own(adapter), self._linears).items():
                parts.setdefault(module, []).append((pair.down, pair.up * strength))
        rank = max(sum(len(down) for down, _ in pairs) for pairs in parts.values())
        tensors = {}
        for module, pairs in parts.items():
            down, up = torch.cat([down for down, _ in pairs]), torch.cat([up for _, up in pairs], dim=1)
            lacks = rank - len(down)  # modules that fewer of them have: columns that add nothing
            tensors[f"{PREFIX}{module}.lora_A.weight"] = torch.nn.functional.pad(down, (0, 0, 0, lacks))
            tensors[f"{PREFIX}{module}.lora_B.weight"] = torch.nn.functional.pad(up, (0, lacks))
        safetensors.torch.save_file(tensors, folder / WEIGHTS)
        targets = sorted({module.rpartition(".")[2] for module in parts})
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "bias": "none"}
        (folder / CONFIG).write_text(json.dumps(config | {"target_modules": targets}))

    def _drop(self, key: str) -> Mix:
        mix = self._made.pop(key)
        del self._used[mix.number]
        shutil.rmtree(mix.folder, ignore_errors=True)
        return mix

    def _own(self, adapter: str) -> Path:
        return self._folder / hashlib.sha256(adapter.encode()).hexdigest()[:16]


def _scaled(adapter: Path, folder: Path, strength: float) -> None:
    """The adapter's own weights under a config that multiplies them with the strength, rank-stabilised or not."""
    config: dict[str, Any] = json.loads((adapter / CONFIG).read_text())
    config["lora_alpha"] *= strength
    config["alpha_pattern"] = {name: alpha * strength for name, alpha in (config.get("alpha_pattern") or {}).items()}
    (folder / CONFIG).write_text(json.dumps(config))
    _link(adapter / WEIGHTS, folder / WEIGHTS)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _next_rank(rank: int) -> int:
    return next((one for one in RANKS if one >= rank), RANKS[-1])
