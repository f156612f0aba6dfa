"""Export a log with every CPU: ranges of rows are read, rendered and compressed in several processes, and come in order."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Final, cast

from indelible.exports import Compression, Format, Pack, compressor, opening, written
from indelible.parallel import in_order, processes
from indelible.queries import Filter
from indelible.rendering import FIELDS
from indelible.stores.raw import RawReader, open_raw

#: Events that are one piece of work: about 6 MB of JSON lines.
TASK_EVENTS: Final = 8_192
#: The log's rows that are one piece of work, at the most, where only some of them match.
MOST_ROWS: Final = 65_536
#: Events from which on other processes are started: they take half a second to begin.
PARALLEL: Final = 262_144


#: Of a file: (events in it, bytes).
Pieces = Generator[tuple[int, bytes | memoryview], None, None]


@dataclass(frozen=True, slots=True)
class Export:
    """What to export, and how: the ``rows`` events that match ``wanted`` among the first ``end`` of the log."""

    wanted: Filter
    end: int
    rows: int
    form: Format = "jsonl"
    compress: Compression | None = None


def pieces(url: str, export: Export, *, workers: int | None = None) -> Pieces:
    """The file, piece by piece: (events in it, bytes), valid until the next. ``workers`` None: one process for each CPU.

    No snapshot is held: rows do not change, so that what lies before ``end`` is the same whenever it is read. Raises
    StoreError, and ConfigurationError for a compression that is not installed.
    """
    pack = _pack_of(export)
    yield 0, opening(export.form, pack)
    count = processes(workers, export.rows // TASK_EVENTS)
    if count < 2 or export.rows < PARALLEL:
        # In one go: where few events match, an index finds them, but only if it is asked for many rows at once.
        with open_raw(url) as raw:
            slices = raw.matching(export.wanted, FIELDS, first=0, end=export.end)
            yield from written(export.form, slices, pack)
        return
    step = min(MOST_ROWS, TASK_EVENTS * export.end // export.rows)
    tasks = [(at, min(at + step, export.end)) for at in range(0, export.end, step)]
    with closing(in_order(_work, tasks, workers=count, begin=_begin, arguments=(url, export))) as results:
        for parts in results:
            yield from parts


def _pack_of(export: Export) -> Pack | None:
    return None if export.compress is None else compressor(export.compress)


# In a worker process: its connection, and what it is to do.
_raw: RawReader
_export: Export
_pack: Pack | None


def _begin(url: str, export: Export) -> None:
    global _raw, _export, _pack
    _raw, _export, _pack = open_raw(url), export, _pack_of(export)


def _work(task: tuple[int, int]) -> list[tuple[int, memoryview]]:
    slices = _raw.matching(_export.wanted, FIELDS, first=task[0], end=task[1])
    # Typed as what they are when they arrive.
    return [(events, cast("memoryview", PickleBuffer(data))) for events, data in written(_export.form, slices, _pack)]
