"""What Alembic runs for the log's own history: on the connection that ``upgrade_engine`` hands over."""

from __future__ import annotations

from alembic import context

from indelible.stores.versions import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
