"""Tiles: their paths, which of them a log of each size has, what is in them, and the tree read back from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.errors import TileInvalid
from indelible.integrity.merkle import (
    CompactRange,
    NodeReader,
    consistency_proof,
    hash_leaf,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from indelible.integrity.tiles import (
    Tile,
    bundles,
    decode_bundle,
    encode_bundle,
    encode_tile,
    node_reader,
    split_tile,
    tile_at,
    tiles,
)

SIZES = [0, 1, 2, 255, 256, 257, 511, 65_535, 65_536, 65_537, 70_000]
LEAVES = [hash_leaf(i.to_bytes(4)) for i in range(max(SIZES))]


@pytest.fixture(scope="module")
def node(read_nodes: Callable[[Sequence[bytes]], NodeReader]) -> NodeReader:
    """The nodes over LEAVES."""
    return read_nodes(LEAVES)


@pytest.mark.parametrize(
    ("index", "path"),
    [(0, "000"), (67, "067"), (999, "999"), (1000, "x001/000"), (1_234_067, "x001/x234/067"), (10**6, "x001/x000/000")],
)
def test_paths(index: int, path: str) -> None:
    """The index in groups of three digits, all but the last behind an x; a width only where the tile is partial."""
    assert Tile(0, index).path == f"tile/0/{path}"
    assert Tile(63, index, 17).path == f"tile/63/{path}.p/17"
    assert Tile(0, index, 1).bundle_path == f"tile/entries/{path}.p/1"
    assert Tile.parse(f"tile/0/{path}") == Tile.parse(f"tile/entries/{path}") == Tile(0, index)


@given(st.integers(0, 63), st.integers(0, 2**63 - 1), st.integers(1, 256))
def test_paths_round_trip(level: int, index: int, width: int) -> None:
    """Every place has one path and every path one place."""
    tile = Tile(level, index, width)
    assert Tile.parse(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "", "tile/0/0", "tile/00/000", "tile/64/000", "tile/0/x000/000", "tile/0/001/000", "tile/0/x001/x000",
        "tile/0/000.p/0", "tile/0/000.p/01", "tile/0/000.p/256", "tile/0/000.p/257", "tile/0/000.p/", "/tile/0/000",
        "tile/0/000\n", "tile/data/000", "tile/0/x999/x999/x999/x999/x999/x999/999", "tile/0/٠٠٠", "tile/-1/000",
    ],
)  # fmt: skip
def test_other_paths_are_refused(path: str) -> None:
    """Needless zeroes, missing or misplaced x, widths that are none."""
    with pytest.raises(TileInvalid):
        Tile.parse(path)


@pytest.mark.parametrize(
    ("size", "full", "partial"),
    [
        (0, {}, {}),
        (1, {}, {0: 1}),
        (2, {}, {0: 2}),
        (255, {}, {0: 255}),
        (256, {0: 1}, {1: 1}),
        (257, {0: 1}, {0: 1, 1: 1}),
        (511, {0: 1}, {0: 255, 1: 1}),
        (65_535, {0: 255}, {0: 255, 1: 255}),
        (65_536, {0: 256, 1: 1}, {2: 1}),
        (65_537, {0: 256, 1: 1}, {0: 1, 2: 1}),
        (70_000, {0: 273, 1: 1}, {0: 112, 1: 17, 2: 1}),
    ],
)
def test_the_tiles_of_a_size(size: int, full: dict[int, int], partial: dict[int, int]) -> None:
    """How many full tiles a level has, and how wide its partial one is, as tlog-tiles states."""
    found = list(tiles(size))
    assert Counter(tile.level for tile in found if tile.width == 256) == full
    assert {tile.level: tile.width for tile in found if tile.width != 256} == partial
    assert len({tile.path for tile in found}) == len(found)
    assert list(bundles(size)) == [tile for tile in found if tile.level == 0]
    assert all(tile_at(tile.level, tile.index, size) == tile for tile in found)


@given(st.lists(st.integers(0, 200_000), max_size=6))
def test_writing_in_steps_writes_the_same_files(sizes: list[int]) -> None:
    """With ``since``, each step writes what the last did not, and no full tile twice."""
    written: list[Tile] = []
    before = 0
    for size in sorted(sizes):
        step = list(tiles(size, since=before))
        assert set(step) | set(written) >= set(tiles(size))
        assert not set(step) & set(written)
        written += step
        before = size


@pytest.mark.parametrize("size", SIZES)
def test_the_hashes_in_a_tile(node: NodeReader, size: int) -> None:
    """Hash i of tile (l, n) is the tree hash of 256**l leaves from (256 n + i) 256**l on."""
    for tile in tiles(size):
        data = encode_tile(tile, node)
        span = 256**tile.level
        for i, value in enumerate(split_tile(tile, data)):
            if i in (0, tile.width - 1):
                start = (tile.index * 256 + i) * span
                assert value == CompactRange().extend(LEAVES[start : start + span])[0].root


@given(st.sampled_from(SIZES[1:]), st.data())
def test_proofs_from_tiles(node: NodeReader, size: int, data: st.DataObject) -> None:
    """A reader who has only the files of a log computes its root and any proof."""
    files = FILES.setdefault(size, {tile.path: encode_tile(tile, node) for tile in tiles(size)})
    reader = node_reader(size, lambda tile: files[tile.path])
    root = CompactRange.read(size, reader).root
    assert root == CompactRange.read(size, node).root
    index = data.draw(st.integers(0, size - 1))
    verify_inclusion(index, size, LEAVES[index], inclusion_proof(index, size, reader), root)
    old = CompactRange.read(index + 1, node).root
    verify_consistency(index + 1, size, consistency_proof(index + 1, size, reader), old, root)
    with pytest.raises(TileInvalid):
        reader(0, size)


FILES: dict[int, dict[str, bytes]] = {}


def test_tiles_of_the_wrong_length_are_refused() -> None:
    """A tile that was cut short is noticed before it is used."""
    with pytest.raises(TileInvalid):
        node_reader(5, lambda _: bytes(4 * 32))(0, 0)
    with pytest.raises(TileInvalid):
        tile_at(0, 1, 256)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_bundles_round_trip(entries: list[bytes]) -> None:
    """Entries come back as they were; a bundle that is cut short, or longer than said, does not."""
    data = encode_bundle(entries)
    assert decode_bundle(data, len(entries)) == entries
    for bad in (data[:-1], data + b"\0", data + b"\0\0"):
        with pytest.raises(TileInvalid):
            decode_bundle(bad, len(entries))
    with pytest.raises(TileInvalid):
        decode_bundle(data, len(entries) + 1)


def test_a_bundle_is_bounded() -> None:
    """1 to 256 entries of at most 65,535 bytes."""
    assert decode_bundle(encode_bundle([b"x" * 65_535]), 1) == [b"x" * 65_535]
    for entries in ([], [b""] * 257, [b"x" * 65_536]):
        with pytest.raises(TileInvalid):
            encode_bundle(entries)
