"""The database is killed, hangs, forgets, or is held by a process that sleeps: nobody waits, nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import psycopg
import pytest

from indelible import AuditService
from indelible.settings import load
from indelible.stores import pgconnection, sqlite
from tests.reliability import crashes
from tests.reliability.databases import OwnServer, Proxy, stop_until_continued, wait_until_stopped
from tests.reliability.faults import FaultyMemory
from tests.reliability.host import open_store
from tests.reliability.invariants import assert_log_invariants
from tests.reliability.serving import Load, Server, eventually, uvicorn
from tests.reliability.test_kills import answered, settle

Report = Callable[..., None]
Make = Callable[..., AuditService]


@pytest.fixture
def own_server() -> Iterator[OwnServer]:
    """A PostgreSQL server that nobody else uses."""
    server = OwnServer()
    yield server
    server.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A factory of services, each closed at the end; ``directory`` tells their data directories apart."""
    made: list[AuditService] = []

    def factory(url: str, directory: str = "data", **settings: Any) -> AuditService:
        options = {"journal_file_bytes": 1 << 16, "journal_quota": 1 << 26, "flush_interval": 0.2, **settings}
        settings_ = load(database_url=url, data_dir=tmp_path / directory, **options)
        service = AuditService(open_store(url, 256), settings_)
        made.append(service)
        return service

    yield factory
    for service in made:
        service.close(timeout=0.1)


def log(service: AuditService, action: str = "update") -> UUID:
    return service.log(event_type="data_modify", action=action, metadata={"filler": "x" * 300})


def checked(service: AuditService, accepted: list[UUID], *others: AuditService) -> int:
    """The invariants of a service that has been closed; how many numbers gaps explain."""
    service.store.open()
    found = assert_log_invariants(
        service.store, accepted=accepted, metrics=[each.metrics() for each in (service, *others)]
    )
    service.store.close()
    return found.explained


def test_postgres_is_killed_under_load(own_server: OwnServer, tmp_path: Path, soak: bool, report: Report) -> None:
    """SIGKILL, an outage, a restart with recovery: no request fails or waits, and every event arrives."""
    seconds = 30 if soak else 3
    store = open_store(own_server.url, 256)
    store.open()
    store.close()
    env = {
        "INDELIBLE_DATABASE_URL": own_server.url,
        "INDELIBLE_DATA_DIR": str(tmp_path / "data"),
        "RELIABILITY_SEGMENT_ROWS": "256",
    }
    server = Server(uvicorn("--workers", "2"), env, tmp_path / "server.log")
    server.start()
    try:
        server.wait_until_served()
        with Load(server.port, clients=8).running() as told:
            answered(told, 200)
            before = told.answered
            own_server.kill()
            over = time.monotonic() + seconds
            eventually(lambda: time.monotonic() > over, seconds + 5, what="the outage ends")
            meanwhile = told.answered - before
            own_server.start()
            answered(told, 200)
        assert server.stop() == 0
    finally:
        if server.running:
            server.kill_everything()
    assert (told.failed, told.refused) == (0, 0)
    assert meanwhile > 10 * seconds
    found = settle(own_server.url, tmp_path / "data", told, server)
    report(
        "postgresql killed",
        seconds_away=seconds,
        answered_meanwhile=meanwhile,
        failed=0,
        slowest_answer_ms=round(told.slowest * 1000),
        accepted=told.answered,
        stored=found.rows - found.own,
        duplicates=0,
        lost=0,
    )


@pytest.fixture
def proxy(own_server: OwnServer) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    proxy = Proxy(own_server.socket_file)
    yield proxy
    proxy.close()


def test_a_network_that_swallows_everything(
    own_server: OwnServer, proxy: Proxy, make: Make, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    """Nothing is forwarded and nothing closed: ``log`` does not notice, and the drainer gives the connection up."""
    monkeypatch.setattr(pgconnection.WritingConnection, "patience", 1.0)
    monkeypatch.setattr(pgconnection.PatientConnection, "patience", 1.0)
    service = make(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?connect_timeout=2")
    service.open()
    accepted = [log(service) for _ in range(50)]
    service.flush_sync()
    proxy.freeze()
    slowest = 0.0
    for _ in range(200):
        began = time.perf_counter()
        accepted.append(log(service))
        slowest = max(slowest, time.perf_counter() - began)
    eventually(lambda: proxy.swallowed, what="the drainer talks to nobody")
    eventually(lambda: service.health().state == "degraded", what="health says so")
    proxy.thaw()
    service.flush_sync(30)
    service.close()
    assert checked(service, accepted) == 0
    report("network that swallows", events_meanwhile=200, slowest_log_ms=round(slowest * 1000, 2), lost=0, duplicates=0)


def test_stop_keeps_its_deadline_while_the_network_hangs(own_server: OwnServer, proxy: Proxy, make: Make) -> None:
    """``close`` leaves the rest in the journal, for the next start, although the store's connection is stuck."""
    service = make(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?connect_timeout=2")
    service.open()
    accepted = [log(service) for _ in range(50)]
    service.flush_sync()
    proxy.freeze()
    accepted += [log(service) for _ in range(50)]
    eventually(lambda: proxy.swallowed, what="the drainer talks to nobody")
    began = time.monotonic()
    service.close(timeout=0.5)
    assert time.monotonic() - began < pgconnection.WRITE_PATIENCE / 2, "it did not wait for the store"
    proxy.close()  # the stuck thread gets its error now, and ends
    successor = make(own_server.url)
    successor.open()
    eventually(lambda: successor.metrics()["journals"] == 1, what="the old journal is drained")
    successor.close()
    assert checked(successor, accepted) == 0


def test_a_failover_that_forgot_is_reported(own_server: OwnServer, make: Make, report: Report) -> None:
    """What the journal still holds is stored again, the rest is a gap: no number is without an explanation."""
    service = make(own_server.url, journal_quota=1 << 18)
    service.open()
    for _ in range(100):
        log(service)
    service.flush_sync()
    copy = own_server.backup()
    forgotten = []
    for _ in range(40):
        # Enough to use the journal's files again: not all of it can be stored a second time.
        forgotten += [log(service) for _ in range(20)]
        service.flush_sync()
    own_server.fail_over(copy)
    later = [log(service, "later") for _ in range(20)]
    service.flush_sync(30)
    service.close()
    service.store.open()
    again = sum(service.store.get(event_id) is not None for event_id in forgotten)
    explained = checked(service, later)
    assert again > 0
    assert again + explained == len(forgotten)
    report("failover without the last transactions", forgotten=800, stored_again=again, told_by_gaps=explained)


def test_nobody_waits_for_a_store_that_blocks(tmp_path: Path) -> None:
    """The store takes for ever: ``log`` returns all the same, and what it took is stored when the store is free."""
    store = FaultyMemory()
    service = AuditService(store, load(data_dir=tmp_path / "data"))
    service.open()
    log(service)
    service.flush_sync()
    store.free.clear()
    store.asked.clear()
    accepted = [log(service) for _ in range(50)]
    assert store.asked.wait(10)
    # Whoever waited for the store would not come back: nobody frees it before this is done.
    accepted += [log(service) for _ in range(2000)]
    store.free.set()
    service.close()
    assert_log_invariants(store, accepted=accepted, metrics=[service.metrics()])


def _sleeps_on_the_lock(url: str, directory: Path, release: int) -> None:
    """A process that logs, is stopped by SIGSTOP inside its transaction, and later goes on and ends in order."""
    settings = load(database_url=url, data_dir=directory, flush_interval=0.1)
    service = AuditService(open_store(url, 256), settings, announce=False)
    service.open()
    log(service, "warm")
    service.flush_sync()
    slept = threading.Event()

    def once() -> None:
        if not slept.is_set():
            slept.set()
            stop_until_continued()

    crashes._statement("COMMIT", before=once)
    for _ in range(20):
        log(service, "sleeper")
    os.read(release, 1)
    service.close()


def test_a_drainer_that_sleeps_on_the_lock(
    engine_url: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    """SIGSTOP in the middle of a transaction: PostgreSQL throws it out within seconds; SQLite's file stays locked.

    On SQLite nobody can take the lock away: the others go on accepting, and store when the sleeper wakes or dies.
    """
    is_sqlite = engine_url.startswith("sqlite")
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.3)
    made = open_store(engine_url, 256)
    made.open()
    made.close()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _sleeps_on_the_lock(engine_url, tmp_path / "sleeper", read_end)
            os._exit(0)
        finally:
            os._exit(1)
    try:
        wait_until_stopped(pid)
        service = make(engine_url, "other")
        service.open()
        began = time.monotonic()
        accepted = [log(service) for _ in range(20)]
        if is_sqlite:
            eventually(lambda: service.metrics()["store_retries"], what="the file is seen to be locked")
            os.kill(pid, signal.SIGCONT)
        service.flush_sync(60)
        waited = time.monotonic() - began
        if not is_sqlite:
            assert psutil.Process(pid).status() == psutil.STATUS_STOPPED, (
                "the server has ended the sleeper's transaction"
            )
        os.kill(pid, signal.SIGCONT)
        os.write(write_end, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(read_end)
        os.close(write_end)
    assert waited < 30
    service.close()
    assert checked(service, accepted) == 0
    service.store.open()
    sleepers = [row.action for rows in service.store.scan(_everything()) for row in rows if row.action == "sleeper"]
    service.store.close()
    assert len(sleepers) == 20
    report(f"sleeping lock holder/{engine_url.split(':')[0]}", seconds_until_stored=round(waited, 1), duplicates=0)


def _everything() -> Any:
    from indelible.queries import Filter

    return Filter()


def test_a_silent_server_is_given_up(own_server: OwnServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement that is not answered in time ends in OperationalError, and the connection is closed."""
    monkeypatch.setattr(pgconnection.PatientConnection, "patience", 0.2)
    with pgconnection.PatientConnection.connect(own_server.url, autocommit=True) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="has not answered"):
            connection.execute("SELECT pg_sleep(60)")
        assert connection.closed
