"""Followers in the service: where they run, when for the last time, and what their failures do to it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indelible.ports import Host
from indelible.runtime import configure, install
from indelible.service import AuditService
from indelible.settings import load
from indelible.testing import MemoryStore


class _Noted:
    """A follower that notes what is asked of it."""

    name = "noted"
    cursor = 0

    def __init__(self, step: Callable[[Host, bool], float] = lambda _, __: 0.01) -> None:
        self._step = step
        self.steps: list[tuple[str, bool]] = []
        self.closed = self.abandoned = 0
        self.stepped = threading.Event()

    def step(self, host: Host, *, closing: bool = False) -> float:
        self.steps.append((threading.current_thread().name, closing))
        try:
            return self._step(host, closing)
        finally:
            self.stepped.set()

    def close(self) -> None:
        self.closed += 1

    def abandon(self) -> None:
        self.abandoned += 1


@pytest.fixture
def make_service(tmp_path: Path) -> Callable[..., AuditService]:
    """A function that makes a service with these followers on the test's data directory."""

    def make(*followers: _Noted, **settings: Any) -> AuditService:
        return AuditService(MemoryStore(), load(data_dir=tmp_path, **settings), announce=False, followers=followers)

    return make


def test_one_thread_steps_them_and_once_more_at_the_end(make_service: Callable[..., AuditService]) -> None:
    """The last step comes when everything is stored; then they are closed. Twice over: a service can start again."""
    stored: list[int] = []
    follower = _Noted()
    service = make_service(follower)
    follower._step = lambda _, closing: stored.append(len(service.store.rows)) or 0.01  # type: ignore[attr-defined, func-returns-value]
    for total in (1, 2):
        service.open()
        assert follower.stepped.wait(10)
        service.log(event_type="login", action="login")
        service.close()
        assert follower.steps[-1] == (threading.current_thread().name, True)
        assert {name for name, closing in follower.steps if not closing} == {"indelible-followers"}
        assert stored[-1] == total
        assert follower.closed == total
        follower.stepped.clear()


def test_they_run_only_where_the_directory_is_drained(make_service: Callable[..., AuditService]) -> None:
    """Of two services one drains; a worker whose writer is another process has none."""
    first, second, third = _Noted(), _Noted(), _Noted()
    draining = make_service(first)
    draining.open()
    assert first.stepped.wait(10)
    other, worker = make_service(second), make_service(third, writer="process")
    other.open()
    worker.open()
    assert not second.stepped.wait(0.5)
    worker.close(timeout=0.1)
    other.close()
    draining.close()
    assert (second.steps, third.steps) == ([], [])


def test_they_wait_for_the_store_that_is_being_opened(tmp_path: Path) -> None:
    """An event before ``open`` makes the drainer open the store: no follower is asked meanwhile, and none complains."""
    both = threading.Barrier(2)

    class Slow(MemoryStore):
        opened = False

        def open(self) -> None:
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(10)
            self.opened = True

    store = Slow()
    found: list[bool] = []
    follower = _Noted(lambda _, __: found.append(store.opened) or 0.01)  # type: ignore[func-returns-value]
    service = AuditService(store, load(data_dir=tmp_path), announce=False, followers=[follower])
    service.log(event_type="login", action="login")
    assert follower.stepped.wait(30)
    service.close()
    assert all(found)


def test_an_error_is_logged_and_the_others_go_on(
    make_service: Callable[..., AuditService], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a follower raises: the next one is stepped, and events are stored."""

    def broken(_: Host, __: bool) -> float:
        raise RuntimeError("broken")

    bad, good = _Noted(broken), _Noted()
    service = make_service(bad, good)
    service.open()
    assert good.stepped.wait(10)
    service.log(event_type="login", action="login")
    service.close()
    assert len(service.store.rows) == 1  # type: ignore[attr-defined]
    assert "the follower noted failed" in caplog.text


def test_a_follower_that_hangs_does_not_hold_up_events(make_service: Callable[..., AuditService]) -> None:
    """Events are stored meanwhile; the service closes in time, without the last step; nothing can be recorded then."""
    started, release, refused = threading.Event(), threading.Event(), threading.Event()

    def hanging(host: Host, _: bool) -> float:
        started.set()
        release.wait(30)
        try:
            host.record(event_type="audit.key", action="register")
        except Exception:
            refused.set()
            raise
        return 60.0

    follower = _Noted(hanging)
    service = make_service(follower)
    service.open()
    assert started.wait(10)
    for _ in range(100):
        service.log(event_type="login", action="login")
    service.flush_sync()
    service.close(timeout=1.0)
    assert len(service.store.rows) == 100  # type: ignore[attr-defined]
    assert [closing for _, closing in follower.steps] == [False]
    release.set()
    assert refused.wait(10)
    assert not service.running


def test_a_configured_service_publishes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite, no setting but the places: a key is made, and a checkpoint of everything is outside after the stop."""
    caplog.set_level(logging.INFO, logger="indelible.publisher")
    service = configure(
        database_url=f"sqlite:///{tmp_path / 'log.db'}",
        data_dir=tmp_path / "data",
        anchor_directory=tmp_path / "outside",
        checkpoint_interval=0.1,
        flush_interval=0.05,
    )
    try:
        service.open()
        _, publisher = service._followers
        while publisher.cursor == 0:
            service._closing.wait(0.02)
        for _ in range(20):
            service.log(event_type="login", action="login")
    finally:
        service.close()
        install(None)
    (newest,) = (tmp_path / "outside").rglob("checkpoint")
    assert newest.read_text().split("\n")[1] == str(publisher.cursor)
    assert publisher.cursor == 23, "audit.started, audit.key, twenty log-ins and audit.stopped"
    assert "made the signing key" in caplog.text
    assert service.metrics()["checkpoint_failures"] == 0
    assert service.metrics()["checkpoints_published"] >= 2  # type: ignore[operator]


def test_tools_do_not_publish(tmp_path: Path) -> None:
    """A command that lives for a moment makes no key and takes no lease."""
    service = configure(announce=False, database_url=f"sqlite:///{tmp_path / 'log.db'}", data_dir=tmp_path / "data")
    install(None)
    assert service._followers == ()
