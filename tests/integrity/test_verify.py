"""Ranges and verdicts, on rows made by hand: what one range leaves open, and what closes it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indelible.errors import LeafInvalid
from indelible.events import AuditEvent, StoredEvent
from indelible.integrity.edge import EDGE_UNIT
from indelible.integrity.leaf import (
    GROUPS,
    ROW,
    Columns,
    Group,
    disclosure,
    disclosure_digest,
    hash_columns,
    leaf_bytes,
    seal,
)
from indelible.integrity.merkle import CompactRange, hash_leaf, perfect_root, root_hash
from indelible.integrity.ranges import (
    MAX_FINDINGS,
    Claim,
    Findings,
    Gap,
    HeadRow,
    RangeCheck,
    RangeReport,
    Rows,
    Run,
)
from indelible.integrity.verify import KINDS, OPEN, Known, Report, Verification

WRITER = uuid.UUID(int=3)
NOW = 4e9
Row = tuple[Any, ...]
Store = Callable[..., list[StoredEvent]]


def stored(event: AuditEvent, seq: int = 0) -> StoredEvent:
    """The event as a store would seal it."""
    sealed = seal([event], writer_id=WRITER, first=seq, recorded_at=event.timestamp, salts=bytes(range(32)))
    return StoredEvent(
        **msgspec.structs.asdict(event),
        seq=seq,
        recorded_at=event.timestamp,
        writer_id=WRITER,
        writer_seq=seq,
        leaf_hash=sealed.leaf_hashes[0],
        actor_salt=sealed.actor_salts[0],
        details_salt=sealed.details_salts[0],
    )


def row_of(event: StoredEvent, **changed: Any) -> Row:
    """The event as it is read raw."""
    values = {name: getattr(event, name) for name in ROW} | changed
    return tuple(str(values[n]) if isinstance(values[n], uuid.UUID) else values[n] for n in ROW)


def columns_of(*rows: Row) -> Columns:
    """The rows, column by column."""
    return list(zip(*rows, strict=True))


def erased(row: StoredEvent, group: Group) -> StoredEvent:
    """The row after an erasure of this group, if it has it."""
    told = disclosure(row, group)
    if told is None:
        return row
    gone = dict.fromkeys((*GROUPS[group], f"{group}_salt"))
    return msgspec.structs.replace(row, **gone, **{f"{group}_digest": disclosure_digest(told)})


def plain(seq: int, **fields: Any) -> Row:
    """A sealed row."""
    given: dict[str, Any] = {"event_type": "login", "action": "login", "status": "success", "user_id": "u"}
    return row_of(stored(AuditEvent(id=uuid.UUID(int=seq), timestamp=1000 + seq, **(given | fields)), seq))


def checked(rows: Sequence[Row], end: int, **more: Any) -> RangeReport:
    """The report on a first range."""
    check = RangeCheck(0, end)
    check.feed(0, columns_of(*rows))
    return check.finish(more.pop("heads", ()), **more)


def judged(*reports: RangeReport, size: int, known: Known | None = None, **more: Any) -> Report:
    """The verdict on these ranges, with an outside checkpoint that agrees, so that nothing else is open."""
    verification = Verification(size, tile=lambda level, number: None, known=known)
    for report in reports:
        verification.add(report)
    verification.claim(Claim(0, sha256().digest(), "outside", "kept", None))
    return verification.finish(
        spans=more.pop("spans", {}), vouched=["kept"], now=NOW, confirmed=more.pop("confirmed", False), **more
    )


def found(findings: Findings | Report) -> list[tuple[str, int | None]]:
    """(kind, seq) of each finding."""
    kept = findings.kept if isinstance(findings, Findings) else findings.findings
    return [(finding.kind, finding.seq) for finding in kept]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_raw_rows_have_the_hash_of_their_leaf_bytes(
    store: Store, events: st.SearchStrategy[AuditEvent], data: st.DataObject
) -> None:
    """Many at once, the fast way, and one at a time as the specification has it: the same for all that can be sealed.

    Rows with and without a group, and with one that was erased, stand side by side.
    """
    rows = store(data.draw(st.lists(events, min_size=1, max_size=9)), first=data.draw(st.integers(0, 2**53 - 10)))
    groups: tuple[Group, ...] = ("actor", "details")
    for group in groups:
        gone = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
        rows = [erased(row, group) if blank else row for row, blank in zip(rows, gone, strict=True)]
    expected = [hash_leaf(leaf_bytes(row)) for row in rows]
    assert hash_columns(columns_of(*map(row_of, rows))) == expected == [row.leaf_hash for row in rows]


@pytest.mark.parametrize(
    "changed",
    [
        {"actor_salt": None},
        {"actor_salt": b"short"},
        {"details_salt": bytes(16)},
        {"actor_digest": bytes(32)},
        {"details_digest": bytes(31)},
        {"user_id": "\ud800"},
        {"timestamp": 2**63 - 1},
    ],
)
def test_what_cannot_have_been_sealed_is_refused_or_has_another_hash(changed: dict[str, Any]) -> None:
    """As ``leaf_bytes`` refuses it."""
    before = stored(AuditEvent(id=uuid.UUID(int=1), timestamp=5, event_type="a", action="b", status="c", user_id="u"))
    try:
        (computed,) = hash_columns(columns_of(row_of(before, **changed)))
    except LeafInvalid:
        return
    assert computed != before.leaf_hash


def test_whole_rows_are_verified() -> None:
    """And the root is that of their leaf hashes."""
    rows = [plain(seq) for seq in range(5)]
    root = root_hash([row[-2] for row in rows])
    report = checked(rows, 5, heads=[HeadRow(5, root, str(WRITER), 4)])
    verdict = judged(report, size=5, confirmed=True, spans={0: (1000, 1004)})
    assert (verdict.verdict, verdict.root, verdict.rows, verdict.witnessed) == ("verified", root, 5, 0)


def test_what_is_missing_and_what_is_too_much() -> None:
    """Holes at the beginning, inside and at the end; a position taken twice."""
    rows = [plain(1), plain(2), plain(2), plain(5)]
    assert found(checked(rows, 8).findings) == [
        ("row_missing", 0),
        ("row_extra", 2),
        ("row_missing", 3),
        ("row_missing", 6),
    ]


def test_a_blob_is_not_the_text_it_encodes_to() -> None:
    """Bytes become base64 in JSON: the same leaf, another row. Unless the database vouches for its types."""
    honest = plain(0, user_id="aGk=")
    forged = row_of(
        stored(
            AuditEvent(
                id=uuid.UUID(int=0),
                timestamp=1000,
                event_type="login",
                action="login",
                status="success",
                user_id="aGk=",
            )
        ),
        user_id=b"hi",
    )
    assert hash_columns(columns_of(forged)) == hash_columns(columns_of(honest))
    assert found(checked([forged], 1).findings) == [("row_invalid", 0)]


def test_a_hole_is_explained_by_a_gap_event_wherever_it_is() -> None:
    """Earlier or later in the log, whole or in parts; what is left over is named."""
    run = Run("w", 10, 12, 0, 0)
    report = checked([plain(0)], 1)
    for gaps, kinds in (
        ((Gap("w", 0, 10),), []),
        ((Gap("w", 5, 10), Gap("w", 0, 6)), []),
        ((Gap("w", 0, 9),), [("writer_hole", 0)]),
        ((Gap("x", 0, 10),), [("writer_hole", 0)]),
    ):
        assert found(judged(replace(report, runs=(run,), gaps=gaps), size=1)) == kinds


def test_a_gap_event_of_another_form_explains_nothing() -> None:
    """Shed events were never numbered, and hand-written metadata is no crash."""
    for metadata in ('{"count":3,"first":"2024","last":"2024"}', "{", "[]", None):
        report = checked([plain(0, event_type="audit.gap", metadata=metadata)], 1)
        assert (report.gaps, found(report.findings)) == ((), [])


def test_numbers_that_repeat_are_found() -> None:
    """An event that was stored twice, or rows that were moved."""
    report = checked([plain(0), plain(1)], 2)
    assert found(judged(replace(report, runs=(Run("w", 0, 5, 0, 0), Run("w", 3, 6, 1, 0))), size=2)) == [
        ("writer_order", 1)
    ]


def test_an_erasure_speaks_of_rows_before_it_only() -> None:
    """Nobody erases what is yet to come."""
    told = '{"groups":["actor"],"seqs":[[0,9]]}'
    report = checked([plain(0), plain(1, event_type="audit.erased", metadata=told)], 2)
    assert report.erased == (Rows("actor", 0, 1),)
    later = replace(report, blank=(Rows("actor", 0, 1), Rows("details", 0, 1)))
    assert found(judged(later, size=2)) == [("erasure", 0)]


def test_blank_groups_are_told_in_runs() -> None:
    """However many rows of one person there are."""
    digest = bytes(32)
    nobody = dict.fromkeys(("user_id", "on_behalf_of", "ip_address", "user_agent", "session_id", "actor_salt"))
    rows = [
        row_of(replace_row(seq), **nobody, actor_digest=digest, **({"details_digest": digest} if seq > 1 else {}))
        for seq in range(4)
    ]
    assert checked(rows, 4).blank == (Rows("actor", 0, 4), Rows("details", 2, 4))


def replace_row(seq: int) -> StoredEvent:
    """A stored event without details."""
    return stored(AuditEvent(id=uuid.UUID(int=seq), timestamp=seq, event_type="a", action="b", status="c"), seq)


def test_findings_are_bounded_and_all_counted() -> None:
    """A log that is wrong throughout says so in a page."""
    rows = [row_of(replace_row(seq), action="x") for seq in range(500)]
    report = judged(checked(rows, 500), size=500)
    assert (len(report.findings), report.counts) == (MAX_FINDINGS, {"row_changed": 500})


def test_ranges_have_to_be_aligned_and_in_order() -> None:
    """What is asked wrongly is no verdict."""
    for first, end in ((1, 5), (0, 0), (0, EDGE_UNIT + 1)):
        with pytest.raises(ValueError, match="aligned"):
            RangeCheck(first, end)
    verification = Verification(5, tile=lambda level, number: None)
    with pytest.raises(ValueError, match="follow"):
        verification.add(replace(checked([plain(0)], 1), first=EDGE_UNIT, end=EDGE_UNIT + 1))


def test_tiles_of_higher_levels_are_compared() -> None:
    """After 256 full ranges there is a tile of level 2: stored as it should be, another, or none."""
    nodes = [sha256(b"%d" % n).digest() for n in range(256)]
    empty = checked([plain(0)], 1)
    for stored_tile, kinds in ((b"".join(nodes), []), (b"other", [("tile", 0)]), (None, [("tile", 0)])):
        verification = Verification(256 * EDGE_UNIT, tile=lambda *_, tile=stored_tile: tile)
        for n, node in enumerate(nodes):
            verification.add(
                replace(empty, first=n * EDGE_UNIT, end=(n + 1) * EDGE_UNIT, nodes=(node,), runs=(), spans={})
            )
        assert found(verification.findings) == kinds
        assert verification.finish(spans={}, vouched=[], now=NOW, confirmed=False).root == perfect_root(nodes)


def test_a_range_that_was_verified_before_has_to_be_the_same() -> None:
    """With what was known then, claims about it are judged in its own place."""
    nodes = tuple(sha256(b"%d" % n).digest() for n in range(3))
    empty = replace(checked([plain(0)], 1), runs=(), spans={})
    first, end = EDGE_UNIT, 2 * EDGE_UNIT
    root = CompactRange().extend(nodes[:2], level=16)[0].root
    claim = Claim(end, root, "stored", "the stored one")
    same = replace(empty, first=first, end=end, nodes=(nodes[1],), claims=((claim, nodes[1]),))
    assert judged(same, size=3 * EDGE_UNIT, known=Known(nodes)).verdict == "verified"
    other = replace(same, nodes=(bytes(32),))
    assert found(judged(other, size=3 * EDGE_UNIT, known=Known(nodes))) == [("previous", first)]


def test_what_a_run_leaves_is_what_the_next_one_knows() -> None:
    """Positions and holes as of the last full range; explanations from everywhere."""
    verification = Verification(EDGE_UNIT + 1, tile=lambda level, number: None)
    empty = replace(checked([plain(0)], 1), runs=(), spans={})
    verification.add(replace(empty, end=EDGE_UNIT, nodes=(bytes(32),), runs=(Run("w", 2, 9, 0, 0),)))
    behind = (Run("w", 9, 12, EDGE_UNIT, 0),)
    verification.add(replace(empty, first=EDGE_UNIT, end=EDGE_UNIT + 1, runs=behind, gaps=(Gap("w", 0, 2),)))
    known = verification.known()
    assert (known.nodes, known.positions, known.gaps) == ((bytes(32),), {"w": 9}, (Gap("w", 0, 2),))
    assert known.holes == (Run("w", 0, 2, 0, 0),)


def test_every_kind_says_what_it_means() -> None:
    """The reference is made from it."""
    assert KINDS.keys() > OPEN
    assert all(meaning.endswith(".") for meaning in KINDS.values())
