"""The statements that make the log in PostgreSQL, and what has to be there afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, text
from sqlalchemy.dialects.postgresql import dialect

from indelible.ports import Finding, Segment
from indelible.stores import guards
from indelible.stores.schema import AuditLog, checkpoints, heads, rollups, segment_spans, segments, tiles

#: First half of every advisory lock's key; the second is the oid of ``audit_heads``, so each log has a lock of its own.
LOCK_CLASS: Final = 0x1DE11B1E
#: Takes the log's lock until the transaction ends.
LOCK: Final = f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, 'audit_heads'::regclass::oid::integer)"
_DIALECT: Final = dialect()  # type: ignore[no-untyped-call]
#: Unique within a segment only, so it stands on the partitions and not on the parent.
_PER_SEGMENT: Final = "idx_audit_id"


def _column(column: Column[Any]) -> str:
    kind = _DIALECT.type_compiler_instance.process(column.type)
    return f'"{column.name}" {kind}{"" if column.nullable else " NOT NULL"}'


def _table(table: Table, schema: str, tail: str = "") -> str:
    columns = ", ".join(_column(c) for c in table.columns)
    keys = ", ".join(f'"{c.name}"' for c in table.primary_key.columns)
    return f"CREATE TABLE {schema}.{table.name} ({columns}, PRIMARY KEY ({keys})){tail}"


def _indexes(table: Table) -> Iterator[tuple[str, bool, str]]:
    """(name, unique, columns and condition) of each index."""
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        where = index.dialect_options["postgresql"]["where"]
        columns = ", ".join(f'"{c.name}"' for c in index.columns)
        yield str(index.name), bool(index.unique), f"({columns}){f' WHERE {where}' if where is not None else ''}"


def _log() -> Table:
    table = AuditLog.__table__
    assert isinstance(table, Table)
    return table


def advance_function(schema: str) -> str:
    """The body of ``audit_advance(need, segment_rows)``, which makes and closes segments for a role that may not.

    It makes segments until they reach ``need`` rows and records the time spans of those that are full. The size of
    segment 0 is the caller's; all later ones take it over. ``schema`` is quoted.
    """
    indexes = "\n".join(
        f"        EXECUTE format('CREATE {'UNIQUE ' if unique else ''}INDEX {name}_%s ON {schema}.%I {rest}',"
        f" number, part);".replace(" WHERE status <> 'success'", " WHERE status <> ''success''")
        for name, unique, rest in _indexes(_log())
    )
    return f"""
DECLARE
    number bigint;
    start bigint;
    height bigint;
    reach bigint;
    part text;
    reader oid;
BEGIN
    PERFORM pg_advisory_xact_lock({LOCK_CLASS}, '{schema}.audit_heads'::regclass::oid::integer);
    SELECT coalesce(max(h.size), 0) INTO height FROM {schema}.audit_heads h;
    SELECT s.number, s.first_seq, s.end_seq INTO number, start, reach
        FROM {schema}.audit_segments s ORDER BY s.number DESC LIMIT 1;
    IF FOUND THEN
        segment_rows := reach - start;
    ELSE
        number := -1;
        reach := 0;
        IF segment_rows NOT BETWEEN 256 AND 16777216 THEN
            RAISE EXCEPTION 'a segment cannot hold % rows', segment_rows USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END IF;
    IF need > height + greatest(2 * segment_rows, 131072) THEN
        RAISE EXCEPTION 'row % is too far ahead of the log', need USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WHILE reach < need LOOP
        number := number + 1;
        start := reach;
        reach := start + segment_rows;
        part := format('audit_logs_%s', number);
        EXECUTE format('CREATE TABLE {schema}.%I (LIKE {schema}.audit_logs INCLUDING DEFAULTS INCLUDING STORAGE,'
            ' PRIMARY KEY (seq), CONSTRAINT audit_segment_rows CHECK (seq >= %s AND seq < %s))', part, start, reach);
{indexes}
        EXECUTE format('ALTER TABLE {schema}.audit_logs ATTACH PARTITION {schema}.%I FOR VALUES FROM (%s) TO (%s)',
            part, start, reach);
        EXECUTE format('CREATE TRIGGER {guards.TRUNCATE_GUARD} BEFORE TRUNCATE ON {schema}.%I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION {schema}.audit_refuse()', part);
        EXECUTE format('ALTER TABLE {schema}.%I ENABLE ALWAYS TRIGGER {guards.TRUNCATE_GUARD}', part);
        FOR reader IN
            SELECT DISTINCT a.grantee FROM pg_class c, aclexplode(c.relacl) a
            WHERE c.oid = '{schema}.audit_logs'::regclass AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner
        LOOP
            EXECUTE format('GRANT SELECT ON {schema}.%I TO %s', part,
                CASE WHEN reader = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(reader)) END);
        END LOOP;
        INSERT INTO {schema}.audit_segments (number, first_seq, end_seq) VALUES (number, start, reach);
    END LOOP;
    FOR number IN
        SELECT s.number FROM {schema}.audit_segments s WHERE s.end_seq <= height
        AND NOT EXISTS (SELECT FROM {schema}.audit_segment_spans p WHERE p.number = s.number)
    LOOP
        EXECUTE format('INSERT INTO {schema}.audit_segment_spans'
            ' SELECT %s, min("timestamp"), max("timestamp") FROM {schema}.%I', number, format('audit_logs_%s', number));
    END LOOP;
    RETURN reach;
END
"""


def tables(schema: str) -> list[str]:
    """The statements, in order, that make everything but the first segment. ``schema`` is quoted."""
    log = _log()
    made = [
        *(_table(table, schema) for table in (heads, tiles, checkpoints, segments, segment_spans, rollups)),
        _table(log, schema, " PARTITION BY RANGE (seq)"),
    ]
    for table in (heads, log):
        made += [
            f"CREATE INDEX {n} ON {schema}.{table.name} {rest}" for n, _, rest in _indexes(table) if n != _PER_SEGMENT
        ]
    return [
        *made,
        *guards.postgres_functions(schema),
        *guards.postgres_table_guards(schema),
        (
            f"CREATE FUNCTION {schema}.audit_advance(need bigint, segment_rows bigint) RETURNS bigint LANGUAGE plpgsql"
            f" SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body${advance_function(schema)}$body$"
        ),
        f"REVOKE ALL ON FUNCTION {schema}.audit_advance(bigint, bigint) FROM PUBLIC",
    ]


def drop(schema: str) -> list[str]:
    """The statements that unmake ``tables``."""
    functions = (*guards.POSTGRES_FUNCTIONS, "audit_advance")
    names = ("audit_logs", *guards.APPEND_ONLY)
    return [
        *(f"DROP TABLE {schema}.{name}" for name in names),
        *(f"DROP FUNCTION {schema}.{name}" for name in functions),
    ]


def compare(connection: Connection, schema: str, known: list[Segment]) -> list[Finding]:
    """What is missing, disabled, changed or granted too widely. ``schema`` is not quoted."""
    quoted = _DIALECT.identifier_preparer.quote_identifier(schema)
    parts = [f"audit_logs_{s.number}" for s in known]
    return [
        *_tables(connection, schema, parts),
        *_index_findings(connection, schema, known),
        *_triggers(connection, schema, parts),
        *_functions(connection, schema, quoted),
        *_grants(connection, schema),
    ]


def _tables(connection: Connection, schema: str, parts: list[str]) -> Iterator[Finding]:
    present = set(
        connection.scalars(
            text("SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(:s) AND relkind IN ('r', 'p')"),
            {"s": f'"{schema}"'},
        )
    )
    attached = set(
        connection.scalars(
            text(
                "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
                " JOIN pg_class p ON p.oid = i.inhparent"
                " WHERE p.relname = 'audit_logs' AND p.relnamespace = to_regnamespace(:s)"
            ),
            {"s": f'"{schema}"'},
        )
    )
    for name in ("audit_logs", *guards.APPEND_ONLY):
        if name not in present:
            yield Finding("table", name, "is missing")
    for part in parts:
        if part not in present:
            yield Finding("segment", part, "is missing")
        elif part not in attached:
            yield Finding("segment", part, "is not attached to audit_logs")


def _index_findings(connection: Connection, schema: str, known: list[Segment]) -> Iterator[Finding]:
    valid = {
        row.relname: row.indisvalid
        for row in connection.execute(
            text(
                "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
                " WHERE c.relnamespace = to_regnamespace(:s)"
            ),
            {"s": f'"{schema}"'},
        )
    }
    names = [n for n, _, _ in _indexes(heads)]
    names += [n for n, _, _ in _indexes(_log()) if n != _PER_SEGMENT]
    names += [f"{n}_{s.number}" for s in known for n, _, _ in _indexes(_log())]
    for name in names:
        if name not in valid:
            yield Finding("index", name, "is missing")
        elif not valid[name]:
            yield Finding("index", name, "is not valid")


def _triggers(connection: Connection, schema: str, parts: list[str]) -> Iterator[Finding]:
    rows = connection.execute(
        text(
            "SELECT c.relname, t.tgname, t.tgenabled, p.proname, t.tgqual IS NULL AS plain, t.tgtype"
            " FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid"
            " WHERE c.relnamespace = to_regnamespace(:s)"
        ),
        {"s": f'"{schema}"'},
    )
    # As the driver gives it, "char" is bytes or str.
    found = {(r.relname, r.tgname): (_char(r.tgenabled), r.proname, r.plain, r.tgtype) for r in rows}
    # pg_trigger.tgtype: ROW 1, BEFORE 2, DELETE 8, UPDATE 16, TRUNCATE 32.
    for table in ("audit_logs", *parts, *guards.APPEND_ONLY):
        on_update = "audit_refuse" if table in guards.APPEND_ONLY else "audit_erasure_only"
        for name, function, kind in (
            (guards.ROW_GUARDS[0], "audit_refuse", 1 + 2 + 8),
            (guards.ROW_GUARDS[1], on_update, 1 + 2 + 16),
            (guards.TRUNCATE_GUARD, "audit_refuse", 2 + 32),
        ):
            state = found.get((table, name))
            if state is None:
                yield Finding("guard", f"{table}.{name}", "is missing")
            elif state[0] != "A":
                yield Finding("guard", f"{table}.{name}", "is not enabled for every session (ENABLE ALWAYS)")
            elif state[1:] != (function, True, kind):
                yield Finding("guard", f"{table}.{name}", "is not the one Indelible made")


def _functions(connection: Connection, schema: str, quoted: str) -> Iterator[Finding]:
    rows = connection.execute(
        text("SELECT proname, prosrc, prosecdef, proconfig FROM pg_proc WHERE pronamespace = to_regnamespace(:s)"),
        {"s": f'"{schema}"'},
    )
    found = {r.proname: (r.prosrc, r.prosecdef, r.proconfig) for r in rows}
    for name, body in {**guards.POSTGRES_FUNCTIONS, "audit_advance": advance_function(quoted)}.items():
        if name not in found:
            yield Finding("guard", f"{name}()", "is missing")
        elif found[name] != (body, name == "audit_advance", ["search_path=pg_catalog, pg_temp"]):
            yield Finding("guard", f"{name}()", "is not the one Indelible made")


def _grants(connection: Connection, schema: str) -> Iterator[Finding]:
    rows = connection.execute(
        text(
            "SELECT c.relname, a.privilege_type, coalesce(r.rolname, 'PUBLIC') AS grantee"
            " FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee"
            " WHERE c.relnamespace = to_regnamespace(:s) AND c.relkind IN ('r', 'p') AND a.grantee <> c.relowner"
            " AND (c.relname ~ '^audit_logs(_[0-9]+)?$' OR c.relname = ANY(:names))"
            " AND a.privilege_type NOT IN ('SELECT', 'INSERT')"
        ),
        {"s": f'"{schema}"', "names": list(guards.APPEND_ONLY)},
    )
    for row in rows:
        yield Finding("grant", row.relname, f"{row.grantee} may {row.privilege_type}")


def _char(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
