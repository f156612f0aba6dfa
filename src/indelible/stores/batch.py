"""What one append writes, the same for every engine: decisions without I/O, taken piece by piece (``pacing``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Final
from uuid import UUID

from indelible.errors import ConfigurationError, LeafInvalid, OutOfSequence, RowRefused, TreeDamaged, WriterCloned
from indelible.events import AuditEvent
from indelible.integrity.edge import EDGE_UNIT, RightEdge
from indelible.integrity.leaf import SALT_SIZE, Sealed, seal
from indelible.integrity.tiles import Tile
from indelible.native import native
from indelible.pacing import at_once, breathe
from indelible.ports import Head
from indelible.stores.schema import COLUMNS, SEGMENT_UNIT

#: One append takes at most so many events; the drainer's batches are far smaller.
MAX_EVENTS: Final = 65_536
#: Events that are sealed and written together, at the most: while PostgreSQL is busy with them, the next ones are sealed.
PART: Final = 250
#: Below SEGMENT_UNIT only powers of two from here on, for tests: a segment stays a whole Merkle tile.
_SMALLEST_SEGMENT: Final = 256

_POSITION: Final = ("seq", "recorded_at", "id", "timestamp", "tenant_id", "writer_id", "writer_seq")
_PROOF: Final = ("leaf_hash", "actor_salt", "details_salt", "actor_digest", "details_digest")
_REST: Final = COLUMNS[len(_POSITION) : -len(_PROOF)]
if (*_POSITION, *_REST, *_PROOF) != COLUMNS:
    raise ImportError("stores.batch and stores.schema disagree about the order of columns")
if native is not None and native.COLUMNS != COLUMNS:
    raise ImportError("src/native/rows.c and stores.schema disagree about the order of columns")

#: A row in the order of COLUMNS.
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """One writer's events ``first``, ``first + 1``, ... and what is decided about them before the log's lock is taken.

    ``salts`` are 32 random bytes an event. ``sealed`` are the events sealed, part by part, or None: then that is done
    when they are written, while the database is busy with the part before.
    """

    writer_id: UUID
    first: int
    events: Sequence[AuditEvent]
    recorded_at: int
    salts: bytes
    sealed: Sequence[Sealed] | None
    after: int

    def parts(self, skip: int) -> Iterator[Sealed]:
        """The events but the first ``skip``, sealed, at most ``PART`` together. Raises RowRefused."""
        if self.sealed is None:
            count = at_once(PART)
            for at in range(skip, len(self.events), count):
                sealed = self.seal(at, at + count)
                breathe()
                yield sealed
            return
        for sealed in self.sealed:
            if (count := len(sealed.leaf_hashes)) > skip:
                yield sealed.part(skip, count) if skip else sealed
            skip = max(0, skip - count)

    def seal(self, start: int, end: int) -> Sealed:
        """The events ``start`` up to ``end``, sealed. Raises RowRefused for one that cannot be a leaf."""
        salts = self.salts[2 * SALT_SIZE * start : 2 * SALT_SIZE * end]
        try:
            return seal(
                self.events[start:end],
                writer_id=self.writer_id,
                first=self.first + start,
                recorded_at=self.recorded_at,
                salts=salts,
            )
        except LeafInvalid as error:
            raise RowRefused(f"the event cannot be sealed: {error.message}") from error


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the rows of a batch, from ``seq`` on."""

    seq: int
    sealed: Sealed

    def __len__(self) -> int:
        return len(self.sealed.leaf_hashes)

    @property
    def compiled(self) -> tuple[Any, ...] | None:
        """What ``indelible.native`` makes rows of; None where Python does."""
        sealed = self.sealed
        if sealed.payloads is None:
            return None
        writer, first, at = sealed.writer_id.bytes, sealed.first, sealed.recorded_at
        return sealed.payloads, writer, first, at, sealed.salts, sealed.leaf_hashes, self.seq

    def rows(
        self, *, epoch: int, ids: Callable[[Sequence[UUID]], Sequence[Any]], blob: Callable[[bytes], object] = bytes
    ) -> list[Row]:
        """The rows: times in µs since ``epoch`` (Unix µs), UUIDs from ``ids``, bytes from ``blob``."""
        sealed, count = self.sealed, len(self)
        fields = sealed.fields
        (writer_id,) = ids([sealed.writer_id])
        # Column by column: so the loop over the rows runs in C.
        return list(
            zip(
                range(self.seq, self.seq + count),
                repeat(sealed.recorded_at - epoch, count),
                ids(fields["id"]),
                [at - epoch for at in fields["timestamp"]] if epoch else fields["timestamp"],
                fields["tenant_id"],
                repeat(writer_id, count),
                range(sealed.first, sealed.first + count),
                *(fields[name] for name in _REST),
                map(blob, sealed.leaf_hashes),
                [salt and blob(salt) for salt in sealed.actor_salts],
                [salt and blob(salt) for salt in sealed.details_salts],
                repeat(None, count),
                repeat(None, count),
                strict=True,
            )
        )


@dataclass(slots=True)
class Batch:
    """What the transaction inserts: rows from seq ``first`` up to ``end``, and then what they come to.

    ``tiles`` and ``edge`` are what the rows taken from ``parts`` have filled and where they lead; ``head`` is of the last.
    """

    first: int
    end: int
    edge: RightEdge
    tiles: list[tuple[Tile, bytes]]
    _offered: Offer

    def parts(self) -> Iterator[Part]:
        """The rows, part by part."""
        offered, seq, hashes = self._offered, self.first, list[bytes]()
        for sealed in offered.parts(len(offered.events) - (self.end - self.first)):
            yield Part(seq, sealed)
            seq += len(sealed.leaf_hashes)
            hashes += sealed.leaf_hashes
            # Not for each small part: it costs as much for a few hashes as for many.
            if len(hashes) >= PART or seq == self.end:
                self.edge, filled = self.edge.extend(hashes)
                self.tiles += filled
                hashes = []

    @property
    def head(self) -> Head:
        """The head after all rows. They have to have been taken."""
        assert self.edge.size == self.end
        offered = self._offered
        return Head(self.end, self.edge.root, offered.writer_id, offered.first + len(offered.events) - 1)


def offer(
    writer_id: UUID,
    first: int,
    events: Sequence[AuditEvent],
    *,
    after: int | None,
    recorded_at: int,
    random: Callable[[int], bytes],
    ahead: bool = True,
) -> Offer:
    """Commit to the events. ``random`` gives so many fresh random bytes; ``recorded_at`` is in Unix µs.

    ``ahead``: seal them now, not part by part as they are written. Raises RowRefused as ``Offer.seal`` does.
    """
    salts = random(2 * SALT_SIZE * len(events))
    offered = Offer(writer_id, first, events, recorded_at, salts, None, first if after is None else after)
    return replace(offered, sealed=list(offered.parts(0))) if ahead else offered


def plan(offered: Offer, *, edge: RightEdge, position: int, last_id: Callable[[], UUID | None]) -> Batch | None:
    """Number an offer onto the log that ends at ``edge``, without what ``position`` says is stored already.

    ``position`` is the writer's next ``writer_seq``, ``last_id`` gives the id of its newest stored event. None when
    nothing is left to store. Raises OutOfSequence and WriterCloned, see ports.Store.append.
    """
    if position < offered.after:
        raise OutOfSequence(
            f"the store holds {position} events of a writer that had {offered.after} confirmed",
            hint="was the database restored from a backup, or failed over without its last transactions?",
        )
    stored = max(0, position - offered.first)
    events = offered.events
    if 0 < stored <= len(events) and last_id() != events[stored - 1].id:
        raise WriterCloned(f"event {position - 1} of this writer is stored already, and it is another event")
    if stored >= len(events):
        return None
    return Batch(edge.size, edge.size + len(events) - stored, edge, [], offered)


def edge_at(
    size: int,
    root: bytes | None,
    cached: RightEdge,
    *,
    read_tile: Callable[[Tile], bytes],
    read_leaf_hashes: Callable[[int, int], Sequence[bytes | None]],
) -> RightEdge:
    """The right edge of the log whose newest head is (``size``, ``root``).

    ``cached`` is good as it is when nobody else has written; is extended by the leaf hashes that others have added;
    and is read back from tiles where it is of no use. Raises TreeDamaged when it does not reproduce the root: a tree
    whose right edge is not the one that was sealed is never grown.
    """
    if size == 0:
        return RightEdge()
    for known in (cached, None):
        if known is not None and not (0 < known.size <= size and size - known.size < EDGE_UNIT):
            continue
        edge = RightEdge.read(size - size % EDGE_UNIT, read_tile) if known is None else known
        if edge.size < size:
            added = read_leaf_hashes(edge.size, size)
            if len(added) != size - edge.size or None in added:
                continue
            edge, _ = edge.extend([h for h in added if h is not None])
        if edge.root == root:
            return edge
    raise TreeDamaged(
        f"the log's right edge does not lead to the root of its newest head (size {size})",
        hint="rows, tiles or heads were changed beside the service; run: indelible verify",
    )


def check_segment_rows(rows: int) -> int:
    """Return ``rows`` if a segment may hold so many: a multiple of 65,536, or a smaller power of two from 256 up.

    Raises ConfigurationError otherwise: a segment has to be a whole number of Merkle subtrees.
    """
    if rows >= SEGMENT_UNIT and rows % SEGMENT_UNIT == 0:
        return rows
    if _SMALLEST_SEGMENT <= rows < SEGMENT_UNIT and rows & (rows - 1) == 0:
        return rows
    raise ConfigurationError(f"a segment cannot hold {rows} rows", hint=f"use a multiple of {SEGMENT_UNIT}")


def check_events(events: Sequence[AuditEvent]) -> None:
    """Raise ValueError for more events than one append takes."""
    if len(events) > MAX_EVENTS:
        raise ValueError(f"{len(events)} events in one append; at most {MAX_EVENTS}")
