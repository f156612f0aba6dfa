"""Making the log's tables: in a transaction of our own, or inside a revision of the host's."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, func, select, text

from indelible.errors import Protected, SchemaOutOfDate
from indelible.stores.faults import translated
from indelible.stores.schema import heads
from indelible.stores.versions import VERSION_TABLE, installed
from indelible.stores.wal import use_wal

#: Alembic keeps its context in module globals: one migration at a time in a process.
one_at_a_time: Final = threading.Lock()
#: The advisory lock under which PostgreSQL's tables are made; any constant that others do not use.
_LOCK: Final = 0x1DE11B1E_00000001
_version: Final = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def current_schema(context: MigrationContext) -> str:
    """The schema, quoted, into which this context's statements make tables; ``public`` where there is no connection."""
    name = "public" if context.as_sql else _bind(context).scalar(select(func.current_schema()))
    return context.dialect.identifier_preparer.quote_identifier(str(name))


def current(engine: Engine) -> str | None:
    """The version of the log's tables in this database; None where there are none. Raises ForeignTable."""
    with translated(), engine.connect() as connection:
        return installed(connection)


def upgrade_engine(engine: Engine) -> None:
    """Make or upgrade the log's tables in this database, in one transaction.

    Twice is a no-op; several processes may call it at once. Raises ForeignTable for a table ``audit_logs`` that
    Indelible did not make, SchemaOutOfDate for tables of a newer version, StoreUnavailable when the database is away.
    """
    with one_at_a_time, translated(), exclusive(engine) as connection:
        upgrade_connection(connection)


def upgrade_connection(connection: Connection) -> None:
    """The same on a connection whose transaction the caller commits. Not for two threads at once."""
    was = installed(connection)
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaOutOfDate(
            f"the audit log is of version {was}, which this library does not know", hint="upgrade the package indelible"
        ) from error


@contextmanager
def exclusive(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that no other migration of the log shares, committed at the end."""
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            yield connection
        return
    # The driver begins transactions by itself, but not before DDL: so we begin, and it must not.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # A property of the file: whoever makes the tables sets it, readers find it.
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        use_wal(driver)
        connection.execute(text("BEGIN IMMEDIATE"))
        try:
            yield connection
        except BaseException:
            connection.execute(text("ROLLBACK"))
            raise
        connection.execute(text("COMMIT"))


def upgrade(op: Operations | ModuleType) -> None:
    """Make or upgrade the log's tables inside a revision of the host's own Alembic history.

    ``op`` is ``alembic.op``. Tables that are up to date already are left alone. Raises ForeignTable for a table
    ``audit_logs`` that Indelible did not make.
    """
    context: MigrationContext = op.get_context()
    version = None if context.as_sql else installed(_bind(context))
    scripts = ScriptDirectory.from_config(_config())
    pending = list(scripts.iterate_revisions("head", version or "base"))
    for script in reversed(pending):
        script.module.upgrade()
    if pending:
        if version is None:
            op.execute(f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        else:
            op.execute(_version.delete())
        op.execute(_version.insert().values(version_num=op.inline_literal(pending[0].revision)))


def downgrade(op: Operations | ModuleType) -> None:
    """Take the log's tables away inside a revision of the host's own history. Without tables it does nothing.

    Raises Protected while the log holds rows: a log that can be downgraded away is not append-only.
    """
    context: MigrationContext = op.get_context()
    if context.as_sql:
        raise Protected("the log's tables are not dropped by a script", hint="downgrade with a connection")
    bind = _bind(context)
    version = installed(bind)
    if version is None:
        return
    if holds_rows(bind):
        raise Protected(
            "the audit log holds rows; a downgrade would delete them",
            hint="archive the log first, or drop its tables yourself, as their owner",
        )
    scripts = ScriptDirectory.from_config(_config())
    for script in scripts.iterate_revisions(version, "base"):
        script.module.downgrade()
    op.execute(f"DROP TABLE {VERSION_TABLE}")


def holds_rows(connection: Connection) -> bool:
    """Whether anything was ever appended: a head, or a row in the log without one."""
    if connection.scalar(select(heads.c.size).limit(1)) is not None:
        return True
    return connection.scalar(text("SELECT seq FROM audit_logs LIMIT 1")) is not None


def _bind(context: MigrationContext) -> Connection:
    assert context.connection is not None
    return context.connection
