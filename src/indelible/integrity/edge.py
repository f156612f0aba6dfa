"""The right edge of a growing tree: what a store keeps in memory to extend the root and to write full tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from indelible.errors import TileInvalid
from indelible.integrity.merkle import CompactRange, perfect_root
from indelible.integrity.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, split_tile

#: Leaves under one full tile of level 1: an edge can be read back from tiles alone at multiples of it.
EDGE_UNIT: Final = TILE_WIDTH**2


@dataclass(frozen=True, slots=True)
class RightEdge:
    """The tree's compact range, and the hashes of its partial tiles of level 1 and above.

    ``partial[n]`` belongs to the tile of level n + 1 that is not full yet; the hashes of level 0 are the rows' own. A
    value, like the range: after a transaction that failed, the old edge is still good.
    """

    tree: CompactRange = field(default_factory=CompactRange)
    partial: tuple[tuple[bytes, ...], ...] = ()

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self.tree.size

    @property
    def root(self) -> bytes:
        """The root hash."""
        return self.tree.root

    def extend(self, leaf_hashes: Sequence[bytes]) -> tuple[RightEdge, list[tuple[Tile, bytes]]]:
        """The edge after more leaves, and the tiles of level 1 and above that they filled, with their bytes."""
        tree, completed = self.tree.extend(leaf_hashes)
        filled: list[tuple[Tile, bytes]] = []
        partial: list[tuple[bytes, ...]] = []
        for level in range(1, max(len(self.partial), (len(completed) - 1) // TILE_HEIGHT) + 1):
            row = list(self.partial[level - 1]) if level <= len(self.partial) else []
            if TILE_HEIGHT * level < len(completed):
                row += completed[TILE_HEIGHT * level]
            index = (self.size >> (TILE_HEIGHT * level)) // TILE_WIDTH
            while len(row) >= TILE_WIDTH:
                filled.append((Tile(level, index), b"".join(row[:TILE_WIDTH])))
                row, index = row[TILE_WIDTH:], index + 1
            partial.append(tuple(row))
        return RightEdge(tree, tuple(partial)), filled

    @classmethod
    def read(cls, size: int, read: Callable[[Tile], bytes]) -> RightEdge:
        """The edge at a size that is a multiple of 65,536, from full tiles of level 1 and above.

        For any other size, read the largest multiple below it and ``extend`` with the leaf hashes since. The caller
        MUST compare the root with the one it recorded before it grows the tree. Raises TileInvalid for a tile of the
        wrong length, ValueError for another size.
        """
        if size % EDGE_UNIT:
            raise ValueError(f"{size} is not a multiple of {EDGE_UNIT:,}")
        partial: list[tuple[bytes, ...]] = [()] if size else []
        level = 2
        while count := size >> (TILE_HEIGHT * level):
            below = (Tile(level - 1, index) for index in range(count // TILE_WIDTH * TILE_WIDTH, count))
            partial.append(tuple(perfect_root(split_tile(tile, read(tile))) for tile in below))
            level += 1
        tree = CompactRange()
        for above, row in reversed(list(enumerate(partial, start=1))):
            tree, _ = tree.extend(row, level=TILE_HEIGHT * above)
        if tree.size != size:
            raise TileInvalid(f"the tiles make a tree of size {tree.size}, not {size}")
        return cls(tree, tuple(partial))
