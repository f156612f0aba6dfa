"""``bench``: a large log of made-up events, so that anybody can measure at any size."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final
from uuid import NAMESPACE_OID, UUID, uuid5

import typer

from indelible.cli import options as o
from indelible.cli.exits import Commands
from indelible.cli.log import announce, engine_of, settings_for
from indelible.cli.output import note, progress, put_json
from indelible.errors import ConfigurationError

if TYPE_CHECKING:
    from indelible.ports import Store
    from indelible.settings import Settings

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Make a large log to measure with.")

_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([hdwy])")
_UNITS: Final = {"h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_BATCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """One batch that is stored: the rows of this seed then, how many it had, the seconds that ``append`` took."""

    position: int
    rows: int
    seconds: float


def writer_of(seed: int) -> UUID:
    """The writer whose events the log of that seed consists of."""
    return uuid5(NAMESPACE_OID, f"indelible bench load {seed}")


def load(
    store: Store, rows: int, *, seed: int = 1, batch: int = _BATCH, step: int | None = None, rate: float | None = None
) -> Iterator[Loaded]:
    """Append made-up events through ``Store.append`` until the log holds ``rows`` of this seed, batch by batch.

    A log that was begun is continued, in time as well: events are ``step`` µs apart on the average (default:
    ``synthetic.STEP``). ``rate`` (rows a second) holds it back.
    """
    from indelible import synthetic

    writer = writer_of(seed)
    last = store.last_event(writer)
    position, begin = 0, synthetic.START
    if last is not None:
        # A UUIDv7 begins with its time in ms.
        position, begin = last[0] + 1, ((last[1].int >> 80) + 1) * 1000
    stream = synthetic.events(seed, first=position, begin=begin, step=synthetic.STEP if step is None else step)
    began, first = time.perf_counter(), position
    while position < rows:
        given = list(itertools.islice(stream, min(batch, rows - position)))
        before = time.perf_counter()
        store.append(writer, position, given)
        seconds = time.perf_counter() - before
        position += len(given)
        yield Loaded(position, len(given), seconds)
        if rate is not None:
            time.sleep(max(0.0, began + (position - first) / rate - time.perf_counter()))


def roll_up(store: Store) -> None:
    """Make every rollup that is due, as a service's follower does while it runs."""
    while store.roll_up(16)[1]:
        pass


def load_command(
    ctx: typer.Context,
    rows: Annotated[int, typer.Option("--rows", metavar="N", min=1, help="How many events the log shall hold.")],
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, max=65_536, help="Events in one append.")
    ] = _BATCH,
    span: Annotated[
        str, typer.Option("--span", metavar="TIME", help="The time that N events cover: 12h, 90d, 6w or 2y.")
    ] = "90d",
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="N", min=1, help="At most so many events a second.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Another seed makes other events.")] = 1,
    into_existing: Annotated[
        bool,
        typer.Option("--into-existing", metavar="", help="Load even into a log that holds other events, for ever."),
    ] = False,
    as_json: o.AsJson = False,
) -> None:
    """Fill a log with made-up events, sealed like any others: indelible verify finds nothing wrong in it.

    Few people do most, things have their favourites, days their working hours; the same seed makes the same events. The
    events begin on 2025-01-01. A load that was interrupted, or ended with fewer events, is continued.

    A log keeps what it is given: one that holds other events is refused.
    """
    settings = settings_for(ctx.obj)
    announce(settings)
    _make(settings)
    appended, seconds, began = 0, 0.0, time.perf_counter()
    with _opened(settings) as store:
        before = store.position(writer_of(seed))
        if not before and store.head() is not None and not into_existing:
            raise ConfigurationError(
                "this log holds other events, and made-up ones could never be taken out again",
                hint="name an empty database with --database-url, or say --into-existing",
            )
        with progress("loading", max(0, rows - before)) as advance:
            step = max(1, _span(span) // rows)
            for done in load(store, rows, seed=seed, batch=batch, step=step, rate=rate):
                appended, seconds = appended + done.rows, seconds + done.seconds
                advance(done.rows)
                store.roll_up(1)
        roll_up(store)
    took = time.perf_counter() - began
    speed = round(appended / seconds) if appended else 0
    if as_json:
        put_json(
            {"rows": before + appended, "appended": appended, "seconds": round(took, 3), "append_rows_per_s": speed}
        )
    note(f"{appended:,} events appended in {took:,.1f} s, {speed:,} rows a second of appending")


def _span(text: str) -> int:
    """A length of time in µs."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"not a length of time: {text[:32]!r}; write 90d", param_hint="--span")
    return int(match[1]) * _UNITS[match[2]] * 1_000_000


def _make(settings: Settings) -> None:
    """Make the tables of a log that is not there."""
    from indelible import migrations

    with engine_of(settings, may_create=True) as engine:
        if migrations.current(engine) is None:
            migrations.upgrade_engine(engine)


@contextmanager
def _opened(settings: Settings) -> Iterator[Store]:
    """The store, open while it is looked at."""
    from indelible.runtime import open_store

    store = open_store(settings)
    try:
        store.open()
        yield store
    finally:
        store.close()


app.command(
    name="load",
    help=o.prose(load_command),
    epilog=o.examples(
        "indelible bench load --rows 1000000",
        "indelible --database-url postgresql://postgres@db/bench bench load --rows 20000000 --span 1y",
        "indelible verify",
    ),
)(load_command)
