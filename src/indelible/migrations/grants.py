"""Three PostgreSQL roles: one owns the log, one writes it, one reads it; none but the owner could change its shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, Engine, text

from indelible.errors import ConfigurationError
from indelible.migrations.steps import exclusive
from indelible.stores.faults import translated
from indelible.stores.guards import APPEND_ONLY, POSTGRES_FUNCTIONS
from indelible.stores.schema import segments
from indelible.stores.versions import VERSION_TABLE, check_version

_ADVANCE: Final = "audit_advance(bigint, bigint)"


def roles(
    engine: Engine,
    *,
    owner: str = "indelible_owner",
    app: str = "indelible_app",
    reader: str = "indelible_reader",
) -> tuple[str, ...]:
    """Make the three roles where they are missing and give each exactly its rights; return the statements executed.

    ``owner`` cannot log in and owns tables and functions, ``app`` may INSERT, SELECT and have segments made, ``reader``
    may SELECT. New logins have no password: set it with ``ALTER ROLE ... PASSWORD``. Doing it twice is harmless. The
    connection has to be a superuser's, or one's that may create roles and owns the tables. Raises ConfigurationError on
    SQLite, SchemaOutOfDate without the log's tables.
    """
    if engine.dialect.name != "postgresql":
        raise ConfigurationError("SQLite has no roles", hint="protect the file with the file system's rights")
    if len({owner, app, reader}) < 3:
        raise ConfigurationError("owner, application and reader have to be three roles")
    with translated(), exclusive(engine) as connection:
        check_version(connection)
        statements = tuple(_statements(connection, owner, app, reader))
        for statement in statements:
            connection.execute(text(statement.replace(":", r"\:")))
    return statements


def _statements(connection: Connection, owner: str, app: str, reader: str) -> Iterator[str]:
    quote = connection.dialect.identifier_preparer.quote_identifier
    schema_name = connection.scalar(text("SELECT current_schema()"))
    schema = quote(str(schema_name))
    present = set(connection.scalars(text("SELECT rolname FROM pg_roles")))
    for name, login in ((owner, "NOLOGIN"), (app, "LOGIN"), (reader, "LOGIN")):
        if name not in present:
            yield f"CREATE ROLE {quote(name)} {login}"
    if not connection.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")):
        # Only a member of a role may hand it something.
        yield f"GRANT {quote(owner)} TO CURRENT_USER"
    numbers = connection.scalars(segments.select().with_only_columns(segments.c.number)).all()
    log = ["audit_logs", *(f"audit_logs_{n}" for n in numbers)]
    tables = [*log, *APPEND_ONLY, VERSION_TABLE]
    functions = [*(f"{name}()" for name in POSTGRES_FUNCTIONS), _ADVANCE]
    # The owner makes segments, whoever asks for them.
    yield f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {quote(owner)}"
    yield from (f"ALTER TABLE {schema}.{table} OWNER TO {quote(owner)}" for table in tables)
    yield from (f"ALTER FUNCTION {schema}.{function} OWNER TO {quote(owner)}" for function in functions)
    both = f"{quote(app)}, {quote(reader)}"
    yield f"GRANT USAGE ON SCHEMA {schema} TO {both}"
    for table in tables:
        yield f"REVOKE ALL ON {schema}.{table} FROM PUBLIC, {both}"
        yield f"GRANT SELECT ON {schema}.{table} TO {both}"
    # Into the parent only: its partitions are reached through it.
    written = ", ".join(
        f"{schema}.{name}"
        for name in ("audit_logs", "audit_heads", "audit_tiles", "audit_checkpoints", "audit_rollups")
    )
    yield f"GRANT INSERT ON {written} TO {quote(app)}"
    yield f"REVOKE ALL ON FUNCTION {schema}.{_ADVANCE} FROM PUBLIC, {quote(reader)}"
    yield f"GRANT EXECUTE ON FUNCTION {schema}.{_ADVANCE} TO {quote(app)}"
