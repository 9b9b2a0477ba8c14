"""What several adapters on one linear layer give for rows of any mix, against the sum written out."""

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from serving.engine import packed
from serving.engine.lora import Adapters, Groups
from serving.engine.lora_files import Pair

RANKS = {"one": 16, "two": 16, "three": 16, "four": 16}
ALONE = [{"one": 1.0}, {"three": -0.5}, {}, {"two": 2.0}, {"three": 1.0}, {"four": 0.25}, {"one": 0.0}, {"two": 1.0}]
CROWDED = [{"one": 1.0}] * 5 + [{"four": 1.0}] * 3
MIXED = [*ALONE[:7], {"one": 0.5, "two": 0.5}]


class Model(torch.nn.Module):
    """One linear layer, packed as on CPUs or not."""

    def __init__(self, *, pack):
        super().__init__()
        torch.manual_seed(0)
        own = torch.nn.Linear(96, 160)
        self.linear = packed.PackedLinear(own) if pack else own
        self.own = own


def made(ranks, *, pack):
    model = Model(pack=pack)
    pairs = {name: Pair(torch.randn(rank, 96), torch.randn(160, rank)) for name, rank in ranks.items()}
    adapters = Adapters(model)
    for name, pair in pairs.items():
        adapters.add(name, {"linear": pair})
    return model, adapters, pairs


def written_out(model, pairs, hidden, row):
    own = torch.nn.functional.linear(hidden, model.own.weight, model.own.bias)
    return own + sum(strength * (hidden @ pairs[name].down.T) @ pairs[name].up.T for name, strength in row.items())


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("ranks", [RANKS, RANKS | {"two": 24}])
@pytest.mark.parametrize("rows", [ALONE, CROWDED, MIXED, [{}] * 8])
def test_each_row_has_its_own_mix(rows, ranks, pack):
    model, adapters, pairs = made(ranks, pack=pack)
    adapters.use(rows)
    for low, high, chunks in ((0, 8, []), (1, 7, []), (2, 4, [(0, 3), (5, 2)]), (0, 8, [(4, 9)])):
        mixes = rows[low:high] + [rows[row] for row, count in chunks for _ in range(count)]
        hidden = torch.randn(1, len(mixes), 96)
        adapters.gate(low, high - low, chunks)
        with torch.inference_mode():
            found = model.linear(hidden)[0]
            expected = torch.stack([written_out(model, pairs, *each) for each in zip(hidden[0], mixes, strict=True)])
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_an_adapter_that_comes_twice_is_there_once():
    model, adapters, pairs = made(RANKS, pack=False)
    adapters.add("two", {"linear": pairs["two"]})
    late = Pair(torch.randn(8, 96), torch.randn(160, 8))
    adapters.add("late", {"linear": late})
    adapters.select({"late": 1.0, "two": 0.5})
    hidden = torch.randn(1, 3, 96)
    with torch.inference_mode():
        expected = written_out(model, pairs | {"late": late}, hidden[0], {"late": 1.0, "two": 0.5})
        assert torch.allclose(model.linear(hidden)[0], expected, rtol=1e-3, atol=1e-3)


def test_an_adapter_that_does_not_fit_leaves_nothing_behind():
    model, adapters, _ = made(RANKS, pack=False)
    model.second = torch.nn.Linear(160, 96)
    adapters.linears["second"] = (160, 96)
    ends = Pair(torch.randn(16, 160), torch.randn(95, 16))  # as where memory ends at the second layer
    with pytest.raises(RuntimeError):
        adapters.add("huge", {"linear": Pair(torch.randn(16, 96), torch.randn(160, 16)), "second": ends})
    assert adapters.names == set(RANKS)
    late = Pair(torch.randn(8, 96), torch.randn(160, 8))
    adapters.add("late", {"linear": late})
    adapters.select({"late": 1.0})
    hidden = torch.randn(1, 3, 96)
    with torch.inference_mode():
        expected = written_out(model, {"late": late}, hidden[0], {"late": 1.0})
        assert torch.allclose(model.linear(hidden)[0], expected, rtol=1e-3, atol=1e-3)


def test_who_uses_no_adapter_beside_those_who_do_has_the_base_s_numbers_to_the_bit():
    model, adapters, _ = made(RANKS, pack=True)
    hidden = torch.randn(1, 8, 96)
    with torch.inference_mode():
        bare = model.linear(hidden)
        adapters.use(ALONE)
        adapters.gate(0, 8, [])
        found = model.linear(hidden)
    same = (found == bare).all(-1)[0].tolist()
    assert same == [not any(row.values()) for row in ALONE]


def gate(*rows):
    """One column for each adapter."""
    return torch.tensor(rows)


def test_adapters_have_as_many_places_as_the_most_used_of_them():
    groups = Groups.of(gate((1.0, 0.0), (0.0, 0.0), (0.0, -2.0), (0.0, 0.0)).repeat_interleave(3, 1), 3)
    assert groups.tokens.tolist() == [0, 2]
    assert groups.strengths.flatten().tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    "rows",
    [
        ((1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (0.0, 1.0)),  # three of four with the same one
        ((1.0, 0.0), (0.5, 0.5), (0.0, 0.0), (0.0, 0.0)),  # a sum
        ((0.0, 0.0), (0.0, 0.0)),
        ((1.0, 0.0),),
    ],
)
def test_where_places_would_be_left_empty_or_a_row_has_two_there_are_no_groups(rows):
    assert Groups.of(gate(*rows), 1) is None
