"""Measure, keep what was measured, and write the report.

python -m bench                          every experiment, results into bench/results
python -m bench --only bar1,bar5         those for some bars; names of experiments work as well
python -m bench --quick --check          minutes, and exit with 1 if a floor of the build is missed
python -m bench report                   the report and its plots, from the results that are there
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench import bars, ingest, large, log_call, machine, memory, report, request_path, results, together
from bench.databases import Databases
from bench.experiment import Context, Experiment, run
from bench.figures import Result

EXPERIMENTS: Final[dict[str, Experiment]] = {
    name: experiment
    for module in (request_path, log_call, ingest, together, memory, large)
    for name, experiment in module.EXPERIMENTS.items()
}

#: How often an experiment may miss a floor before the build believes it.
ATTEMPTS: Final = 3


def chosen(only: str | None, *, quick: bool) -> dict[str, Experiment]:
    """The experiments that are asked for by bar or by name; None: all. SystemExit for a name that nothing has."""
    if only is None:
        return {name: each for name, each in EXPERIMENTS.items() if each.belongs(quick=quick)}
    found: dict[str, Experiment] = {}
    for word in only.split(","):
        some = {
            name: each
            for name, each in EXPERIMENTS.items()
            if name == word or word.removeprefix("bar") in each.bars or name.startswith(f"{word}-")
        }
        if not some:
            sys.exit(f"nothing is called {word!r}; there are bar1 to bar13 and {', '.join(EXPERIMENTS)}")
        found |= some
    return found


@contextmanager
def _room() -> Iterator[Path]:
    """A folder on the disk that the repository is on: what lies in memory elsewhere would measure memory."""
    with tempfile.TemporaryDirectory(dir=machine.ROOT, prefix=".bench-") as name:
        yield Path(name)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("measure", "report"), default="measure")
    parser.add_argument("--only", metavar="LIST", help="bars (bar1) or experiments, separated by commas")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument(
        "--rounds", metavar="N", type=int, help="so many samples of each; default: what each thinks right"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 if a floor of the build is missed")
    parser.add_argument("--json", metavar="DIR", type=Path, default=results.FOLDER, help="where results are kept")
    parser.add_argument(
        "--postgres", metavar="URL", help="a server where databases may be made; default: one of its own"
    )
    options = parser.parse_args()
    if options.what == "report":
        report.write(results.read(options.json))
        return
    command = shlex.join(["python", "-m", "bench", *(f"--only={options.only}" for _ in [0] if options.only)])
    experiments = chosen(options.only, quick=options.quick)
    measured: dict[str, Result] = {}
    with _room() as folder, Databases(folder, options.postgres) as databases:

        def measure(titles: Iterable[str], attempt: int) -> None:
            for title in titles:
                print(title, file=sys.stderr, flush=True)
                room = folder / f"{title}-{attempt}"
                room.mkdir()
                facts = machine.facts(command + (" --quick" if options.quick else ""))
                samples = run(experiments[title], Context(room, databases, options.quick), options.rounds)
                measured[title] = Result(title, facts, samples)
                # At once: what was measured is not lost when the rest is interrupted.
                results.write(measured[title], options.json)

        measure(experiments, 1)
        for attempt in range(2, ATTEMPTS + 1 if options.check else 2):
            # What misses a floor is measured again: other work on the machine passes, a regression stays.
            measure(sorted({missed.bar.experiment for missed in _missed(measured)}), attempt)
    print(report.table([verdict for verdict in bars.judge(list(measured.values())) if verdict.value is not None]))
    if options.check:
        missed = _missed(measured)
        for verdict in missed:
            print(f"below the build's floor, {ATTEMPTS} times: {verdict.bar.name}", file=sys.stderr)
        sys.exit(bool(missed))


def _missed(measured: Mapping[str, Result]) -> list[bars.Verdict]:
    return [verdict for verdict in bars.judge(list(measured.values())) if not verdict.above_floor]


if __name__ == "__main__":
    main()
