"""Adoption: a table of another program is set aside, and its rows become events with their own times."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect

from indelible.errors import ConfigurationError, ForeignTable
from indelible.events import AuditEvent, micros
from indelible.migrations import adopt, current, upgrade_engine
from indelible.migrations.imports import event_of
from indelible.queries import Filter
from indelible.redaction import Redactor
from indelible.stores import urls
from indelible.stores.base import SegmentedStore
from indelible.stores.schema import SCHEMA_VERSION

Raw = Callable[..., list[Any]]
GUIDE = """CREATE TABLE audit_logs (
    id {uuid} PRIMARY KEY, timestamp {time} NOT NULL, user_id {uuid}, event_type VARCHAR(50) NOT NULL,
    resource_type VARCHAR(50), resource_id VARCHAR(100), action VARCHAR(50) NOT NULL, status VARCHAR(20) NOT NULL,
    old_value {json}, new_value {json}, ip_address {inet}, user_agent TEXT, correlation_id VARCHAR(100),
    event_metadata {json}, department TEXT, score INTEGER)"""
COLUMNS = (
    "id, timestamp, user_id, event_type, resource_type, resource_id, action, status, old_value, new_value, ip_address,"
    " user_agent, correlation_id, event_metadata, department, score"
)


@pytest.fixture
def engine(engine_url: str) -> Iterator[Any]:
    """An engine as the command line has it."""
    engine = create_engine(urls.parse(engine_url))
    yield engine
    engine.dispose()


@pytest.fixture
def guide_table(raw: Raw, is_sqlite: bool) -> Callable[[int], list[uuid.UUID]]:
    """A function that makes the guide's own table and indexes with so many rows, newest first; it returns their ids."""
    types = (
        {"uuid": "CHAR(36)", "time": "DATETIME", "json": "JSON", "inet": "VARCHAR(45)"}
        if is_sqlite
        else {"uuid": "UUID", "time": "TIMESTAMPTZ", "json": "JSONB", "inet": "INET"}
    )

    def make(count: int) -> list[uuid.UUID]:
        raw(GUIDE.format(**types))
        raw("CREATE INDEX idx_audit_timestamp ON audit_logs (timestamp)")
        raw("CREATE INDEX idx_audit_user_id ON audit_logs (user_id, timestamp)")
        ids = [uuid.UUID(int=i) for i in range(count)]
        for start in range(0, count, 500):
            rows = ", ".join(_row(i) for i in reversed(range(start, min(start + 500, count))))
            raw(f"INSERT INTO audit_logs ({COLUMNS}) VALUES {rows}")
        return ids

    return make


def _row(i: int) -> str:
    minute, second = divmod(i, 60)
    return (
        f"('{uuid.UUID(int=i)}', '2024-01-01 {minute // 60:02}:{minute % 60:02}:{second:02}.250000', NULL, 'admin_action',"
        f" 'user', '{i}', 'update', 'success', '{{\"role\": \"user\", \"password\": \"hunter2\"}}',"
        f' \'{{"role": "admin"}}\','
        f" '10.0.0.7', 'curl', 'c-{i}', '{{\"reason\": \"promotion\"}}', 'sales', {i})"
    )


def _all(store: SegmentedStore) -> list[Any]:
    return [row for rows in store.scan(Filter()) for row in rows]


def test_the_guides_table_is_adopted(
    engine: Any, guide_table: Callable[[int], list[uuid.UUID]], make_store: Callable[..., SegmentedStore], raw: Raw
) -> None:
    """Every row once, oldest first, with its id, its time and source "import"; secrets masked; the old table kept."""
    ids = guide_table(1200)
    seen: list[tuple[int, int]] = []
    assert adopt(engine, progress=lambda done, total: seen.append((done, total))) == 1200
    assert seen == [(1000, 1200), (1200, 1200)]
    assert current(engine) == SCHEMA_VERSION
    store = make_store(prepare=False)
    assert store.check() == []
    rows = _all(store)
    assert [row.id for row in rows] == ids
    row = rows[61]
    assert row.timestamp == 1704067200_000000 + 61_250_000
    assert (row.event_type, row.action, row.status, row.source) == ("admin_action", "update", "success", "import")
    assert (row.user_id, row.ip_address, row.user_agent) == (None, "10.0.0.7", "curl")
    assert (row.resource_type, row.resource_id, row.correlation_id) == ("user", "61", "c-61")
    assert json.loads(row.new_value) == {"role": "admin"}
    assert json.loads(row.old_value)["role"] == "user"
    assert "hunter2" not in row.old_value
    metadata = json.loads(row.metadata)
    assert (metadata["reason"], metadata["department"], str(metadata["score"])) == ("promotion", "sales", "61")
    assert raw("SELECT count(*) FROM audit_logs_before") == [(1200,)]


def test_an_interrupted_adoption_goes_on(
    engine: Any, guide_table: Callable[[int], list[uuid.UUID]], make_store: Callable[..., SegmentedStore]
) -> None:
    """Stopped after a batch: the next call imports the rest, once; a further one does nothing."""
    ids = guide_table(2300)

    def stop(done: int, _total: int) -> None:
        if done == 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adopt(engine, progress=stop)
    seen: list[int] = []
    assert adopt(engine, progress=lambda done, _total: seen.append(done)) == 2300
    assert seen == [2000, 2300]
    assert adopt(engine) == 2300
    assert [row.id for row in _all(make_store(prepare=False))] == ids


def test_a_table_without_a_key_is_adopted(engine: Any, raw: Raw, make_store: Callable[..., SegmentedStore]) -> None:
    """Hardly a column of the guide's, no primary key, equal rows: each row is an event with an id of its own."""
    raw("CREATE TABLE audit_logs (id INTEGER, what TEXT)")
    raw("INSERT INTO audit_logs VALUES (1, 'a'), (1, 'a'), (2, NULL)")
    assert adopt(engine) == 3
    rows = _all(make_store(prepare=False))
    assert len({row.id for row in rows}) == 3
    assert {row.event_type for row in rows} == {"imported"}
    assert [str(json.loads(row.metadata)["id"]) for row in rows] == ["1", "1", "2"]


def test_new_events_follow_the_imported_ones(
    engine: Any, guide_table: Callable[[int], list[uuid.UUID]], make_store: Callable[..., SegmentedStore]
) -> None:
    """An adopted log is a log like any other."""
    guide_table(10)
    adopt(engine)
    store = make_store(prepare=False)
    event = AuditEvent(id=uuid.uuid4(), timestamp=0, event_type="login", action="login", status="success")
    assert store.append(uuid.uuid4(), 0, [event]) == 11


def test_there_must_be_something_to_adopt(engine: Any) -> None:
    """An empty database, or one that has our log already."""
    with pytest.raises(ConfigurationError, match="no foreign table"):
        adopt(engine)
    upgrade_engine(engine)
    with pytest.raises(ConfigurationError, match="no foreign table"):
        adopt(engine)


def test_a_foreign_view_is_left_to_its_owner(engine: Any, raw: Raw) -> None:
    """A view has no rows of its own to take over."""
    raw("CREATE VIEW audit_logs AS SELECT 1 AS id")
    with pytest.raises(ForeignTable):
        adopt(engine)
    assert inspect(engine).get_view_names() == ["audit_logs"]


def _event(**row: Any) -> AuditEvent:
    return event_of(row, key="7", keeps_id=True, adopted_at=5, redactor=Redactor())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2024-01-01T00:00:00Z", 1704067200_000000),
        ("2024-01-01 01:00:00+01:00", 1704067200_000000),
        ("2024-01-01 00:00:00", 1704067200_000000),
        (1704067200, 1704067200_000000),
        (1704067200_000, 1704067200_000000),
        (1704067200_000000, 1704067200_000000),
        (1704067200.5, 1704067200_500000),
        ("yesterday", 5),
        ("infinity", 5),
        (None, 5),
        (10**30, 5),
    ],
)
def test_times_are_read_in_the_usual_forms(given: Any, expected: int) -> None:
    """ISO text, with or without a zone, and Unix time by its size; anything else is the time of adoption."""
    event = _event(timestamp=given)
    assert event.timestamp == expected
    if expected == 5 and given is not None:
        assert json.loads(event.metadata or "")["original_timestamp"] is not None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("login", "login"),
        ("invoice.paid", "invoice.paid"),
        ("User Login!", "user_login"),
        ("audit.read", "imported_audit_read"),
        ("42", "imported_42"),
        (None, "imported"),
        ("x" * 100, "x" * 64),
    ],
)
def test_event_types_become_names(given: str | None, expected: str) -> None:
    """A name that can be one is kept; the original of any other is in the metadata."""
    event = _event(event_type=given)
    assert event.event_type == expected
    if given not in {expected, None}:
        assert json.loads(event.metadata or "")["original_event_type"] == given


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("success", "success"),
        ("OK", "success"),
        (200, "success"),
        ("403", "denied"),
        ("500", "failure"),
        ("odd", "failure"),
    ],
)
def test_outcomes_are_understood(given: Any, expected: str) -> None:
    """Usual words and HTTP statuses; what is unknown must not look well."""
    assert _event(status=given).status == expected


_junk = st.none() | st.integers() | st.floats() | st.text(max_size=30) | st.binary(max_size=10) | st.booleans()


@given(
    st.dictionaries(
        st.sampled_from(["id", "timestamp", "status", "event_type", "user_id", "metadata", "response_status", "more"]),
        _junk,
    )
)
def test_any_row_becomes_an_event(row: dict[str, Any]) -> None:
    """Whatever the columns hold: an event with a time in range, a valid type and outcome, and the same one next time."""
    event = _event(**row)
    assert micros_in_range(event.timestamp)
    assert event.status in {"success", "failure", "denied"}
    assert event == _event(**row)


def micros_in_range(us: int) -> bool:
    from datetime import UTC, datetime

    return micros(datetime(1, 1, 1, tzinfo=UTC)) <= us <= micros(datetime.max.replace(tzinfo=UTC))
