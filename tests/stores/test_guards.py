"""The guards: the database refuses every change, whoever asks and by whatever statement; an erasure alone passes."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from indelible.errors import Protected
from indelible.events import ACTOR, DETAILS, AuditEvent
from indelible.stores.base import SegmentedStore
from indelible.stores.faults import translate
from indelible.stores.guards import APPEND_ONLY
from indelible.stores.schema import COLUMNS

Make = Callable[..., AuditEvent]
Raw = Callable[..., list[Any]]
REFUSED = (sqlite3.Error, psycopg.Error)
GROUPS = {"actor": ACTOR, "details": DETAILS}


@pytest.fixture
def filled(make_store: Callable[..., SegmentedStore], event: Make) -> SegmentedStore:
    """A log of 300 rows in a closed and an open segment, every column of the groups filled."""
    store = make_store(segment_rows=256)
    texts: dict[str, Any] = dict.fromkeys((*ACTOR, *DETAILS), "1")
    store.append(uuid.uuid4(), 0, [event(**texts) for _ in range(300)])
    return store


@pytest.fixture
def dump(raw: Raw) -> Callable[[], list[list[Any]]]:
    """Everything in the log, to be compared with what was there before."""
    tables = ("audit_logs", "audit_heads", "audit_segments", "audit_segment_spans")
    return lambda: [sorted(map(str, raw(f"SELECT * FROM {table}"))) for table in tables]


def _tables(is_sqlite: bool) -> list[str]:
    log = ["audit_logs_0", "audit_logs_1", "audit_heads", "audit_segments", "audit_segment_spans"]
    # On SQLite it is a view, which refuses by itself.
    return ["audit_logs", *log]


def test_no_statement_changes_or_deletes(
    filled: SegmentedStore, raw: Raw, is_sqlite: bool, dump: Callable[[], Any]
) -> None:
    """UPDATE (even one that changes nothing), DELETE and TRUNCATE, on the whole and on every part."""
    before = dump()
    for table in _tables(is_sqlite):
        column = {"audit_heads": "size", "audit_segments": "number", "audit_segment_spans": "number"}.get(table, "seq")
        statements = [f"UPDATE {table} SET {column} = {column} + 1000000", f"UPDATE {table} SET {column} = {column}"]
        statements += [f"DELETE FROM {table}", f"DELETE FROM {table} WHERE {column} = 0 OR {column} > 0"]
        if not is_sqlite:
            statements += [f"TRUNCATE {table}", f"TRUNCATE {table} CASCADE"]
        for statement in statements:
            with pytest.raises(REFUSED) as caught:
                raw(statement)
            if table != "audit_logs" or not is_sqlite:
                assert isinstance(translate(caught.value), Protected), statement
    assert dump() == before


@pytest.mark.parametrize("column", COLUMNS)
def test_no_column_can_be_changed(filled: SegmentedStore, raw: Raw, column: str) -> None:
    """Each column in turn, in the closed and in the open segment; setting a personal one to NULL alone, too."""
    for number, seq in ((0, 3), (1, 299)):
        for value in (f'"{column}"', "NULL"):
            with pytest.raises(REFUSED):
                raw(f'UPDATE audit_logs_{number} SET "{column}" = {value} WHERE seq = {seq}')


def test_replace_is_refused(filled: SegmentedStore, raw: Raw, is_sqlite: bool, dump: Callable[[], Any]) -> None:
    """INSERT OR REPLACE deletes what is in its way without a delete trigger: insert guards stop it, by seq and by id."""
    before = dump()
    if is_sqlite:
        rest = ", ".join(f'"{c}"' for c in COLUMNS if c not in {"seq", "id"})
        statements = [
            f"INSERT OR REPLACE INTO audit_logs_{n} (seq, id, {rest})"
            f" SELECT {seq}, {identity}, {rest} FROM audit_logs_{n} WHERE seq = {source}"
            for n, seq, identity, source in (
                (0, 3, "id", 3),
                (0, 3, "'x'", 4),
                (1, 299, "'x'", 299),
                (1, 300, "id", 299),
            )
        ]
        statements += [
            f"UPDATE OR REPLACE audit_logs_{n} SET seq = {a} WHERE seq = {b}" for n, a, b in ((0, 3, 4), (1, 298, 299))
        ]
        statements += [
            "REPLACE INTO audit_heads SELECT * FROM audit_heads",
            "REPLACE INTO audit_segments SELECT * FROM audit_segments",
            "REPLACE INTO audit_segment_spans SELECT * FROM audit_segment_spans",
            "INSERT INTO audit_logs_1 SELECT * FROM audit_logs_0",
        ]
    else:
        columns = ", ".join(f'"{c}"' for c in COLUMNS)
        copied = f"INSERT INTO audit_logs ({columns}) SELECT {columns} FROM audit_logs"
        statements = [
            f"{copied} ON CONFLICT (seq) DO UPDATE SET action = 'x'",
            "MERGE INTO audit_logs t USING audit_logs s ON t.seq = s.seq WHEN MATCHED THEN DELETE",
            "MERGE INTO audit_logs t USING audit_logs s ON t.seq = s.seq WHEN MATCHED THEN UPDATE SET action = 'x'",
            "INSERT INTO audit_heads SELECT * FROM audit_heads ON CONFLICT (size) DO UPDATE SET root = '\\x00'",
        ]
    for statement in statements:
        with pytest.raises(REFUSED):
            raw(statement)
    assert dump() == before


def test_replication_role_does_not_switch_the_guards_off(
    filled: SegmentedStore, is_sqlite: bool, engine_url: str
) -> None:
    """ENABLE ALWAYS: a session that calls itself a replica is refused like the others."""
    if is_sqlite:
        return
    with psycopg.connect(engine_url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in (
            "DELETE FROM audit_logs",
            "UPDATE audit_logs_0 SET action = 'x'",
            "TRUNCATE audit_logs_1",
            "TRUNCATE audit_heads",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def _erasure(*groups: str, digest: str = "zeroblob(32)") -> str:
    sets = [f'"{c}" = NULL' for g in groups for c in (*GROUPS[g], f"{g}_salt")] + [
        f"{g}_digest = {digest}" for g in groups
    ]
    return ", ".join(sets)


@pytest.mark.parametrize("groups", [("actor",), ("details",), ("actor", "details")])
def test_an_erasure_passes_once(filled: SegmentedStore, raw: Raw, is_sqlite: bool, groups: tuple[str, ...]) -> None:
    """The group's columns and salt become NULL and its digest 32 bytes; a digest that is there cannot be replaced."""
    digest = "zeroblob(32)" if is_sqlite else "decode(repeat('00', 32), 'hex')"
    other = "randomblob(32)" if is_sqlite else "decode(repeat('11', 32), 'hex')"
    for number, seq in ((0, 3), (1, 299)):
        raw(f"UPDATE audit_logs_{number} SET {_erasure(*groups, digest=digest)} WHERE seq = {seq}")
        columns = ", ".join(f'"{c}"' for g in groups for c in GROUPS[g])
        found = raw(f"SELECT {columns} FROM audit_logs WHERE seq = {seq}")[0]
        assert set(found) == {None}
        for again in (_erasure(*groups, digest=other), _erasure(*groups, digest="NULL"), "user_id = 'back'"):
            with pytest.raises(REFUSED):
                raw(f"UPDATE audit_logs_{number} SET {again} WHERE seq = {seq}")


def test_only_a_whole_erasure_passes(filled: SegmentedStore, raw: Raw, is_sqlite: bool) -> None:
    """No digest, a short one, a column left, something else changed with it, or two groups mixed up: refused."""
    good, short = (
        ("zeroblob(32)", "zeroblob(31)")
        if is_sqlite
        else (
            "decode(repeat('00', 32), 'hex')",
            "decode(repeat('00', 31), 'hex')",
        )
    )
    whole = _erasure("actor", digest=good)
    for attempt in (
        _erasure("actor", digest="NULL"),
        _erasure("actor", digest=short),
        whole.replace('"user_id" = NULL, ', ""),
        whole.replace('"user_id" = NULL', "\"user_id\" = 'somebody'"),
        f"{whole}, action = 'else'",
        f"{whole}, leaf_hash = {good}",
        f"{whole}, resource_id = NULL",
        f"{whole}, details_digest = {good}",
        whole.replace("actor_digest", "details_digest"),
        f"actor_digest = {good}",
    ):
        with pytest.raises(REFUSED):
            raw(f"UPDATE audit_logs_1 SET {attempt} WHERE seq = 299")


def test_check_names_each_missing_guard(filled: SegmentedStore, raw: Raw, is_sqlite: bool) -> None:
    """Dropped, disabled or weakened: each is one finding with the guard's name."""
    assert filled.check() == []
    if is_sqlite:
        names = [n for (n,) in raw("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        assert len(names) == 2 * 4 + 1 + len(APPEND_ONLY) * 3
        for name in names:
            raw(f"DROP TRIGGER {name}")
        raw("CREATE TRIGGER audit_guard_delete_0 BEFORE DELETE ON audit_logs_0 BEGIN SELECT 1; END")
        assert {(f.kind, f.name) for f in filled.check()} == {("guard", name) for name in names}
        return
    raw("ALTER TABLE audit_logs_0 ENABLE REPLICA TRIGGER audit_guard_truncate")
    raw("ALTER TABLE audit_logs_1 DISABLE TRIGGER audit_guard_delete")
    raw("DROP TRIGGER audit_guard_update ON audit_heads")
    raw("CREATE OR REPLACE FUNCTION audit_erasure_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    assert {(f.kind, f.name) for f in filled.check()} == {
        ("guard", "audit_logs_0.audit_guard_truncate"),
        ("guard", "audit_logs_1.audit_guard_delete"),
        ("guard", "audit_heads.audit_guard_update"),
        ("guard", "audit_erasure_only()"),
    }


def test_check_names_each_missing_index_table_and_segment(filled: SegmentedStore, raw: Raw, is_sqlite: bool) -> None:
    """What is gone is named; nothing raises, whatever is gone."""
    cascade = "" if is_sqlite else " CASCADE"
    raw("DROP INDEX idx_audit_heads_writer")
    raw("DROP INDEX idx_audit_id_1")
    if is_sqlite:
        raw("DROP INDEX idx_audit_ip_0")
        expected = {("index", "idx_audit_ip_0")}
    else:
        raw("DROP INDEX idx_audit_ip")
        expected = {("index", "idx_audit_ip"), ("index", "idx_audit_ip_0"), ("index", "idx_audit_ip_1")}
    expected |= {("index", "idx_audit_heads_writer"), ("index", "idx_audit_id_1")}
    assert {(f.kind, f.name) for f in filled.check()} == expected
    raw(f"DROP TABLE audit_logs_0{cascade}")
    assert ("segment", "audit_logs_0") in {(f.kind, f.name) for f in filled.check()}
    raw(f"DROP TABLE audit_segment_spans{cascade}")
    assert ("table", "audit_segment_spans") in {(f.kind, f.name) for f in filled.check()}
    raw("DROP TABLE indelible_version")
    raw(f"DROP {'VIEW' if is_sqlite else 'TABLE'} audit_logs{cascade}")
    assert {f.kind for f in filled.check()} == {"version"}


def test_check_tells_a_detached_segment(filled: SegmentedStore, raw: Raw, is_sqlite: bool) -> None:
    """A partition taken off the parent, or a view that leaves a segment out."""
    if is_sqlite:
        raw("DROP VIEW audit_logs")
        raw("CREATE VIEW audit_logs AS SELECT * FROM audit_logs_1")
        assert [(f.kind, f.name) for f in filled.check()] == [("table", "audit_logs")]
        return
    raw("ALTER TABLE audit_logs DETACH PARTITION audit_logs_0")
    assert ("segment", "audit_logs_0") in {(f.kind, f.name) for f in filled.check()}
