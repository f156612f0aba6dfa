"""``kill -9`` of a real uvicorn under load: what its clients saw accepted is in the table, exactly once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indelible import AuditService
from indelible.journal import writers
from indelible.settings import load
from tests.reliability import crashes
from tests.reliability.host import open_store
from tests.reliability.invariants import Found, assert_log_invariants
from tests.reliability.serving import Load, Server, Told, eventually, pick, uvicorn

SEGMENT_ROWS = 256

Report = Callable[..., None]
Start = Callable[..., Server]


@pytest.fixture
def start(engine_url: str, tmp_path: Path) -> Iterator[Start]:
    """A function that starts a uvicorn with two workers on the engine's empty log; it is ended after the test."""
    store = open_store(engine_url, SEGMENT_ROWS)
    store.open()
    store.close()
    started: list[Server] = []

    def begin(*arguments: str, **env: str) -> Server:
        settings = {
            "INDELIBLE_DATABASE_URL": engine_url,
            "INDELIBLE_DATA_DIR": str(tmp_path / "data"),
            "INDELIBLE_JOURNAL_FILE_BYTES": str(1 << 16),
            "INDELIBLE_JOURNAL_QUOTA": str(1 << 26),
            "INDELIBLE_FLUSH_INTERVAL": "0.2",
            "RELIABILITY_SEGMENT_ROWS": str(SEGMENT_ROWS),
        }
        server = Server(uvicorn("--workers", "2", *arguments), {**settings, **env}, tmp_path / "server.log")
        started.append(server)
        server.start()
        return server

    yield begin
    for server in started:
        if server.running:
            server.kill_everything()


def settle(url: str, directory: Path, told: Told, server: Server) -> Found:
    """Drain what dead processes left behind, and look at the log, and at the metrics of all who ended in order."""
    settings = load(database_url=url, data_dir=directory)
    service = AuditService(open_store(url, SEGMENT_ROWS), settings)
    service.open()
    own = service._journal
    assert own is not None
    eventually(lambda: writers(directory / "journal") == [own.path], 120, what="every journal is drained")
    service.close()
    service.store.open()
    found = assert_log_invariants(
        service.store, accepted=told.ids, correlations=told.requests, metrics=[service.metrics(), *server.metrics()]
    )
    service.store.close()
    return found


def answered(told: Told, more: int) -> None:
    """Wait until the clients got so many more answers."""
    target = told.answered + more
    eventually(lambda: told.answered >= target, 60, what="the clients get answers")


def test_random_kills(
    start: Start, engine_url: str, tmp_path: Path, soak: bool, chance: random.Random, report: Report
) -> None:
    """Workers and whole servers are killed in the middle of requests, again and again, while clients go on."""
    kills = 50 if soak else 4 if engine_url.startswith("sqlite") else 3
    server = start()
    server.wait_until_served()
    processes, whole = 0, 0
    load_ = Load(server.port, clients=8)
    with load_.running() as told:
        for number in range(kills):
            answered(told, chance.randrange(20, 400))
            eventually(lambda: len(server.workers()) == 2, 60, what="both workers are there")
            if number == 0 or chance.random() < 0.3:
                processes += server.kill_everything()
                whole += 1
                server.start()
            else:
                pick(server.workers(), chance).kill()
                processes += 1
        answered(told, 50)
    assert server.stop() == 0
    assert server.metrics(), "the workers of the last server have ended in order"
    found = settle(engine_url, tmp_path / "data", told, server)
    # assert_log_invariants has found none missing and none twice; what is stored beyond was cut off from its client.
    unseen = found.rows - found.own - told.answered
    assert 0 <= unseen <= told.failed
    report(
        f"kill -9/{engine_url.split(':')[0]}",
        kills=kills,
        whole_servers=whole,
        processes=processes,
        accepted=told.answered,
        stored=found.rows,
        own_events=found.own,
        unseen_by_the_client=unseen,
        duplicates=0,
        lost=0,
        writers=found.writers,
    )


@pytest.mark.soak
@pytest.mark.parametrize(
    "point",
    sorted(
        crashes.POINTS.keys()
        - {"strike-before", "intents-stored"}
        - {"dead-letter-before", "dead-letter-kept", "gap-recorded", "dead-half-marked"}
    ),
)
def test_a_worker_killed_at_a_commit_point(
    point: str, start: Start, engine_url: str, tmp_path: Path, report: Report
) -> None:
    """The same points as in ``test_commit_points``, in a worker of a real server under load."""
    once = tmp_path / "once"
    once.touch()
    server = start(RELIABILITY_CRASH=f"{point}:{0 if point.startswith('retire') else 1}:{once}")
    with Load(server.port, clients=8).running() as told:
        if point.startswith("retire"):
            answered(told, 200)
            # One worker may have answered all of that while the other was still starting.
            eventually(lambda: len(writers(tmp_path / "data" / "journal")) == 2, 60, what="both workers have a journal")
            server.workers()[0].kill()  # a dead writer's journal, to be retired
        eventually(lambda: not once.exists(), 60, what=f"{point} is passed")
        answered(told, 200)
    server.stop()
    found = settle(engine_url, tmp_path / "data", told, server)
    report(f"killed at {point}/{engine_url.split(':')[0]}", accepted=told.answered, stored=found.rows)


def test_two_workers_and_many_clients(start: Start, engine_url: str, tmp_path: Path, report: Report) -> None:
    """Each request with a correlation id of its own, from 32 clients: the set in the table is the set that was sent."""
    requests = 20_000
    server = start()
    server.wait_until_served()
    told = Load(server.port, clients=32, requests=requests, paths=("/things",)).finish()
    assert server.stop() == 0
    assert (len(told.requests), told.failed, told.refused) == (requests, 0, 0)
    assert len(set(told.requests)) == requests
    found = settle(engine_url, tmp_path / "data", told, server)
    assert found.rows - found.own == requests
    report(
        f"requests/{engine_url.split(':')[0]}",
        sent=requests,
        stored=found.rows - found.own,
        duplicates=0,
        lost=0,
        slowest_answer_ms=round(told.slowest * 1000),
    )
