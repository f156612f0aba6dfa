"""Bars 8 to 13 at size: ``python -m bench.large --sizes 1M,5M,10M,20M --data DIR``.

A log is loaded to each size in turn, in whole segments, on each engine; at each size everything is asked of it. The last
segments before a size are loaded beside segments of an empty log, one here, one there: so a rate at size has its own
baseline. Logs stay in ``--data``, results are written after each size: a run that was interrupted goes on where it was,
and what is measured already is measured again only with ``--again``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import psycopg

from bench import asking, machine, results
from bench.databases import ENGINES, Databases, made, opened, postgres
from bench.experiment import Context, Experiment, Ways
from bench.figures import Result, Samples, add
from indelible.cli.bench import load, roll_up, writer_of
from indelible.stores.base import SegmentedStore

#: Every engine's segment is a divisor of this, so that a size is whole segments of each.
UNIT: Final = 262_144
#: µs between two events: twenty million in a year.
STEP: Final = 1_576_800
_SEGMENT: Final = {"sqlite": 65_536, "postgresql": 262_144}
#: Segments that are loaded beside those of an empty log, before each size.
_COMPARED: Final = {"sqlite": 4, "postgresql": 2}


def whole(rows: int, unit: int = UNIT) -> int:
    """At least so many rows, in whole segments."""
    return -(-rows // unit) * unit


def parse_sizes(text: str) -> list[int]:
    """``1M,5M`` as numbers, in order. ValueError for anything else."""
    units = {"k": 1_000, "K": 1_000, "M": 1_000_000}
    return sorted(int(float(part.rstrip("kKM")) * units.get(part[-1], 1)) for part in text.split(","))


def grow(store: SegmentedStore, rows: int, told: Callable[[int], object] = lambda position: None) -> float:
    """Load until the log holds so many rows; return rows a second of appending what was missing."""
    appended, seconds = 0, 0.0
    for done in load(store, rows, step=STEP):
        appended, seconds = appended + done.rows, seconds + done.seconds
        told(done.position)
    return appended / seconds if appended else 0.0


def ingest(store: SegmentedStore, empty: str, rows: int, segment: int, compared: int) -> Iterator[tuple[str, float]]:
    """Load to ``rows``, the last segments in turn with those of an empty log; gives ways and rows a second."""
    compared = min(compared, rows // segment)
    here = rows - compared * segment
    grow(store, here, _shown)
    if store.position(writer_of(1)) > here:
        return
    with opened(empty) as other:
        for number in range(compared):
            yield "ingest, empty log", grow(other, (number + 1) * segment)
            yield "ingest, here", grow(store, here + (number + 1) * segment, _shown)


def _shown(position: int) -> None:
    if position % 100_000 == 0:
        print(f"\r  {position:,} rows", end="", file=sys.stderr, flush=True)


def measure(store: SegmentedStore, url: str, size: int, rounds: int, samples: Samples) -> Iterator[str]:
    """Ask everything of a log; gives the name of each part when it is in ``samples``."""
    parts: list[tuple[str, Callable[[], Ways], int]] = [
        ("pages", lambda: asking.pages(store, size), rounds),
        ("statistics", lambda: asking.statistics(store), max(1, rounds // 5)),
        ("bulk", lambda: asking.bulk(url, size), 3 if size < 3_000_000 else 1),
    ]
    for name, make, count in parts:
        ways = make()
        if name == "pages":
            # What the first question of a connection costs is not what pages cost.
            for call in ways.values():
                call()
        for _ in range(count):
            for way, call in ways.items():
                add(samples, way, call())
        yield name


def _analyze(url: str) -> None:
    """What autovacuum does within a minute after a segment was filled; we do not wait for its turn."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE audit_logs")


@contextmanager
def _quick(context: Context, engine: str) -> Iterator[Ways]:
    """A log of a few segments, for the build: the same questions as of a large one."""
    segment = 65_536
    rows = 2 * segment
    url, fresh = context.databases.fresh(engine), context.databases.fresh(engine)
    loaded: Samples = {}
    with opened(url) as store:
        for way, rate in ingest(store, fresh, rows, segment, 1):
            add(loaded, way, {"rows_per_s": rate})
        roll_up(store)
        # Medians: the build's machine is busy with other work.
        pages = asking.pages(store, rows, calls=9)
        kept = {"lookup by id", "deep page", *(way for way in pages if way.startswith("first page") and "," not in way)}
        yield {
            **{way: partial(_once, figures) for way, figures in loaded.items()},
            **{way: call for way, call in pages.items() if way in kept},
            **asking.statistics(store),
            **asking.bulk_here(url, rows),
        }


def _once(figures: Mapping[str, Sequence[float]]) -> Mapping[str, float]:
    """What was measured while the log was made, as if it were measured now."""
    return {name: values[0] for name, values in figures.items()}


EXPERIMENTS: Final = {
    f"large-{each}-quick": Experiment(
        ("8", "9", "10", "11", "12"), partial(_quick, engine=each), quick_rounds=2, when="quick"
    )
    for each in ENGINES
}


def run(engine: str, url: str, databases: Databases, options: argparse.Namespace) -> None:
    """Every size on one engine."""
    segment, compared = _SEGMENT[engine], _COMPARED[engine]
    command = shlex.join(["python", "-m", "bench.large", "--sizes", options.sizes])
    for size in parse_sizes(options.sizes):
        name = f"large-{engine}-{size}"
        if (options.json / f"{name}.json").exists() and not options.again:
            print(f"{name}: measured already", file=sys.stderr)
            continue
        print(name, file=sys.stderr, flush=True)
        samples: Samples = {}
        result = Result(name, machine.facts(command), samples)
        rows = whole(size)
        with opened(url) as store:
            for way, rate in ingest(store, databases.fresh(engine), rows, segment, compared):
                add(samples, way, {"rows_per_s": rate})
            present = store.position(writer_of(1))
            if present > rows:
                print(f"  the log holds {present:,} rows already", file=sys.stderr)
                continue
            # What a service's follower does beside the ingest.
            add(samples, "rollups", asking.rows_a_second(rows, lambda: roll_up(store)))
            if engine == "postgresql":
                _analyze(url)
            for part in measure(store, url, rows, options.rounds, samples):
                results.write(result, options.json)
                print(f"\r  {part}: done", file=sys.stderr, flush=True)


def main() -> None:
    """Run every size on every engine that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1M,5M,10M,20M", help="rows, in whole segments at the least")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--rounds", type=int, default=15, help="samples of each page")
    parser.add_argument(
        "--data", type=Path, default=machine.ROOT / ".artifacts" / "large", help="where the logs are kept"
    )
    parser.add_argument("--json", type=Path, default=results.FOLDER)
    parser.add_argument("--again", action="store_true", help="measure sizes that have their results")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    for engine in options.engines.split(","):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.data, prefix="empty-")))
            server = None
            if engine == "postgresql":
                server = stack.enter_context(postgres(options.data / "postgresql"))
                url = made(server, "large")
            else:
                url = f"sqlite:///{options.data / 'log.db'}"
            run(engine, url, stack.enter_context(Databases(folder, server)), options)


if __name__ == "__main__":
    main()
