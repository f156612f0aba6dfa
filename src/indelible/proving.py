"""Proofs from a store: tiles, audit paths and consistency proofs for a checkpoint that was published.

No inclusion proof is handed out that does not hold: each is verified against the checkpoint first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from indelible.errors import IntegrityError, ProofInvalid, TileInvalid, TreeDamaged
from indelible.events import StoredEvent
from indelible.integrity.checkpoint import Checkpoint
from indelible.integrity.leaf import GROUPS, disclosure, leaf_bytes
from indelible.integrity.merkle import (
    consistency_proof,
    hash_leaf,
    inclusion_proof,
    perfect_root,
    verify_inclusion,
)
from indelible.integrity.note import Note
from indelible.integrity.proof import TlogProof
from indelible.integrity.tiles import TILE_WIDTH, Tile, node_reader, split_tile
from indelible.ports import Store, StoredCheckpoint

_HINT = "rows, tiles or heads were changed beside the service; run: indelible verify"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One event and everything that proves it. ``disclosures`` are those of the groups that are there."""

    proof: TlogProof
    entry: bytes
    disclosures: tuple[str, ...]


def read_tile(store: Store, tile: Tile) -> bytes:
    """A tile's hashes, full or partial, from leaf hashes and stored tiles. Raises TreeDamaged where some are missing."""
    if tile.level == 0:
        return b"".join(_leaves(store, tile.index * TILE_WIDTH, tile.width))
    if tile.width == TILE_WIDTH:
        data = store.full_tile(tile)
        if not data:
            raise TreeDamaged(f"{tile.path} is not there", hint=_HINT)
        return data
    first = tile.index * TILE_WIDTH
    if tile.level == 1:
        # All of them at once: at the right edge these are up to 65,280 leaf hashes.
        leaves = _leaves(store, first * TILE_WIDTH, tile.width * TILE_WIDTH)
        rows = [leaves[at : at + TILE_WIDTH] for at in range(0, len(leaves), TILE_WIDTH)]
    else:
        below = [Tile(tile.level - 1, index) for index in range(first, first + tile.width)]
        rows = [split_tile(lower, read_tile(store, lower)) for lower in below]
    return b"".join(map(perfect_root, rows))


def tile_reader(store: Store) -> Callable[[Tile], bytes]:
    """``read_tile`` on this store."""
    return lambda tile: read_tile(store, tile)


def opened(stored: StoredCheckpoint) -> Checkpoint:
    """What a stored checkpoint says; its signatures are the verifier's to check. Raises IntegrityError."""
    return Checkpoint.parse(Note.parse(stored.note).text)


def prove(store: Store, row: StoredEvent, stored: StoredCheckpoint) -> Evidence:
    """Everything that proves a row under a checkpoint of a size beyond it.

    Raises TreeDamaged when the row, the tree or the checkpoint do not go together.
    """
    try:
        checkpoint, entry = opened(stored), leaf_bytes(row)
        hashes = inclusion_proof(row.seq, checkpoint.size, node_reader(checkpoint.size, tile_reader(store)))
        verify_inclusion(row.seq, checkpoint.size, hash_leaf(entry), hashes, checkpoint.root)
        disclosures = tuple(text for group in GROUPS if (text := disclosure(row, group)) is not None)
    except IntegrityError as error:
        raise TreeDamaged(f"event {row.id} cannot be proved: {error.message}", hint=_HINT) from error
    return Evidence(TlogProof(row.seq, tuple(hashes), stored.note), entry, disclosures)


def prove_consistency(store: Store, first: int, second: int) -> list[bytes]:
    """The proof that the log's first ``first`` leaves are a prefix of its first ``second`` (RFC 9162 §2.1.4).

    Raises ProofInvalid when ``first`` is 0 or the larger, or ``second`` is beyond the log; TreeDamaged when the stored
    tree has holes. It is for whoever holds both roots to verify.
    """
    head = store.head()
    if head is None or second > head.size:
        raise ProofInvalid(f"the log has {0 if head is None else head.size:,} rows")
    try:
        return consistency_proof(first, second, node_reader(second, tile_reader(store)))
    except TileInvalid as error:
        raise TreeDamaged(f"the stored tree is damaged: {error.message}", hint=_HINT) from error


def _leaves(store: Store, first: int, count: int) -> list[bytes]:
    found = [h for h in store.leaf_hashes(first, first + count) if h is not None]
    if len(found) != count:
        raise TreeDamaged(f"rows {first} to {first + count - 1} are not all there", hint=_HINT)
    return found
