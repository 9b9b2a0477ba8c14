"""When training ends before its last step, as a function of the losses so far."""

import math
import random

import pytest

from tuning.config import Exit
from tuning.errors import LossDiverged
from tuning.training import stops

NOISE = random.Random(0)


def runs(*levels, steps=30, noise=0.4):
    """Losses that stay so many steps at each level, with noise."""
    return [level + NOISE.uniform(-noise, noise) for level in levels for _ in range(steps)]


def ends_at(losses):
    """The step at which training ends; None when it does not."""
    for count in range(1, len(losses) + 1):
        try:
            stops.check(losses[:count], len(losses))
        except LossDiverged:
            return count
    return None


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_at_once(loss):
    with pytest.raises(LossDiverged, match=rf"the loss is {loss} at step 3 of 9, after 2, 1.5; lower") as ended:
        stops.check([2.0, 1.5, loss], 9)
    assert ended.value.code == Exit.DIVERGED
    with pytest.raises(LossDiverged, match="after no step before"):
        stops.check([loss], 9)


@pytest.mark.parametrize(
    "losses",
    [
        runs(2.5, 1.8, 1.2, 0.9),
        runs(6.0, 9.0, 5.0),  # a hard half of an epoch
        runs(0.2, 0.3, 0.1, noise=0.1),
        runs(2.5) + [40.0] * 9 + runs(2.0),  # broken rows in a few steps
        runs(2.5, 3.4, 4.2),
    ],
)
def test_what_trains_goes_on(losses):
    assert ends_at(losses) is None


@pytest.mark.parametrize(("start", "after"), [(2.5, 11.0), (0.3, 2.5), (6.0, 12.0), (1.2, 4.5)])
def test_a_loss_that_has_run_away_for_good_ends_it_within_20_steps(start, after):
    assert 10 <= ends_at(runs(start, start, after)) - 60 <= 20
    with pytest.raises(LossDiverged, match=r"has gone from .* \(medians of 20 steps\) at step 90 of 500; lower"):
        stops.check(runs(start, start, after), 500)


@pytest.mark.parametrize(
    ("losses", "best"),
    [([2.0], True), ([2.0, 1.9], True), ([2.0, 1.9, 1.95], False), ([2.0, math.nan], False), ([2.0, 2.0], False)],
)
def test_the_best_is_the_lowest(losses, best):
    assert stops.is_best(losses) is best


@pytest.mark.parametrize(
    ("losses", "patience", "threshold", "ends"),
    [
        ([3.0, 2.0, 2.1], 2, 0.0, False),
        ([3.0, 2.0, 2.1, 2.05], 2, 0.0, True),
        ([3.0, 2.0, 2.1, 1.9], 2, 0.0, False),
        ([3.0, 2.0, 1.95, 1.93], 2, 0.1, True),
        ([3.0, 2.0, 2.1, 2.2, 2.3], None, 0.0, False),
        ([3.0, math.nan, math.nan], 2, 0.0, True),
    ],
)
def test_patience_counts_evaluations_that_are_no_better(losses, patience, threshold, ends):
    assert stops.gains_no_more(losses, patience, threshold) is ends
