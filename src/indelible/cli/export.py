"""``export``: everything that matches, to a file or a pipe."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, cast

import typer

from indelible import queries
from indelible.cli import options as o
from indelible.cli.log import settings_for
from indelible.cli.output import note, plain_json, progress, visible
from indelible.cli.reading import reading
from indelible.errors import ConfigurationError, IndelibleError, StoreError
from indelible.rendering import csv_header, csv_line, csv_row, json_line

if TYPE_CHECKING:
    from indelible.events import StoredEvent
    from indelible.exporting import Export, Pieces
    from indelible.ports import Store

EPILOG: Final = o.examples(
    "indelible export --out audit.jsonl",
    "indelible export --format csv --start-date 2024-01-01 --end-date 2024-12-31 --out audit-2024.csv",
    "indelible export --event-type admin_action --compress gzip > admin.jsonl.gz",
)


class Format(StrEnum):
    """How an export is written."""

    JSONL = "jsonl"
    CSV = "csv"


class Compression(StrEnum):
    """How an export is compressed."""

    GZIP = "gzip"
    ZSTD = "zstd"


def export(
    ctx: typer.Context,
    form: Annotated[
        Format, typer.Option("--format", metavar="jsonl|csv", help="One JSON object a line, or CSV with a header.")
    ] = Format.JSONL,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            dir_okay=False,
            help="Write this file, readable by you alone, whole or not at all. Default: standard output.",
            show_default=False,
        ),
    ] = None,
    compress: Annotated[
        Compression | None,
        typer.Option(
            "--compress",
            metavar="gzip|zstd",
            help="Write gzip members or zstd frames; zstd needs the extra of that name. Default: neither.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Processes. Default: one a CPU.", show_default=False),
    ] = None,
    event_type: o.EventTypes = None,
    user_id: o.UserIds = None,
    status: o.Statuses = None,
    ip_address: o.IpAddresses = None,
    resource_type: o.ResourceType = None,
    resource_id: o.ResourceId = None,
    correlation_id: o.CorrelationId = None,
    start_date: o.StartDate = None,
    end_date: o.EndDate = None,
    action: o.Actions = None,
    q: o.Search = None,
) -> None:
    """Write every event that matches, oldest first, as JSON lines or CSV.

    The export ends with the event that was newest when it began. That it was made is recorded before the first event
    is written.
    """
    from indelible.exporting import Export
    from indelible.snapshot import snapshot

    wanted = queries.parse_filter(o.asked(ctx.params))
    with reading(ctx.obj, "export") as log, destination(out) as (write, on_screen):
        if on_screen and compress is not None:
            raise ConfigurationError("a terminal cannot show what is compressed", hint="name a file: --out")
        taken = snapshot(log.store, wanted)
        asked = Export(wanted, taken.end, taken.rows, form.value, None if compress is None else compress.value)
        packed = {} if compress is None else {"compress": compress.value}
        log.record("audit.exported", wanted, taken.rows, format=form.value, end=taken.end, **packed)
        written = 0
        with progress("exporting", taken.rows) as advance:
            pieces = _shown(log.store, asked) if on_screen else _written(ctx.obj, asked, workers)
            with closing(pieces):
                for rows, data in pieces:
                    write(data)
                    written += rows
                    advance(rows)
        if written != taken.rows:
            raise StoreError(
                f"the export ended after {written:,} of {taken.rows:,} events", hint="run: indelible verify"
            )
    note(f"{written:,} events exported" + (f" to {out}" if out is not None else ""))


def _written(database_url: str | None, asked: Export, workers: int | None) -> Pieces:
    from indelible.exporting import pieces

    return pieces(settings_for(database_url).database_url, asked, workers=workers)


def _shown(store: Store, asked: Export) -> Pieces:
    """The same for a person's terminal, which nothing in the log may act upon."""
    if asked.form == "csv":
        yield 0, csv_line(csv_header()).encode()
    for events in store.scan(asked.wanted, end=asked.end):
        yield len(events), "".join(_record(event, asked.form) for event in events).encode()


def _record(event: StoredEvent, form: str) -> str:
    return csv_line(map(visible, csv_row(event))) if form == "csv" else plain_json(json_line(event))


@contextmanager
def destination(out: Path | None) -> Iterator[tuple[Callable[[bytes | memoryview], object], bool]]:
    """How to write bytes, and whether a person's terminal receives them."""
    if out is None or str(out) == "-":
        sys.stdout.flush()
        yield cast("BinaryIO", sys.stdout.buffer).write, sys.stdout.isatty()
        sys.stdout.buffer.flush()
        return
    try:
        with _whole_file(out) as file:
            yield file.write, file.isatty()
    except OSError as error:
        raise IndelibleError(f"cannot write {out}: {error.strerror or error}", hint="choose another --out") from error


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name only when it is complete and on disk. Devices and pipes are written as they are."""
    target = path.resolve()
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            yield stream
        return
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:64]}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        Path(name).replace(target)
    except BaseException:
        # Ctrl-C included: half an export must not stay behind.
        Path(name).unlink(missing_ok=True)
        raise
