"""Published checkpoints: how they are listed, on every engine."""

from __future__ import annotations

import pytest

from indelible.ports import StoredCheckpoint
from tests.stores.conftest import AnyStore


def test_the_newest_checkpoints_come_first(store: AnyStore) -> None:
    """The largest sizes, largest first, no more than asked for; by size all of them, smallest first."""
    assert store.newest_checkpoints(3) == []
    assert store.newest_checkpoint() is None
    stored = [StoredCheckpoint(size, 1_700_000_000_000_000 + size, f"note {size}\n".encode()) for size in (2, 5, 9, 70)]
    lease = store.lease()
    assert lease is not None
    for each in stored:
        lease.insert(each)
    lease.close()
    assert list(store.newest_checkpoints(3)) == stored[:0:-1]
    assert list(store.newest_checkpoints(99)) == stored[::-1]
    assert store.newest_checkpoint() == stored[-1]
    assert list(store.checkpoints(first=5)) == stored[1:]


def test_a_closed_lease_can_be_taken_at_once(store: AnyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even while its connection is still open: a server may notice late that a client has gone."""
    first = store.lease()
    assert first is not None
    assert store.lease() is None
    with monkeypatch.context() as patched:
        patched.setattr(first._engine, "dispose", lambda: None)
        first.close()
    second = store.lease()
    assert second is not None
    second.close()
    first._engine.dispose()
    first.close()
