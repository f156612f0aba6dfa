"""Rows into PostgreSQL: one COPY after another, so that the server stores one part while the next is made here.

A binary COPY keeps up to a thousand rows back and puts them into the table and its indexes when it ends: while it runs
the server has next to nothing to do. Several short ones keep both sides busy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final

from psycopg import Copy
from psycopg.abc import Buffer
from psycopg.copy import Writer

from indelible.pacing import at_once, breathe
from indelible.stores.pgconnection import WritingConnection

#: Rows in one COPY, at the least: one for each small part costs a third more.
_TOGETHER: Final = 250
#: Who works on fewer rows at a time shares a process with an event loop: each part is a COPY of its own then, so that the
#: server too does little at once. A loop feels it where processors are few: p99 1.5 of the bare application's, not 2.2.
_LITTLE: Final = 50


#: What a binary COPY begins and ends with.
_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"


def copy_in(connection: WritingConnection, statement: str, parts: Iterable[tuple[int, bytes]]) -> None:
    """Copy some rows after the other by ``statement``, a ``COPY ... FROM STDIN (FORMAT BINARY)``.

    Each part is a number of rows and what ``copied`` makes of them. The next one is taken while the server is busy with
    the one before. Raises what taking it raises.
    """
    coming = _Coming(_blocks(parts))
    block = coming.take()
    while block is not None:
        try:
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(block)
                connection.meanwhile = coming.make
        finally:
            connection.meanwhile = None
        block = coming.take()


class _Coming:
    """The next of ``blocks``, made when there is time, and at the latest when it is taken."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._made = False
        self._block: bytes | None = None
        self._error: Exception | None = None

    def make(self) -> None:
        """Make it, if it is not there yet. A failure waits until it is taken."""
        if not self._made:
            self._made = True
            try:
                self._block = next(self._blocks, None)
            except Exception as error:  # noqa: BLE001 - raised in take
                self._error = error

    def take(self) -> bytes | None:
        """The next block; None after the last."""
        self.make()
        if self._error is not None:
            raise self._error
        self._made = False
        return self._block


class _Kept(Writer):
    """Keeps what is written."""

    def __init__(self) -> None:
        self.parts: list[Buffer] = []

    def write(self, data: Buffer) -> None:
        """Keep it."""
        self.parts.append(data)


def copied(connection: WritingConnection, types: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows with columns of ``types`` in the form of binary COPY, without what it begins and ends with."""
    kept = _Kept()
    with Copy(connection.cursor(), binary=True, writer=kept) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
    return b"".join(kept.parts)[len(_HEAD) : -len(_TRAILER)]


def _blocks(parts: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    """What goes into one COPY each, from its signature to its trailer: small parts together."""
    coming = iter(parts)
    together = _TOGETHER if at_once(_TOGETHER) >= _LITTLE else 1
    for first in coming:
        kept, count = [_HEAD], 0
        for rows, part in chain((first,), coming):
            kept.append(part)
            breathe()
            count += rows
            if count >= together:
                break
        yield b"".join((*kept, _TRAILER))
