"""The table of the bars, its verdicts, and the build's floors."""

from __future__ import annotations

from typing import Any

import pytest

from bench.__main__ import EXPERIMENTS
from bench.bars import BARS, Bar, judge
from bench.figures import Result, Samples


def result(samples: Samples, experiment: str = "x") -> Result:
    return Result(experiment, {}, samples)


def bar(**given: Any) -> Bar:
    defaults: dict[str, Any] = {
        "number": "1", "case": "c", "experiment": "x", "figure": "ms", "of": "ours", "to": "theirs",
        "sense": "at most", "goal": 2.0, "floor": 4.0, "limit": "none",
    }  # fmt: skip
    return Bar(**{**defaults, **given})


@pytest.mark.parametrize(
    ("ours", "reached", "passes"), [([2.0, 2.0, 9.0], True, True), ([3.0] * 3, False, True), ([5.0] * 3, False, False)]
)
def test_the_median_decides(ours: list[float], reached: bool, passes: bool) -> None:
    """A bar is reached by the median of the ratios; between bar and floor the build passes."""
    (verdict,) = judge([result({"ours": {"ms": ours}, "theirs": {"ms": [1.0] * 3}})], [bar()])
    assert (verdict.reached, verdict.above_floor) == (reached, passes)


def test_more_can_be_better() -> None:
    """Where a bar says at least."""
    bars = [bar(sense="at least", goal=0.8, floor=0.4, to="bare")]
    for rate, reached, passes in ((0.9, True, True), (0.5, False, True), (0.3, False, False)):
        (verdict,) = judge([result({"ours": {"ms": [rate]}, "bare": {"ms": [1.0]}})], bars)
        assert (verdict.reached, verdict.above_floor) == (reached, passes)


def test_the_worst_of_many_counts() -> None:
    """``*`` stands for whatever follows, and the verdict names the one that was worst."""
    samples: Samples = {"page: a": {"ms": [1.0]}, "page: b": {"ms": [7.0]}, "theirs": {"ms": [1.0]}}
    (verdict,) = judge([result(samples)], [bar(of="page: *")])
    assert verdict.way == "page: b"
    assert verdict.value is not None
    assert verdict.value.median == 7


def test_what_was_not_measured_is_not_reached_either() -> None:
    """It is said, it does not fail the build, and other experiments' results are left alone."""
    (verdict,) = judge([result({"ours": {"ms": [1.0]}})], [bar()])
    assert (verdict.reached, verdict.above_floor) == (None, True)
    assert judge([result({}, "another")], [bar()]) == []
    # Noise larger than what is to be measured: no ratio at all.
    drowned: Samples = {"ours": {"ms": [3.0]}, "theirs": {"ms": [1.0]}, "bare": {"ms": [2.0]}}
    assert judge([result(drowned)], [bar(less="bare")])[0].value is None


def test_the_limit_is_measured_the_same_way() -> None:
    """Against the same baseline, with the same taken away."""
    samples: Samples = {
        "ours": {"ms": [14.0]}, "theirs": {"ms": [30.0]}, "bare": {"ms": [10.0]}, "nothing": {"ms": [11.0]},
    }  # fmt: skip
    (verdict,) = judge([result(samples)], [bar(less="bare", limit_way="nothing")])
    assert verdict.value is not None
    assert verdict.limit is not None
    assert (verdict.value.median, verdict.limit.median) == (0.2, 0.05)


def test_all_thirteen_bars_are_in_the_table() -> None:
    """Each with a goal that its floor does not exceed, and each of an experiment that exists."""
    assert {int(each.number) for each in BARS} == set(range(1, 14))
    for each in BARS:
        assert each.experiment in EXPERIMENTS or each.experiment.startswith("large-"), each.experiment
        if each.floor is not None:
            assert each.floor >= each.goal if each.sense == "at most" else each.floor <= each.goal, each.name
    assert len({each.name for each in BARS}) == len(BARS)


def test_every_experiment_serves_a_bar() -> None:
    """But for readers beside writers, which no bar is about."""
    measured = {each.experiment for each in BARS}
    assert {name for name in EXPERIMENTS if not name.startswith("together-")} <= measured
