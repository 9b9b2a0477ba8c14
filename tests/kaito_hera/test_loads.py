"""What one GPU must hold, in words, and what vLLM keeps for adapters beside it."""

import dataclasses

import pytest

import presets
from kaito_hera import loads
from presets import memory


def test_what_is_served_without_a_context_is_said():
    model = presets.preset("phi-4")
    assert loads.serve(model).note == "without max-model-len, requests of up to 16,384 are taken as far as memory goes"
    assert loads.serve(model, loads.Server(4096)).note == ""
    assert loads.serve(presets.preset("falcon-7b")).note == "", "it takes no more than is judged"


def test_vllm_keeps_room_for_adapters_whether_they_come_or_not():
    model, server = presets.preset("phi-4"), loads.Server(vllm=True, adapters=4, rank=64)
    bare, full = loads.serve(model, loads.Server(vllm=True)), loads.serve(model, server)
    room = memory.room(model.shape, 256)
    assert full.gib - bare.gib == pytest.approx(sum(room) * loads.MARGIN)
    assert full.gib_of(2) - bare.gib_of(2) == pytest.approx((room.each + room.divided / 2) * loads.MARGIN)
    assert full.basis == "cache for 2,048 tokens, room for 4 adapters of rank 64"
    [less] = full.less
    one = loads.serve(model, dataclasses.replace(server, adapters=1))
    assert (less.advice, less.gib) == ("write vllm.max-loras: 1", pytest.approx(one.need.gib))
    assert one.less == bare.less == ()


def test_what_is_not_counted_of_a_model_whose_layers_are_not_known_is_said():
    model = presets.preset("gpt-oss-20b")
    bare, full = (loads.serve(model, loads.Server(context=64, vllm=True, adapters=count)) for count in (0, 4))
    assert (full.need, bare.note) == (bare.need, "")
    assert full.note.startswith("what vLLM keeps for adapters is not counted")
