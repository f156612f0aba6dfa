"""The fault matrix: each step fails before or after its work is done, with one process and with two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest

from indelible import AuditService
from indelible import service as service_module
from indelible.errors import NotAccepted
from indelible.journal import writers
from indelible.migrations import upgrade_engine
from indelible.settings import load
from tests.reliability.faults import FaultyPostgres, FaultySqlite, Fuse, Step, blow_files
from tests.reliability.invariants import assert_log_invariants
from tests.reliability.serving import eventually

Make = Callable[..., AuditService]


@pytest.fixture
def make(engine_url: str, tmp_path: Path) -> Iterator[Make]:
    """A function that makes a service with a store of its own; all share one data directory and one log.

    Two of them share nothing but files, locks and the database: what two processes share.
    """
    made: list[AuditService] = []
    kind = FaultySqlite if engine_url.startswith("sqlite") else FaultyPostgres

    def factory(fuse: Fuse | None = None, **settings: Any) -> AuditService:
        store = kind(engine_url, segment_rows=256, prepare=upgrade_engine)
        store.fuse = fuse
        options = {"journal_file_bytes": 1 << 16, "journal_quota": 1 << 24, "on_full": "raise", **settings}
        service = AuditService(store, load(database_url=engine_url, data_dir=tmp_path / "data", **options))
        made.append(service)
        return service

    yield factory
    for service in made:
        service.close(timeout=5)


@pytest.mark.parametrize("processes", [1, 2], ids=["one", "two"])
@pytest.mark.parametrize("persisted", [False, True], ids=["not-persisted", "but-persisted"])
@pytest.mark.parametrize("step", get_args(Step))
def test_a_step_that_fails(
    step: Step, persisted: bool, processes: int, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that was accepted is lost or doubled, every number is stored or explained, and the work goes on."""
    monkeypatch.setattr(service_module, "_RESTART", 0.01)
    fuse = Fuse(step, persisted=persisted, after=70 if step == "append" else 1, times=2)
    accepted: list[UUID] = []
    refused: list[NotAccepted] = []

    def log(service: AuditService) -> bool:
        try:
            accepted.append(service.log(event_type="data_modify", action="update", metadata={"filler": "x" * 50}))
        except NotAccepted as error:
            refused.append(error)
            return False
        return True

    with monkeypatch.context() as patch:
        services = [make(fuse) for _ in range(processes)]
        for service in services:
            service.open()
        blow_files(patch, fuse)
        for n in range(100):
            for service in services:
                eventually(lambda service=service: log(service), what="events are accepted again")  # type: ignore[misc]
            if n % 20 == 19:
                for service in services:
                    service.flush_sync()
        eventually(lambda: fuse.blown == 2, what="the step failed twice")
        for service in services:
            eventually(lambda service=service: log(service), what="events are accepted again")  # type: ignore[misc]
            service.flush_sync()
            service.close()
    assert bool(refused) <= (step in ("append", "fsync")), "nothing but the journal itself is in the host's way"
    last = make()
    last.open()
    journal = last._journal
    assert journal is not None
    eventually(lambda: writers(tmp_path / "data" / "journal") == [journal.path], what="every journal is drained")
    last.close()
    last.store.open()
    found = assert_log_invariants(
        last.store, accepted=accepted, metrics=[service.metrics() for service in (*services, last)]
    )
    last.store.close()
    assert found.explained == 0, "nothing was lost, and nothing is said to be"
