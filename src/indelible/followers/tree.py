"""The log's tree as the publisher reads it: the right edge, grown as the log grows, and proofs from what was signed."""

from __future__ import annotations

from typing import Final

from indelible.errors import LogForked, ProofInvalid, TileInvalid, TreeDamaged
from indelible.integrity.checkpoint import Checkpoint
from indelible.integrity.edge import RightEdge
from indelible.integrity.merkle import HASH_SIZE, consistency_proof, verify_consistency
from indelible.integrity.tiles import TILE_WIDTH, Tile, node_reader
from indelible.ports import Head, Store
from indelible.stores.batch import edge_at


class Tree:
    """The tree at the newest head. Hashes are read from the store; none is believed that does not lead to the root."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._edge = RightEdge()

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._edge.size

    def grow(self, head: Head) -> None:
        """Read what is new. Raises LogForked when the stored rows do not lead to the head's root."""
        if head.size == self._edge.size and head.root == self._edge.root:
            return
        try:
            self._edge = edge_at(
                head.size,
                head.root,
                self._edge,
                read_tile=self._store.full_tile,
                read_leaf_hashes=self._store.leaf_hashes,
            )
        except (TreeDamaged, TileInvalid) as error:
            raise LogForked(f"the stored tree is damaged: {error.message}", hint=_VERIFY) from error

    def check_contains(self, before: Checkpoint) -> None:
        """Raise LogForked unless this tree is what ``before`` was about, with more leaves behind it or none."""
        if before.size == 0:
            return
        if before.size > self.size:
            raise LogForked(
                f"the log has {self.size:,} events, but {before.size:,} were signed: it was put back or cut",
                hint=_EPOCH,
            )
        try:
            proof = self.consistency_proof(before.size)
            verify_consistency(before.size, self.size, proof, before.root, self._edge.root)
        except (ProofInvalid, TileInvalid) as error:
            raise LogForked(
                f"the log's first {before.size:,} events are not those that were signed: {error.message}", hint=_EPOCH
            ) from error

    def consistency_proof(self, first: int) -> list[bytes]:
        """The proof that the tree of size ``first`` is a prefix of this one. Raises ProofInvalid, TileInvalid."""
        return consistency_proof(first, self.size, node_reader(self.size, self._read))

    def _read(self, tile: Tile) -> bytes:
        if tile.level == 0:
            first = tile.index * TILE_WIDTH
            hashes = self._store.leaf_hashes(first, first + tile.width)
            return b"".join(leaf or bytes(HASH_SIZE) for leaf in hashes)
        if tile.width == TILE_WIDTH:
            return self._store.full_tile(tile)
        return b"".join(self._edge.partial[tile.level - 1])


_VERIFY: Final = "rows, tiles or heads were changed beside the service; run: indelible verify"
_EPOCH: Final = (
    "find out why before anything else;"
    " if a backup was put back on purpose, begin anew: indelible key new-epoch --reason '...'"
)
