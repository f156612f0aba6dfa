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


def copy_in(
    connection: WritingConnection, statement: str, types: Sequence[str], parts: Iterable[Sequence[Any]]
) -> None:
    """Copy the rows of each part by ``statement``, a ``COPY ... FROM STDIN (FORMAT BINARY)`` of columns of ``types``.

    Each next part is taken while the server is busy with the one before. Raises what taking it raises.
    """
    coming = _Coming(_blocks(connection, types, parts))
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


def _blocks(connection: WritingConnection, types: Sequence[str], parts: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """The parts in the form of binary COPY, from its signature to its trailer; small ones together in one."""
    coming = iter(parts)
    together = _TOGETHER if at_once(_TOGETHER) >= _LITTLE else 1
    for first in coming:
        kept, count = _Kept(), 0
        with Copy(connection.cursor(), binary=True, writer=kept) as copy:
            copy.set_types(types)
            write = copy.write_row
            for part in chain((first,), coming):
                for row in part:
                    write(row)
                breathe()
                count += len(part)
                if count >= together:
                    break
        yield b"".join(kept.parts)
