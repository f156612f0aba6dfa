"""The log: heads, segments, the table or view ``audit_logs``, functions and guards."""

from __future__ import annotations

from alembic import op
from sqlalchemy import select

from indelible.migrations.steps import current_schema
from indelible.stores import postgres_schema, sqlite_schema
from indelible.stores.schema import segments

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    context = op.get_context()
    if context.dialect.name == "postgresql":
        statements = postgres_schema.tables(current_schema(context))
    else:
        statements = list(sqlite_schema.tables().values())
    for statement in statements:
        if context.as_sql:
            # Printed as it is: compiled, it would have every % twice, for a driver that is not there.
            context.impl.static_output(f"{statement};")
        else:
            op.execute(statement)


def downgrade() -> None:
    context = op.get_context()
    if context.dialect.name == "postgresql":
        statements = postgres_schema.drop(current_schema(context))
    else:
        rows = op.get_bind().execute(select(segments.c.number))
        statements = sqlite_schema.drop([number for (number,) in rows])
    for statement in statements:
        op.execute(statement)
