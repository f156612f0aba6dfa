"""Whoever owns the database changes rows, tiles and heads: what `verify` finds, and where."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import LargeBinary

from indelible.events import AuditEvent, moment
from indelible.integrity.verify import OPEN, Report
from indelible.stores.schema import COLUMNS, AuditLog, Id, Micros, Moment, metadata

if TYPE_CHECKING:
    from .conftest import Log
else:
    Log = Any

SEQ = 305


def tampered(report: Report) -> dict[str, int | None]:
    """The kinds of findings, each with the first row that it names; the verdict has to be tampered."""
    assert report.verdict == "tampered"
    found: dict[str, int | None] = {}
    for finding in report.findings:
        found.setdefault(finding.kind, finding.seq)
    return found


def another(column: str, log: Log) -> Any:
    """A value that the column can hold and that no row of the log has there."""
    kind = AuditLog.__table__.c[column].type
    if isinstance(kind, LargeBinary):
        return bytes(32) if column.endswith(("hash", "digest")) else bytes(16)
    if isinstance(kind, Id):
        return str(uuid.UUID(int=99))
    if isinstance(kind, Moment):
        return 1_600_000_000_000_000 if log.is_sqlite else "2020-09-13T12:26:40Z"
    if column in ("seq", "writer_seq", "response_status", "duration_us"):
        return 599 if column == "seq" else 77
    return '{"a":2}' if column in ("old_value", "new_value", "metadata") else "changed"


def test_an_edit_of_any_column_is_found(log: Log) -> None:
    """Loop over the schema: whatever column is changed or emptied, the row is named."""
    table = log.table(SEQ)
    for column in COLUMNS:
        if column == "seq":
            # Moved to a place of its segment that is free, a row is missing here and a stray there.
            log.without_guards(f"UPDATE {log.table(520)} SET seq = 700 WHERE seq = 520")
            found = tampered(log.verify())
            assert (found["row_missing"], found["row_stray"]) == (520, 700)
            log.without_guards(f"UPDATE {log.table(520)} SET seq = 520 WHERE seq = 700")
            continue
        (before,) = log.raw(f'SELECT "{column}" FROM {table} WHERE seq = {SEQ}')[0]
        nullable = AuditLog.__table__.c[column].nullable and before is not None
        for value in (another(column, log), None) if nullable else (another(column, log),):
            edit = f'UPDATE {table} SET "{column}" = ? WHERE seq = ?'
            log.without_guards((edit, (value, SEQ)))
            found = tampered(log.verify())
            assert found.get("row_changed", found.get("row_invalid")) == SEQ, column
        if not log.is_sqlite and column in ("timestamp", "recorded_at"):
            before = moment(before)
        log.without_guards((edit, (before, SEQ)))
    assert log.verify().verdict == "verified"


def test_an_edit_of_what_stands_beside_the_rows_is_found(log: Log) -> None:
    """Every column of heads, checkpoints, segments and their spans; only when a checkpoint was published is not sealed."""
    places = {
        "audit_heads": "size = 300",
        "audit_checkpoints": "size = 300",
        "audit_segments": "number = 1",
        "audit_segment_spans": "number = 1",
    }
    for table, where in places.items():
        for column in metadata.tables[table].columns:
            if column.name == "published_at":
                continue
            if isinstance(column.type, LargeBinary):
                value: Any = bytes(32)
            elif isinstance(column.type, Id):
                value = str(uuid.UUID(int=99))
            elif isinstance(column.type, Micros):
                value = 5 if log.is_sqlite else "1970-01-01T00:00:00.000005Z"
            else:
                value = 301 if column.primary_key or column.name != "note" else "changed"
            (before,) = log.raw(f"SELECT {column.name} FROM {table} WHERE {where}")[0]
            moved = f"{column.name} = 301" if column.primary_key else where
            log.without_guards((f"UPDATE {table} SET {column.name} = ? WHERE {where}", (value,)))
            tampered(log.verify())
            if not log.is_sqlite and isinstance(column.type, Micros):
                before = moment(before)
            log.without_guards((f"UPDATE {table} SET {column.name} = ? WHERE {moved}", (before,)))
    assert log.verify().verdict == "verified"


def test_an_edit_with_a_new_leaf_hash_is_found_by_the_tree(log: Log) -> None:
    """The row agrees with itself; the root that was sealed with its append does not."""
    log.without_guards(f"UPDATE {log.table(SEQ)} SET user_id = 'nobody' WHERE seq = {SEQ}")
    log.reseal(heads=False)
    report = log.verify()
    found = tampered(report)
    assert found["head"] == 300
    assert "rows 300 to 329" in next(f.detail for f in report.findings if f.kind == "head")
    assert report.counts["head"] == 10
    assert "row_changed" not in found


def test_an_edit_with_leaf_tiles_and_heads_is_found_by_a_checkpoint(log: Log) -> None:
    """The log agrees with itself in everything; the signed checkpoints do not, in the table as outside."""
    log.without_guards(f"UPDATE {log.table(SEQ)} SET user_id = 'nobody' WHERE seq = {SEQ}")
    log.reseal(heads=True)
    assert set(tampered(log.verify([]))) == {"checkpoint", "unwitnessed"}
    assert set(tampered(log.verify(log.outside(600)))) >= {"checkpoint"}


def test_an_edit_with_only_the_newest_head_is_found(log: Log) -> None:
    """The heads before it still tell."""
    log.without_guards(f"UPDATE {log.table(SEQ)} SET user_id = 'nobody' WHERE seq = {SEQ}")
    log.reseal(heads=False)
    log.without_guards(("UPDATE audit_heads SET root = ? WHERE size = ?", (bytes(32), 600)))
    assert tampered(log.verify())["head"] == 300


def test_a_deleted_row_is_found(log: Log) -> None:
    """By its position."""
    log.without_guards(f"DELETE FROM {log.table(SEQ)} WHERE seq = {SEQ}")
    assert tampered(log.verify())["row_missing"] == SEQ


def test_many_deleted_rows_are_one_finding(log: Log) -> None:
    """A hole over segments: where it begins, and how far it goes."""
    log.without_guards("DELETE FROM audit_logs_0 WHERE seq > 250", "DELETE FROM audit_logs_1 WHERE seq < 400")
    report = log.verify()
    assert tampered(report)["row_missing"] == 251
    assert "rows 251 to 399 are not there" in [f.detail for f in report.findings]


def test_a_deleted_row_with_all_others_moved_up_is_found(log: Log) -> None:
    """Renumbered so that nothing is missing: the writer's numbers and the tree tell."""
    work = [f"DELETE FROM {log.table(598)} WHERE seq = 598", f"UPDATE {log.table(599)} SET seq = 598 WHERE seq = 599"]
    log.without_guards(*work, "UPDATE audit_heads SET size = 599 WHERE size = 600")
    found = tampered(log.verify([]))
    assert found["writer_hole"] == 598


def test_an_inserted_row_is_found(log: Log) -> None:
    """A second row where one stands already, once the key is out of the way."""
    table = log.table(SEQ)
    if log.is_sqlite:
        columns = ", ".join(f'"{c}"' for c in COLUMNS)
        log.without_guards(
            f"CREATE TABLE other ({columns})",
            f"INSERT INTO other SELECT {columns} FROM {table}",
            f"INSERT INTO other SELECT {columns} FROM {table} WHERE seq = {SEQ}",
        )
        triggers = log.raw("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", [table])
        log.raw("DROP VIEW audit_logs")
        log.raw(f"DROP TABLE {table}")
        log.raw(f"ALTER TABLE other RENAME TO {table}")
        for (sql,) in triggers:
            log.raw(sql)
    else:
        log.without_guards(
            "ALTER TABLE audit_logs DROP CONSTRAINT audit_logs_pkey",
            f"DROP INDEX idx_audit_id_{SEQ // 256}",
            f"INSERT INTO {table} SELECT * FROM {table} WHERE seq = {SEQ}",
        )
    assert tampered(log.verify())["row_extra"] == SEQ


def test_two_swapped_rows_are_found(log: Log) -> None:
    """Each is whole, each is somewhere else: the tree and the writer's numbering tell."""
    table = log.table(SEQ)
    log.without_guards(
        f"CREATE TEMPORARY TABLE a AS SELECT * FROM {table} WHERE seq IN ({SEQ}, {SEQ + 1})",
        f"DELETE FROM {table} WHERE seq IN ({SEQ}, {SEQ + 1})",
        f"UPDATE a SET seq = {2 * SEQ + 1} - seq",
        f"INSERT INTO {table} SELECT * FROM a",
    )
    found = tampered(log.verify())
    assert found["head"] == 300
    assert found["writer_hole"] == SEQ
    assert found["writer_order"] == SEQ + 1


def test_a_row_smuggled_behind_the_newest_head_is_found(log: Log, event: Callable[[int], AuditEvent]) -> None:
    """INSERT is allowed to the application's role; a row without a head is a stray."""
    columns = ", ".join(f'"{c}"' for c in COLUMNS if c not in ("seq", "id"))
    table = log.table(600)
    seq = "600, '00000000-0000-0000-0000-000000000001'"
    log.raw(f"INSERT INTO {table} (seq, id, {columns}) SELECT {seq}, {columns} FROM {table} WHERE seq = 599")
    assert tampered(log.verify())["row_stray"] == 600


def test_a_segment_made_by_hand_is_found(log: Log) -> None:
    """A table that looks like a segment and is none: nothing in it is part of the log."""
    if log.is_sqlite:
        log.raw("CREATE TABLE audit_logs_9 AS SELECT * FROM audit_logs_0 LIMIT 1")
    else:
        log.raw("CREATE TABLE audit_logs_9 AS SELECT * FROM audit_logs LIMIT 1")
    assert tampered(log.verify())["row_stray"] == 0


def test_a_dropped_segment_is_found(log: Log) -> None:
    """The schema is not what it must be, and its rows are missing."""
    if log.is_sqlite:
        log.raw("DROP VIEW audit_logs")
    log.raw("DROP TABLE audit_logs_1")
    found = tampered(log.verify())
    assert found["row_missing"] == 256
    assert "segment" in found


def test_a_tail_cut_with_its_heads_is_found_by_its_checkpoint(log: Log) -> None:
    """The table's own checkpoint is about more rows than there are."""
    cut(log, 480, checkpoints=False)
    assert set(tampered(log.verify([]))) - OPEN == {"truncated"}


def test_a_tail_cut_with_heads_and_checkpoints_is_found_from_outside(log: Log) -> None:
    """Nothing in the database tells; a checkpoint that was kept outside does."""
    cut(log, 480)
    assert set(tampered(log.verify())) - OPEN == {"truncated"}


def test_without_a_checkpoint_from_outside_a_cut_tail_is_incomplete(log: Log) -> None:
    """Never verified: there is nothing to compare with."""
    cut(log, 480)
    report = log.verify([])
    assert (report.verdict, [f.kind for f in report.findings]) == ("incomplete", ["unwitnessed"])


def test_a_tail_cut_without_its_time_span_is_found(log: Log) -> None:
    """Whoever forgets that segment 1 was full once, and that this is recorded."""
    (span,) = log.raw("SELECT number, min_timestamp, max_timestamp FROM audit_segment_spans WHERE number = 1")
    cut(log, 480)
    given = (1, *(span[1:] if log.is_sqlite else map(moment, span[1:])))
    log.without_guards(("INSERT INTO audit_segment_spans VALUES (?, ?, ?)", given))
    assert set(tampered(log.verify([]))) - OPEN == {"span"}


def test_a_tail_cut_without_its_heads_is_found(log: Log) -> None:
    """The newest head is of more rows than there are."""
    log.without_guards("DELETE FROM audit_logs_2 WHERE seq >= 520")
    assert tampered(log.verify([]))["row_missing"] == 520


def test_removed_newest_heads_are_found(log: Log) -> None:
    """Their rows are not part of the log any more."""
    log.without_guards("DELETE FROM audit_heads WHERE size > 480")
    assert tampered(log.verify([]))["row_stray"] == 480


def test_a_removed_head_of_a_writer_is_found(log: Log, event: Callable[[int], AuditEvent]) -> None:
    """Without a writer's newest head the store would take its events a second time."""
    log.store.append(uuid.UUID(int=0xB), 0, [event(n) for n in range(600, 610)])
    log.without_guards("DELETE FROM audit_heads WHERE size = 600")
    found = tampered(log.verify([]))
    assert "head" in found


def test_a_head_of_another_writer_is_found(log: Log) -> None:
    """What a head says about its writer is checked against its last row."""
    log.without_guards("UPDATE audit_heads SET writer_seq = 12 WHERE size = 300")
    assert tampered(log.verify())["head"] == 299


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE audit_segment_spans SET max_timestamp = min_timestamp WHERE number = 0",
        "DELETE FROM audit_checkpoints WHERE size = 300",
    ],
)
def test_what_stands_beside_the_rows_is_checked_too(log: Log, attack: str) -> None:
    """A false time span hides rows from questions by time. A checkpoint less is no change of the log."""
    log.without_guards(attack)
    report = log.verify()
    assert {f.kind for f in report.findings} == ({"span"} if "spans" in attack else set())


def test_a_stored_checkpoint_that_is_changed_is_found(log: Log) -> None:
    """Its signature is wrong, or it is not one at all."""
    log.without_guards("UPDATE audit_checkpoints SET note = replace(note, '300', '301') WHERE size = 300")
    assert "checkpoint_invalid" in tampered(log.verify())


def test_a_blanked_group_without_a_sealed_erasure_is_found(log: Log) -> None:
    """The guard lets an erasure pass, and every hash stays right; only that nobody recorded it tells."""
    blank(log, SEQ)
    report = log.verify()
    assert tampered(report) == {"erasure": SEQ}


def test_a_sealed_erasure_explains_the_blank(log: Log, event: Callable[[int], AuditEvent]) -> None:
    """With an audit.erased event behind it that names row and group, and only then."""
    blank(log, SEQ)
    erased = '{"groups":["actor"],"seqs":[[300,310]]}'
    log.store.append(
        uuid.UUID(int=0xC),
        0,
        [
            AuditEvent(
                id=uuid.uuid4(),
                timestamp=0,
                event_type="audit.erased",
                action="erase",
                status="success",
                metadata=erased,
            )
        ],
    )
    assert log.verify().verdict == "verified"
    blank(log, SEQ + 6)
    assert tampered(log.verify()) == {"erasure": SEQ + 6}


@pytest.mark.parametrize("how", ["dropped", "disabled"])
def test_a_missing_guard_is_found(log: Log, how: str) -> None:
    """Whether dropped or, on PostgreSQL, disabled."""
    if log.is_sqlite:
        log.raw("DROP TRIGGER audit_guard_delete_1")
    elif how == "dropped":
        log.raw("DROP TRIGGER audit_guard_delete ON audit_logs")
    else:
        log.raw("ALTER TABLE audit_logs DISABLE TRIGGER audit_guard_delete")
    assert "guard" in tampered(log.verify())


@pytest.mark.parametrize("value", ["infinity", "-infinity", "10000-01-01T00:00:00Z", "4000-01-01 BC"])
def test_an_impossible_time_is_a_finding_and_not_a_crash(log: Log, value: str) -> None:
    """As are the same in SQLite's integers."""
    given: Any = (
        value
        if not log.is_sqlite
        else {"infinity": 2**63 - 1, "-infinity": -(2**63)}.get(value, 253_402_300_800_000_000)
    )
    log.without_guards((f"UPDATE {log.table(SEQ)} SET timestamp = ? WHERE seq = ?", (given, SEQ)))
    assert tampered(log.verify())["row_invalid"] == SEQ


def test_hostile_values_in_sqlite_are_findings(log: Log) -> None:
    """An id in another spelling, a writer that is none, text that is not UTF-8. PostgreSQL's types refuse them."""
    if not log.is_sqlite:
        with pytest.raises(psycopg.Error):
            log.raw("UPDATE audit_logs_0 SET id = 'x' WHERE seq = 3")
        return
    log.without_guards(
        "UPDATE audit_logs_0 SET id = '{' || id || '}' WHERE seq = 3",
        "UPDATE audit_logs_0 SET writer_id = 'x' WHERE seq = 9",
    )
    log.without_guards("UPDATE audit_logs_1 SET user_id = CAST(x'ff' AS TEXT) WHERE seq = 305")
    found = log.verify().findings
    assert {f.seq for f in found if f.kind in ("row_changed", "row_invalid")} == {3, 9, 305}


def cut(log: Log, size: int, *, checkpoints: bool = True) -> None:
    """Remove everything from this size on."""
    work = [f"DELETE FROM audit_logs_{number} WHERE seq >= {size}" for number in (1, 2)]
    work += [f"DELETE FROM audit_heads WHERE size > {size}"]
    work += [f"DELETE FROM audit_segment_spans WHERE number >= {size // 256}"]
    if checkpoints:
        work += [f"DELETE FROM audit_checkpoints WHERE size > {size}"]
    log.without_guards(*work)


def blank(log: Log, seq: int) -> None:
    """Erase the actor of a row as the guard allows it, digest and all."""
    from indelible.integrity.leaf import disclosure, disclosure_digest
    from indelible.queries import Filter

    (row,) = next(iter(log.store.scan(Filter(), first=seq, end=seq + 1)))
    text = disclosure(row, "actor")
    assert text is not None
    fields = "user_id = NULL, on_behalf_of = NULL, ip_address = NULL, user_agent = NULL, session_id = NULL"
    log.raw(
        f"UPDATE {log.table(seq)} SET {fields}, actor_salt = NULL, actor_digest = ? WHERE seq = {seq}",
        [disclosure_digest(text)],
    )
