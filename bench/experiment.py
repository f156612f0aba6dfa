"""What an experiment is, and how it is run."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, harmonic_mean
from typing import Literal

from bench.databases import Databases
from bench.figures import Samples, add

#: Takes one sample: figures by name.
Way = Callable[[], Mapping[str, float]]
Ways = Mapping[str, Way]


@dataclass(frozen=True, slots=True)
class Context:
    """What an experiment may use. ``quick``: minutes for all of them, to notice a regression, not to publish."""

    folder: Path
    databases: Databases
    quick: bool

    def pick(self, full: int, quick: int) -> int:
        """A size for a published measurement, or for a quick one."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Experiment:
    """``setup`` gives the ways while it is entered; each gives ``rounds`` samples. ``bars`` are those it is for.

    A sample is the mean of ``turns`` calls (of rates, the harmonic one), between which the other ways have theirs: what else
    runs on the machine comes and goes within seconds, and short turns let it weigh on all ways alike.
    """

    bars: tuple[str, ...]
    setup: Callable[[Context], AbstractContextManager[Ways]]
    rounds: int = 5
    quick_rounds: int = 2
    turns: int = 1
    #: Whether it is part of what the build runs, of what is published, or of both.
    when: Literal["always", "quick", "full"] = "always"

    def belongs(self, *, quick: bool) -> bool:
        """Whether a run of everything includes it."""
        return self.when in ("always", "quick" if quick else "full")


def _mean(figure: str, values: Sequence[float]) -> float:
    if len(values) == 1:
        return values[0]
    return harmonic_mean(values) if figure.endswith(("rps", "_per_s")) else fmean(values)


def run(experiment: Experiment, context: Context, rounds: int | None = None) -> Samples:
    """Samples of all ways: in turn, each time around in another order, and in the same ones in every run.

    ``rounds``: default, those of the experiment.
    """
    samples: Samples = {}
    order = random.Random(1)
    with experiment.setup(context) as ways:
        for number in range(rounds or context.pick(experiment.rounds, experiment.quick_rounds)):
            turns: Samples = {}
            for _ in range(experiment.turns):
                for name in order.sample(list(ways), len(ways)):
                    gc.collect()
                    add(turns, name, ways[name]())
            for name in ways:
                sample = {figure: _mean(figure, values) for figure, values in turns[name].items()}
                add(samples, name, sample)
                told = "  ".join(f"{figure} {value:,.4g}" for figure, value in sample.items())
                print(f"  round {number + 1}  {name:<28} {told}", file=sys.stderr, flush=True)
    return samples
