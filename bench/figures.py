"""Samples, and what is said of them: medians, spreads, ratios taken round by round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: way → figure → one value for each round.
Samples = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median between the least and the greatest of ``count`` values."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Result:
    """What one experiment measured, and where and how: ``facts`` are machine, commit, versions, date, command."""

    experiment: str
    facts: Mapping[str, Any]
    samples: Samples


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def ratios(values: Sequence[float], baseline: Sequence[float], less: Sequence[float] | None = None) -> list[float]:
    """Round by round ``value / baseline``; with ``less`` it is first taken away from both.

    Sides with different numbers of rounds are compared by their medians: one ratio. A baseline that is not above
    ``less`` was drowned in noise: that round says nothing, and is left out.
    """
    sides = [values, baseline] if less is None else [values, baseline, less]
    if len({len(side) for side in sides}) > 1:
        sides = [[statistics.median(side)] for side in sides]
    nothing = sides[2] if less is not None else [0.0] * len(sides[0])
    rounds = zip(sides[0], sides[1], nothing, strict=True)
    return [(value - zero) / (base - zero) for value, base, zero in rounds if base > zero]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def add(samples: Samples, way: str, sample: Mapping[str, float]) -> None:
    """Keep one sample of a way."""
    figures = samples.setdefault(way, {})
    for name, value in sample.items():
        figures.setdefault(name, []).append(value)
