"""Alembic's environment: the backend's tables and the audit log in one history."""

from __future__ import annotations

from logging.config import fileConfig

from alembic import context
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from backend.server.database import get_engine
from backend.server.models import Base
from indelible.migrations import autogenerate_options

config = context.config


def run(connection: Connection) -> None:
    """Run what was asked for in one transaction; SQLite can undo DDL as well as PostgreSQL can."""
    if getattr(config.cmd_opts, "autogenerate", False):
        catch_up(connection)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=True,
        render_as_batch=connection.dialect.name == "sqlite",
        **autogenerate_options(),
    )
    with context.begin_transaction():
        context.run_migrations()


def catch_up(connection: Connection) -> None:
    """Give a database that has no revision yet all of them: autogenerate compares with the newest, and refuses less."""
    script = context.script
    migration = MigrationContext.configure(
        connection, opts={"fn": lambda was, _: script._upgrade_revs("heads", was), "transactional_ddl": True}
    )
    with migration.begin_transaction(), Operations.context(migration):
        if not migration.get_current_heads():
            migration.run_migrations()


if context.is_offline_mode():
    raise SystemExit("The audit log's guards depend on what is in the database: --sql is not offered.")
if (given := config.attributes.get("connection")) is not None:
    run(given)
else:
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    with get_engine().execution_options(writes=True).connect() as connection:
        run(connection)
