"""What an experiment is, and how it is run."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
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
    """``setup`` gives the ways while it is entered; each is called ``rounds`` times. ``bars`` are those it is for."""

    bars: tuple[str, ...]
    setup: Callable[[Context], AbstractContextManager[Ways]]
    rounds: int = 5
    quick_rounds: int = 2
    #: Whether it is part of what the build runs, of what is published, or of both.
    when: Literal["always", "quick", "full"] = "always"

    def belongs(self, *, quick: bool) -> bool:
        """Whether a run of everything includes it."""
        return self.when in ("always", "quick" if quick else "full")


def run(experiment: Experiment, context: Context, rounds: int | None = None) -> Samples:
    """All ways in turn, round after round, each round in the opposite order of the one before.

    ``rounds``: default, those of the experiment.
    """
    samples: Samples = {}
    with experiment.setup(context) as ways:
        for number in range(rounds or context.pick(experiment.rounds, experiment.quick_rounds)):
            for name in list(ways) if number % 2 == 0 else reversed(list(ways)):
                gc.collect()
                sample = ways[name]()
                add(samples, name, sample)
                told = "  ".join(f"{figure} {value:,.4g}" for figure, value in sample.items())
                print(f"  round {number + 1}  {name:<28} {told}", file=sys.stderr, flush=True)
    return samples
