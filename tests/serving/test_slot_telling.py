"""How often an engine tells of new tokens: each one to who shows them, many at a time to who waits for the last."""

import asyncio

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

from serving.engine.protocol import Request, Sampling
from serving.engine.slot.engine import SlotEngine
from tests.serving import tiny


async def told(engine, **options):
    """The tokens of one answer, as they were told."""
    request = Request(tuple(range(9, 19)), 100, sampling=Sampling(do_sample=False), **options)
    return [delta.tokens async for delta in engine.generate(request) if delta.tokens]


def test_who_waits_for_the_last_token_is_woken_seldom(tmp_path):
    engine = SlotEngine(tiny.model(tiny.checkpoint(tmp_path)), threads=1)

    async def both():
        return await told(engine), await told(engine, at_once=True)

    each, seldom = asyncio.run(both())
    asyncio.run(engine.stop())
    assert [token for tokens in each for token in tokens] == [token for tokens in seldom for token in tokens]
    assert len(seldom) <= 8
    assert len(seldom[0]) == 1  # the first one at once: its time is a figure
