"""What must hold of every log, whatever happened to the processes that wrote it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select

from indelible.events import StoredEvent
from indelible.integrity.leaf import leaf_bytes
from indelible.integrity.merkle import CompactRange, hash_leaf
from indelible.metrics import Histogram
from indelible.ports import Store
from indelible.queries import Filter
from indelible.stores.base import SegmentedStore
from indelible.stores.schema import heads

#: Leaves hashed between two looks at the heads; only bounds memory.
_SLICE = 4096


@dataclass(frozen=True, slots=True)
class Found:
    """What the log holds: rows, those of them that are the log's own, writers, and numbers that gaps explain."""

    rows: int
    own: int
    writers: int
    explained: int


class Numbering:
    """One writer's numbers: which are stored, and which are explained by an ``audit.gap``."""

    def __init__(self) -> None:
        self.stored: set[int] = set()
        self.explained: set[int] = set()
        self.promised = 0

    def check(self, writer: UUID) -> None:
        end = max(self.promised, max(self.stored, default=-1) + 1, max(self.explained, default=-1) + 1)
        missing = set(range(end)) - self.stored - self.explained
        assert not missing, (
            f"writer {writer}: {len(missing)} numbers neither stored nor explained: {sorted(missing)[:9]}"
        )


def assert_log_invariants(
    store: Store,
    *,
    accepted: Collection[UUID] = (),
    correlations: Collection[str] = (),
    metrics: Iterable[Mapping[str, float | Histogram]] = (),
) -> Found:
    """Dense numbering, nothing twice, every hole explained, every leaf, tile and root right, the equations of promise 2.

    ``accepted`` are ids, ``correlations`` correlation ids of requests, each of which must be there exactly once.
    ``metrics`` are snapshots of services that have stopped or were flushed.
    """
    tree = CompactRange()
    sealed = isinstance(store, SegmentedStore)
    roots = _roots(store) if isinstance(store, SegmentedStore) else {}
    seen: set[UUID] = set()
    requests: Counter[str] = Counter()
    numbers: dict[UUID, Numbering] = {}
    size = own = 0
    hashes: list[bytes] = []
    for rows in store.scan(Filter()):
        for row in rows:
            assert row.seq == size, f"row {row.seq} stands where {size} belongs"
            size += 1
            assert row.id not in seen, f"event {row.id} is stored twice"
            seen.add(row.id)
            if row.correlation_id is not None and row.request_method is not None:
                requests[row.correlation_id] += 1
            own += row.event_type.startswith("audit.")
            _number(row, numbers)
            if sealed:
                leaf_hash = hash_leaf(leaf_bytes(row))
                assert leaf_hash == row.leaf_hash, f"row {row.seq} is not its leaf"
                hashes.append(leaf_hash)
                if size in roots or len(hashes) >= _SLICE:
                    tree, _ = tree.extend(hashes)
                    hashes.clear()
                if size in roots:
                    assert tree.root == roots.pop(size), f"the head of size {size} has another root"
    assert not roots, f"heads beyond the log: {sorted(roots)[:9]}"
    for writer, numbering in numbers.items():
        numbering.check(writer)
    lost = [i for i in accepted if i not in seen]
    assert not lost, f"{len(lost)} accepted events are not in the log, the first is {lost[0]}"
    twice = [c for c in correlations if requests[c] != 1]
    assert not twice, f"{len(twice)} requests are not in the log exactly once: {[(c, requests[c]) for c in twice[:5]]}"
    assert list(store.check()) == []
    for snapshot in metrics:
        assert_equations(snapshot)
    return Found(size, own, len(numbers), sum(len(n.explained) for n in numbers.values()))


def _roots(store: SegmentedStore) -> dict[int, bytes]:
    with store.engine.connect() as connection:
        found = {row.size: row.root for row in connection.execute(select(heads.c.size, heads.c.root))}
    head = store.head()
    assert (head.size if head else 0) == max(found, default=0)
    return found


def _number(row: StoredEvent, numbers: dict[UUID, Numbering]) -> None:
    mine = numbers.setdefault(row.writer_id, Numbering())
    assert row.writer_seq not in mine.stored, f"number {row.writer_seq} of writer {row.writer_id} is stored twice"
    mine.stored.add(row.writer_seq)
    told: dict[str, Any] = json.loads(row.metadata) if row.event_type.startswith("audit.") and row.metadata else {}
    if row.event_type == "audit.gap" and "end" in told:
        numbers.setdefault(UUID(told["writer_id"]), Numbering()).explained.update(range(told["first"], told["end"]))
    elif row.event_type == "audit.stopped":
        mine.promised = max(mine.promised, told["accepted"])


def assert_equations(metrics: Mapping[str, float | Histogram]) -> None:
    """offered = accepted + raised + shed, and accepted = stored + journaled + dead-lettered + lost."""

    def value(name: str) -> float:
        found = metrics[f"events_{name}"]
        assert not isinstance(found, Histogram)
        return found

    offered, accepted = value("offered"), value("accepted")
    told = {name: value(name) for name in ("raised", "shed", "stored", "journaled", "dead_lettered", "lost")}
    assert min(told.values()) >= 0, told
    assert offered == accepted + told["raised"] + told["shed"], (offered, accepted, told)
    assert accepted == told["stored"] + told["journaled"] + told["dead_lettered"] + told["lost"], (accepted, told)
