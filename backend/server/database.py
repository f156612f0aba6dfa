"""The backend's own database: one engine per process, sessions that read and sessions that write.

The drivers are the synchronous ones the audit log uses as well, so one URL serves both; handlers that touch the
database are plain functions and FastAPI runs them in its thread pool.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.orm import Session

from .settings import HOME, SettingsError, get_settings

_DRIVERS: Final = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_BUSY_SECONDS: Final = 15.0
_engine: Engine | None = None


def engine_url(url: str) -> URL:
    """``url`` with the synchronous driver of its engine: ``postgresql+asyncpg://`` and the like are understood."""
    parsed = make_url(url)
    family = parsed.drivername.partition("+")[0]
    if family not in _DRIVERS:
        raise SettingsError(f"DATABASE_URL names {family!r}; this backend runs on sqlite and postgresql")
    query = dict(parsed.query)
    if "ssl" in query:
        query["sslmode"] = query.pop("ssl")  # asyncpg's name for it
    return parsed.set(drivername=_DRIVERS[family], query=query)


def make_engine(url: str) -> Engine:
    """A new engine, set up so that concurrent writers wait for each other instead of failing."""
    target = engine_url(url)
    if target.get_backend_name() != "sqlite":
        return create_engine(target, pool_pre_ping=True, pool_size=10, max_overflow=30)
    engine = create_engine(target, connect_args={"timeout": _BUSY_SECONDS}, pool_size=10, max_overflow=30)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: _begin does, and says which kind.
        connection.isolation_level = None
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            # Another worker is changing the mode, and SQLite does not wait here; it does where a transaction begins.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes later cannot wait for another writer (SQLITE_BUSY at once),
        # so the ones that will write take the lock at their start.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def get_engine() -> Engine:
    """The process's engine for DATABASE_URL, made at the first call."""
    global _engine
    if _engine is None:
        _engine = make_engine(get_settings().database_url)
    return _engine


@contextmanager
def reading() -> Iterator[Session]:
    """A short session for queries. What it loaded stays usable after it has ended."""
    with Session(get_engine(), expire_on_commit=False) as session:
        yield session


@contextmanager
def writing() -> Iterator[Session]:
    """A transaction: committed when the block ends, rolled back when it raises."""
    engine = get_engine().execution_options(writes=True)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


async def init_db() -> None:
    """Check the settings, connect, and see to the tables.

    A SQLite file is brought to the newest revision here. On PostgreSQL that is a decision, taken with
    ``alembic upgrade head``: an older schema raises SettingsError.
    """
    get_settings().signing_key()
    await asyncio.to_thread(migrate)


async def close_db() -> None:
    """Give every connection back."""
    global _engine
    if _engine is not None:
        _engine.dispose()
        _engine = None


def alembic_config() -> Config:
    """The configuration of ``backend/alembic``."""
    return Config(HOME / "alembic.ini")


def migrate() -> None:
    """Bring a SQLite database to head, in one transaction so that two workers may start at once; check any other."""
    config = alembic_config()
    engine = get_engine().execution_options(writes=True)
    with engine.begin() as connection:
        heads = set(ScriptDirectory.from_config(config).get_heads())
        if set(MigrationContext.configure(connection).get_current_heads()) == heads:
            return
        if engine.dialect.name != "sqlite":
            raise SettingsError("the database is not at the newest revision; run: cd backend && alembic upgrade head")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
