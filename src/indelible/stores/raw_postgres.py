"""Raw rows of a PostgreSQL database: binary, with every conversion done by psycopg's C code or by the server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final

import psycopg
from psycopg.types.numeric import Int8BinaryLoader
from sqlalchemy import URL
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from indelible.events import JSON_FIELDS
from indelible.stores.pgconnection import PatientConnection
from indelible.stores.pgtypes import POSTGRES_EPOCH
from indelible.stores.raw import Parameters, RawReader
from indelible.stores.syntax import POSTGRESQL, Syntax

#: A named parameter as SQLite writes it.
_NAMED: Final = re.compile(r"(?<![:\w]):([a-z]\w*)")


class PostgresRaw(RawReader):
    """``RawReader`` over psycopg."""

    typed: ClassVar[bool] = True
    _least: ClassVar[str] = "least"
    _syntax: ClassVar[Syntax] = POSTGRESQL
    _as_text: ClassVar[frozenset[str]] = frozenset({*JSON_FIELDS, "id", "writer_id"})

    def __init__(self, url: URL) -> None:
        arguments, keywords = PGDialect_psycopg().create_connect_args(url)  # type: ignore[no-untyped-call]
        self._connection: psycopg.Connection[Any] = PatientConnection.connect(
            *arguments, **{"connect_timeout": 5, **keywords}, autocommit=True, prepare_threshold=None
        )
        self._connection.execute("SET default_transaction_read_only = on")
        # timestamptz in its binary form is an int8 of µs since 2000, and infinity is the largest of them.
        self._connection.adapters.register_loader("timestamptz", Int8BinaryLoader)

    def close(self) -> None:
        """See RawReader."""
        self._connection.close()

    def _fetch(self, query: str, parameters: Parameters) -> list[Any]:
        with self._connection.cursor(binary=True) as cursor:
            return cursor.execute(_placed(query, isinstance(parameters, Mapping)), parameters or None).fetchall()

    def _all_micros(self, times: Sequence[Any]) -> Sequence[Any]:
        return [None if at is None else at + POSTGRES_EPOCH for at in times]

    def _names(self) -> list[str]:
        return [
            name
            for (name,) in self._all(
                "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
                " AND relkind IN ('r', 'p') AND starts_with(relname::text, 'audit_logs_')"
            )
        ]

    def _other_tables(self) -> list[str]:
        numbered = self._tables()
        children = self._all(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_logs'::regclass"
        )
        return [name for (name,) in children if name not in {f"audit_logs_{number}" for number in numbered}]


@lru_cache
def _placed(query: str, named: bool) -> str:
    return _NAMED.sub(r"%(\1)s", query) if named else query.replace("?", "%s")
