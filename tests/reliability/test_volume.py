"""More events than the store takes, for a long time: memory stays bounded, and all of them arrive."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil

from indelible import AuditService
from indelible.events import AuditEvent
from indelible.settings import load
from indelible.testing import MemoryStore
from tests.reliability.host import open_store
from tests.reliability.invariants import assert_equations
from tests.reliability.serving import eventually

Report = Callable[..., None]
MEBIBYTE = 1 << 20


class CountingStore(MemoryStore):
    """Keeps each writer's position and newest event, and nothing else; waits ``delay`` seconds in each append."""

    def __init__(self, delay: float) -> None:
        super().__init__()
        self.stored = 0
        self.delay = delay
        self.largest = 0
        self._positions: dict[UUID, tuple[int, UUID]] = {}
        self._pace = threading.Event()

    def append(self, writer_id: UUID, first: int, events: Sequence[AuditEvent], *, after: int | None = None) -> int:
        """See ports.Store."""
        self._pace.wait(self.delay)
        known = self._positions.get(writer_id, (-1, writer_id))[0] + 1
        assert first == known, "in order, without a hole"
        self._positions[writer_id] = (first + len(events) - 1, events[-1].id)
        self.stored += len(events)
        self.largest = max(self.largest, len(events))
        return self.stored

    def last_event(self, writer_id: UUID) -> tuple[int, UUID] | None:
        """See ports.Store."""
        return self._positions.get(writer_id)


def _offer(directory: Path, count: int, pipe: int) -> None:
    """The process whose memory is watched: offers ``count`` events as fast as it can to ``indelible writer``'s part."""
    settings = load(data_dir=directory, writer="process", journal_quota=1 << 34, on_full="raise")
    service = AuditService(MemoryStore(), settings, announce=False)
    service.open()
    process = psutil.Process()
    before = _private(process)
    peak, began = 0, time.monotonic()
    for n in range(count):
        service.log(event_type="data_modify", action="update", resource_id=n, metadata={"filler": "x" * 100})
        if n % 50_000 == 0:
            peak = max(peak, _private(process))
    seconds = time.monotonic() - began
    peak = max(peak, _private(process))
    counts = {name: value for name, value in service.metrics().items() if name.startswith("events_")}
    told = {"before": before, "peak": peak, "seconds": seconds, "metrics": counts}
    os.write(pipe, json.dumps(told).encode())
    os.close(pipe)
    signal.pause()


def _private(process: psutil.Process) -> int:
    """Bytes that belong to the process alone: without the pages of mapped files, which are the kernel's to drop."""
    told = process.memory_info()
    return int(told.rss - told.shared)


def test_memory_stays_bounded(tmp_path: Path, soak: bool, report: Report) -> None:
    """One process offers, another drains with a store that is slower: neither grows with what waits between them."""
    count = 10_000_000 if soak else 200_000
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read_end)
            _offer(tmp_path / "data", count, write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    try:
        store = CountingStore(delay=0.1)  # 10,000 events a second at the most
        settings = load(data_dir=tmp_path / "data", writer="process")
        service = AuditService(store, settings, announce=False)
        draining = threading.Thread(target=service.drain_here, daemon=True)
        process = psutil.Process()
        before = _private(process)
        draining.start()
        told = json.loads(_all_of(read_end))
        waiting = count - store.stored
        store.delay = 0.0
        peak = before

        def arrived() -> bool:
            nonlocal peak
            peak = max(peak, _private(process))
            return store.stored >= count

        eventually(arrived, 3600 if soak else 90, what="every event arrives")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read_end)
    service.close()
    draining.join(10)
    assert store.stored == count
    assert store.largest <= settings.max_batch
    for metrics in (service.metrics(), told["metrics"]):
        assert_equations(metrics)
    assert waiting > count / 10, "the store was slower"
    assert told["peak"] - told["before"] < 64 * MEBIBYTE
    assert peak - before < 128 * MEBIBYTE
    report(
        "volume",
        offered=count,
        offered_per_second=round(count / told["seconds"]),
        waiting_at_the_end=waiting,
        stored=store.stored,
        lost=0,
        offering_process_grew_MiB=round((told["peak"] - told["before"]) / MEBIBYTE),
        draining_process_grew_MiB=round((peak - before) / MEBIBYTE),
        python=sys.version.split()[0],
    )


def _all_of(pipe: int) -> bytes:
    told = b""
    while more := os.read(pipe, 1 << 16):
        told += more
    return told


def test_all_arrive_in_a_real_store(engine_url: str, tmp_path: Path, soak: bool, report: Report) -> None:
    """The same through ``indelible writer``'s part into SQLite and PostgreSQL, sealed."""
    count = 1_000_000 if soak else 20_000
    store = open_store(engine_url, 65_536)
    settings = load(database_url=engine_url, data_dir=tmp_path / "data", writer="process", journal_quota=1 << 32)
    service = AuditService(store, settings, announce=False)
    service.open()
    draining = threading.Thread(target=service.drain_here, daemon=True)
    draining.start()
    began = time.monotonic()
    fields: dict[str, Any] = {"event_type": "data_modify", "action": "update", "metadata": {"filler": "x" * 100}}
    last = [service.log(**fields, resource_id=n) for n in range(count)][-1]
    offered = time.monotonic() - began
    service.flush_sync(3600)
    seconds = time.monotonic() - began
    head = store.head()
    assert head is not None
    assert head.size == count
    assert store.get(last) is not None
    assert_equations(service.metrics())
    service.close()
    draining.join(10)
    report(
        f"volume sealed/{engine_url.split(':')[0]}",
        events=count,
        offered_per_second=round(count / offered),
        stored_per_second=round(count / seconds),
        lost=0,
    )
