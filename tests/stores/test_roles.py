"""The three PostgreSQL roles, tried out as those roles."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from indelible.errors import ConfigurationError, StoreUnavailable
from indelible.events import AuditEvent
from indelible.migrations import roles, upgrade_engine
from indelible.stores import urls
from indelible.stores.postgres import PostgresStore

NAMES = ("owner", "app", "reader")


@pytest.fixture
def granted(postgres_url: str) -> Iterator[Callable[[str], str]]:
    """A database with the log and its roles: a function from "owner", "app", "reader" to that role's URL."""
    mark = uuid.uuid4().hex[:8]
    names = {name: f'{name}-"{mark}"' for name in NAMES}
    engine = create_engine(urls.parse(postgres_url))
    upgrade_engine(engine)
    roles(engine, **names)
    # Twice is harmless.
    roles(engine, **names)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(names["owner"])))
    url = make_url(postgres_url)
    yield lambda name: url.set(username=names[name]).render_as_string(hide_password=False)
    engine.dispose()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in names.values():
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def _append(url: str, count: int, writer: uuid.UUID, first: int = 0) -> int:
    store = PostgresStore(url, segment_rows=256)
    store.open()
    try:
        return store.append(
            writer,
            first,
            [
                AuditEvent(id=uuid.uuid4(), timestamp=0, event_type="login", action="a", status="success")
                for _ in range(count)
            ],
        )
    finally:
        store.close()


def _attempts() -> list[str]:
    tables = ("audit_logs", "audit_logs_0", "audit_logs_1", "audit_heads", "audit_segments", "audit_segment_spans")
    made = [
        statement
        for table in tables
        for statement in (
            f"UPDATE {table} SET {'seq' if 'logs' in table else 'size' if 'heads' in table else 'number'} = 7",
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
            f"DROP TABLE {table}",
            f"ALTER TABLE {table} DISABLE TRIGGER ALL",
            f"ALTER TABLE {table} ADD COLUMN more int",
        )
    ]
    return [
        *made,
        "DROP FUNCTION audit_refuse CASCADE",
        "ALTER TABLE audit_logs DETACH PARTITION audit_logs_0",
        "CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "SET session_replication_role = replica",
        "INSERT INTO audit_logs_1 SELECT * FROM audit_logs_1",
        "INSERT INTO audit_segments VALUES (9, 9, 9)",
        "INSERT INTO audit_segment_spans VALUES (9, now(), now())",
        "UPDATE indelible_version SET version_num = 'x'",
    ]


def test_the_application_appends_across_a_boundary(granted: Callable[[str], str], postgres_url: str) -> None:
    """With INSERT, SELECT and EXECUTE alone; segments made on its behalf belong to the owner and can be read."""
    writer = uuid.uuid4()
    assert _append(granted("app"), 200, writer) == 200
    assert _append(granted("app"), 200, writer, 200) == 400
    store = PostgresStore(granted("app"))
    store.open()
    assert [s.closed for s in store.segments()] == [True, False]
    assert store.check() == []
    store.close()
    for role in ("app", "reader"):
        with psycopg.connect(granted(role)) as connection:
            for table in ("audit_logs", "audit_logs_0", "audit_logs_1", "audit_heads"):
                assert connection.execute(
                    sql.SQL("SELECT count(*) > 0 FROM {}").format(sql.Identifier(table))
                ).fetchone() == (True,)


@pytest.mark.parametrize("role", ["app", "reader"])
def test_neither_application_nor_reader_changes_anything(granted: Callable[[str], str], role: str) -> None:
    """UPDATE, DELETE, TRUNCATE, DROP and ALTER, on the parent, on each partition and on the tables beside them."""
    _append(granted("app"), 300, uuid.uuid4())
    with psycopg.connect(granted(role), autocommit=True) as connection:
        for statement in _attempts():
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_the_reader_only_reads(granted: Callable[[str], str]) -> None:
    """It opens the log and asks; an append is refused, and so is making segments."""
    _append(granted("app"), 1, uuid.uuid4())
    store = PostgresStore(granted("reader"))
    store.open()
    assert store.head() is not None
    assert store.check() == []
    store.close()
    with pytest.raises(StoreUnavailable, match="indelible db roles"):
        _append(granted("reader"), 1, uuid.uuid4())
    with psycopg.connect(granted("reader")) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT audit_advance(1, 256)")


def test_the_owner_meets_the_guards(granted: Callable[[str], str]) -> None:
    """Even the tables' owner cannot UPDATE, DELETE or TRUNCATE without first taking a guard away."""
    _append(granted("app"), 300, uuid.uuid4())
    with psycopg.connect(granted("owner"), autocommit=True) as connection:
        for table in ("audit_logs", "audit_logs_0", "audit_logs_1", "audit_heads"):
            for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                    connection.execute(statement.encode())


def test_check_tells_a_grant_too_many(granted: Callable[[str], str], postgres_url: str) -> None:
    """A right to change, given to anybody, is a finding."""
    _append(granted("app"), 1, uuid.uuid4())
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("GRANT UPDATE ON audit_logs_0 TO PUBLIC")
    store = PostgresStore(granted("reader"))
    store.open()
    assert [(f.kind, f.name, f.detail) for f in store.check()] == [("grant", "audit_logs_0", "PUBLIC may UPDATE")]
    store.close()


def test_sqlite_has_no_roles(sqlite_url: str) -> None:
    """A file is protected by the file system."""
    engine: Any = create_engine(sqlite_url)
    with pytest.raises(ConfigurationError, match="no roles"):
        roles(engine)


def test_the_three_roles_differ(postgres_url: str) -> None:
    """One role for everything would be no protection."""
    engine = create_engine(urls.parse(postgres_url))
    with pytest.raises(ConfigurationError, match="three roles"):
        roles(engine, owner="a", app="a", reader="b")
