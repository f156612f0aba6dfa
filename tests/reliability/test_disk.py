"""The journal's disk in trouble: a typed error or a gap, never a silent loss, and no harm to a request."""

from __future__ import annotations

import asyncio
import errno
import json
import mmap
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from indelible import AuditService
from indelible.capture.asgi import AuditMiddleware
from indelible.errors import NotAccepted
from indelible.journal import writers
from indelible.settings import load
from indelible.testing import MemoryStore
from tests.reliability.invariants import assert_equations, assert_log_invariants
from tests.reliability.serving import eventually

Make = Callable[..., AuditService]
FILE_BYTES = 1 << 16


def remove(directory: Path) -> None:
    """Delete a directory that a running service may be making again at this very moment."""
    gone = directory.with_name(f"{directory.name}-deleted")
    directory.rename(gone)
    shutil.rmtree(gone)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A factory of services over one data directory, closed at the end."""
    made: list[AuditService] = []

    def factory(store: MemoryStore | None = None, **settings: Any) -> AuditService:
        options = {"journal_file_bytes": FILE_BYTES, "journal_quota": 8 * FILE_BYTES, **settings}
        service = AuditService(store or MemoryStore(), load(data_dir=tmp_path / "data", **options))
        made.append(service)
        return service

    yield factory
    for service in made:
        service.close(timeout=1)


def memory(service: AuditService) -> MemoryStore:
    assert isinstance(service.store, MemoryStore)
    return service.store


def gaps(service: AuditService) -> list[dict[str, Any]]:
    """What the log's gap events tell."""
    return [json.loads(row.metadata or "") for row in memory(service).rows if row.event_type == "audit.gap"]


def log(service: AuditService) -> UUID:
    return service.log(event_type="data_modify", action="update", metadata={"filler": "x" * 300})


# --- every kind of trouble, as a request sees it --------------------------------------------------------------------------


@contextmanager
def quota_used_up(service: AuditService, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The database is away for so long that the quota is used up."""
    memory(service).down = True
    shed = service.metrics()["events_shed"]
    while service.metrics()["events_shed"] == shed:
        log(service)
    yield
    memory(service).down = False


@contextmanager
def no_larger_files(service: AuditService, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The disk has no room for another file: here by RLIMIT_FSIZE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    memory(service).down = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES // 2, hard))
    try:
        shed = service.metrics()["events_shed"]
        while service.metrics()["events_shed"] == shed:
            log(service)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        memory(service).down = False


@contextmanager
def disk_that_fails(service: AuditService, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each fdatasync is an error, so no journal can be relied on."""
    with patch.context() as inner:
        inner.setattr(os, "fdatasync", _fail)
        log(service)
        eventually(lambda: service._journal is not None and not service._journal.accepting)
        yield


def _fail(fd: int) -> None:
    raise OSError(errno.EIO, "Input/output error")


@contextmanager
def directory_in_the_way(service: AuditService, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The journal's directory was deleted, and no other can be made: a file has its name."""
    place = service.settings.data_dir / "journal"
    service.flush_sync()
    eventually(lambda: _blocked(place), what="the file is there before the drainer makes the directory again")
    log(service)
    eventually(lambda: service._journal is not None and not service._journal.accepting)
    yield
    place.unlink()


def _blocked(place: Path) -> bool:
    try:
        place.write_text("in the way")
    except IsADirectoryError:
        remove(place)
        return False
    return True


TROUBLES = [quota_used_up, no_larger_files, disk_that_fails, directory_in_the_way]
Trouble = Callable[[AuditService, pytest.MonkeyPatch], AbstractContextManager[None]]


def client(service: AuditService, served: list[str], on_failure: str) -> httpx.AsyncClient:
    """A client of an application whose every request is audited."""

    async def create(request: Request) -> PlainTextResponse:
        served.append(request.url.path)
        return PlainTextResponse("made", status_code=201)

    app = AuditMiddleware(
        Starlette(routes=[Route("/{path:path}", create, methods=["POST"])]),
        service=service,
        on_failure=on_failure,  # type: ignore[arg-type]
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_request_is_served_and_the_gap_is_told(
    trouble: Trouble, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``serve``: the answer is the same, the event is shed and counted, and the log says so when it can again."""
    service, served = make(), list[str]()
    service.open()
    accepted = [log(service) for _ in range(20)]
    async with client(service, served, "serve") as http:
        with trouble(service, monkeypatch):
            for _ in range(5):
                assert (await http.post("/things")).status_code == 201
        eventually(lambda: _accepts(service, accepted), what="events are accepted again")
        assert (await http.post("/things")).status_code == 201
    assert len(served) == 6
    await service.stop()
    shed = service.metrics()["events_shed"]
    assert isinstance(shed, int)
    assert shed >= 5
    assert sum(gap["count"] for gap in gaps(service) if gap["reason"] == "shed") == shed
    assert_log_invariants(service.store, accepted=accepted, metrics=[service.metrics()])


def _accepts(service: AuditService, accepted: list[UUID]) -> bool:
    before = service.metrics()["events_shed"]
    event_id = log(service)
    if service.metrics()["events_shed"] == before:
        accepted.append(event_id)
        return True
    return False


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_refuse_refuses(trouble: Trouble, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """``refuse``: 503 with Retry-After while it cannot be audited, and the handler does not run; then all is well."""
    service, served = make(), list[str]()
    service.open()
    async with client(service, served, "refuse") as http:
        with trouble(service, monkeypatch):
            answers = [await http.post("/things") for _ in range(5)]
        ran = len(served)
        refused = [answer for answer in answers if answer.status_code == 503]
        assert all(answer.headers["retry-after"] for answer in refused)
        assert len(refused) + ran == 5
        assert refused
        eventually(lambda: _accepts(service, []), what="events are accepted again")
        await service.flush()
        assert (await http.post("/things")).status_code == 201
    await service.stop()
    created = [row for row in memory(service).rows if row.event_type == "data_create"]
    assert len(created) == ran + 1, "whatever was carried out is recorded"
    assert_log_invariants(service.store, metrics=[service.metrics()])


# --- one by one ---------------------------------------------------------------------------------------------------------


def test_a_journal_that_cannot_be_made_leaves_nothing_behind(make: Make, tmp_path: Path) -> None:
    """A thousand events while there is no room even for the first file: no descriptor and no directory more."""
    service = make()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES // 2, hard))
    try:
        log(service)
        before = _descriptors()
        for _ in range(1000):
            log(service)
            service._refused = None  # as if half a second had passed between two attempts
        assert _descriptors() == before
        assert list((tmp_path / "data" / "journal").iterdir()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    service._refused = None
    log(service)
    service.close()
    assert [gap["count"] for gap in gaps(service)] == [1001]
    assert_log_invariants(service.store, metrics=[service.metrics()])


def _descriptors() -> list[str]:
    return sorted(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


@pytest.mark.parametrize("drained_here", [True, False], ids=["drainer", "no-drainer"])
def test_a_directory_that_is_deleted_is_a_gap(make: Make, tmp_path: Path, drained_here: bool) -> None:
    """Everything accepted is stored or explained by a gap, and the service goes on in a new directory."""
    store = MemoryStore()
    service = make(store, writer="thread" if drained_here else "process")
    service.open()
    store.down = True
    accepted = [log(service) for _ in range(30)]
    remove(tmp_path / "data")

    def moved() -> bool:
        # Its files are there a moment before it is used: what is logged until then is in the directory that is gone.
        own = service._journal
        log(service)
        return own is not None and own.path in writers(tmp_path / "data" / "journal")

    eventually(moved, what="another journal is opened")
    store.down = False
    # The new journal has its name a moment before the service takes it up.
    later: list[UUID] = []
    eventually(lambda: _accepts(service, later), what="events are accepted again")
    again = later[-1]
    if not drained_here:
        eventually(lambda: service.metrics()["events_lost"], what="the loss is noticed")
        service.settings = service.settings.model_copy(update={"writer": "thread"})
        service.close(timeout=0.1)
        service.open()
    eventually(lambda: store.get(again) is not None, what="the new journal is drained")
    eventually(lambda: gaps(service) or store.get(accepted[-1]), what="the old one is settled")
    service.close()
    # What came between noticing and opening another may have been shed.
    told = [gap for gap in gaps(service) if gap["reason"] != "shed"]
    assert {gap["reason"] for gap in told} <= {"journal_damaged", "journal_removed"}
    assert_log_invariants(store, metrics=[service.metrics()])
    stored = sum(store.get(event_id) is not None for event_id in accepted)
    assert stored + sum(gap["count"] for gap in told) >= len(accepted)


async def test_a_clock_that_jumps_back_an_hour(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order and numbering do not depend on it: the events are there, with the times the clock gave."""
    service = make(flush_interval=0.05)
    await service.start()
    before = [log(service) for _ in range(5)]
    now, hour = time.time_ns, 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now() - hour)
    monkeypatch.setattr(time, "time", lambda: (now() - hour) / 1e9)
    after = [await service.alog(event_type="data_modify", action="update", wait="stored") for _ in range(5)]
    assert service.health().state == "ok"
    await service.stop()
    rows = {row.id: row for row in memory(service).rows}
    assert [rows[i].seq for i in (*before, *after)] == sorted(rows[i].seq for i in (*before, *after))
    assert rows[after[0]].timestamp < rows[before[-1]].timestamp - 3_500_000_000
    assert_log_invariants(service.store, accepted=[*before, *after], metrics=[service.metrics()])


def _refuse_to_map(*_: object, **__: object) -> mmap.mmap:
    raise OSError(errno.ENODEV, "No such device")


def test_a_file_system_that_refuses_maps(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written instead: slower, as safe; also for intents, and when the process is killed."""
    monkeypatch.setattr(mmap, "mmap", _refuse_to_map)
    service = make()
    service.open()
    accepted = [log(service) for _ in range(500)]

    async def intend() -> None:
        intent = await service.intend(event_type="admin_action", action="update")
        accepted.append(service.fulfil(intent, event_type="admin_action", action="update"))

    asyncio.run(intend())
    told = _killed(lambda told: _log_until_told(make(), told))
    eventually(lambda: memory(service).get(told[-1]) is not None, what="the dead process's journal is drained")
    service.close()
    assert_log_invariants(service.store, accepted=[*accepted, *told], metrics=[service.metrics()])


def _log_until_told(service: AuditService, told: Callable[[bytes], None]) -> None:
    for _ in range(100):
        told(log(service).bytes)


def _killed(work: Callable[[Callable[[bytes], None]], None]) -> list[UUID]:
    """Do ``work`` in a forked process that is killed after it; the ids that it told."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(lambda told: [os.write(write_end, told)].clear())
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.close(write_end)
    told = b""
    while more := os.read(read_end, 1 << 16):
        told += more
    os.close(read_end)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    return [UUID(bytes=told[i : i + 16]) for i in range(0, len(told), 16)]


def test_what_a_killed_process_had_shed_is_told(make: Make) -> None:
    """The count stands in the journal's header: whoever drains the dead process's journal records the gap."""

    def shed(told: Callable[[bytes], None]) -> None:
        store = MemoryStore()
        store.down = True
        service = make(store, journal_quota=2 * FILE_BYTES)
        for _ in range(1000):
            event_id = log(service)
            if service.metrics()["events_shed"]:
                continue
            told(event_id.bytes)

    accepted = _killed(shed)
    assert 100 < len(accepted) < 1000
    service = make()
    service.open()
    eventually(lambda: len(writers(service.settings.data_dir / "journal")) == 1, what="the dead one is drained")
    service.close()
    assert sum(gap["count"] for gap in gaps(service) if gap["reason"] == "shed") == 1000 - len(accepted)
    assert_log_invariants(service.store, accepted=accepted, metrics=[service.metrics()])


def _fill(service: AuditService, accepted: list[UUID]) -> None:
    while True:
        accepted.append(log(service))


def test_a_hole_in_a_full_journal_blocks_nobody(make: Make) -> None:
    """The gap event finds room although the quota is used up: otherwise nothing would ever be drained again."""
    store = MemoryStore()
    store.down = True
    service = make(store, journal_quota=2 * FILE_BYTES, on_full="raise")
    accepted: list[UUID] = []
    with pytest.raises(NotAccepted):
        _fill(service, accepted)
    journal = service._journal
    assert journal is not None
    with (journal.path / "00000000.frames").open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))
    store.down = False
    service.close(timeout=60)  # the pauses after failures, the patience with a torn frame, and a busy machine
    (gap,) = gaps(service)
    assert gap["reason"] == "journal_damaged"
    stored = [event_id for event_id in accepted if store.get(event_id) is not None]
    assert len(stored) + gap["count"] == len(accepted)
    assert_log_invariants(store, accepted=stored, metrics=[service.metrics()])


def test_metrics_hold_after_a_second_life(make: Make) -> None:
    """The sums go on over stop and start, and what the last round of a stop stores counts as stored."""
    service = make(flush_interval=3600.0, batch_size=1000)
    for _ in range(3):
        service.open()
        for _ in range(5):
            log(service)
        service.close()
    metrics = service.metrics()
    assert_equations(metrics)
    assert metrics["events_stored"] == len(memory(service).rows) == 3 * 7
