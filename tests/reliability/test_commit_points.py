"""Killed at every commit point: what was accepted is stored exactly once, whichever line was the last."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from indelible import AuditService
from indelible.errors import RowRefused
from indelible.events import AuditEvent
from indelible.journal import writers
from indelible.settings import load
from tests.reliability import crashes
from tests.reliability.host import open_store
from tests.reliability.invariants import assert_log_invariants
from tests.reliability.serving import eventually

SEGMENT_ROWS = 256
#: How often the point is passed before the process dies there: late enough that something has happened before.
LATE = {
    "append-before-announced": 70,
    "append-announced": 200,
    "sync-before-marked": 2,
    "stored-before-marked": 3,
    "stored-half-marked": 3,
    "stored-marked": 3,
    "commit-before": 4,
    "commit-after": 5,
    "begin": 4,
    "segment-made": 1,
    "segment-before": 1,
    "journal-without-name": 1,
}


def _service(url: str, directory: Path) -> AuditService:
    settings = load(
        database_url=url, data_dir=directory, journal_file_bytes=1 << 16, journal_quota=1 << 24, flush_interval=0.05
    )
    return AuditService(open_store(url, SEGMENT_ROWS), settings)


def _refuse_poison(service: AuditService) -> None:
    append = service.store.append

    def strict(writer_id: UUID, first: int, events: Sequence[AuditEvent], **options: Any) -> int:
        if any(event.action == "poison" for event in events):
            raise RowRefused("the test's own refusal")
        return append(writer_id, first, events, **options)

    service.store.append = strict  # type: ignore[method-assign]


async def _live(service: AuditService, pipe: int) -> None:
    """What a process does in its life: every kind of event, files that fill up, intents, a row that is refused."""
    await service.start()
    for n in range(600):
        event_id = service.log(event_type="data_modify", action="update", metadata={"n": n, "filler": "x" * 200})
        os.write(pipe, event_id.bytes)
        if n % 100 == 50:
            service.record(event_type="data_modify", action="poison")
            intent = await service.intend(event_type="admin_action", action="update")
            os.write(pipe, service.fulfil(intent, event_type="admin_action", action="update").bytes)
            await service.flush()
    await service.intend(event_type="admin_action", action="never finished")
    await service.stop()
    # The intent without outcome was settled by nobody yet: the next drainer does it.
    await service.start()
    os.write(pipe, service.log(event_type="data_modify", action="second life").bytes)
    await service.flush()
    await service.stop()


def _die_at(point: str, url: str, directory: Path) -> tuple[list[UUID], int]:
    """Live in a forked process until ``point``; the ids it was told, and how it ended."""
    read_end, write_end = os.pipe()
    once = directory / "once"
    once.touch()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        status = 3
        try:
            asyncio.events._set_running_loop(None)
            crashes.arm(point, once, after=LATE.get(point, 0))
            service = _service(url, directory)
            _refuse_poison(service)
            asyncio.run(_live(service, write_end))
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    told = b""
    while more := os.read(read_end, 1 << 16):
        told += more
    os.close(read_end)
    _, status = os.waitpid(pid, 0)
    whole = len(told) // 16
    return [UUID(bytes=told[16 * i : 16 * i + 16]) for i in range(whole)], status


@pytest.mark.parametrize("point", sorted(crashes.POINTS))
def test_killed_at_a_commit_point(
    point: str, engine_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next process finds the accepted events in the dead one's journal, stores each once, and leaves no hole."""
    directory = tmp_path / "data"
    directory.mkdir()
    made = open_store(engine_url, SEGMENT_ROWS)
    made.open()
    made.close()
    told, status = _die_at(point, engine_url, directory)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"never came by ({status})"
    successor = _service(engine_url, directory)
    _refuse_poison(successor)
    successor.open()
    own = successor._journal
    assert own is not None
    eventually(lambda: writers(directory / "journal") == [own.path], what="the dead journals are drained")
    eventually(lambda: not [*(directory / "journal").glob(".*.retired")], what="nothing is left of them")
    successor.close()
    successor.store.open()
    found = assert_log_invariants(successor.store, accepted=told, metrics=[successor.metrics()])
    successor.store.close()
    letters = {path.stem for path in (directory / "dead-letters").glob("*.msgpack")}
    assert found.explained == len(letters), "each dead letter is explained by a gap, and nothing else is"
    assert not [r.message for r in caplog.records if r.levelname == "CRITICAL"], "a crash is no alarm"
