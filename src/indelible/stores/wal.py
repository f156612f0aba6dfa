"""Putting a SQLite file into WAL mode, while others may be doing the same."""

from __future__ import annotations

import sqlite3
from typing import Final

#: How often another connection's change of mode is waited for.
_CHANGES: Final = 10


def use_wal(connection: sqlite3.Connection) -> None:
    """Put the connection's file into WAL mode; a file that is in it stays as it is. Outside of any transaction.

    SQLite does not wait when two connections change the mode at once: the pragma holds a read lock when it asks for
    more, so one of them is told "locked" at once, whatever its timeout. Beginning to write does wait, until the other
    is done. Raises sqlite3.OperationalError when the file stays locked for longer than the connection's timeout.
    """
    for _ in range(_CHANGES):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    connection.execute("PRAGMA journal_mode = WAL")
