"""The statements that make the log in a SQLite file, and what has to be there afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Column, Table
from sqlalchemy.dialects.sqlite import dialect

from indelible.ports import Finding, Segment
from indelible.stores import guards
from indelible.stores.schema import COLUMNS, AuditLog, checkpoints, heads, rollups, segment_spans, segments, tiles

#: SQLite joins at most 500 SELECTs in a view.
VIEW_SEGMENTS: Final = 400
_DIALECT: Final = dialect()
#: STRICT tables know only these names.
_STRICT: Final = {"BIGINT": "INTEGER", "INTEGER": "INTEGER", "TEXT": "TEXT", "BLOB": "BLOB"}
_COLUMN_LIST: Final = ", ".join(f'"{c}"' for c in COLUMNS)


def _column(column: Column[Any]) -> str:
    kind = _STRICT[_DIALECT.type_compiler_instance.process(column.type)]
    alone = column.primary_key and column.table is not None and len(column.table.primary_key.columns) == 1
    constraint = " PRIMARY KEY" if alone else "" if column.nullable else " NOT NULL"
    return f'"{column.name}" {kind}{constraint}'


def _table(name: str, table: Table, check: str = "") -> str:
    columns = ", ".join(_column(c) for c in table.columns)
    keys = [f'"{c.name}"' for c in table.primary_key.columns]
    if len(keys) > 1:
        check = f", PRIMARY KEY ({', '.join(keys)}){check}"
    return f"CREATE TABLE {name} ({columns}{check}) STRICT"


def _indexes(table: Table, on: str, suffix: str = "") -> dict[str, str]:
    made: dict[str, str] = {}
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        columns = ", ".join(f'"{c.name}"' for c in index.columns)
        where = index.dialect_options["sqlite"]["where"]
        made[f"{index.name}{suffix}"] = (
            f"CREATE {'UNIQUE ' if index.unique else ''}INDEX {index.name}{suffix} ON {on} ({columns})"
            f"{f' WHERE {where}' if where is not None else ''}"
        )
    return made


def tables() -> dict[str, str]:
    """Name → statement: the tables that are not segments, their indexes and guards, and the view (of no segments)."""
    made: dict[str, str] = {}
    for table in (heads, tiles, checkpoints, segments, segment_spans, rollups):
        made[table.name] = _table(table.name, table)
        made |= _indexes(table, table.name)
    return made | guards.sqlite_table_guards() | view([])


def segment(number: int, first: int, end: int) -> dict[str, str]:
    """Name → statement: one segment with its indexes and guards."""
    name = f"audit_logs_{number}"
    table = AuditLog.__table__
    assert isinstance(table, Table)
    made = {name: _table(name, table, f", CHECK (seq >= {first} AND seq < {end})")}
    return made | _indexes(table, name, f"_{number}") | guards.sqlite_segment_guards(number)


def view(numbers: Sequence[int]) -> dict[str, str]:
    """Name → statement: ``audit_logs``, the newest 400 of these segments as one, for people and the ORM."""
    arms = [f"SELECT {_COLUMN_LIST} FROM audit_logs_{n}" for n in sorted(numbers, reverse=True)[:VIEW_SEGMENTS]]
    nothing = "SELECT " + ", ".join(f'NULL AS "{c}"' for c in COLUMNS) + " WHERE 0"
    return {"audit_logs": "CREATE VIEW audit_logs AS " + (" UNION ALL ".join(arms) or nothing)}


def drop(numbers: Sequence[int]) -> list[str]:
    """The statements that unmake ``tables`` and these segments; indexes and guards go with their tables."""
    names = (*(f"audit_logs_{n}" for n in numbers), *guards.APPEND_ONLY)
    return ["DROP VIEW audit_logs", *(f"DROP TABLE {name}" for name in names)]


def compare(stored: dict[str, str], known: Sequence[Segment]) -> list[Finding]:
    """What is missing or different: ``stored`` is name → SQL of ``sqlite_master``."""
    expected = tables() | view([s.number for s in known])
    for part in known:
        expected |= segment(part.number, part.first, part.end)
        if part.closed:
            expected |= guards.sqlite_closed_guard(part.number)
    findings: list[Finding] = []
    for name, sql in expected.items():
        if name not in stored:
            findings.append(Finding(_kind(name, sql), name, "is missing"))
        elif stored[name] != sql:
            findings.append(Finding(_kind(name, sql), name, "is not the one Indelible made"))
    return findings


def _kind(name: str, sql: str) -> str:
    if sql.startswith("CREATE TRIGGER"):
        return "guard"
    if sql.startswith(("CREATE INDEX", "CREATE UNIQUE")):
        return "index"
    return "segment" if name.removeprefix("audit_logs_").isdigit() else "table"
