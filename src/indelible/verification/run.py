"""Read a log and judge it. Memory does not grow with the log: a worker holds one range's hashes and a slice of rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from indelible.errors import IntegrityError
from indelible.integrity.edge import EDGE_UNIT
from indelible.integrity.merkle import MAX_SIZE
from indelible.integrity.note import VerifierKey
from indelible.integrity.ranges import Claim, Findings, RangeCheck, RangeReport, stored_claims
from indelible.integrity.tiles import TILE_HEIGHT
from indelible.integrity.verify import Known, Report, Verification, outside_claim, schema_findings
from indelible.parallel import in_order, processes
from indelible.ports import Finding
from indelible.stores.raw import RawReader, open_raw
from indelible.verification.evidence import Outside
from indelible.verification.state import State

#: Ranges from which on other processes are started: they take half a second to begin.
PARALLEL: Final = 4
#: So many runs with ``--since-last`` read every old row once.
SWEEP_RUNS: Final = 24

_Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to verify, and what with.

    ``logs`` and ``witnesses`` are the keys that vouch for ``outside``, the checkpoints to compare with; ``registered``
    those that may have signed the checkpoints in the database. ``unreachable`` says which places outside did not answer,
    and why. ``schema`` is what ``Store.check`` found. ``now`` is Unix
    time, ``max_age`` seconds. ``workers`` None: one process for each CPU. ``since`` is what an earlier run has left: then
    only what is new is read, and a part of what is old.
    """

    url: str
    now: float
    logs: Sequence[VerifierKey] = ()
    witnesses: Sequence[VerifierKey] = ()
    registered: Sequence[VerifierKey] = ()
    outside: Sequence[Outside] = ()
    unreachable: Sequence[str] = ()
    schema: Sequence[Finding] = ()
    max_age: float | None = None
    workers: int | None = None
    since: State | None = None


@dataclass(frozen=True, slots=True)
class _Task:
    first: int
    end: int
    claims: tuple[Claim, ...]


@dataclass(slots=True)
class _Evidence:
    """Outside claims that can be read, and the names of those that a known key vouches for."""

    claims: list[Claim] = field(default_factory=list)
    vouched: set[str] = field(default_factory=set)


def verify(request: Request, *, progress: _Progress = lambda more, total: None) -> tuple[Report, State]:
    """Judge the log; return the report and what the next run may build on. ``progress`` gets rows done, rows in all.

    Raises StoreError when the log cannot be read. What is wrong with it is in the report.
    """
    with open_raw(request.url) as raw:
        size, beyond = _extent(raw)
        since = request.since or State(Known())
        lost = len(since.known.nodes) * EDGE_UNIT > size
        known = Known() if lost else since.known
        verification = Verification(size, tile=raw.tile, known=known)
        if lost:
            told = f"an earlier run verified {len(since.known.nodes) * EDGE_UNIT:,} rows, the log has {size:,}"
            verification.findings.add("truncated", size, told)
        if beyond:
            told = f"the newest head is of size {beyond:,}, and there is no row from {size:,} on"
            verification.findings.add("row_missing", size, told)
        for told in request.unreachable:
            verification.findings.add("unreachable", None, told)
        schema_findings(verification.findings, ((f.kind, f.name, f.detail) for f in request.schema))
        _look_around(raw, verification)
        evidence = _evidence(request, verification)
        swept = _swept(since.sweep, len(known.nodes))
        tasks = _tasks(size, len(known.nodes), swept, evidence.claims)
        total = sum(task.end - task.first for task in tasks)
        with closing(_reports(request, raw, tasks)) as reports:
            for part in reports:
                verification.add(part)
                progress(part.end - part.first, total)
        read = {task.first // EDGE_UNIT for task in tasks}
        # A segment's span can be judged when all of its rows were read.
        whole = {
            segment.number
            for segment in raw.parts()
            if segment.end <= size and read >= set(range(segment.first // EDGE_UNIT, -(-segment.end // EDGE_UNIT)))
        }
        report = verification.finish(
            spans={number: span for number, span in raw.spans().items() if number in whole},
            vouched=evidence.vouched,
            now=request.now,
            max_age=request.max_age,
            confirmed=not known.nodes,
        )
    return report, State(verification.known(), max(swept, default=-1) + 1)


def _extent(raw: RawReader) -> tuple[int, int]:
    """How many rows can be verified; and the newest head's size if that is more than there are rows, else 0."""
    size = raw.size()
    there = raw.last_row() + 1
    return (there, size) if there < size else (size, 0)


def _look_around(raw: RawReader, verification: Verification) -> None:
    """What lies beside the rows: strays, impossible heads, tiles and spans that nothing filled, checkpoints of too much."""
    findings = verification.findings
    for seq, table in raw.strays():
        findings.add(
            "row_stray", seq, f"row {seq} in {table} is not part of the log: it was written beside the service"
        )
    for head in raw.heads(-MAX_SIZE, 0):
        findings.add("head", None, f"there is a head of size {head.size}")
    now, tiles = raw.tiles()
    for level, number in tiles:
        if level < 1 or level > TILE_HEIGHT or number < 0 or (number + 1) << (TILE_HEIGHT * (level + 1)) > now:
            findings.add("tile", None, f"there is a tile of level {level}, number {number}, that no rows have filled")
    newer, spans = raw.checkpoints(verification.size, MAX_SIZE), raw.spans()
    # After them, so that what belongs to rows which have come meanwhile is not taken for too much.
    now = raw.size()
    for number in sorted(spans.keys() - {part.number for part in raw.parts() if part.end <= now}):
        findings.add("span", None, f"a time span is recorded for segment {number}, which is not full or not there")
    for claim in stored_claims(((size, note) for size, note in newer if size > now), (), findings):
        verification.claim(claim)


def _evidence(request: Request, verification: Verification) -> _Evidence:
    """Read what is from outside; what lies in no range is judged at once."""
    evidence = _Evidence()
    for given in request.outside:
        try:
            claim, known = outside_claim(
                given.name, given.note, logs=request.logs, witnesses=request.witnesses, time=given.time
            )
        except IntegrityError as error:
            verification.findings.add("checkpoint_invalid", None, f"{given.name} is refused: {error.message}")
            continue
        if known:
            evidence.vouched.add(claim.name)
        if 0 < claim.size <= verification.size:
            evidence.claims.append(claim)
        else:
            verification.claim(claim)
    return evidence


def _swept(start: int, old: int) -> range:
    """The old ranges whose turn it is."""
    if not old:
        return range(0)
    start = start if start < old else 0
    return range(start, min(old, start + -(-old // SWEEP_RUNS)))


def _tasks(size: int, old: int, swept: range, claims: Sequence[Claim]) -> list[_Task]:
    newest = max((claim.size for claim in claims), default=0)
    tasks = []
    for first in range(0, size, EDGE_UNIT):
        index, end = first // EDGE_UNIT, min(first + EDGE_UNIT, size)
        mine = tuple(claim for claim in claims if first < claim.size <= end)
        # Of old ranges those whose turn it is, and the one that the newest checkpoint from outside is about.
        if index >= old or index in swept or any(claim.size == newest for claim in mine):
            tasks.append(_Task(first, end, mine))
    return tasks


def _reports(request: Request, raw: RawReader, tasks: Sequence[_Task]) -> Generator[RangeReport, None, None]:
    """The tasks' reports in their order, from several processes when there is enough to do."""
    workers = processes(request.workers, len(tasks))
    if workers < 2 or len(tasks) < PARALLEL:
        return (_examine(raw, task, request.registered) for task in tasks)
    arguments = (request.url, tuple(request.registered))
    return in_order(_work, tasks, workers=workers, begin=_begin, arguments=arguments)


def _examine(raw: RawReader, task: _Task, keys: Sequence[VerifierKey]) -> RangeReport:
    check = RangeCheck(task.first, task.end, typed=raw.typed)
    for segment, columns in raw.rows(task.first, task.end):
        check.feed(segment, columns)
    findings = Findings()
    stored = list(stored_claims(raw.checkpoints(task.first, task.end), keys, findings))
    return check.finish(
        raw.heads(task.first, task.end),
        [*task.claims, *stored],
        tile=raw.tile(1, task.first // EDGE_UNIT) if task.end - task.first == EDGE_UNIT else None,
        findings=findings,
    )


# In a worker process: its connection, and the keys.
_raw: RawReader
_keys: tuple[VerifierKey, ...]


def _begin(url: str, keys: tuple[VerifierKey, ...]) -> None:
    global _raw, _keys
    _raw, _keys = open_raw(url), keys


def _work(task: _Task) -> RangeReport:
    return _examine(_raw, task, _keys)
