"""The guards: triggers by which the database itself refuses to change or delete what is in the log.

One UPDATE passes: an erasure, which empties a whole group of personal columns together with its salt and puts the
group's digest in their place. On SQLite every segment has its own triggers; on PostgreSQL the row triggers of the parent
reach every partition, but a TRUNCATE of a partition fires only triggers of that partition, so each has one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from indelible.events import ACTOR, DETAILS
from indelible.stores.faults import GUARD_MESSAGE
from indelible.stores.schema import COLUMNS

#: Tables that are only ever inserted into, with their key.
APPEND_ONLY: Final = {
    "audit_heads": ("size",),
    "audit_tiles": ("level", "number"),
    "audit_checkpoints": ("size",),
    "audit_segments": ("number",),
    "audit_segment_spans": ("number",),
    "audit_rollups": ("level", "number"),
}
#: Row triggers of the parent and of every partition, and of the tables above (there without the erasure).
ROW_GUARDS: Final = ("audit_guard_delete", "audit_guard_update")
TRUNCATE_GUARD: Final = "audit_guard_truncate"
_GROUPS: Final = {"actor": ACTOR, "details": DETAILS}
_CLEAR: Final = tuple(c for c in COLUMNS if c not in {*ACTOR, *DETAILS} and not c.endswith(("_salt", "_digest")))


def _only_an_erasure(same: str, cast: str = "") -> str:
    """The SQL condition on OLD and NEW that holds for an erasure and for nothing else.

    ``same`` is the engine's NULL-safe equality; ``cast`` makes any column comparable.
    """

    def kept(columns: Iterable[str]) -> str:
        return " AND ".join(f'NEW."{c}"{cast} {same} OLD."{c}"{cast}' for c in columns)

    def erased(group: str) -> str:
        gone = " AND ".join(f'NEW."{c}" IS NULL' for c in (*_GROUPS[group], f"{group}_salt"))
        digest = f'"{group}_digest"'
        return f"{gone} AND OLD.{digest} IS NULL AND NEW.{digest} IS NOT NULL AND length(NEW.{digest}) = 32"

    def either(group: str) -> str:
        whole = (*_GROUPS[group], f"{group}_salt", f"{group}_digest")
        return f"(({kept(whole)}) OR ({erased(group)}))"

    some = " OR ".join(f"({erased(group)})" for group in _GROUPS)
    return f"{kept(_CLEAR)} AND {' AND '.join(either(group) for group in _GROUPS)} AND ({some})"


def _sqlite_trigger(name: str, event: str, table: str, refusal: str, when: str = "") -> str:
    condition = f" WHEN {when}" if when else ""
    # An insert that could end in ABORT makes SQLite journal every page it touches once more, to undo the one statement:
    # that costs as much as the insert itself. ROLLBACK costs nothing.
    undo = "ROLLBACK" if event == "INSERT" else "ABORT"
    return (
        f"CREATE TRIGGER {name} BEFORE {event} ON {table}{condition}"
        f" BEGIN SELECT RAISE({undo}, '{GUARD_MESSAGE}{refusal}'); END"
    )


def sqlite_segment_guards(number: int) -> dict[str, str]:
    """Name → statement: what every segment has from the start.

    The insert guards are there because ``INSERT OR REPLACE`` deletes the row in its way without firing delete triggers.
    """
    table = f"audit_logs_{number}"
    taken = f"EXISTS (SELECT 1 FROM {table} WHERE {{0}} = NEW.{{0}})"
    guards = {
        f"audit_guard_delete_{number}": ("DELETE", "DELETE is refused: the log is append-only", ""),
        f"audit_guard_update_{number}": (
            "UPDATE",
            "UPDATE is refused: the log is append-only",
            f"NOT ({_only_an_erasure('IS')})",
        ),
        f"audit_guard_seq_{number}": ("INSERT", "this seq is taken", taken.format("seq")),
        f"audit_guard_id_{number}": ("INSERT", "this id is in the log twice", taken.format("id")),
    }
    return {name: _sqlite_trigger(name, event, table, why, when) for name, (event, why, when) in guards.items()}


def sqlite_closed_guard(number: int) -> dict[str, str]:
    """Name → statement: what a segment gets besides when it is full."""
    name = f"audit_guard_closed_{number}"
    refusal = f"INSERT is refused: segment {number} is closed"
    return {name: _sqlite_trigger(name, "INSERT", f"audit_logs_{number}", refusal)}


def sqlite_table_guards() -> dict[str, str]:
    """Name → statement: the guards of the tables that are not segments."""
    made: dict[str, str] = {}
    for table, key in APPEND_ONLY.items():
        for event in ("DELETE", "UPDATE"):
            name = f"audit_guard_{event.lower()}_{table}"
            made[name] = _sqlite_trigger(name, event, table, f"{event} is refused: {table} is append-only")
        name = f"audit_guard_insert_{table}"
        same = " AND ".join(f"{column} = NEW.{column}" for column in key)
        taken = f"EXISTS (SELECT 1 FROM {table} WHERE {same})"
        made[name] = _sqlite_trigger(name, "INSERT", table, f"this {' and '.join(key)} is taken in {table}", taken)
    return made


_REFUSE: Final = f"""
BEGIN
    RAISE EXCEPTION '{GUARD_MESSAGE}% on % is refused: the log is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
"""
_ERASURE: Final = f"""
BEGIN
    IF {_only_an_erasure("IS NOT DISTINCT FROM", "::text")} THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '{GUARD_MESSAGE}UPDATE on % is refused: the log is append-only', TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
"""
#: Name → body of the functions that the triggers call, exactly as ``pg_proc.prosrc`` gives it back.
POSTGRES_FUNCTIONS: Final = {"audit_refuse": _REFUSE, "audit_erasure_only": _ERASURE}


def postgres_functions(schema: str) -> list[str]:
    """The statements that make the trigger functions in a schema (quoted)."""
    return [
        f"CREATE FUNCTION {schema}.{name}() RETURNS trigger LANGUAGE plpgsql"
        f" SET search_path = pg_catalog, pg_temp AS $body${body}$body$"
        for name, body in POSTGRES_FUNCTIONS.items()
    ]


def postgres_table_guards(schema: str) -> list[str]:
    """The statements that guard the parent and the tables beside it; the parent's row triggers reach every partition."""
    made: list[str] = []
    for table in ("audit_logs", *APPEND_ONLY):
        on_update = "audit_erasure_only" if table == "audit_logs" else "audit_refuse"
        for name, event, level, function in (
            (ROW_GUARDS[0], "DELETE", "ROW", "audit_refuse"),
            (ROW_GUARDS[1], "UPDATE", "ROW", on_update),
            (TRUNCATE_GUARD, "TRUNCATE", "STATEMENT", "audit_refuse"),
        ):
            made += [
                (
                    f"CREATE TRIGGER {name} BEFORE {event} ON {schema}.{table}"
                    f" FOR EACH {level} EXECUTE FUNCTION {schema}.{function}()"
                ),
                # ALWAYS: they fire under session_replication_role = replica, too.
                f"ALTER TABLE {schema}.{table} ENABLE ALWAYS TRIGGER {name}",
            ]
    return made
