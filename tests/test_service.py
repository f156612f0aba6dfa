"""AuditService and the singleton: what is accepted is kept, and nothing waits that was not asked to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from indelible import AuditService, bound, runtime
from indelible import service as service_module
from indelible.drainer import Drainer
from indelible.errors import (
    ConfigurationError,
    InvalidEvent,
    JournalFull,
    JournalUnavailable,
    NotAccepted,
    SchemaOutOfDate,
    WaitTimeout,
)
from indelible.events import micros
from indelible.journal import writers
from indelible.pacing import at_once
from indelible.settings import load
from indelible.testing import MemoryStore, capture_events
from tests.reliability.invariants import assert_equations
from tests.reliability.serving import eventually

Make = Callable[..., AuditService]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A factory of services over one data directory, closed at the end."""
    made: list[AuditService] = []

    def factory(store: MemoryStore | None = None, *, announce: bool = False, **settings: Any) -> AuditService:
        service = AuditService(store or MemoryStore(), load(data_dir=tmp_path, **settings), announce=announce)
        made.append(service)
        return service

    yield factory
    for service in made:
        service.close(timeout=0.1)


def rows(service: AuditService) -> list[Any]:
    assert isinstance(service.store, MemoryStore)
    return service.store.rows


async def test_log_then_flush_stores_the_event(make: Make) -> None:
    """Every field given arrives, JSON values as text, ids as text, absent ones as None."""
    service = make(service_name="fog")
    await service.start()
    event_id = service.log(
        event_type="admin_action",
        action="update",
        status="denied",
        user_id=UUID(int=7),
        ip_address="192.168.1.100",
        resource_type="user",
        resource_id=123,
        old_value={"role": "user"},
        new_value={"role": "admin"},
        metadata={"reason": "promotion"},
    )
    await service.flush()
    (row,) = rows(service)
    assert (row.id, row.event_type, row.status, row.source) == (event_id, "admin_action", "denied", "fog")
    assert (row.user_id, row.resource_id) == ("00000000-0000-0000-0000-000000000007", "123")
    assert json.loads(row.old_value) == {"role": "user"}
    assert row.error is None
    assert (row.seq, row.writer_seq) == (0, 0)


async def test_log_before_start_opens_the_service(make: Make) -> None:
    """A host that forgot ``start`` loses nothing."""
    service = make()
    service.log(event_type="login", action="login")
    await service.flush()
    assert len(rows(service)) == 1


async def test_start_and_stop_are_events(make: Make) -> None:
    """The first and the last event of a writer say who it was and how many it accepted."""
    service = make(announce=True)
    await service.start()
    service.log(event_type="login", action="login")
    await service.stop()
    started, login, stopped = rows(service)
    assert [started.event_type, login.event_type, stopped.event_type] == ["audit.started", "login", "audit.stopped"]
    assert json.loads(stopped.metadata)["accepted"] == 3
    assert json.loads(started.metadata)["writer_id"] == str(stopped.writer_id)


async def test_the_logs_own_events_are_nobodys_doing(make: Make) -> None:
    """A log that is opened inside a request does not start on behalf of whoever sent it."""
    service = make(announce=True)
    with bound(user_id="alice", correlation_id="c-1", ip_address="10.0.0.1"):
        service.log(event_type="login", action="login")
        await service.stop()
    started, login, stopped = rows(service)
    assert (login.user_id, login.correlation_id) == ("alice", "c-1")
    for event in (started, stopped):
        assert (event.user_id, event.correlation_id, event.ip_address) == (None, None, None)


async def test_stop_leaves_no_journal_behind_and_can_be_followed_by_start(make: Make, tmp_path: Path) -> None:
    """After an orderly stop the data directory holds no journal; a second start is a new writer."""
    service = make()
    for _ in range(2):
        await service.start()
        service.log(event_type="login", action="login")
        await service.stop()
        assert writers(tmp_path / "journal") == []
    first, second = rows(service)
    assert first.writer_id != second.writer_id
    assert (first.writer_seq, second.writer_seq) == (0, 0)
    await service.stop()


async def test_the_vocabulary_is_checked(make: Make) -> None:
    """A typing error in the host's code is an exception at once, not a row that nobody finds."""
    service = make()
    with pytest.raises(InvalidEvent, match="unknown event type 'lgoin'"):
        service.log(event_type="lgoin", action="login")
    with pytest.raises(InvalidEvent, match="unknown status"):
        service.log(event_type="login", action="login", status="ok")
    with pytest.raises(InvalidEvent, match="reserved"):
        service.log(event_type="audit.read", action="query")
    with pytest.raises(TypeError, match="event_type"):
        service.log(action="login")
    with pytest.raises(TypeError, match="action"):
        service.log(event_type="login")
    with pytest.raises(TypeError, match="colour"):
        service.log(event_type="login", action="login", colour="red")  # type: ignore[call-arg]
    for wrong in ({"timestamp": "2024-01-01"}, {"response_status": "fine"}, {"duration_us": float("nan")}):
        with pytest.raises(InvalidEvent, match=next(iter(wrong))):
            service.log(event_type="login", action="login", **wrong)
    with pytest.raises(InvalidEvent, match="unknown wait 'durabel'"):
        await service.alog(event_type="login", action="login", wait="durabel")  # type: ignore[arg-type]
    assert not service.running


async def test_a_store_that_is_away_harms_nobody(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """``start`` succeeds, ``log`` accepts, ``flush`` says what it could not do, and everything arrives later."""
    store = MemoryStore()
    store.down = True
    service = make(store)
    with caplog.at_level(logging.WARNING, "indelible"):
        await service.start()
    assert "starting without the store" in caplog.text
    service.log(event_type="login", action="login")
    with pytest.raises(WaitTimeout):
        await service.flush(timeout=0.05)
    store.down = False
    await service.flush()
    assert len(store.rows) == 1


async def test_what_is_left_at_stop_is_stored_by_the_next_start(make: Make) -> None:
    """A stop without a store ends within its deadline and keeps the events in the journal."""
    store = MemoryStore()
    store.down = True
    service = make(store)
    service.log(event_type="login", action="login")
    service.close(timeout=0.1)
    store.down = False
    successor = make(store)
    await successor.start()
    successor.log(event_type="logout", action="logout")
    await successor.stop()
    assert {row.event_type for row in store.rows} == {"login", "logout"}
    assert len(store.rows) == 2


async def test_a_wrong_schema_stops_the_start(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike an absent database, tables of another version do not mend themselves."""
    service = make()

    def refuse() -> None:
        raise SchemaOutOfDate("no tables", hint="run indelible db upgrade")

    monkeypatch.setattr(service.store, "open", refuse)
    with pytest.raises(SchemaOutOfDate, match="indelible db upgrade"):
        await service.start()
    assert not service.running


async def test_durable_and_stored_can_be_awaited(make: Make) -> None:
    """``durable`` returns after an fdatasync of the event, ``stored`` when it is in the store."""
    service = make(flush_interval=3600.0)
    await service.alog(event_type="login", action="login", wait="durable")
    journal = service._journal
    assert journal is not None
    assert journal.synced >= 1
    await service.alog(event_type="login", action="login", wait="stored")
    assert len(rows(service)) == 2


async def test_a_journal_that_was_given_up_is_never_called_durable(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another journal takes the place of one that cannot be synced: its fdatasync says nothing about what is in the old."""
    service = make()
    await service.start()
    following, fdatasync = service._syncer.next, os.fdatasync
    failing = 0

    def sync(fd: int) -> None:
        nonlocal failing
        if failing:
            failing -= 1
            raise OSError(5, "Input/output error")
        fdatasync(fd)

    def late() -> Any:
        """As if the thread had been elsewhere while the journal was replaced."""
        nonlocal failing
        old, failing = service._journal, 1
        service._syncer.wake()
        eventually(lambda: service._journal not in (old, None), what="the journal is replaced")
        return following()

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(service._syncer, "next", late)
    with pytest.raises(WaitTimeout, match="given up"):
        await service.alog(event_type="login", action="login", wait="durable")
    with pytest.raises(JournalUnavailable, match="given up"):
        await service.intend(event_type="admin_action", action="update")
    monkeypatch.undo()
    await service.alog(event_type="login", action="login", wait="durable")
    await service.stop()
    # The intent stands in the journal that was given up, and nobody can say there that nothing came of it.
    assert sorted((row.event_type, row.status) for row in rows(service)) == [
        ("admin_action", "failure"),
        ("login", "success"),
        ("login", "success"),
    ]
    assert_equations(service.metrics())


@pytest.mark.parametrize(("writer", "together"), [("thread", 15), ("process", 50)])
def test_whoever_drains_works_in_pieces(
    make: Make, monkeypatch: pytest.MonkeyPatch, writer: str, together: int
) -> None:
    """As a thread of the application and as a process of its own, each in pieces of its size."""
    store, seen = MemoryStore(), []
    append = store.append

    def spy(*args: Any, **options: Any) -> int:
        seen.append(at_once(1_000))
        return append(*args, **options)

    monkeypatch.setattr(store, "append", spy)
    service = make(store, writer=writer)
    draining = threading.Thread(target=service.drain_here)
    if writer == "process":
        service.open()
        draining.start()
    service.log(event_type="login", action="login")
    service.flush_sync()
    service.close()
    if writer == "process":
        draining.join(60)
    assert set(seen) == {together}


def test_a_drainer_that_dies_is_started_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever error nobody foresaw: it is told once, health says so, and every event is stored."""
    monkeypatch.setattr(service_module, "_RESTART", 0.01)
    step, deaths = Drainer.step, 3

    def dying(drainer: Drainer) -> float:
        nonlocal deaths
        if deaths:
            deaths -= 1
            raise ZeroDivisionError("a defect")
        return step(drainer)

    monkeypatch.setattr(Drainer, "step", dying)
    service = make()
    service.open()
    service.log(event_type="login", action="login")
    service.flush_sync(30)
    assert service.metrics()["drainer_restarts"] == 3
    health = service.health()
    assert (health.state, health.reasons) == ("degraded", ("the drainer died and was started again 3 times",))
    service.close()
    assert [row.event_type for row in rows(service)] == ["login"]
    assert_equations(service.metrics())


def test_many_threads(make: Make) -> None:
    """Eight threads log at once: every event arrives, numbered without a hole."""
    service = make()
    ids: list[UUID] = []

    def work() -> None:
        ids.extend(service.log(event_type="login", action="login") for _ in range(500))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    service.close()
    assert {row.id for row in rows(service)} == set(ids)
    assert [row.writer_seq for row in rows(service)] == list(range(4000))


def test_a_forked_child_writes_a_journal_of_its_own(make: Make, tmp_path: Path) -> None:
    """Parent and child go on logging after a fork; nothing is lost, nothing doubled, the numbering stays whole."""
    service = make()
    service.log(event_type="login", action="before")
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            event_id = service.log(event_type="login", action="child")
            os.write(write_end, event_id.bytes)
        finally:
            os._exit(0)
    os.close(write_end)
    child_id = UUID(bytes=os.read(read_end, 16))
    os.close(read_end)
    os.waitpid(pid, 0)
    service.log(event_type="login", action="after")
    service.close()
    successor = make(service.store)
    successor.open()
    successor.close()
    actions = {row.action: row for row in rows(service)}
    assert set(actions) == {"before", "child", "after"}
    assert actions["child"].id == child_id
    assert actions["child"].writer_id != actions["before"].writer_id
    assert [actions["before"].writer_seq, actions["after"].writer_seq, actions["child"].writer_seq] == [0, 1, 0]


async def test_a_full_journal_sheds_counts_and_confesses(make: Make) -> None:
    """By default the host is not harmed: what does not fit is counted in an ``audit.gap`` event."""
    store = MemoryStore()
    store.down = True
    service = make(store, journal_file_bytes=1 << 16, journal_quota=1 << 17)
    offered = 1000
    for _ in range(offered):
        service.log(event_type="login", action="login", metadata={"filler": "x" * 300})
    store.down = False
    await service.flush()
    service.log(event_type="logout", action="logout")
    await service.stop()
    told = [json.loads(row.metadata or "") for row in store.rows if row.event_type == "audit.gap"]
    assert {gap["reason"] for gap in told} == {"shed"}
    kept = sum(row.event_type == "login" for row in store.rows)
    assert kept < offered
    assert kept + sum(gap["count"] for gap in told) == offered


def test_a_full_journal_raises_where_asked(make: Make) -> None:
    """``on_full="raise"``, and ``must`` for the log's own reads, raise NotAccepted instead."""
    store = MemoryStore()
    store.down = True
    service = make(store, journal_file_bytes=1 << 16, journal_quota=1 << 17, on_full="raise")

    def fill() -> None:
        while True:
            service.log(event_type="login", action="login", metadata={"filler": "x" * 300})

    with pytest.raises(NotAccepted, match="not stored yet"):
        fill()
    with pytest.raises(NotAccepted):
        service.record(must=True, event_type="audit.read", action="query", metadata={"filler": "x" * 3000})


def test_a_full_journal_blocks_where_asked(make: Make) -> None:
    """``on_full="block"``: a script that is faster than its store waits for it, and nothing is shed."""
    service = make(journal_file_bytes=1 << 16, journal_quota=1 << 17, on_full="block", batch_size=1)
    for _ in range(3000):
        service.log(event_type="login", action="login", metadata={"filler": "x" * 300})
    service.flush_sync()
    assert len(rows(service)) == 3000
    service.close()
    away = MemoryStore()
    away.down = True
    stuck = make(away, journal_file_bytes=1 << 16, journal_quota=1 << 17, on_full="block", block_timeout=0.05)

    def fill() -> None:
        while True:
            stuck.log(event_type="login", action="login", metadata={"filler": "x" * 300})

    with pytest.raises(JournalFull):
        fill()


def test_an_unwritable_directory_sheds(make: Make, tmp_path: Path) -> None:
    """A data directory that cannot be made harms no caller, unless it asked for the exception."""
    (tmp_path / "journal").write_text("in the way")
    service = make()
    assert isinstance(service.log(event_type="login", action="login"), UUID)
    with pytest.raises(JournalUnavailable):
        service.record(must=True, event_type="login", action="login")


async def test_bound_context_is_the_default(make: Make) -> None:
    """Actor and correlation id of ``bound`` are used where the call gives none."""
    service = make()
    with bound(user_id="alice", correlation_id="c-1", ip_address="10.0.0.1"):
        service.log(event_type="login", action="login")
        service.log(event_type="login", action="login", user_id="bob")
    await service.flush()
    first, second = rows(service)
    assert (first.user_id, first.correlation_id, first.ip_address) == ("alice", "c-1", "10.0.0.1")
    assert (second.user_id, second.correlation_id) == ("bob", "c-1")


async def test_a_time_of_ones_own(make: Make) -> None:
    """An event may say when it happened; a time without zone is UTC."""
    service = make()
    service.log(event_type="login", action="login", timestamp=datetime(2024, 1, 1, 12))  # noqa: DTZ001 - taken as UTC
    await service.flush()
    assert rows(service)[0].timestamp == micros(datetime(2024, 1, 1, 12, tzinfo=UTC))


async def test_loggers_never_print_an_events_content(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """At debug level, with failures: no user, no value, no path."""
    store = MemoryStore()
    with caplog.at_level(logging.DEBUG):
        service = make(store)
        store.down = True
        service.log(event_type="login", action="login", user_id="canary-user", metadata={"note": "canary-note"})
        with pytest.raises(WaitTimeout):
            await service.flush(timeout=0.05)
        store.down = False
        await service.stop()
    assert "canary" not in caplog.text


async def test_the_singleton(tmp_path: Path) -> None:
    """``configure`` makes it, ``get_audit_service`` gives it, and a running one is not replaced."""
    before = runtime.swap(None)
    try:
        service = runtime.configure(database_url=f"sqlite:///{tmp_path / 'log.db'}", data_dir=tmp_path / "data")
        assert runtime.get_audit_service() is service
        await service.start()
        with pytest.raises(ConfigurationError, match="already running"):
            runtime.configure(database_url="sqlite:///other.db")
        await runtime.log_audit_event(event_type="login", action="login", wait="stored")
        assert service.store.count(_everything(), cap=None).value == 2
        await service.stop()
    finally:
        runtime.swap(before)


def test_threads_that_come_first_get_one_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads ask for the service before there is one, it is made once."""
    before = runtime.swap(None)
    both_inside = threading.Barrier(2)
    made: list[MemoryStore] = []

    def slow_store(settings: object) -> MemoryStore:
        made.append(MemoryStore())
        with contextlib.suppress(threading.BrokenBarrierError):
            both_inside.wait(0.2)  # broken: nobody else came in
        return made[-1]

    monkeypatch.setattr(runtime, "open_store", slow_store)
    try:
        with ThreadPoolExecutor(4) as pool:
            given = list(pool.map(lambda _: runtime.get_audit_service(), range(4)))
        assert len(set(map(id, given))) == len(made) == 1
    finally:
        runtime.swap(before)


def _everything() -> Any:
    from indelible.queries import Filter

    return Filter()


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting has its name with the prefix; lists are separated by commas."""
    monkeypatch.setenv("INDELIBLE_TRUSTED_PROXIES", "10.0.0.0/8, 192.168.0.1")
    monkeypatch.setenv("INDELIBLE_BATCH_SIZE", "25")
    settings = load()
    assert settings.trusted_proxies == ("10.0.0.0/8", "192.168.0.1")
    assert settings.batch_size == 25


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"trusted_proxies": ("10.0.0.0/33",)}, "trusted_proxies"),
        ({"databse_url": "x"}, "databse_url"),
        ({"journal_quota": 1 << 18}, "at least two files"),
        ({"jwt_algorithms": ("HS256",)}, "verifies nothing"),
        ({"database_url": "mysql://x"}, "no store for"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], said: str) -> None:
    """A setting that cannot work is a ConfigurationError that says which one and why."""
    with pytest.raises(ConfigurationError, match=said):
        runtime.configure(**wrong)


async def test_capture_events_takes_everything_and_gives_the_service_back() -> None:
    """Inside, events go into a list; outside, nothing has changed."""
    before = runtime.swap(None)
    try:
        with capture_events() as events:
            await runtime.log_audit_event(event_type="login", action="login", user_id="alice")
            await asyncio.to_thread(lambda: runtime.get_audit_service().log(event_type="logout", action="logout"))
        assert [e.event_type for e in events] == ["login", "logout"]
        assert events.of_type("login")[0].user_id == "alice"
        with pytest.raises(AssertionError, match="expected one event"):
            events.only()
        assert runtime.swap(None) is None
    finally:
        runtime.swap(before)
