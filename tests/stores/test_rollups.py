"""Statistics from rollups: the same answer as from the rows, whatever is missing, late, forged or new."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from indelible import rollups
from indelible.events import AuditEvent
from indelible.queries import EARLIEST, LATEST, Filter, Stats
from indelible.stores import rolling, tallies
from tests.stores.conftest import AnyStore, MakeStore

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
MakeEvent = Callable[..., AuditEvent]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 64, 256, 1,024, ... rows."""
    monkeypatch.setattr(rollups, "BLOCK", 64)
    monkeypatch.setattr(rollups, "FAN", 4)


def fill(store: AnyStore, event: MakeEvent, count: int, *, seed: int = 1, step: int = SECOND) -> list[AuditEvent]:
    """Append events of few users and addresses; every fiftieth comes late or early."""
    chance = random.Random(seed)
    base = 0 if (head := store.head()) is None else head.size
    events = [
        event(
            timestamp=START + (base + n) * step + (chance.randrange(-900, 900) * SECOND if n % 50 == 0 else 0),
            event_type=chance.choice(["login", "data_modify", "data_delete"]),
            status=chance.choice(["success", "success", "failure", "denied"]),
            user_id=chance.choice(["alice", "bob", None]),
            ip_address=chance.choice(["10.0.0.1", "10.0.0.2", None]),
            resource_type=chance.choice(["node", "job", None]),
        )
        for n in range(count)
    ]
    store.append(uuid.uuid4(), 0, events)
    return events


def roll_up(store: AnyStore) -> int:
    """Make every rollup that is due."""
    more = True
    while more:
        cursor, more = store.roll_up(8)
    return cursor


def live(store: AnyStore, asked: Filter, monkeypatch: pytest.MonkeyPatch) -> Stats:
    """The answer from the rows alone."""
    with monkeypatch.context() as patch:
        patch.setattr(rolling, "made", lambda connection: {})
        return store.stats(asked)


RANGES = (
    Filter(),
    Filter(start=START + 100 * SECOND),
    Filter(end=START + 777 * SECOND),
    Filter(start=START + 63 * SECOND, end=START + 1_501 * SECOND),
    Filter(start=START + 640 * SECOND, end=START + 641 * SECOND),
    Filter(start=START - 10**9, end=START - 10**8),
    Filter(start=EARLIEST, end=LATEST),
    Filter(user_id=("alice",)),
)


def test_rollups_change_no_answer(store: AnyStore, event: MakeEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over any time range, with all rollups, some, and a tail that has none."""
    fill(store, event, 1_900)
    before = [store.stats(asked) for asked in RANGES]
    assert store.roll_up(3) == (192, True)
    assert [store.stats(asked) for asked in RANGES] == before
    assert roll_up(store) == 1_856
    assert [store.stats(asked) for asked in RANGES] == before
    fill(store, event, 99, seed=2)
    for asked in RANGES:
        assert store.stats(asked) == live(store, asked, monkeypatch)


def test_few_rows_are_looked_at(store: AnyStore, event: MakeEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once rolled up, a question about everything reads the tail alone; one about a range, the blocks at its ends."""
    fill(store, event, 1_900)
    roll_up(store)
    looked: list[int] = []
    tally = tallies.tally

    def watched(walk: Any, first: int, end: int, **options: Any) -> Any:
        looked.append(end - first)
        return tally(walk, first, end, **options)

    monkeypatch.setattr(tallies, "tally", watched)
    store.stats(Filter())
    assert looked == [1_900 - 1_856]
    looked.clear()
    fill(store, event, 64, seed=3)
    roll_up(store)
    store.stats(Filter(end=START + 640 * SECOND))
    assert sum(looked) < 1_900 // 2, "blocks that lie beyond the range, and those inside it, are not looked at"


def test_a_rollup_that_is_gone_or_damaged_is_not_missed(
    store: AnyStore, event: MakeEvent, raw: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch, is_sqlite: bool
) -> None:
    """Rows are looked at instead; what is damaged is never believed, and nothing raises."""
    fill(store, event, 1_900)
    roll_up(store)
    expected = [live(store, asked, monkeypatch) for asked in RANGES]
    triggers = ("DELETE", "UPDATE")
    for trigger in triggers:
        name = f"audit_guard_{trigger.lower()}"
        raw(f"DROP TRIGGER {name}_audit_rollups" if is_sqlite else f"DROP TRIGGER {name} ON audit_rollups")
    raw("DELETE FROM audit_rollups WHERE level = 1 AND number = 2")
    raw("DELETE FROM audit_rollups WHERE level = 0 AND number IN (9, 28)")
    raw("DELETE FROM audit_rollups WHERE level = 2")
    raw("UPDATE audit_rollups SET body = ? WHERE level = 1 AND number = 3", (b"\xc1",))
    raw("UPDATE audit_rollups SET body = ? WHERE level = 0 AND number = 12", (b"",))
    assert [store.stats(asked) for asked in RANGES] == expected
    roll_up(store)
    assert [store.stats(asked) for asked in RANGES] == expected


def test_the_database_refuses_to_change_rollups(
    store: AnyStore, event: MakeEvent, raw: Callable[..., list[Any]]
) -> None:
    """They are as append-only as what they are made of."""
    fill(store, event, 64)
    roll_up(store)
    for statement in ("DELETE FROM audit_rollups", "UPDATE audit_rollups SET level = 9"):
        with pytest.raises(Exception, match="append-only"):
            raw(statement)


def test_several_may_roll_up_at_once(make_store: MakeStore, event: MakeEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts make the same rollups; each is there once, and the answer is right."""
    stores = [make_store(), make_store()]
    fill(stores[0], event, 1_900)
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(roll_up, stores)) == {1_856}
    assert stores[1].stats(Filter()) == live(stores[0], Filter(), monkeypatch)


def test_times_at_the_ends_have_rollups_too(store: AnyStore, event: MakeEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks with events of the years 1 and 9999 are counted like any other."""
    store.append(uuid.uuid4(), 0, [event(timestamp=at) for at in [EARLIEST, LATEST, START, 0] * 32])
    assert roll_up(store) == 128
    assert store.stats(Filter()) == live(store, Filter(), monkeypatch)
    assert store.stats(Filter()).total_events == 128
