"""The right edge: what a store keeps to extend the tree, and gets back after a restart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indelible.errors import TileInvalid
from indelible.integrity.edge import EDGE_UNIT, RightEdge
from indelible.integrity.merkle import CompactRange, hash_leaf, root_hash
from indelible.integrity.tiles import Tile, encode_tile, tiles

LEAVES = [hash_leaf(i.to_bytes(4)) for i in range(2 * EDGE_UNIT + 4_464)]


@settings(max_examples=20)
@given(st.lists(st.sampled_from([0, 1, 10, 255, 256, 257, 1_000, 40_000, 65_536]), max_size=8))
def test_batches_of_any_size_fill_the_same_tiles(steps: list[int]) -> None:
    """Full tiles of level 1 and above come out once each, with the bytes that tlog-tiles gives them."""
    edge, filled = RightEdge(), dict[Tile, bytes]()
    for step in steps:
        batch = LEAVES[edge.size : edge.size + step]
        edge, new = edge.extend(batch)
        assert not filled.keys() & dict(new).keys()
        filled |= new
    tree, nodes = CompactRange().extend(LEAVES[: edge.size])
    assert edge.tree == tree
    assert filled == {
        tile: encode_tile(tile, lambda level, index: nodes[level][index])
        for tile in tiles(edge.size)
        if tile.level >= 1 and tile.width == 256
    }


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 70_000, 131_072, len(LEAVES)])
def test_an_edge_is_read_back(size: int) -> None:
    """From the full tiles and the leaf hashes since the last multiple of 65,536 comes the edge that was lost."""
    edge, filled = RightEdge().extend(LEAVES[:size])
    stored = dict(filled)
    base = size // EDGE_UNIT * EDGE_UNIT
    again, new = RightEdge.read(base, stored.__getitem__).extend(LEAVES[base:size])
    assert (again, new) == (edge, [])
    assert again.root == root_hash(LEAVES[:size])


@pytest.mark.parametrize("units", [255, 256, 257, 513])
def test_an_edge_is_read_back_across_higher_levels(units: int) -> None:
    """Where level 2 fills, its tiles stand for those below: no more than 255 tiles a level are read."""
    row = [hash_leaf(i.to_bytes(4)) for i in range(units * 256)]
    tree, nodes = CompactRange().extend(row, level=8)
    stored = {
        tile: encode_tile(tile, lambda level, index: nodes[level - 8][index])
        for tile in tiles(tree.size)
        if tile.level >= 1 and tile.width == 256
    }
    reads: list[Tile] = []

    def read(tile: Tile) -> bytes:
        reads.append(tile)
        return stored[tile]

    edge = RightEdge.read(tree.size, read)
    assert edge.tree == tree
    assert len(reads) <= 255
    after, _ = edge.extend([bytes(32)])
    assert after.size == tree.size + 1


def test_what_cannot_be_read_is_refused() -> None:
    """Sizes between the multiples, and tiles that were cut short."""
    with pytest.raises(ValueError, match="multiple"):
        RightEdge.read(EDGE_UNIT + 1, lambda _: bytes(8192))
    with pytest.raises(TileInvalid):
        RightEdge.read(EDGE_UNIT, lambda _: bytes(8191))


def test_a_forged_tile_shows_in_the_root() -> None:
    """The caller compares the root with the recorded one: a tile that was changed cannot reproduce it."""
    edge, filled = RightEdge().extend(LEAVES[:EDGE_UNIT])
    forged = {tile: data[:-1] + bytes((data[-1] ^ 1,)) for tile, data in filled}
    assert RightEdge.read(EDGE_UNIT, forged.__getitem__).root != edge.root
