"""The verdict on a whole log: range reports and claims in, findings out. Pure, like everything here.

``verified`` means: every row reproduces its leaf hash, these make every tile and root that is stored, nothing is
missing, too much or unexplained, and a checkpoint from outside the database says the same. Without such a checkpoint
the answer is ``incomplete``, however well the log agrees with itself: whoever owns a database can make it agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from indelible.integrity.checkpoint import Checkpoint
from indelible.integrity.edge import EDGE_UNIT
from indelible.integrity.merkle import EMPTY_ROOT, CompactRange, fold, perfect_root
from indelible.integrity.note import Note, VerifierKey
from indelible.integrity.ranges import Claim, Finding, Findings, Gap, RangeReport, Rows, Run
from indelible.integrity.tiles import TILE_WIDTH

Verdict = Literal["verified", "tampered", "incomplete"]

#: Every kind of finding, and what it means. Those of ``OPEN`` leave a question; all others are tampering.
KINDS: Final[Mapping[str, str]] = {
    "row_changed": "A row's columns do not give the leaf hash that stands beside them.",
    "row_invalid": "A row cannot have been sealed as it stands: a value of a wrong type, a time out of range, a group of"
    " personal data that is half there.",
    "row_missing": "There is no row at this position.",
    "row_extra": "A second row at this position.",
    "row_stray": "A row that belongs to no segment, or lies behind the newest head: written beside the service.",
    "head": "The rows do not lead to a root that was sealed, or a head is not that of its last row.",
    "tile": "A stored tile is missing, is too much, or does not hold the hashes of its rows.",
    "writer_order": "A writer's numbers go back or repeat: rows were moved, or an event was stored twice.",
    "writer_hole": "A writer's numbers skip some that no `audit.gap` event explains: events were lost or removed.",
    "erasure": "A row's personal data is blank and no `audit.erased` event that was sealed later names it.",
    "span": "The recorded time span of a segment is not that of its rows: questions by time would overlook them. Or one"
    " is recorded for a segment that is not full or not there.",
    "truncated": "A checkpoint is about more rows than the log has.",
    "checkpoint": "A checkpoint's root is not the log's at that size: history was rewritten.",
    "checkpoint_invalid": "A checkpoint cannot be read, or its signature by a known key is wrong.",
    "previous": "Rows that an earlier run verified are not what they were.",
    "guard": "A trigger or function that refuses changes is missing, disabled or altered.",
    "table": "A table or view is missing or not as Indelible makes it.",
    "segment": "A segment's table is missing, or not attached to the log.",
    "grant": "A role may do more to the log's tables than read and add.",
    "version": "The log's tables are of another version.",
    "unwitnessed": "There is no checkpoint from outside the database to compare with.",
    "checkpoint_unknown": "A checkpoint from outside agrees with the log, but is signed by no known key.",
    "stale": "The newest checkpoint from outside is older than `--max-age` allows.",
    "unreachable": "A place outside that was to be asked does not answer.",
    "hole_pending": "A writer's numbers skip some, less than a minute ago: the `audit.gap` event may be on its way.",
}
OPEN: Final = frozenset({"unwitnessed", "checkpoint_unknown", "stale", "unreachable", "hole_pending"})
#: Microseconds for which an unexplained hole may be waiting for its explanation.
PENDING: Final = 60_000_000


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome. ``witnessed`` is the size of the largest outside checkpoint that agrees, None without one.

    ``counts`` has all findings by kind, of which ``findings`` are the first ones; ``rows`` is how many were read.
    """

    verdict: Verdict
    size: int
    root: bytes
    rows: int
    witnessed: int | None
    findings: Sequence[Finding]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Known:
    """What an earlier run has established: the roots of all full ranges of 65,536 rows, and what lay open then."""

    nodes: tuple[bytes, ...] = ()
    positions: Mapping[str, int] | None = None
    holes: tuple[Run, ...] = ()
    gaps: tuple[Gap, ...] = ()
    erased: tuple[Rows, ...] = ()


def outside_claim(
    name: str, note: bytes, *, logs: Sequence[VerifierKey], witnesses: Sequence[VerifierKey], time: float | None
) -> tuple[Claim, bool]:
    """The claim of a checkpoint from outside, and whether a known key vouches for it.

    ``time`` (Unix seconds) is when the file is from, for checkpoints without a witness's time of their own. Raises
    IntegrityError when it cannot be read or a known key's signature is wrong.
    """
    signed = Note.parse(note)
    checkpoint = Checkpoint.parse(signed.text)
    known = {(key.name, key.key_id) for key in (*logs, *witnesses)}
    if not any((line.name, line.key_id) in known for line in signed.signatures):
        return Claim(checkpoint.size, checkpoint.root, "outside", name, time), False
    verified = signed.verify((*logs, *witnesses))
    times = [v.time for v in verified if v.time is not None]
    return Claim(checkpoint.size, checkpoint.root, "outside", name, max(times, default=time)), True


class Verification:
    """Joins the reports of ranges, from left to right, to a verdict on a log of ``size`` rows.

    ``tile`` reads stored tiles of level 2 and above. With ``known``, reports of ranges that were verified before may
    come in any order, before those of the ranges behind them.
    """

    def __init__(self, size: int, *, tile: Callable[[int, int], bytes | None], known: Known | None = None) -> None:
        known = known or Known()
        self.size = size
        self.findings = Findings()
        self.rows = 0
        self._tile = tile
        self._nodes = list(known.nodes)
        self._before = len(self._nodes)
        self._tree = CompactRange().extend(self._nodes, level=_LEVEL)[0]
        self._positions = dict(known.positions or {})
        self._confirmed: dict[str, int] = {}
        self._holes = list(known.holes)
        self._gaps = list(known.gaps)
        self._erased = list(known.erased)
        self._blank: list[Rows] = []
        self._spans: dict[int, tuple[int, int]] = {}
        self._good = 0
        self._agreed: list[Claim] = []
        self._wrong_heads = 0
        self._at_boundary = (dict(self._positions), tuple(self._holes))

    def add(self, report: RangeReport) -> None:
        """Take the next range's report, or that of a range that was verified before."""
        self.rows += report.end - report.first
        self.findings.update(report.findings)
        self._gaps += report.gaps
        self._erased += report.erased
        self._blank += report.blank
        for segment, (low, high) in report.spans.items():
            known = self._spans.get(segment, (low, high))
            self._spans[segment] = (min(low, known[0]), max(high, known[1]))
        index = report.first // EDGE_UNIT
        if index < self._before:
            self._again(index, report)
            return
        if report.first != self._tree.size:
            raise ValueError(f"the range from {report.first} does not follow a tree of {self._tree.size}")
        self._judge(self._tree, report)
        self._follow(report)
        full = report.end - report.first == EDGE_UNIT
        if full:
            self._tree, _ = self._tree.extend(report.nodes, level=_LEVEL)
            self._nodes.append(report.nodes[0])
            self._check_tiles()
            self._at_boundary = (dict(self._positions), tuple(self._holes))
        else:
            self._tree = CompactRange(report.end, (*self._tree.nodes, *report.nodes))

    def claim(self, claim: Claim) -> None:
        """Judge a claim that lies in no range: about nothing, or about more rows than there are."""
        if claim.size > self.size:
            told = f"{claim.name} is about {claim.size:,} rows, the log has {self.size:,}"
            self.findings.add("truncated", self.size, told)
        elif claim.size == 0 and claim.root == EMPTY_ROOT:
            self._agreed.append(claim)
        else:
            self.findings.add("checkpoint", 0, f"{claim.name} gives a root that is not the log's")

    def known(self) -> Known:
        """What the next run may build on: everything up to the last full range."""
        positions, holes = self._at_boundary
        return Known(tuple(self._nodes), positions, holes, tuple(self._gaps), tuple(_merged(self._erased)))

    def finish(
        self,
        *,
        spans: Mapping[int, tuple[int, int]],
        vouched: Iterable[str],
        now: float,
        max_age: float | None = None,
        confirmed: bool = True,
    ) -> Report:
        """The verdict. ``spans`` are the recorded time spans of segments all of whose rows were read.

        ``vouched`` names the outside claims that a known key signed; ``now`` is Unix time, ``max_age`` seconds. With
        ``confirmed``, all heads were read, and those of each writer must reach its last row.
        """
        for segment, span in spans.items():
            if self._spans.get(segment, span) != span:
                self.findings.add("span", None, f"the recorded time span of segment {segment} is not that of its rows")
        if confirmed:
            self._check_confirmed()
        self._explain_holes(int(now * 1_000_000))
        self._explain_blanks()
        if self._wrong_heads > 1:
            self.findings.counts["head"] += self._wrong_heads - 1
        witnessed = self._check_outside(frozenset(vouched), now, max_age)
        counts = self.findings.counts
        verdict: Verdict = "tampered" if counts.keys() - OPEN else "incomplete" if counts else "verified"
        root = self._tree.root
        found = sorted(self.findings.kept, key=lambda f: (f.kind in OPEN, f.seq is None, f.seq or 0))
        return Report(verdict, self._tree.size, root, self.rows, witnessed, tuple(found), dict(counts))

    def _again(self, index: int, report: RangeReport) -> None:
        if report.nodes != (self._nodes[index],):
            told = f"rows {report.first} to {report.end - 1} are not those that an earlier run verified"
            self.findings.add("previous", report.first, told)
        self._judge(CompactRange().extend(self._nodes[:index], level=_LEVEL)[0], report)

    def _judge(self, left: CompactRange, report: RangeReport) -> None:
        for claim, partial in sorted(report.claims, key=lambda pair: (pair[0].size, pair[0].source != "head")):
            if fold((*left.nodes, partial)) == claim.root:
                self._good = max(self._good, claim.size)
                if claim.source == "outside":
                    self._agreed.append(claim)
            elif claim.source != "head":
                told = f"{claim.name} gives a root that is not the log's: rows before {claim.size} are not those it is about"
                self.findings.add("checkpoint", None, told)
            else:
                # All that follow the first are wrong for the same reason.
                self._wrong_heads += 1
                if self._wrong_heads == 1:
                    told = f"rows {self._good} to {claim.size - 1} do not lead to the root that was sealed with them"
                    self.findings.add("head", self._good, told)

    def _follow(self, report: RangeReport) -> None:
        for run in report.runs:
            expected = self._positions.get(run.writer_id, 0)
            if run.first > expected:
                self._holes.append(run._replace(first=expected, end=run.first))
            elif run.first < expected:
                told = f"number {run.first} of writer {run.writer_id} comes after its number {expected - 1}"
                self.findings.add("writer_order", run.seq, told)
            self._positions[run.writer_id] = max(expected, run.end)
        for writer, number in report.confirmed.items():
            self._confirmed[writer] = max(number, self._confirmed.get(writer, -1))

    def _check_confirmed(self) -> None:
        for writer, position in self._positions.items():
            if self._confirmed.get(writer, -1) < position - 1:
                told = f"no head records number {position - 1} of writer {writer}: its events could be stored again"
                self.findings.add("head", None, told)

    def _check_tiles(self) -> None:
        """Compare the stored tiles of level 2 and above that end here."""
        count, level, row = len(self._nodes), 2, self._nodes
        while count % TILE_WIDTH == 0:
            hashes, number = row[-TILE_WIDTH:], count // TILE_WIDTH - 1
            if self._tile(level, number) != b"".join(hashes):
                told = f"the tile of level {level}, number {number}, is missing or does not hold the hashes of its rows"
                self.findings.add("tile", number * TILE_WIDTH ** (level + 1), told)
            count, level = count // TILE_WIDTH, level + 1
            if count % TILE_WIDTH == 0:
                row = [perfect_root(row[at : at + TILE_WIDTH]) for at in range(0, len(row), TILE_WIDTH)]

    def _explain_holes(self, now: int) -> None:
        for hole in self._holes:
            at = hole.first
            for gap in sorted(gap for gap in self._gaps if gap.writer_id == hole.writer_id):
                if gap.first <= at:
                    at = max(at, gap.end)
            if at < hole.end:
                told = f"numbers {at} to {hole.end - 1} of writer {hole.writer_id} are not in the log"
                recent = isinstance(hole.recorded_at, int) and now - hole.recorded_at < PENDING
                self.findings.add("hole_pending" if recent else "writer_hole", hole.seq, told)

    def _explain_blanks(self) -> None:
        erased = _merged(self._erased)
        for group, first, end in self._blank:
            at = first
            for known in erased:
                if known.group == group and known.first <= at:
                    at = max(at, known.end)
            if at < end:
                told = f"group {group} of rows {at} to {end - 1} is blank, and no audit.erased event names it"
                self.findings.add("erasure", at, told)

    def _check_outside(self, vouched: frozenset[str], now: float, max_age: float | None) -> int | None:
        for claim in self._agreed:
            if claim.name not in vouched:
                self.findings.add("checkpoint_unknown", None, f"{claim.name} is signed by none of the known keys")
        trusted = [claim for claim in self._agreed if claim.name in vouched]
        if not trusted:
            self.findings.add("unwitnessed", None, "no checkpoint from outside the database confirms the log")
            return None
        newest = max(trusted, key=lambda claim: (claim.size, claim.time or 0.0))
        age = None if newest.time is None else now - newest.time
        if max_age is not None and (age is None or age > max_age):
            told = "of unknown age" if age is None else f"{age:.0f} s old"
            self.findings.add("stale", None, f"{newest.name}, the newest from outside, is {told}")
        return newest.size


#: A full range is one node of this level.
_LEVEL: Final = EDGE_UNIT.bit_length() - 1


def _merged(rows: Iterable[Rows]) -> list[Rows]:
    """The same rows in as few runs as possible, ordered."""
    merged: list[Rows] = []
    for group, first, end in sorted(rows):
        if first >= end:
            continue
        if merged and merged[-1].group == group and merged[-1].end >= first:
            merged[-1] = merged[-1]._replace(end=max(end, merged[-1].end))
        else:
            merged.append(Rows(group, first, end))
    return merged


def schema_findings(findings: Findings, found: Iterable[tuple[str, str, str]]) -> None:
    """Add what ``Store.check`` found: (kind, name, detail). Indexes are left out, for they prove nothing."""
    for kind, name, detail in found:
        if kind in KINDS:
            findings.add(kind, None, f"{name} {detail}")
