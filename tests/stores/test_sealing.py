"""Stored means sealed: rows, tiles and root commit together, and a damaged tree is not grown."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible import pacing
from indelible.errors import RowRefused, TreeDamaged
from indelible.events import AuditEvent
from indelible.integrity.leaf import leaf_bytes
from indelible.integrity.merkle import hash_leaf, root_hash
from indelible.integrity.tiles import tiles
from indelible.queries import Filter
from indelible.stores import base
from indelible.stores.base import SegmentedStore
from indelible.stores.batch import offer

Event = Callable[..., AuditEvent]
MakeStore = Callable[..., SegmentedStore]
Raw = Callable[..., list[Any]]
YEAR_10000 = 253_402_300_800_000_000


def leaves(store: SegmentedStore) -> list[bytes]:
    """Leaf hashes recomputed from the rows, which must be what stands beside them."""
    rows = [row for part in store.scan(Filter()) for row in part]
    hashes = [hash_leaf(leaf_bytes(row)) for row in rows]
    assert [row.leaf_hash for row in rows] == hashes
    return hashes


def check_tree(store: SegmentedStore, raw: Raw) -> None:
    """Every head and every tile is what the rows make."""
    hashes = leaves(store)
    for size, root in raw("SELECT size, root FROM audit_heads"):
        assert bytes(root) == root_hash(hashes[:size])
    stored = {(level, n): bytes(h) for level, n, h in raw("SELECT level, number, hashes FROM audit_tiles")}
    full = [tile for tile in tiles(len(hashes)) if tile.level > 0 and tile.width == 256]
    assert stored.keys() == {(tile.level, tile.index) for tile in full}
    for tile in full:
        first = tile.index * 256
        width = 256**tile.level
        below = [root_hash(hashes[(first + i) * width : (first + i + 1) * width]) for i in range(256)]
        assert stored[tile.level, tile.index] == b"".join(below)


def test_rows_heads_and_tiles_agree(store: SegmentedStore, event: Event, raw: Raw) -> None:
    """Over segments and batches of every size, alternating writers included."""
    a, b = uuid.uuid4(), uuid.uuid4()
    done = {a: 0, b: 0}
    for at, count in enumerate([1, 1, 2, 255, 256, 257, 700, 1, 1024, 3]):
        writer = (a, b)[at % 2]
        store.append(writer, done[writer], [event(user_id=f"u{n}", metadata='{"n":1}') for n in range(count)])
        done[writer] += count
    check_tree(store, raw)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_tree_made_in_pieces(
    store: SegmentedStore, event: Event, raw: Raw, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    """Beside others a batch is sealed and written a few rows at a time, over a segment's end too."""
    breaths: list[float] = []
    monkeypatch.setattr(time, "sleep", breaths.append)
    writer, done = uuid.uuid4(), 0
    with pacing.beside_others(7):
        for count in (1, 255, 256, 257, 700):
            store._hashes_ahead = ahead
            store.append(writer, done, [event(user_id=f"u{n}") for n in range(count)])
            done += count
    assert len(breaths) >= 1_469 // 7
    check_tree(store, raw)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_refusal_late_in_a_batch(make_store: MakeStore, event: Event, raw: Raw, ahead: bool) -> None:
    """Pieces are written before a later one is refused, and a segment made: none of it happened, and the log goes on."""
    store, writer = make_store(segment_rows=256), uuid.uuid4()
    bad = event(timestamp=YEAR_10000)
    store._hashes_ahead = ahead
    with pacing.beside_others(7), pytest.raises(RowRefused, match="outside the years"):
        store.append(writer, 0, [*(event() for _ in range(300)), bad])
    assert store.head() is None
    assert raw("SELECT count(*) FROM audit_logs") == [(0,)]
    assert store.check() == []
    assert store.append(writer, 0, [event() for _ in range(300)]) == 300
    check_tree(store, raw)


def test_who_is_not_alone_hashes_before_the_lock(make_store: MakeStore, event: Event) -> None:
    """After another has written, a writer seals its next batch before it asks for the lock; alone, as it is written."""
    (one, first), (other, second) = ((make_store(), uuid.uuid4()) for _ in range(2))
    told = []
    for at, (store, writer) in enumerate([(one, first), (one, first), (other, second), (one, first), (one, first)]):
        store.append(writer, store.position(writer), [event()])
        told.append((at, store._hashes_ahead))
    assert told == [(0, False), (1, False), (2, True), (3, True), (4, False)]


@given(
    count=st.integers(1, 60),
    skip=st.integers(0, 59),
    together=st.integers(1, 20),
    ahead=st.booleans(),
)
def test_parts_are_the_whole(count: int, skip: int, together: int, ahead: bool) -> None:
    """However a batch is cut, and wherever a replay goes on in it, each row is sealed as if it were alone."""
    writer = uuid.UUID(int=7)
    events = [
        AuditEvent(id=uuid.UUID(int=n), timestamp=n, event_type="api_request", action="a", status="success")
        for n in range(count)
    ]
    skip = min(skip, count)
    with pacing.beside_others(together):
        offered = offer(writer, 100, events, after=None, recorded_at=1, random=_salts, ahead=ahead)
        parts = list(offered.parts(skip))
    whole = offer(writer, 100, events, after=None, recorded_at=1, random=_salts, ahead=False).seal(skip, count)
    assert [leaf for part in parts for leaf in part.leaf_hashes] == list(whole.leaf_hashes)
    assert [id_ for part in parts for id_ in part.fields["id"]] == [event.id for event in events[skip:]]
    assert all(0 < len(part.leaf_hashes) <= together for part in parts)


def _salts(size: int) -> bytes:
    """Different ones for each row, the same each time."""
    return b"".join(hashlib.sha256(at.to_bytes(4, "big")).digest() for at in range(size // 32))


def test_two_stores_take_turns(store: SegmentedStore, make_store: MakeStore, event: Event, raw: Raw) -> None:
    """Each extends what the other has written: the edge that it remembers catches up."""
    other = make_store()
    a, b = uuid.uuid4(), uuid.uuid4()
    for n in range(5):
        store.append(a, n * 100, [event() for _ in range(100)])
        other.append(b, n * 70, [event() for _ in range(70)])
    check_tree(store, raw)


def test_who_is_far_behind_catches_up_without_the_lock(
    store: SegmentedStore, make_store: MakeStore, event: Event, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it reads what others have stored they go on, and what they add then is read under the lock."""
    monkeypatch.setattr(base, "NEAR", 40)
    a, b = uuid.uuid4(), uuid.uuid4()
    other: Any = make_store()
    reading, asked = other._edge_at, []

    def while_reading(writer: Any, head: Any) -> Any:
        asked.append(head[0])
        if len(asked) == 1:
            store.append(a, 100, [event() for _ in range(30)])
        return reading(writer, head)

    monkeypatch.setattr(other, "_edge_at", while_reading)
    store.append(a, 0, [event() for _ in range(100)])
    assert other.append(b, 0, [event()]) == 131
    assert asked == [100, 130]
    store.append(a, 130, [event() for _ in range(10)])
    other.append(b, 1, [event()])
    assert asked == [100, 130, 141]
    check_tree(store, raw)


def test_who_is_far_behind_a_damaged_tree_does_not_grow_it(
    store: SegmentedStore, make_store: MakeStore, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root is compared there as well, and the writer is free again afterwards."""
    monkeypatch.setattr(base, "NEAR", 40)
    store.append(uuid.uuid4(), 0, [event() for _ in range(100)])
    other: Any = make_store()
    right = other._edge_at
    monkeypatch.setattr(other, "_edge_at", lambda writer, head: right(writer, (head[0], bytes(32))))
    with pytest.raises(TreeDamaged):
        other.append(uuid.uuid4(), 0, [event()])
    monkeypatch.setattr(other, "_edge_at", right)
    assert other.append(uuid.uuid4(), 0, [event()]) == 101


def test_a_restarted_writer_finds_the_edge_again(
    store: SegmentedStore, make_store: MakeStore, event: Event, raw: Raw
) -> None:
    """From the last leaf hashes alone, and past 65,536 rows from tiles."""
    store.append(uuid.uuid4(), 0, [event() for _ in range(65_530)])
    make_store().append(uuid.uuid4(), 0, [event() for _ in range(10)])
    make_store().append(uuid.uuid4(), 0, [event() for _ in range(300)])
    hashes = leaves(store)
    size, root = raw("SELECT size, root FROM audit_heads ORDER BY size DESC LIMIT 1")[0]
    assert (size, bytes(root)) == (65_840, root_hash(hashes))
    assert [(level, n) for level, n in raw("SELECT level, number FROM audit_tiles")] == [(1, 0)]


def test_absent_groups_have_no_salt(store: SegmentedStore, event: Event) -> None:
    """A salt hides something; where there is nothing, there is none."""
    store.append(uuid.uuid4(), 0, [event(), event(user_id="alice"), event(error="x")])
    (rows,) = store.scan(Filter())
    assert [(r.actor_salt is None, r.details_salt is None) for r in rows] == [
        (True, True),
        (False, True),
        (True, False),
    ]


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE audit_logs_0 SET leaf_hash = ? WHERE seq = 5",
        "UPDATE audit_heads SET root = ? WHERE size = 10",
    ],
)
def test_a_damaged_tree_is_not_grown(
    store: SegmentedStore, make_store: MakeStore, event: Event, raw: Raw, unguarded: Callable[[], None], attack: str
) -> None:
    """A writer that cannot reproduce the newest root refuses to append, and says which command to run."""
    store.append(uuid.uuid4(), 0, [event() for _ in range(10)])
    unguarded()
    raw(attack, [b"\x00" * 32])
    fresh = make_store()
    with pytest.raises(TreeDamaged, match="indelible verify"):
        fresh.append(uuid.uuid4(), 0, [event()])
    assert raw("SELECT count(*) FROM audit_heads") == [(1,)]


def test_an_event_that_cannot_be_a_leaf_is_refused(store: SegmentedStore, event: Event) -> None:
    """More than 65,535 bytes of clear fields: RowRefused, nothing stored."""
    with pytest.raises(RowRefused, match="sealed"):
        store.append(uuid.uuid4(), 0, [event(), event(action="x" * 70_000)])
    assert store.head() is None


@pytest.fixture
def unguarded(raw: Raw, is_sqlite: bool) -> Callable[[], None]:
    """A function that takes the guards away, as whoever owns the database can."""

    def drop() -> None:
        if is_sqlite:
            for (name,) in raw("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
                raw(f"DROP TRIGGER {name}")
        else:
            for table in ("audit_logs", "audit_heads", "audit_tiles"):
                raw(f"ALTER TABLE {table} DISABLE TRIGGER USER")

    return drop
