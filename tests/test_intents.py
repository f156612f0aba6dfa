"""Intents: nothing happens unaudited, and an outcome that nobody knows is stored as such."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from indelible import AuditService
from indelible.errors import JournalFull, NotAccepted
from indelible.journal import Frame, Journal, JournalReader, open_intents
from indelible.journal.intents import SLOT_BYTES, SLOTS
from indelible.settings import load
from indelible.testing import MemoryStore

Make = Callable[..., AuditService]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[AuditService] = []

    def factory(store: MemoryStore | None = None, **settings: Any) -> AuditService:
        service = AuditService(store or MemoryStore(), load(data_dir=tmp_path, **settings), announce=False)
        made.append(service)
        return service

    yield factory
    for service in made:
        service.close(timeout=0.1)


def rows(service: AuditService) -> list[Any]:
    assert isinstance(service.store, MemoryStore)
    return service.store.rows


async def test_an_outcome_completes_its_intent_into_one_event(make: Make) -> None:
    """The intent is on disk when ``intend`` returns; ``fulfil`` makes it one ordinary event under the same id."""
    service = make()
    intent = await service.intend(event_type="admin_action", action="update", request_path="/api/admin")
    assert [json.loads(_metadata(p))["outcome"] for p in open_intents(intent.journal.path)] == ["unknown"]
    assert service.fulfil(intent, event_type="admin_action", action="update", response_status=200) == intent.event_id
    assert list(open_intents(intent.journal.path)) == []
    await service.stop()
    (row,) = rows(service)
    assert (row.id, row.status, row.response_status, row.metadata) == (intent.event_id, "success", 200, None)


def _metadata(payload: bytes) -> str:
    import msgspec

    return str(msgspec.msgpack.decode(payload)["metadata"])


async def test_a_dead_process_leaves_an_unknown_outcome(make: Make, tmp_path: Path) -> None:
    """Killed between intent and outcome: one ``failure`` event that says so, numbered after the writer's others."""
    service = make()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        import asyncio

        try:
            child = AuditService(MemoryStore(), load(data_dir=tmp_path, writer="process"), announce=False)

            async def work() -> None:
                child.log(event_type="login", action="login")
                done = await child.intend(event_type="admin_action", action="first")
                child.fulfil(done, event_type="admin_action", action="first")
                await child.intend(event_type="admin_action", action="second", user_id="alice")

            # A loop of its own: the one of the test is running in the parent.
            asyncio.events._set_running_loop(None)
            asyncio.run(work())
            os.write(write_end, b"x")
            signal.pause()
        finally:
            os._exit(1)
    assert os.read(read_end, 1) == b"x"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(read_end)
    os.close(write_end)
    service.open()
    await service.stop()
    assert [(row.action, row.status, row.writer_seq) for row in rows(service)] == [
        ("login", "success", 0),
        ("first", "success", 1),
        ("second", "failure", 2),
    ]
    assert json.loads(rows(service)[2].metadata) == {"outcome": "unknown"}
    assert rows(service)[2].user_id == "alice"


async def test_an_outcome_that_was_stored_is_not_unknown(make: Make) -> None:
    """Killed between the outcome and the striking out of its intent: the event's id tells that they are one."""
    service = make()
    await service.start()
    intent = await service.intend(event_type="admin_action", action="update")
    intent.journal.strike = lambda slot: None  # type: ignore[method-assign]
    service.fulfil(intent, event_type="admin_action", action="update")
    await service.stop()
    assert [row.id for row in rows(service)] == [intent.event_id]


async def test_an_unknown_outcome_is_no_clone(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It is stored behind the last frame; who finds it in the store next does not take it for another process's event."""
    service = make()
    await service.intend(event_type="admin_action", action="update")
    await service.stop()
    successor = make(service.store)
    successor.open()
    await successor.stop()
    assert [(row.status, row.writer_seq) for row in rows(service)] == [("failure", 0)]
    assert "cloned" not in caplog.text


async def test_nothing_may_happen_without_a_journal(make: Make, tmp_path: Path) -> None:
    """No directory, no intent: NotAccepted, and so no action."""
    (tmp_path / "journal").write_text("in the way")
    with pytest.raises(NotAccepted):
        await make().intend(event_type="admin_action", action="update")


def test_the_outcome_has_room_when_nothing_else_has(tmp_path: Path) -> None:
    """With the quota used up, ordinary events are refused and the outcomes of open intents are taken."""
    journal = Journal(tmp_path, uuid4(), file_bytes=1 << 16, quota=3 << 16)
    slots = [journal.arm(b"intent") for _ in range(5)]
    with pytest.raises(JournalFull):  # noqa: PT012 - until it is full
        while True:
            journal.append(b"x" * 1000)
    before = journal.appended
    assert [journal.append(b"outcome" * 200, reserved=True) for _ in slots] == list(range(before, before + 5))
    with pytest.raises(JournalFull, match="set aside"):
        journal.append(b"small")
    for slot in slots:
        journal.strike(slot)
    journal.close()
    reader = JournalReader(journal.path)
    frames = [item for item in reader.read(10**6, final=True) if isinstance(item, Frame)]
    assert [f.number for f in frames] == list(range(before + 5))
    reader.close()


def test_the_reserve_is_made_again_when_there_is_room(tmp_path: Path) -> None:
    """After the outcomes have used it and the store has caught up, ordinary events and new intents are taken."""
    journal = Journal(tmp_path, uuid4(), file_bytes=1 << 16, quota=3 << 16)
    journal.arm(b"intent")
    with pytest.raises(JournalFull):  # noqa: PT012 - until it is full
        while True:
            journal.append(b"x" * 1000)
    journal.append(b"outcome" * 200, reserved=True)
    reader = JournalReader(journal.path)
    journal.sync()
    reader.read(10**6, final=False)
    reader.mark_stored(reader.next)
    journal.sync()
    journal.append(b"ordinary")
    journal.arm(b"another intent")
    reader.close()
    journal.close()


def test_there_are_only_so_many_slots(tmp_path: Path) -> None:
    """One more than SLOTS open intents is JournalFull, and so is an intent that does not fit into a slot."""
    journal = Journal(tmp_path, uuid4(), file_bytes=1 << 16)
    with pytest.raises(JournalFull, match="does not fit"):
        journal.arm(bytes(SLOT_BYTES))
    slots = [journal.arm(b"%d" % n) for n in range(SLOTS)]
    with pytest.raises(JournalFull, match="under way"):
        journal.arm(b"one more")
    journal.strike(slots[7])
    assert journal.arm(b"again") == slots[7]
    journal.close()
