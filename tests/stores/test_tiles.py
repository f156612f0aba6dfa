"""One tree, whatever the engine: the same events with the same salts give the same tiles, byte for byte."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from indelible.errors import TreeDamaged
from indelible.events import AuditEvent
from indelible.integrity.merkle import CompactRange, root_hash
from indelible.integrity.tiles import TILE_WIDTH, Tile, node_reader, tiles
from indelible.migrations import upgrade_engine
from indelible.proving import read_tile, tile_reader
from indelible.stores.base import SegmentedStore
from indelible.stores.postgres import PostgresStore
from indelible.stores.sqlite import SqliteStore
from indelible.testing import MemoryStore

SIZES = (0, 1, 2, 255, 256, 257, 511, 65_535, 65_536, 65_537, 70_000)


class Repeatable:
    """Randomness that two stores share: the same bytes for the same question."""

    def __init__(self) -> None:
        self._random = random.Random(7)

    def __call__(self, size: int) -> bytes:
        return self._random.randbytes(size)


@pytest.fixture
def stores(sqlite_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SegmentedStore]]:
    """A log on each engine, with the same clock and the same salts."""
    monkeypatch.setattr(SegmentedStore, "_now", staticmethod(lambda: 1_700_000_000_000_000_000))
    with ExitStack() as stack:
        made: list[SegmentedStore] = [
            SqliteStore(sqlite_url, segment_rows=65_536, prepare=upgrade_engine),
            PostgresStore(postgres_url, segment_rows=65_536, prepare=upgrade_engine),
        ]
        for store in made:
            monkeypatch.setattr(store, "_random", Repeatable())
            stack.callback(store.close)
            store.open()
        yield made


def events(first: int, end: int) -> list[AuditEvent]:
    """Events number first to end - 1."""
    return [
        AuditEvent(
            id=uuid.UUID(int=number + 1),
            timestamp=1_700_000_000_000_000 + number,
            event_type="login",
            action="login",
            status="success",
            user_id=f"ü{number}",
            metadata='{"a":"\\u20ac"}' if number % 3 else None,
        )
        for number in range(first, end)
    ]


def test_tiles_are_the_same_on_both_engines(stores: list[SegmentedStore]) -> None:
    """At every size that is a border of something; the root too, and it is that of the leaf hashes."""
    writer, before = uuid.UUID(int=1), 0
    for size in SIZES:
        for store in stores:
            for first in range(before, size, 65_000):
                end = min(size, first + 65_000)
                store.append(writer, first, events(first, end))
        before = size
        leaves = stores[0].leaf_hashes(0, size)
        assert leaves == stores[1].leaf_hashes(0, size)
        root = root_hash([leaf for leaf in leaves if leaf is not None])
        # Of level 0, which the leaf hashes are, the last few; of all others each.
        wanted = [tile for tile in tiles(size) if tile.level or tile.index >= size // TILE_WIDTH - 1]
        for store in stores:
            assert CompactRange.read(size, node_reader(size, tile_reader(store))).root == root
            head = store.head()
            assert (head.size, head.root) == (size, root) if head is not None else size == 0
        for tile in wanted:
            data = read_tile(stores[0], tile)
            assert data == read_tile(stores[1], tile)
            assert len(data) == 32 * tile.width


def test_a_tile_that_is_not_there_is_not_made_up() -> None:
    """Rows without leaf hashes, tiles without a row: TreeDamaged."""
    for tile in (Tile(0, 0, 3), Tile(1, 0), Tile(1, 0, 3)):
        with pytest.raises(TreeDamaged):
            read_tile(MemoryStore(), tile)
