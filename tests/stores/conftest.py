"""Stores to test: each fixture exists once on SQLite and once on PostgreSQL."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest

from indelible.events import AuditEvent
from indelible.migrations import upgrade_engine
from indelible.stores import urls
from indelible.stores.pgtypes import register
from indelible.stores.postgres import PostgresStore
from indelible.stores.sqlite import SqliteStore

AnyStore = SqliteStore | PostgresStore
MakeStore = Callable[..., AnyStore]

#: Small enough for a test to fill several.
SEGMENT_ROWS = 1024


@pytest.fixture
def make_store(engine_url: str) -> Iterator[MakeStore]:
    """A function that opens another store on the test's one database; all are closed after the test."""
    with ExitStack() as stack:

        def make(url: str = engine_url, *, segment_rows: int = SEGMENT_ROWS, prepare: bool = True) -> AnyStore:
            kind: Callable[..., AnyStore] = SqliteStore if url.startswith("sqlite") else PostgresStore
            store = kind(url, segment_rows=segment_rows, prepare=upgrade_engine if prepare else None)
            stack.callback(store.close)
            store.open()
            return store

        yield make


@pytest.fixture
def store(make_store: MakeStore) -> AnyStore:
    """An open, empty store whose segments hold 1,024 rows."""
    return make_store()


@pytest.fixture
def event() -> Callable[..., AuditEvent]:
    """A function that makes an event; keyword arguments replace its fields."""

    def make(**fields: Any) -> AuditEvent:
        defaults: dict[str, Any] = {
            "id": uuid.uuid4(),
            "timestamp": 1_700_000_000_000_000,
            "event_type": "data_modify",
            "action": "update",
            "status": "success",
        }
        return AuditEvent(**(defaults | fields))

    return make


@pytest.fixture
def raw(engine_url: str) -> Callable[..., list[Any]]:
    """A function that executes one statement, past the store, as whoever owns the database; it returns the rows."""

    def execute(statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        if engine_url.startswith("sqlite"):
            with closing(sqlite3.connect(urls.parse(engine_url).database or "")) as connection:
                rows = connection.execute(statement, parameters).fetchall()
                connection.commit()
                return rows
        with psycopg.connect(engine_url) as connection:
            register(connection)
            cursor = connection.execute(statement.replace("?", "%s"), parameters or None)
            return cursor.fetchall() if cursor.description else []

    return execute


@pytest.fixture
def is_sqlite(engine_url: str) -> bool:
    """Which engine this run of the test is about."""
    return engine_url.startswith("sqlite")
