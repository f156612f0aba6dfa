"""Raw rows of a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from indelible.errors import SchemaOutOfDate
from indelible.stores import sqlite_functions
from indelible.stores.raw import Parameters, RawReader
from indelible.stores.syntax import SQLITE, Syntax

#: Seconds to wait for a writer that has the file locked.
_BUSY: Final = 10.0


class SqliteRaw(RawReader):
    """``RawReader`` over the standard library's driver."""

    # STRICT tables hold what they should; but whoever owns the file can make a table something else for a while.
    typed: ClassVar[bool] = False
    _least: ClassVar[str] = "min"
    _syntax: ClassVar[Syntax] = SQLITE

    def __init__(self, path: str) -> None:
        if not Path(path).exists():
            raise SchemaOutOfDate(f"there is no audit log at {path}", hint="check the database's address")
        self._connection = sqlite3.connect(
            f"{Path(path).as_uri()}?mode=rw", uri=True, timeout=_BUSY, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA query_only = ON")
        sqlite_functions.register(self._connection)

    def close(self) -> None:
        """See RawReader."""
        self._connection.close()

    def _fetch(self, query: str, parameters: Parameters) -> list[Any]:
        try:
            return self._connection.execute(query, parameters).fetchall()
        except sqlite3.OperationalError as error:
            if "UTF-8" not in str(error):
                raise
        # Text that is none: read it all the same, so that the row can be named.
        self._connection.text_factory = _lenient
        try:
            return self._connection.execute(query, parameters).fetchall()
        finally:
            self._connection.text_factory = str

    def _all_micros(self, times: Sequence[Any]) -> Sequence[Any]:
        return times

    def _names(self) -> list[str]:
        return [
            n for (n,) in self._all("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'audit_logs_*'")
        ]

    def _other_tables(self) -> list[str]:
        return []


def _lenient(data: bytes) -> str:
    return data.decode(errors="surrogateescape")
