"""Bar 13, its first half: the memory of a worker with events queued. What verify and export take stands with the large logs.

The journal is a mapped file: its pages are the kernel's, who takes them back when it needs them. ``own_mib`` is what the
process holds itself (RssAnon), ``resident_mib`` everything that is resident for it, pages of the journal included.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from bench.experiment import Context, Experiment, Ways
from bench.serving import backlog


@contextmanager
def queued(context: Context) -> Iterator[Ways]:
    """A process with so many events in its journal, and nobody to store them."""

    def sample(count: int) -> Mapping[str, float]:
        with tempfile.TemporaryDirectory(dir=context.folder) as name:
            told: dict[str, float] = json.loads(backlog(f"sqlite:///{name}/log.db", Path(name) / "data", count))
            return told

    counts = (10_000, 50_000) if context.quick else (10_000, 100_000, 1_000_000)
    yield {f"{count:,} queued": partial(sample, count) for count in counts}


EXPERIMENTS: Final = {"memory": Experiment(("13",), queued, rounds=3, when="full")}
