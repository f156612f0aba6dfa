"""The tree's parts as they are stored: the rows' leaf hashes, and full tiles of level 1 and above."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from indelible.integrity.tiles import Tile
from indelible.ports import Segment
from indelible.stores.schema import segment_table, tiles


def leaf_hashes(connection: Connection, segments: Sequence[Segment], first: int, end: int) -> list[bytes | None]:
    """The leaf hashes of the rows ``first`` to ``end - 1`` that are there, in order; None where a row has none."""
    found: list[bytes | None] = []
    for part in segments:
        if part.first < end and part.end > first:
            row = segment_table(part.number).c
            query = select(row.leaf_hash).where(row.seq >= first, row.seq < end).order_by(row.seq)
            found += connection.scalars(query)
    return found


def full_tile(connection: Connection, tile: Tile) -> bytes:
    """The 8,192 bytes of a full tile of level 1 or above; none where it is not stored."""
    query = select(tiles.c.hashes).where(tiles.c.level == tile.level, tiles.c.number == tile.index)
    return connection.scalar(query) or b""
