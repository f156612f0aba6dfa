"""Segments: made when needed, closed when full, named in ``audit_segments``, seen as one by people and the ORM."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from indelible.errors import StoreUnavailable
from indelible.events import AuditEvent, moment
from indelible.ports import Segment
from indelible.stores import sqlite_schema
from indelible.stores.base import SegmentedStore
from indelible.stores.schema import AuditLog

Make = Callable[..., AuditEvent]
Raw = Callable[..., list[Any]]
T0 = 1_700_000_000_000_000


def _fill(store: SegmentedStore, event: Make, count: int, batch: int = 100) -> None:
    """``count`` events of one new writer, their times one second apart, in the log's own order."""
    writer, size = uuid.uuid4(), (head.size if (head := store.head()) else 0)
    for first in range(0, count, batch):
        events = [event(timestamp=T0 + (size + i) * 10**6) for i in range(first, min(first + batch, count))]
        store.append(writer, first, events)


@pytest.mark.parametrize("batch", [1, 100, 256, 1000])
def test_appends_cross_segment_boundaries(
    make_store: Callable[..., SegmentedStore], event: Make, raw: Raw, batch: int, is_sqlite: bool
) -> None:
    """Rows go where their number belongs, whether a batch ends at a boundary, crosses one or crosses several."""
    store = make_store(segment_rows=256)
    count = 300 if batch == 1 else 1000
    _fill(store, event, count, batch)
    for part in store.segments():
        rows = raw(f"SELECT count(*), min(seq), max(seq) FROM audit_logs_{part.number}")[0]
        stored = max(0, min(part.end, count) - part.first)
        assert rows == ((stored, part.first, part.first + stored - 1) if stored else (0, None, None))
        assert part.closed == (part.end <= count)
    assert raw("SELECT count(*), min(seq), max(seq) FROM audit_logs") == [(count, 0, count - 1)]
    assert store.check() == []


def test_closed_segments_know_their_time_span(store: SegmentedStore, event: Make) -> None:
    """The span is inclusive and is recorded in the transaction that fills the segment."""
    _fill(store, event, 1023)
    assert store.segments()[0] == Segment(0, 0, 1024, None, None, False)
    _fill(store, event, 1)
    first, *later = store.segments()
    assert first == Segment(0, 0, 1024, T0, T0 + 1023 * 10**6, True)
    assert not any(part.closed for part in later)


def test_postgres_makes_the_next_segment_ahead_of_need(store: SegmentedStore, event: Make, is_sqlite: bool) -> None:
    """Once three quarters are full; SQLite makes it, in milliseconds, with the rows that need it."""
    _fill(store, event, 700)
    assert len(store.segments()) == 1
    _fill(store, event, 68)
    assert len(store.segments()) == (1 if is_sqlite else 2)
    _fill(store, event, 300)
    assert [(s.first, s.end) for s in store.segments()] == [(0, 1024), (1024, 2048)]


def test_an_append_survives_that_the_next_segment_cannot_be_made_ahead(
    store: SegmentedStore, event: Make, is_sqlite: bool, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    """The rows are stored already; what failed is tried again when rows need it, and then it is an error."""
    if is_sqlite:
        return
    _fill(store, event, 700)
    raw("CREATE TABLE audit_logs_1 (in_the_way int)")
    _fill(store, event, 100)
    assert "ahead of need" in caplog.text
    _fill(store, event, 224)
    with pytest.raises(StoreUnavailable):
        _fill(store, event, 1)
    raw("DROP TABLE audit_logs_1")
    _fill(store, event, 1)
    assert store.check() == []


def test_the_first_writer_decides_how_large_segments_are(
    make_store: Callable[..., SegmentedStore], event: Make
) -> None:
    """A second store, configured otherwise, goes on with the size in the database."""
    _fill(make_store(segment_rows=256), event, 300)
    _fill(make_store(segment_rows=4096), event, 300)
    assert {s.end - s.first for s in make_store().segments()} == {256}


def test_the_orm_sees_the_segments_as_one_table(store: SegmentedStore, event: Make) -> None:
    """``AuditLog`` works for people: a table on PostgreSQL, a view on SQLite; empty logs included."""
    with Session(store.engine) as session:
        assert session.scalar(select(func.count()).select_from(AuditLog)) == 0
    writer = uuid.uuid4()
    store.append(writer, 0, [event(user_id=str(i), timestamp=T0 + i, metadata='{"a":1}') for i in range(2000)])
    with Session(store.engine) as session:
        found = session.scalars(select(AuditLog).where(AuditLog.user_id == "1500")).one()
        assert (found.seq, found.writer_id, found.timestamp) == (1500, writer, moment(T0 + 1500))
        assert found.event_metadata == '{"a":1}'
        assert session.scalar(select(func.count()).select_from(AuditLog)) == 2000


def test_segments_have_the_guides_indexes_under_their_number(
    store: SegmentedStore, event: Make, is_sqlite: bool, raw: Raw
) -> None:
    """idx_audit_timestamp_<n> and so on; on PostgreSQL each belongs to the parent's index of the guide's name."""
    _fill(store, event, 1100)
    if is_sqlite:
        names = {n for (n,) in raw("SELECT name FROM sqlite_master WHERE type = 'index'")}
    else:
        names = {n for (n,) in raw("SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()")}
    bases = {str(index.name) for index in AuditLog.__table__.indexes}  # type: ignore[attr-defined]
    assert {f"{base}_{n}" for base in bases for n in (0, 1)} <= names
    if not is_sqlite:
        assert bases - {"idx_audit_id"} <= names
        attached = raw(
            "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relname = 'idx_audit_ip_1'"
        )
        assert attached == [(1,)]


def test_the_view_holds_the_newest_segments_only() -> None:
    """SQLite joins 500 SELECTs at most; the engines' own reads never go through the view."""
    sql = sqlite_schema.view(range(1000))["audit_logs"]
    assert sql.count("SELECT") == sqlite_schema.VIEW_SEGMENTS
    assert "audit_logs_999" in sql
    assert "audit_logs_599" not in sql


def test_the_function_makes_no_segment_far_ahead(store: SegmentedStore, event: Make, is_sqlite: bool, raw: Raw) -> None:
    """Whoever may execute it cannot fill the database with empty segments."""
    if is_sqlite:
        return
    _fill(store, event, 1)
    with pytest.raises(Exception, match="too far ahead"):
        raw("SELECT audit_advance(10000000, 1024)")
