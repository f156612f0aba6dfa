"""The follower that makes rollups: a few at a time, and patient."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from indelible import rollups
from indelible.errors import StoreUnavailable
from indelible.followers.rollups import INTERVAL, STEP, Rollups
from indelible.metrics import Tally
from indelible.migrations import upgrade_engine
from indelible.ports import Host
from indelible.stores.postgres import PostgresStore
from indelible.stores.sqlite import SqliteStore
from tests.followers.conftest import an_event

Store = SqliteStore | PostgresStore
HOST = Host(lambda **_: uuid.uuid4(), Tally())


@pytest.fixture
def store(engine_url: str) -> Iterator[Store]:
    """An open, empty log."""
    kind = SqliteStore if engine_url.startswith("sqlite") else PostgresStore
    store = kind(engine_url, prepare=upgrade_engine)
    store.open()
    yield store
    store.close()


def test_it_works_in_steps_and_comes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step makes a few; with nothing due it waits; its cursor says how far it is; the closing step is one more."""
    monkeypatch.setattr(rollups, "BLOCK", 16)
    store.append(uuid.uuid4(), 0, [an_event() for _ in range(16 * 2 * STEP + 5)])
    follower = Rollups(store)
    assert follower.step(HOST) == 0.0
    assert follower.cursor == 16 * STEP
    assert follower.step(HOST) == INTERVAL
    assert follower.cursor == 16 * 2 * STEP
    assert follower.step(HOST, closing=True) == INTERVAL


def test_a_store_that_is_away_is_waited_for(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """It does not raise, says so once, and goes on when the store is back."""
    follower = Rollups(store)
    store.close()
    with caplog.at_level("INFO", logger="indelible.followers.rollups"):
        assert follower.step(HOST) > INTERVAL
        assert follower.step(HOST) > INTERVAL
    assert len(caplog.records) == 1
    with pytest.raises(StoreUnavailable):
        store.roll_up(1)
    store.open()
    assert follower.step(HOST) == INTERVAL
