"""Verify one aligned range of a log on its own: rows, heads, tiles and checkpoints in, a small report out.

Ranges are independent, so that several processes can work on a log. What one range cannot know (the tree to its left,
what writers did before, whether a later event explains a hole) is left open in its report, and ``verify`` closes it.
The hashes that stand beside the rows make the tree, and each row has to reproduce its own: then a row that was edited
is told apart from a history that was sealed again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from types import NoneType
from typing import Any, Final, NamedTuple

import msgspec

from indelible.errors import IntegrityError, LeafInvalid
from indelible.integrity.checkpoint import Checkpoint, open_checkpoint
from indelible.integrity.edge import EDGE_UNIT
from indelible.integrity.leaf import ROW, Columns, Group, hash_columns
from indelible.integrity.merkle import HASH_SIZE, fold, hash_pairs
from indelible.integrity.note import Note, VerifierKey
from indelible.integrity.tiles import TILE_HEIGHT

#: Findings of one kind that are kept, in a range and in a report; the rest are counted.
MAX_FINDINGS: Final = 50

GAP_EVENT: Final = "audit.gap"
ERASED_EVENT: Final = "audit.erased"

_AT: Final = {name: place for place, name in enumerate(ROW)}
_EVENT_TYPE: Final = _AT["event_type"]
_METADATA: Final = _AT["metadata"]
_RECORDED: Final = _AT["recorded_at"]
_TIMESTAMP: Final = _AT["timestamp"]
_WRITER: Final = _AT["writer_id"]
_NUMBER: Final = _AT["writer_seq"]
_LEAF_HASH: Final = _AT["leaf_hash"]
_SEQ: Final = _AT["seq"]
_DIGESTS: Final[tuple[tuple[Group, int], ...]] = (("actor", _AT["actor_digest"]), ("details", _AT["details_digest"]))
_PROOF_AT: Final = _AT["actor_salt"]
_UNKNOWN: Final = bytes(HASH_SIZE)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and where: ``kind`` is one of ``verify.KINDS``, ``seq`` the first row it is about, if it is one."""

    kind: str
    seq: int | None
    detail: str


@dataclass(slots=True)
class Findings:
    """Findings, the first ``MAX_FINDINGS`` of each kind of them; ``counts`` has all."""

    kept: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, seq: int | None, detail: str) -> None:
        """Count it, and keep it if there is room."""
        self.counts[kind] += 1
        if self.counts[kind] <= MAX_FINDINGS:
            self.kept.append(Finding(kind, seq, detail))

    def update(self, other: Findings) -> None:
        """Take over another's findings, in their order."""
        missing = other.counts - Counter(found.kind for found in other.kept)
        for found in other.kept:
            self.add(found.kind, found.seq, found.detail)
        self.counts.update(missing)


class HeadRow(NamedTuple):
    """A head as it is stored; ``writer_id`` as text."""

    size: int
    root: bytes | None
    writer_id: str
    writer_seq: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody's word that the tree of ``size`` leaves has this root. ``source`` is head, stored or outside."""

    size: int
    root: bytes
    source: str
    name: str
    time: float | None = None


class Run(NamedTuple):
    """A writer's events ``first`` up to, not including, ``end``, one behind the other; the first of them is row ``seq``."""

    writer_id: str
    first: int
    end: int
    seq: int
    recorded_at: int


class Gap(NamedTuple):
    """A sealed ``audit.gap`` event explains that these numbers of a writer were never stored."""

    writer_id: str
    first: int
    end: int


class Rows(NamedTuple):
    """Rows ``first`` up to ``end`` and one of their groups."""

    group: Group
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class RangeReport:
    """What a range of rows says. ``nodes`` is its compact range: one node if the range is full.

    ``claims`` has, for each claim about a size within the range, the fold of the range's leaves below that size.
    ``erased`` is what ``audit.erased`` events name, ``blank`` which groups are erased. ``spans`` are the smallest and
    largest timestamp by segment. ``confirmed`` is the last number that heads record for each writer.
    """

    first: int
    end: int
    nodes: tuple[bytes, ...]
    claims: tuple[tuple[Claim, bytes], ...]
    runs: tuple[Run, ...]
    confirmed: Mapping[str, int]
    gaps: tuple[Gap, ...]
    erased: tuple[Rows, ...]
    blank: tuple[Rows, ...]
    spans: Mapping[int, tuple[int, int]]
    findings: Findings


class RangeCheck:
    """Takes the rows of a range in order, then its heads and tile, and gives the report.

    ``first`` is a multiple of 65,536 and ``end`` at most 65,536 further. With ``typed`` the database vouches that text
    columns hold text, so that it need not be looked at.
    """

    def __init__(self, first: int, end: int, *, typed: bool = False) -> None:
        if first % EDGE_UNIT or not first < end <= first + EDGE_UNIT:
            raise ValueError(f"rows {first} to {end} are not an aligned range")
        self.first, self.end = first, end
        self._typed = typed
        self._leaves: list[bytes] = []
        self._writers: list[Any] = []
        self._numbers: list[Any] = []
        self._open: dict[str, Run] = {}
        self._runs: list[Run] = []
        self._gaps: list[Gap] = []
        self._erased: list[Rows] = []
        self._blank: list[Rows] = []
        self._spans: dict[int, tuple[int, int]] = {}
        self._findings = Findings()

    def feed(self, segment: int, columns: Columns) -> None:
        """Take the next rows, which stand in this segment, in order of ``seq``."""
        for piece in self._dense(columns):
            self._hash(piece)
            self._writers += piece[_WRITER]
            self._numbers += piece[_NUMBER]
            self._follow(piece)
            self._span(segment, piece[_TIMESTAMP])
            types = piece[_EVENT_TYPE]
            if GAP_EVENT in types or ERASED_EVENT in types:
                self._explanations(piece)
            for group, at in _DIGESTS:
                if piece[at].count(None) < len(piece[at]):
                    self._blanked(group, piece[_SEQ], piece[at])

    def finish(
        self,
        heads: Iterable[HeadRow],
        claims: Iterable[Claim] = (),
        *,
        tile: bytes | None = None,
        findings: Findings | None = None,
    ) -> RangeReport:
        """The report. ``heads`` and ``claims`` are those with first < size <= end; ``tile`` is that of level 1."""
        self._missing(self.end)
        levels = [self._leaves]
        while len(levels[-1]) > 1:
            levels.append(hash_pairs(levels[-1]))
        claims = list(claims)
        confirmed: dict[str, int] = {}
        for head in heads:
            at = head.size - self.first - 1
            if (self._writers[at], self._numbers[at]) not in ((head.writer_id, head.writer_seq), _NOBODY):
                self._findings.add(
                    "head",
                    head.size - 1,
                    f"the head of size {head.size} is of another writer or number than its last row",
                )
            confirmed[head.writer_id] = max(head.writer_seq, confirmed.get(head.writer_id, -1))
            claims.append(Claim(head.size, head.root or b"", "head", f"the head of size {head.size}"))
        if self.end - self.first == EDGE_UNIT and tile != b"".join(levels[TILE_HEIGHT]):
            told = "is missing" if tile is None else "does not hold the hashes of its rows"
            self._findings.add("tile", self.first, f"the tile of level 1, number {self.first // EDGE_UNIT}, {told}")
        if findings is not None:
            self._findings.update(findings)
        return RangeReport(
            self.first,
            self.end,
            _nodes(levels, self.end - self.first),
            tuple((claim, fold(_nodes(levels, claim.size - self.first))) for claim in claims),
            tuple(sorted((*self._runs, *self._open.values()), key=lambda run: run.seq)),
            confirmed,
            tuple(self._gaps),
            tuple(self._erased),
            tuple(self._blank),
            self._spans,
            self._findings,
        )

    def _dense(self, columns: Columns) -> Iterator[Columns]:
        """The rows that stand where they should, in pieces without holes; what is missing or too much is found."""
        expected = self.first + len(self._leaves)
        if list(columns[_SEQ]) == list(range(expected, expected + len(columns[_SEQ]))):
            yield columns
            return
        piece: list[Sequence[Any]] = []
        for row in zip(*columns, strict=True):
            seq, place = row[_SEQ], self.first + len(self._leaves) + len(piece)
            if not isinstance(seq, int) or not place <= seq < self.end:
                self._findings.add(
                    "row_extra", seq if isinstance(seq, int) else None, "a row too many at this position"
                )
                continue
            if seq > place:
                # What stands before the hole is dealt with first: the placeholders of the missing go behind it.
                yield from _turned(piece)
                piece = []
                self._missing(seq)
            piece.append(row)
        yield from _turned(piece)

    def _missing(self, until: int) -> None:
        place = self.first + len(self._leaves)
        if place < until:
            told = f"row {place} is" if until == place + 1 else f"rows {place} to {until - 1} are"
            self._findings.add("row_missing", place, f"{told} not there")
            self._leaves += [_UNKNOWN] * (until - place)
            self._writers += [None] * (until - place)
            self._numbers += [None] * (until - place)

    def _hash(self, columns: Columns) -> None:
        stored = list(columns[_LEAF_HASH])
        try:
            computed = hash_columns(columns) if self._typed or _plain(columns) else None
        except (LeafInvalid, TypeError, ValueError):
            # Row by row, below, to name the one.
            computed = None
        if computed == stored:
            self._leaves += stored
            return
        for row in zip(*columns, strict=True):
            self._examine(row)
        self._leaves += [h if isinstance(h, bytes) and len(h) == HASH_SIZE else _UNKNOWN for h in stored]

    def _examine(self, row: Sequence[Any]) -> None:
        seq, columns = row[_SEQ], [(value,) for value in row]
        if not _plain(columns):
            self._findings.add("row_invalid", seq, "a column holds bytes or a fraction in place of text or a number")
            return
        try:
            (computed,) = hash_columns(columns)
        except (LeafInvalid, TypeError, ValueError) as error:
            told = error.message if isinstance(error, LeafInvalid) else f"a value is not of its column's type: {error}"
            self._findings.add("row_invalid", seq, f"the row cannot have been sealed: {told}")
            return
        if computed != row[_LEAF_HASH]:
            self._findings.add("row_changed", seq, "the row is not the one that was sealed: its leaf hash is another")

    def _follow(self, columns: Columns) -> None:
        numbers, at = columns[_NUMBER], 0
        for writer, group in groupby(columns[_WRITER]):
            end = at + len(list(group))
            if isinstance(numbers[at], int) and list(numbers[at:end]) == list(
                range(numbers[at], numbers[at] + end - at)
            ):
                self._numbered(writer, numbers[at], end - at, columns, at)
            else:
                for place in range(at, end):
                    self._numbered(writer, numbers[place], 1, columns, place)
            at = end

    def _numbered(self, writer: str, number: Any, count: int, columns: Columns, at: int) -> None:
        """Take so many rows of one writer from ``at`` on, numbered ``number`` and onward."""
        run = self._open.get(writer)
        if run is not None and run.end == number:
            self._open[writer] = run._replace(end=number + count)
            return
        if run is not None:
            self._runs.append(run)
        if isinstance(number, int):
            self._open[writer] = Run(writer, number, number + count, columns[_SEQ][at], columns[_RECORDED][at])

    def _span(self, segment: int, times: Sequence[Any]) -> None:
        times = times if self._typed else [time for time in times if isinstance(time, int)]
        if times:
            low, high = self._spans.get(segment, (times[0], times[0]))
            self._spans[segment] = (min(low, *times), max(high, *times))

    def _explanations(self, columns: Columns) -> None:
        for kind, metadata, seq in zip(columns[_EVENT_TYPE], columns[_METADATA], columns[_SEQ], strict=True):
            if kind == GAP_EVENT:
                told = _decoded(metadata, _ToldGap)
                if told is not None and told.first < told.end:
                    self._gaps.append(Gap(told.writer_id, told.first, told.end))
            elif kind == ERASED_EVENT:
                erasure = _decoded(metadata, _ToldErasure)
                if erasure is not None:
                    # An erasure speaks of what stood there when it was sealed, never of rows to come.
                    self._erased += [
                        Rows(group, first, min(end, seq)) for group in erasure.groups for first, end in erasure.seqs
                    ]

    def _blanked(self, group: Group, seqs: Sequence[int], digests: Sequence[Any]) -> None:
        for seq, digest in zip(seqs, digests, strict=True):
            if digest is None:
                continue
            for at in (-1, -2):
                if len(self._blank) >= -at and self._blank[at].group == group and self._blank[at].end == seq:
                    self._blank[at] = self._blank[at]._replace(end=seq + 1)
                    break
            else:
                self._blank.append(Rows(group, seq, seq + 1))


class _ToldGap(msgspec.Struct):
    """What ``metadata`` of an ``audit.gap`` event says, if it is about numbers."""

    writer_id: str
    first: int
    end: int


class _ToldErasure(msgspec.Struct):
    """What ``metadata`` of an ``audit.erased`` event says: groups, and runs of rows [first, end)."""

    groups: list[Group]
    seqs: list[tuple[int, int]]


def stored_claims(
    checkpoints: Iterable[tuple[int, bytes]], keys: Sequence[VerifierKey], findings: Findings
) -> Iterable[Claim]:
    """The claims of the checkpoints in the log's own table: (size, signed note). ``keys`` are the log's, if known."""
    for size, note in checkpoints:
        name = f"the stored checkpoint of size {size}"
        try:
            opened = open_checkpoint(note, logs=keys).checkpoint if keys else Checkpoint.parse(Note.parse(note).text)
        except IntegrityError as error:
            findings.add("checkpoint_invalid", None, f"{name} is not one: {error.message}")
            continue
        if opened.size != size:
            findings.add("checkpoint_invalid", None, f"{name} is of size {opened.size}")
            continue
        yield Claim(size, opened.root, "stored", name)


def _nodes(levels: Sequence[Sequence[bytes]], size: int) -> tuple[bytes, ...]:
    """The compact range of the first ``size`` leaves, given all complete nodes level by level."""
    return tuple(levels[bit][(size >> bit) - 1] for bit in range(size.bit_length())[::-1] if size >> bit & 1)


def _turned(rows: Sequence[Sequence[Any]]) -> Iterator[Columns]:
    if rows:
        yield list(zip(*rows, strict=True))


def _plain(columns: Columns) -> bool:
    # msgspec writes bytes as base64 text, so a blob could pass for the text that it encodes to; a time with a fraction
    # of a microsecond would be written without it.
    return {*map(type, chain.from_iterable(columns[:_PROOF_AT]))} <= _PLAIN


#: What a row holds before its proof.
_PLAIN: Final = frozenset({str, int, NoneType})
#: Who wrote a row that is not there.
_NOBODY: Final = (None, None)


def _decoded(text: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, TypeError, UnicodeError):
        # Written by hand, or by a version to come: it explains nothing.
        return None
