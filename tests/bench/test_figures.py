"""Statistics of samples: pure, and checked with tables and properties."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Samples, Spread, add, quantile, ratios, spread

VALUES = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=40)


@given(VALUES)
def test_a_median_lies_in_its_spread(values: list[float]) -> None:
    """Whatever was measured."""
    told = spread(values)
    assert told.low <= told.median <= told.high
    assert (told.low, told.high, told.count) == (min(values), max(values), len(values))


@given(VALUES, st.floats(0, 1))
def test_a_quantile_is_one_of_the_values(values: list[float], share: float) -> None:
    """The nearest rank, so that no figure is made up; at least ``share`` of the values do not exceed it."""
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert quantile(values, 1) == max(values)


@pytest.mark.parametrize(
    ("values", "baseline", "less", "expected"),
    [
        ([2.0, 9.0], [1.0, 3.0], None, [2.0, 3.0]),
        # Added cost: what the bare application takes is taken away from both sides, round by round.
        ([12.0, 14.0], [20.0, 30.0], [10.0, 10.0], [0.2, 0.2]),
        # A baseline that noise pushed below the bare application says nothing.
        ([12.0, 14.0], [20.0, 9.0], [10.0, 10.0], [0.2]),
        # Sides of different lengths meet at their medians.
        ([1.0, 2.0, 3.0], [4.0], None, [0.5]),
    ],
)
def test_ratios_are_taken_round_by_round(
    values: list[float], baseline: list[float], less: list[float] | None, expected: list[float]
) -> None:
    """Both sides of a round met the same machine."""
    assert ratios(values, baseline, less) == pytest.approx(expected)


def test_samples_are_kept_by_way_and_figure() -> None:
    """In the order they came."""
    samples: Samples = {}
    for value in (1.0, 2.0):
        add(samples, "bare", {"rps": value, "ms": -value})
    assert samples == {"bare": {"rps": [1.0, 2.0], "ms": [-1.0, -2.0]}}
    assert spread(samples["bare"]["rps"]) == Spread(statistics.median([1.0, 2.0]), 1.0, 2.0, 2)
