"""Taking over a table ``audit_logs`` that another program made: set aside, then imported into the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, Final
from uuid import uuid5

from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    Table,
    Text,
    cast,
    func,
    inspect,
    literal_column,
    select,
    text,
    type_coerce,
)
from sqlalchemy.types import NullType

from indelible.errors import ConfigurationError, ForeignTable
from indelible.events import AuditEvent
from indelible.migrations.imports import NAMESPACE, columns_of, event_of
from indelible.migrations.steps import exclusive, one_at_a_time, upgrade_connection
from indelible.redaction import Redactor
from indelible.stores.base import SegmentedStore
from indelible.stores.faults import translated
from indelible.stores.versions import installed

#: Where the old rows stay, untouched.
BEFORE: Final = "audit_logs_before"
#: The writer of every imported event; its position in the log says how far the import has come.
WRITER: Final = uuid5(NAMESPACE, "writer")
_BATCH: Final = 1_000


def adopt(
    engine: Engine, *, redactor: Redactor | None = None, progress: Callable[[int, int], None] | None = None
) -> int:
    """Rename a foreign ``audit_logs`` to ``audit_logs_before``, make the log, import the rows; return how many it holds.

    Rows become events with ``source = "import"`` and their own times, oldest first, redacted like new ones. An import
    that was cut short goes on where it stopped when this is called again; after a complete one it does nothing.
    ``progress(done, total)`` is called after every batch. The old table is left as it is: dropping it is up to its owner.

    Raises ConfigurationError when there is nothing to adopt, ForeignTable for a view ``audit_logs``.
    """
    with translated():
        with one_at_a_time, exclusive(engine) as connection:
            _set_aside(connection)
        return _import(engine, redactor or Redactor(), progress or (lambda _done, _total: None))


def _set_aside(connection: Connection) -> None:
    tables = inspect(connection).get_table_names()
    if BEFORE in tables:
        if installed(connection) is None:
            upgrade_connection(connection)
        return
    try:
        installed(connection)
    except ForeignTable:
        if "audit_logs" not in tables:
            raise
    else:
        raise ConfigurationError("there is no foreign table audit_logs to adopt", hint="run: indelible db upgrade")
    constraints_and_indexes = _names_in_the_way(connection)
    connection.execute(text(f"ALTER TABLE audit_logs RENAME TO {BEFORE}"))
    for name in constraints_and_indexes:
        quote = connection.dialect.identifier_preparer.quote_identifier
        connection.execute(text(f"ALTER INDEX {quote(name)} RENAME TO {quote(f'{name[:56]}_before')}"))
    upgrade_connection(connection)


def _names_in_the_way(connection: Connection) -> Sequence[str]:
    """Indexes keep their names when a table is renamed, and in PostgreSQL they are unique in a schema.

    SQLite's are unique in a file, but the segments' carry numbers, which the old table's would have to have.
    """
    if connection.dialect.name == "sqlite":
        return ()
    inspector = inspect(connection)
    names = [index["name"] for index in inspector.get_indexes("audit_logs")]
    names.append(inspector.get_pk_constraint("audit_logs")["name"])
    return [name for name in names if name is not None]


def _import(engine: Engine, redactor: Redactor, progress: Callable[[int, int], None]) -> int:
    store = _store(engine)
    store.open()
    try:
        done = store.position(WRITER)
        with engine.connect() as connection:
            total = connection.scalar(select(func.count()).select_from(text(BEFORE))) or 0
            with closing(_batches(connection, done, redactor)) as batches:
                for events in batches:
                    store.append(WRITER, done, events)
                    done += len(events)
                    progress(done, total)
        return done
    finally:
        store.close()


def _store(engine: Engine) -> SegmentedStore:
    url = engine.url.render_as_string(hide_password=False)
    if engine.dialect.name == "sqlite":
        from indelible.stores.sqlite import SqliteStore

        return SqliteStore(url)
    from indelible.stores.postgres import PostgresStore

    return PostgresStore(url)


def _batches(connection: Connection, skip: int, redactor: Redactor) -> Generator[list[AuditEvent], None, None]:
    """The rows after the first ``skip`` as events, in an order that is the same in every run."""
    on_sqlite = connection.dialect.name == "sqlite"
    if not on_sqlite:
        connection.execute(text("SET LOCAL timezone = 'UTC'"))
        connection.execute(text("SET LOCAL datestyle = 'ISO'"))
    table = Table(BEFORE, MetaData(), autoload_with=connection)
    keys = list(table.primary_key.columns)
    order: list[Any] = [*keys] or [literal_column("rowid" if on_sqlite else "ctid")]
    moment = columns_of(frozenset(table.columns.keys())).get("timestamp")
    if moment is not None:
        order.insert(0, table.c[moment])
    # As SQLite holds them and as PostgreSQL writes them: no value is beyond what a Python type can take.
    values = (type_coerce(c, NullType()) if on_sqlite else cast(c, Text) for c in table.columns)
    query = select(*(value.label(c.name) for c, value in zip(table.columns, values, strict=True)))
    adopted_at = time.time_ns() // 1000
    streaming = connection.execution_options(stream_results=True)
    with streaming.execute(query.order_by(*order).offset(skip)) as rows:
        for part in rows.mappings().partitions(_BATCH):
            yield [
                event_of(
                    row,
                    key=str(skip + place),
                    keeps_id=[c.name for c in keys] == ["id"],
                    adopted_at=adopted_at,
                    redactor=redactor,
                )
                for place, row in enumerate(part)
            ]
            skip += len(part)
