"""Dying at a named commit point: wraps the functions around each place where the code says "crash here".

Lives in tests only. ``arm`` patches the process it is called in; the first thread that comes by the point kills the
process with SIGKILL, once for each ``once`` file (so that the worker that takes the dead one's place survives).
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from indelible import drainer as draining
from indelible.journal import intents, reading, writing
from indelible.journal.frames import Header, Slot

#: Where to die: name → what has happened by then.
POINTS: dict[str, Callable[[Callable[[], None]], None]] = {}


def arm(point: str, once: Path, *, after: int = 0) -> None:
    """Die at ``point`` when it is passed for the ``after + 1``-th time, if the file ``once`` is there; it is removed."""
    passed = 0

    def die() -> None:
        nonlocal passed
        passed += 1
        if passed <= after:
            return
        try:
            once.unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    POINTS[point](die)


def arm_from_environment() -> None:
    """``RELIABILITY_CRASH`` is ``<point>:<how often it is passed before>:<the file>``; nothing when it is not set."""
    if told := os.environ.get("RELIABILITY_CRASH"):
        point, after, once = told.split(":", 2)
        arm(point, Path(once), after=int(after))


def _point(function: Callable[[Callable[[], None]], None]) -> Callable[[Callable[[], None]], None]:
    POINTS[function.__name__.replace("_", "-")] = function
    return function


def _around(owner: Any, name: str, *, before: Callable[..., None] | None = None, after: Any = None) -> None:
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args, **kwargs)
        result = original(*args, **kwargs)
        if after is not None:
            after(*args, **kwargs)
        return result

    setattr(owner, name, wrapped)


def _slot(slot: Slot, *, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None) -> None:
    """Die around a write of one of the header's slots."""

    def when(die: Callable[[], None] | None) -> Callable[..., None]:
        return lambda _, written, value: die() if die is not None and written == slot and value > 0 else None

    # Where a map is written to directly, nothing can stand in between.
    Header.slots = property(lambda header: header)  # type: ignore[method-assign, assignment]
    _around(Header, "__setitem__", before=when(before), after=when(after))


# --- the journal --------------------------------------------------------------------------------------------------------


@_point
def append_before_announced(die: Callable[[], None]) -> None:
    _slot(Slot.APPENDED, before=die)


@_point
def append_announced(die: Callable[[], None]) -> None:
    _slot(Slot.APPENDED, after=die)


@_point
def sync_before_marked(die: Callable[[], None]) -> None:
    _slot(Slot.SYNCED, before=die)


@_point
def recycle_renamed(die: Callable[[], None]) -> None:
    _around(writing._DataFile, "reuse", after=lambda *_: die())


@_point
def recycle_before_renamed(die: Callable[[], None]) -> None:
    _around(writing._DataFile, "reuse", before=lambda *_: die())


@_point
def roll_before_begun(die: Callable[[], None]) -> None:
    _around(writing, "file_head", before=lambda generation, _: die() if generation else None)


@_point
def roll_begun(die: Callable[[], None]) -> None:
    _around(writing.Journal, "_roll", after=lambda *_, **__: die())


@_point
def journal_without_name(die: Callable[[], None]) -> None:
    _around(os, "posix_fallocate", before=lambda *_: die())


@_point
def strike_before(die: Callable[[], None]) -> None:
    _around(intents.Intents, "strike", before=lambda *_: die())


@_point
def retire_before(die: Callable[[], None]) -> None:
    _around(reading.JournalReader, "retire", before=lambda _: die())


@_point
def retire_renamed(die: Callable[[], None]) -> None:
    _around(shutil, "rmtree", before=lambda *_, **__: die())


@_point
def retire_half_way(die: Callable[[], None]) -> None:
    def half(path: Path, **_: Any) -> None:
        for file in sorted(path.glob("*.frames"))[:1]:
            file.unlink()
        die()

    _around(shutil, "rmtree", before=half)


@_point
def retire_but_for_the_header(die: Callable[[], None]) -> None:
    def most(path: Path, **_: Any) -> None:
        for file in path.glob("*.frames"):
            file.unlink()
        die()

    _around(shutil, "rmtree", before=most)


@_point
def retire_header_gone(die: Callable[[], None]) -> None:
    def header(path: Path, **_: Any) -> None:
        (path / "header").unlink()
        die()

    _around(shutil, "rmtree", before=header)


# --- the drainer --------------------------------------------------------------------------------------------------------


@_point
def take_over(die: Callable[[], None]) -> None:
    _around(draining.Drainer, "_own_directory", after=lambda self: die() if self.owns_directory else None)


@_point
def pick_up_before(die: Callable[[], None]) -> None:
    _around(draining.Drainer, "_pick_up", before=lambda *_: die())


@_point
def pick_up_after(die: Callable[[], None]) -> None:
    _around(draining.Drainer, "_pick_up", after=lambda *_: die())


@_point
def stored_before_marked(die: Callable[[], None]) -> None:
    _around(reading.JournalReader, "mark_stored", before=lambda _, count, **__: die() if count else None)


@_point
def stored_half_marked(die: Callable[[], None]) -> None:
    _slot(Slot.STORED, before=die)


@_point
def dead_half_marked(die: Callable[[], None]) -> None:
    _slot(Slot.DEAD, after=die)


@_point
def stored_marked(die: Callable[[], None]) -> None:
    _around(reading.JournalReader, "mark_stored", after=lambda _, count, **__: die() if count else None)


@_point
def intents_stored(die: Callable[[], None]) -> None:
    settling = False

    def seek(_: Any, number: int) -> None:
        if settling:
            die()

    original = draining.Drainer._settle_intents

    def settle(self: Any, source: Any) -> bool:
        nonlocal settling
        settling = True
        try:
            return original(self, source)
        finally:
            settling = False

    draining.Drainer._settle_intents = settle  # type: ignore[method-assign]
    _around(reading.JournalReader, "seek", before=seek)


@_point
def dead_letter_before(die: Callable[[], None]) -> None:
    _around(draining.Drainer, "_keep", before=lambda *_: die())


@_point
def dead_letter_kept(die: Callable[[], None]) -> None:
    _around(draining.Drainer, "_keep", after=lambda *_: die())


@_point
def gap_recorded(die: Callable[[], None]) -> None:
    _around(draining.Drainer, "_gap", after=lambda *_: die())


# --- the stores ---------------------------------------------------------------------------------------------------------


def _statement(word: str, *, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None) -> None:
    """Die around a statement of the connection that writes, on either engine."""

    def when(die: Callable[[], None] | None) -> Callable[..., None] | None:
        return None if die is None else lambda _, sql, *__, **___: die() if str(sql).startswith(word) else None

    import psycopg

    from indelible.stores.sqlite import SqliteStore

    _around(psycopg.Cursor, "execute", before=when(before), after=when(after))
    connected = SqliteStore._connected

    class Spy:
        """The connection, watched."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def execute(self, sql: str, *args: Any) -> Any:
            if before is not None and sql.startswith(word):
                before()
            result = self._connection.execute(sql, *args)
            if after is not None and sql.startswith(word):
                after()
            return result

    SqliteStore._connected = lambda self: Spy(connected(self))  # type: ignore[method-assign,assignment,return-value]


@_point
def begin(die: Callable[[], None]) -> None:
    _statement("BEGIN", after=die)


@_point
def commit_before(die: Callable[[], None]) -> None:
    _statement("COMMIT", before=die)


@_point
def commit_after(die: Callable[[], None]) -> None:
    _statement("COMMIT", after=die)


def _segment(*, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None) -> None:
    from indelible.stores.postgres import PostgresStore
    from indelible.stores.sqlite import SqliteStore

    def when(die: Callable[[], None] | None) -> Callable[..., None] | None:
        return None if die is None else lambda *_: die()

    _around(SqliteStore, "_make_segment", before=when(before), after=when(after))
    _around(PostgresStore, "_advance", before=when(before), after=when(after))


@_point
def segment_before(die: Callable[[], None]) -> None:
    _segment(before=die)


@_point
def segment_made(die: Callable[[], None]) -> None:
    _segment(after=die)


@_point
def segment_closed(die: Callable[[], None]) -> None:
    from indelible.stores.postgres import PostgresStore
    from indelible.stores.sqlite import SqliteStore

    _around(SqliteStore, "_close_segment", after=lambda *_: die())
    _around(PostgresStore, "_make_ahead", after=lambda *_: die())
