"""A client that hangs up while a thread makes its mix of adapters: it is given back, and nobody comes between."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

from serving.engine.vllm.engine import Library, VllmEngine
from serving.engine.vllm.figures import Figures
from serving.engine.vllm.mixes import Mix, Mixes


class Slow(Mixes):
    """Mixes whose making waits for a word."""

    def __init__(self, folder):
        super().__init__(folder, {}, rank=8)
        self.begun, self.go = threading.Event(), threading.Event()
        self.inside = self.most = 0

    def hold(self, strengths):
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.begun.set()
        self.go.wait(60)
        mix = self._made.setdefault(str(strengths), Mix(len(self._made) + 1, "mix", self._folder))
        self._used[mix.number] += 1
        self.inside -= 1
        return mix


def engine_of(mixes):
    library = Library(None, None, None, lambda *mix: mix, RuntimeError, (ValueError,))
    return VllmEngine(None, library, own=None, info=SimpleNamespace(vocabulary=9), mixes=mixes, figures=Figures())


def test_a_mix_whose_client_hung_up_while_it_was_made_is_given_back(tmp_path):
    mixes = Slow(tmp_path)
    engine = engine_of(mixes)

    async def asked(adapter):
        async with engine._mix({adapter: 1.0}):
            return set(mixes._used.values())

    async def hang_up():
        first = asyncio.create_task(asked("one"))
        await asyncio.to_thread(mixes.begun.wait, 60)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(asked("two"))
        await asyncio.sleep(0.05)
        mixes.go.set()
        return first.cancelled(), await second

    hung_up, held = asyncio.run(hang_up())
    assert (hung_up, held) == (True, {0, 1})
    assert mixes.most == 1
    assert set(mixes._used.values()) == {0}
