"""Trying what the log must refuse: every statement runs in a transaction that is rolled back whatever comes of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from indelible.cli.environment import Check

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_HINT: Final = "the log is not protected: run indelible db check, then restore the guards it names"
_REFUSED: Final = "refused"
_HEADS: Final = "audit_heads"
_PROBE: Final = "INSERT INTO audit_heads (size, writer_id, writer_seq) VALUES (1, '{id}', 0)"


class _Attempt(NamedTuple):
    """One statement that must be refused, and what has to stand in the table for it to have something to change."""

    kind: str
    table: str
    sql: str
    before: str | None = None


def try_forbidden(engine: Engine) -> Iterator[Check]:
    """One verdict for each kind of statement. An empty log gets a head to try on, for as long as the attempt takes."""
    outcomes: dict[str, dict[str, str]] = {}
    on_postgres = engine.dialect.name == "postgresql"
    with engine.connect() as connection:
        if not on_postgres:
            # Transactions are begun and ended here, statement by statement, not by the driver.
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        try:
            for attempt in (_on_postgres if on_postgres else _on_sqlite)(connection):
                outcomes.setdefault(attempt.kind, {})[attempt.table] = _outcome(connection, attempt)
        finally:
            connection.rollback()
    for kind, by_table in outcomes.items():
        yield _verdict(kind, by_table)


def _verdict(kind: str, outcomes: dict[str, str]) -> Check:
    name = f"{kind} is refused"
    let_through = [table for table, outcome in outcomes.items() if not outcome]
    if let_through:
        return Check(name, "fail", f"the database lets it change {', '.join(let_through)}", _HINT)
    untried = [f"{table}: {outcome}" for table, outcome in outcomes.items() if outcome != _REFUSED]
    if untried:
        return Check(name, "warn", f"could not be tried on {'; '.join(untried)}", "run doctor again when it is quiet")
    return Check(name, "ok", f"by the database, on {', '.join(outcomes)}")


def _outcome(connection: Connection, attempt: _Attempt) -> str:
    """Empty when the statement went through, ``refused``, or why it could not be tried."""
    from sqlalchemy.exc import DBAPIError

    from indelible.stores.faults import GUARD_MESSAGE, translate

    try:
        with _undone(connection):
            if attempt.before is not None:
                connection.exec_driver_sql(attempt.before)
            connection.exec_driver_sql(attempt.sql)
    except DBAPIError as error:
        # 42501 is both what our triggers raise and what a role without the right is told.
        if getattr(error.orig, "sqlstate", None) == "42501" or str(error.orig).startswith(GUARD_MESSAGE):
            return _REFUSED
        return translate(error).message
    return ""


@contextmanager
def _undone(connection: Connection) -> Iterator[None]:
    if connection.dialect.name == "postgresql":
        savepoint = connection.begin_nested()
        try:
            yield
        finally:
            savepoint.rollback()
        return
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        # A guard on INSERT has rolled the transaction back itself.
        if getattr(connection.connection.dbapi_connection, "in_transaction", False):
            connection.exec_driver_sql("ROLLBACK")


def _changes(table: str, key: str, value: object, before: str | None = None) -> Iterator[_Attempt]:
    # Names and numbers of ours: nothing here comes from outside.
    where = f"WHERE {key} = {value}"
    yield _Attempt("UPDATE", table, f"UPDATE {table} SET {key} = {key} {where}", before)  # noqa: S608
    yield _Attempt("DELETE", table, f"DELETE FROM {table} {where}", before)  # noqa: S608


def _replace(table: str, key: str, value: object, before: str | None = None) -> _Attempt:
    # SQLite deletes the row in the way without firing its delete trigger.
    sql = f"INSERT OR REPLACE INTO {table} SELECT * FROM {table} WHERE {key} = {value}"  # noqa: S608
    return _Attempt("REPLACE", table, sql, before)


def _last(connection: Connection, table: str, key: str) -> int | None:
    found: int | None = connection.exec_driver_sql(f"SELECT max({key}) FROM {table}").scalar()  # noqa: S608
    return found


def _beside(connection: Connection) -> Iterator[tuple[str, str, int, str | None]]:
    """The tables beside the rows that hold something: name, key, its greatest value, what to insert first."""
    from indelible.stores.guards import APPEND_ONLY

    for table, (key, *_) in APPEND_ONLY.items():
        last = _last(connection, table, key)
        if last is not None:
            yield table, key, last, None
        elif table == _HEADS:
            yield table, key, 1, _PROBE.format(id=uuid.uuid4())


def _on_sqlite(connection: Connection) -> Iterator[_Attempt]:
    numbers = connection.exec_driver_sql("SELECT number FROM audit_segments ORDER BY number").scalars().all()
    # The newest is the one being written, the oldest the one nobody looks at any more.
    for number in dict.fromkeys((*numbers[-1:], *numbers[:1])):
        table = f"audit_logs_{number}"
        last = _last(connection, table, "seq")
        if last is not None:
            yield from _changes(table, "seq", last)
            yield _replace(table, "seq", last)
    for table, key, last, before in _beside(connection):
        yield from _changes(table, key, last, before)
        yield _replace(table, key, last, before)


def _on_postgres(connection: Connection) -> Iterator[_Attempt]:
    from indelible.stores.guards import APPEND_ONLY

    # TRUNCATE asks for the strongest lock before any trigger fires: never keep writers waiting for our sake.
    connection.exec_driver_sql("SET LOCAL lock_timeout = '500ms'")
    connection.exec_driver_sql("SET LOCAL statement_timeout = '5s'")
    last = _last(connection, "audit_logs", "seq")
    if last is not None:
        yield from _changes("audit_logs", "seq", last)
    for table, key, value, before in _beside(connection):
        yield from _changes(table, key, value, before)
    parts = (
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_logs'::regclass ORDER BY inhrelid"
    )
    partitions = connection.exec_driver_sql(parts).scalars().all()
    for table in ("audit_logs", *partitions[-1:], *APPEND_ONLY):
        yield _Attempt("TRUNCATE", table, f"TRUNCATE {table}")
