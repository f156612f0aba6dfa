"""Tiles and entry bundles (C2SP tlog-tiles): the tree cut into files of 256 hashes that never change.

Hash ``i`` of tile ``(level, index)`` is node ``(8 * level, 256 * index + i)`` of the tree. ``docs/formats/tiles.md`` is
the specification.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from indelible.errors import TileInvalid
from indelible.integrity._text import parse_decimal
from indelible.integrity.leaf import MAX_LEAF
from indelible.integrity.merkle import HASH_SIZE, NodeReader, perfect_root

#: Hashes of a full tile, and entries of a full bundle.
TILE_WIDTH: Final = 256
#: Levels of the tree that one level of tiles spans.
TILE_HEIGHT: Final = 8
#: Bytes of a full tile.
TILE_SIZE: Final = TILE_WIDTH * HASH_SIZE

_MAX_LEVEL: Final = 63
_PATH: Final = re.compile(
    r"tile/(?P<level>entries|[0-9]{1,2})/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[0-9]{1,3}))?"
)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """The place of a tile. A ``width`` below 256 makes it partial: a view of the right edge at one size of the log.

    A bundle of entries has the place of the tile of level 0 that holds its leaf hashes.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if not (0 <= self.level <= _MAX_LEVEL and 0 <= self.index < 2**63 and 1 <= self.width <= TILE_WIDTH):
            raise TileInvalid(f"there is no tile at level {self.level}, index {self.index}, width {self.width}")

    @property
    def path(self) -> str:
        """``tile/<level>/<index>[.p/<width>]``, the index in groups of three digits."""
        return f"tile/{self.level}/{self._place}"

    @property
    def bundle_path(self) -> str:
        """``tile/entries/<index>[.p/<width>]``."""
        return f"tile/entries/{self._place}"

    @property
    def _place(self) -> str:
        digits = str(self.index)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        place = "/".join([*("x" + group for group in groups[:-1]), groups[-1]])
        return place if self.width == TILE_WIDTH else f"{place}.p/{self.width}"

    @classmethod
    def parse(cls, path: str) -> Tile:
        """The tile at a path, of hashes or of entries. Raises TileInvalid unless it is spelled as ``path`` is."""
        match = _PATH.fullmatch(path)
        if match is None:
            raise TileInvalid(f"{path!r} is no path of a tile")
        entries = match["level"] == "entries"
        level = 0 if entries else parse_decimal(match["level"])
        width = TILE_WIDTH if match["width"] is None else parse_decimal(match["width"])
        if level is None or width is None:
            raise TileInvalid(f"{path!r} is no path of a tile")
        tile = cls(level, int(match["index"].replace("x", "").replace("/", "")), width)
        if path != (tile.bundle_path if entries else tile.path):
            raise TileInvalid(f"{path!r} is not how this tile is spelled")
        return tile


def tiles(size: int, *, since: int = 0) -> Iterator[Tile]:
    """The tiles of a log of this size, full and partial, lowest level first.

    With ``since``, only those that a log which was written out at that size does not have yet.
    """
    level = 0
    while width := size >> (TILE_HEIGHT * level):
        before = since >> (TILE_HEIGHT * level)
        for index in range(before // TILE_WIDTH, width // TILE_WIDTH):
            yield Tile(level, index)
        if width % TILE_WIDTH and width != before:
            yield Tile(level, width // TILE_WIDTH, width % TILE_WIDTH)
        level += 1


def bundles(size: int, *, since: int = 0) -> Iterator[Tile]:
    """The places of the entry bundles of a log of this size: those of its tiles of level 0."""
    return itertools.takewhile(lambda tile: tile.level == 0, tiles(size, since=since))


def tile_at(level: int, index: int, size: int) -> Tile:
    """The tile of this level and index in a log of this size, as wide as it is. Raises TileInvalid if it is empty."""
    return Tile(level, index, max(0, min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH)))


def encode_tile(tile: Tile, node: NodeReader) -> bytes:
    """The bytes of a tile, its hashes taken one by one from a reader of complete nodes."""
    first = tile.index * TILE_WIDTH
    return b"".join(node(TILE_HEIGHT * tile.level, index) for index in range(first, first + tile.width))


def split_tile(tile: Tile, data: bytes) -> list[bytes]:
    """The hashes of a tile. Raises TileInvalid for the wrong number of bytes."""
    if len(data) != tile.width * HASH_SIZE:
        raise TileInvalid(f"{tile.path} is {len(data)} bytes long, not {tile.width * HASH_SIZE}")
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]


def node_reader(size: int, read: Callable[[Tile], bytes]) -> NodeReader:
    """A reader of nodes over the tiles of a log of this size. Tiles that were read are kept.

    Nothing is verified here: what is built from the nodes must lead to a root that is trusted. Raises TileInvalid for
    a tile of the wrong length, or a node that is not complete at this size.
    """

    @functools.lru_cache(maxsize=64)
    def hashes(level: int, index: int) -> list[bytes]:
        tile = tile_at(level, index, size)
        return split_tile(tile, read(tile))

    def node(level: int, index: int) -> bytes:
        if (index + 1) << level > size:
            raise TileInvalid(f"node {index} of level {level} is not complete at size {size}")
        tile_level, height = divmod(level, TILE_HEIGHT)
        tile_index, first = divmod(index << height, TILE_WIDTH)
        return perfect_root(hashes(tile_level, tile_index)[first : first + (1 << height)])

    return node


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Up to 256 entries (leaf bytes), each behind its length as a big-endian uint16. Raises TileInvalid."""
    if not 1 <= len(entries) <= TILE_WIDTH or any(len(entry) > MAX_LEAF for entry in entries):
        raise TileInvalid(f"a bundle holds 1 to {TILE_WIDTH} entries of at most {MAX_LEAF:,} bytes")
    return b"".join([len(entry).to_bytes(2) + entry for entry in entries])


def decode_bundle(data: bytes, width: int = TILE_WIDTH) -> list[bytes]:
    """The ``width`` entries of a bundle. Raises TileInvalid for one that is cut short, or has more in it."""
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) < width:
        end = at + 2 + int.from_bytes(data[at : at + 2])
        entries.append(data[at + 2 : end])
        at = end
    if at != len(data) or len(entries) != width:
        raise TileInvalid(f"the bundle does not hold exactly {width} entries")
    return entries
