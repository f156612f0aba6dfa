"""For the host's ``env.py``: autogenerate renders our migration and leaves our tables alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import MigrateOperation, UpgradeOps

from indelible.stores.schema import SCHEMA_VERSION, metadata
from indelible.stores.versions import VERSION_TABLE, installed

#: Segments, partitions, and the table that ``adopt`` set aside.
_NUMBERED: Final = re.compile(r"audit_logs_(\d+|before)\Z")
#: The name of our own option in ``context.configure``: without it, importing this package changes no host's autogenerate.
_OPTION: Final = "indelible_autogenerate"

NameFilter = Callable[[str | None, str, Any], bool]
ObjectFilter = Callable[[Any, str | None, str, bool, Any], bool]


def is_ours(table: str | None) -> bool:
    """Whether a table of this name belongs to the log."""
    if table is None:
        return False
    return table in metadata.tables or table == VERSION_TABLE or _NUMBERED.match(table) is not None


def autogenerate_options(
    *, include_name: NameFilter | None = None, include_object: ObjectFilter | None = None
) -> dict[str, Any]:
    """Arguments for ``context.configure(...)`` in the host's ``env.py``.

    With them ``alembic revision --autogenerate`` renders ``indelible.migrations.upgrade(op)`` where it would have created
    ``audit_logs``, and never proposes anything for the log's own tables. A host's own filters are given to this function
    instead of ``configure``; they are asked about everything that is not the log's.
    """

    def name(name: str | None, kind: str, parents: Any) -> bool:
        if kind == "table" and parents.get("schema_name") is None and is_ours(name):
            return False
        return include_name is None or include_name(name, kind, parents)

    def object_(item: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
        if kind == "table" and getattr(item, "schema", None) is None and is_ours(name):
            return False
        return include_object is None or include_object(item, name, kind, reflected, compare_to)

    return {"include_name": name, "include_object": object_, _OPTION: True}


class UpgradeLog(MigrateOperation):
    """``indelible.migrations.upgrade(op)`` in a generated revision."""

    def reverse(self) -> DowngradeLog:
        return DowngradeLog()

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("upgrade_audit_log", SCHEMA_VERSION)


class DowngradeLog(MigrateOperation):
    """``indelible.migrations.downgrade(op)`` in a generated revision."""

    def reverse(self) -> UpgradeLog:
        return UpgradeLog()

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("downgrade_audit_log", SCHEMA_VERSION)


@comparators.dispatch_for("schema")
def _compare(context: AutogenContext, operations: UpgradeOps, _schemas: Any) -> None:
    if not context.opts.get(_OPTION) or context.connection is None:
        return
    # Alembic autogenerates only on a database that has every earlier revision, so one that made the log shows here.
    if installed(context.connection) != SCHEMA_VERSION:
        operations.ops.append(UpgradeLog())


@renderers.dispatch_for(UpgradeLog)
def _render_upgrade(context: AutogenContext, _operation: UpgradeLog) -> str:
    context.imports.add("import indelible.migrations")
    return "indelible.migrations.upgrade(op)"


@renderers.dispatch_for(DowngradeLog)
def _render_downgrade(context: AutogenContext, _operation: DowngradeLog) -> str:
    context.imports.add("import indelible.migrations")
    return "indelible.migrations.downgrade(op)"
