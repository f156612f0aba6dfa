"""Which version of the tables a database holds: read by the stores, written by the migrations."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from indelible.errors import ForeignTable, SchemaOutOfDate
from indelible.stores.faults import UPGRADE_HINT
from indelible.stores.schema import SCHEMA_VERSION

#: Alembic's version table, under a name of our own: the host's history has the usual one.
VERSION_TABLE: Final = "indelible_version"
# The catalogue says what is there whatever state it is in. SQLAlchemy's has_table() asks SQLite for the columns, and a
# view that has lost a table under it cannot say.
_THERE: Final = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = :name COLLATE NOCASE",
    "postgresql": (
        "SELECT 1 FROM pg_catalog.pg_class"
        " WHERE relname = :name AND relkind IN ('r', 'p', 'f', 'v', 'm') AND pg_catalog.pg_table_is_visible(oid)"
    ),
}


def is_there(connection: Connection, name: str) -> bool:
    """Whether a table or view of this name is in the database, in a state to be read or not."""
    return connection.execute(text(_THERE[connection.dialect.name]), {"name": name}).first() is not None


def installed(connection: Connection) -> str | None:
    """The version of the log's tables, or None where there are none.

    Raises ForeignTable when a table or view ``audit_logs`` is there that Indelible did not make.
    """
    # Looked for first: another process may be making the tables just now, and ours appear together with their version.
    log_is_there = is_there(connection, "audit_logs")
    if is_there(connection, VERSION_TABLE):
        version = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
        if version is not None:
            return str(version)
    if log_is_there:
        raise ForeignTable(
            "the database has a table audit_logs that Indelible did not make",
            hint="run: indelible db adopt (it renames the table to audit_logs_before and imports its rows)",
        )
    return None


def check_version(connection: Connection) -> None:
    """Raise SchemaOutOfDate unless the tables are of this library's version; ForeignTable as ``installed`` does."""
    version = installed(connection)
    if version is None:
        raise SchemaOutOfDate("the database has no audit log yet", hint=UPGRADE_HINT)
    if version != SCHEMA_VERSION:
        hint = UPGRADE_HINT if version < SCHEMA_VERSION else "upgrade the package indelible"
        raise SchemaOutOfDate(f"the audit log is of version {version}, this library of {SCHEMA_VERSION}", hint=hint)
