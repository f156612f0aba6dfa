"""Following the log: what comes, in which order, and how often the reading is recorded."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest

from indelible.errors import NotAccepted, StoreUnavailable
from indelible.events import AuditEvent
from indelible.queries import Filter
from indelible.tailing import RECORD_INTERVAL, Tail
from indelible.testing import MemoryStore

WRITER = uuid.UUID(int=1)
LOGINS = Filter(event_type=("login",))


class Reader:
    """Someone who reads a log in memory, with a clock in the test's hands. ``told`` are the rows of each record."""

    def __init__(self, wanted: Filter) -> None:
        self.store = MemoryStore()
        self.now = 1_000.0
        self.told: list[int] = []
        self.refusing = False
        self.tail = Tail(self.store, wanted, self.record, clock=lambda: self.now)

    def put(self, event_type: str = "login", event_id: uuid.UUID | None = None, **fields: Any) -> None:
        """Store one event."""
        number = len(self.store.rows)
        made = {"id": event_id or uuid.uuid4(), "timestamp": number, "action": "a", "status": "success", **fields}
        self.store.append(WRITER, number, [AuditEvent(event_type=event_type, **made)])

    def record(self, rows: int) -> uuid.UUID:
        """Record a reading; it is stored at once, as an event of the log."""
        if self.refusing:
            raise NotAccepted("no journal")
        self.told.append(rows)
        event_id = uuid.uuid4()
        self.put("audit.read", event_id)
        return event_id

    def more(self) -> list[int]:
        """The numbers of the next rows."""
        return [row.seq for row in self.tail.more()]


@pytest.fixture
def reader() -> Callable[..., Reader]:
    """A function that makes a reader of the events that match a filter, by default of all log-ins."""
    return lambda wanted=LOGINS: Reader(wanted)


def test_it_begins_with_the_newest_and_goes_on(reader: Callable[..., Reader]) -> None:
    """The newest rows, oldest first; then what is stored later, each row once and in order; nothing when there is none."""
    log = reader()
    for event_type in ("login", "logout", "login", "login"):
        log.put(event_type)
    assert [row.seq for row in log.tail.newest(2)] == [2, 3]
    assert log.more() == []
    log.put("logout")
    log.put()
    log.put()
    assert log.more() == [6, 7]
    assert log.more() == []


def test_it_can_begin_where_somebody_has_read(reader: Callable[..., Reader]) -> None:
    """``start`` goes on behind rows that were shown by other means."""
    log = reader()
    for _ in range(3):
        log.put()
    log.tail.start(1)
    assert log.told == [0]
    assert log.more() == [1, 2]


def test_many_rows_come_in_slices(reader: Callable[..., Reader]) -> None:
    """Whoever falls behind gets a bounded number of rows at a time, and all of them."""
    log = reader()
    log.tail.newest(1)
    for _ in range(2_500):
        log.put()
    got = [log.more() for _ in range(4)]
    assert [len(rows) for rows in got] == [1_000, 1_000, 500, 0]
    assert list(chain.from_iterable(got)) == list(range(1, 2_501))


def test_a_reading_that_goes_on_is_recorded_every_minute(reader: Callable[..., Reader]) -> None:
    """At the beginning, before the first rows after each interval, and at the end; the records add up to what was shown."""
    log = reader()
    log.put()
    log.tail.newest(10)
    assert log.told == [1]
    log.put()
    log.now += RECORD_INTERVAL - 1
    assert len(log.more()) == 1
    assert log.told == [1]
    log.now += 1
    assert log.more() == []
    assert log.told == [1]
    log.put()
    log.put()
    assert len(log.more()) == 2
    assert log.told == [1, 1]
    log.tail.close()
    log.tail.close()
    assert log.told == [1, 1, 2]


def test_its_own_records_are_no_reason_for_another(reader: Callable[..., Reader]) -> None:
    """A tail of everything shows its own events and does not go on recording that it did."""
    log = reader(Filter())
    log.tail.newest(10)
    for _ in range(5):
        log.now += 2 * RECORD_INTERVAL
        log.more()
    log.tail.close()
    assert log.told == [0]
    log.put()
    log.now += RECORD_INTERVAL
    assert len(log.more()) == 1
    assert log.told == [0, 0]


def test_what_cannot_be_recorded_is_not_given(reader: Callable[..., Reader]) -> None:
    """Neither at the beginning nor after an interval; once recording works, nothing has been missed."""
    log = reader()
    log.put()
    log.refusing = True
    with pytest.raises(NotAccepted):
        log.tail.newest(10)
    log.refusing = False
    log.tail.newest(10)
    log.put()
    log.now += RECORD_INTERVAL
    log.refusing = True
    with pytest.raises(NotAccepted):
        log.tail.more()
    log.refusing = False
    assert len(log.more()) == 1


def test_a_store_that_was_away_is_read_on(reader: Callable[..., Reader]) -> None:
    """StoreUnavailable is the caller's to wait out; the rows come afterwards."""
    log = reader()
    log.tail.newest(10)
    log.put()
    log.store.down = True
    with pytest.raises(StoreUnavailable):
        log.tail.more()
    log.store.down = False
    assert len(log.more()) == 1


def test_a_tail_must_begin(reader: Callable[..., Reader]) -> None:
    """Reading on without a beginning, and so without a record, is a mistake of the caller."""
    with pytest.raises(RuntimeError):
        reader().tail.more()
