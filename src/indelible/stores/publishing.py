"""Checkpoints in the database: who reads them, and the one who may add to them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, Select, insert, select, text

from indelible.errors import StoreError, StoreUnavailable
from indelible.ports import StoredCheckpoint
from indelible.stores.faults import translated
from indelible.stores.schema import checkpoints

_SLICE: Final = 1000
#: Second advisory lock class: the first is taken for the length of an append, this one for as long as we publish.
PUBLISHER_CLASS: Final = 0x1DE11B1F
_KEY: Final = f"{PUBLISHER_CLASS}, 'audit_heads'::regclass::oid::integer"
_LOCK: Final = f"SELECT pg_try_advisory_lock({_KEY})"
_UNLOCK: Final = f"SELECT pg_advisory_unlock({_KEY})"
#: What the connections of both engines need for an insert that is durable and does not wait for ever.
_SESSION: Final = (
    "SET synchronous_commit = on",
    "SET timezone = 'UTC'",
    "SET lock_timeout = '10s'",
    "SET statement_timeout = '15s'",
)
_FILE: Final = ("PRAGMA synchronous = FULL",)
_inherited: list[object] = []


def newest(connection: Connection) -> StoredCheckpoint | None:
    """The checkpoint of the largest size, or None."""
    return next(iter(several(connection, 1)), None)


def several(connection: Connection, limit: int) -> list[StoredCheckpoint]:
    """The checkpoints of the largest sizes, largest first."""
    newest_first = _checkpoints().order_by(checkpoints.c.size.desc()).limit(limit)
    return [_checkpoint(row) for row in connection.execute(newest_first)]


def every(engine: Engine, first: int) -> Iterator[StoredCheckpoint]:
    """All checkpoints of size ``first`` and above, smallest first, read in slices that hold nothing open."""
    while True:
        query = _checkpoints().where(checkpoints.c.size >= first).order_by(checkpoints.c.size).limit(_SLICE)
        with translated(), engine.connect() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            yield _checkpoint(row)
        if len(rows) < _SLICE:
            return
        first = rows[-1].size + 1


def _checkpoints() -> Select[int, int, str]:
    return select(checkpoints.c.size, checkpoints.c.published_at, checkpoints.c.note)


def _checkpoint(row: tuple[int, int, str]) -> StoredCheckpoint:
    size, published_at, note = row
    return StoredCheckpoint(size, published_at, note.encode())


class Lease:
    """``ports.PublisherLease`` over a connection of its own; on SQLite the lock is that of a file beside the log.

    The lock goes with the process or the connection, whatever becomes of them: nobody has to clean up.
    """

    def __init__(self, engine: Engine, connection: Connection, lock_fd: int = -1) -> None:
        self._engine = engine
        self._connection = connection
        self._lock_fd = lock_fd

    @classmethod
    def take(cls, engine: Engine, lock_file: Path | None) -> Lease | None:
        """The lease, or None while somebody else has it. ``engine`` is the lease's own from now on."""
        try:
            with translated():
                fd = -1 if lock_file is None else _locked(lock_file)
                # Statement by statement: nothing is held between them but the lock.
                connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                for statement in _SESSION if lock_file is None else _FILE:
                    connection.execute(text(statement))
                if fd >= 0 or (lock_file is None and connection.scalar(text(_LOCK))):
                    return cls(engine, connection, fd)
                connection.close()
        except BaseException:
            engine.dispose()
            raise
        engine.dispose()
        return None

    def newest(self) -> StoredCheckpoint | None:
        """The newest checkpoint, asked over the connection that holds the lock: an answer means that it is held."""
        with translated():
            return newest(self._connection)

    def insert(self, checkpoint: StoredCheckpoint) -> None:
        """Add a checkpoint; it is durable when this returns."""
        note = checkpoint.note.decode()
        with translated():
            self._connection.execute(
                insert(checkpoints).values(size=checkpoint.size, published_at=checkpoint.published_at, note=note)
            )

    def close(self) -> None:
        """Let somebody else publish, who may do so at once. Closing twice does nothing."""
        with suppress(StoreError), translated():
            # Said, not left to the server, which may notice only later that the connection is gone.
            if self._lock_fd < 0 and not (self._connection.closed or self._connection.invalidated):
                self._connection.execute(text(_UNLOCK))
        with suppress(StoreError), translated():
            self._connection.close()
            self._engine.dispose()
        self._unlock()

    def abandon(self) -> None:
        """Forget the lease in a forked child: lock and connection are the parent's."""
        # Kept for ever: a destructor would say goodbye to the server on the parent's behalf.
        _inherited.append((self._engine, self._connection))
        self._unlock()

    def _unlock(self) -> None:
        # The lock belongs to the open file, which a forked child shares: it goes with the last descriptor.
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _locked(path: Path) -> int:
    """A descriptor that holds the file's lock, or -1 while another process or lease has it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"the publisher's lock {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return -1
    return fd
