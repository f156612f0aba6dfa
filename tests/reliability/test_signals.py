"""SIGTERM under uvicorn, gunicorn and ``--reload``: the log is drained, the process ends, no journal is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from indelible.journal import writers
from tests.reliability.host import open_store
from tests.reliability.invariants import assert_log_invariants
from tests.reliability.serving import APP, ROOT, Load, Server, eventually, uvicorn
from tests.reliability.test_kills import answered

GUNICORN = ["gunicorn", APP, "--bind", "127.0.0.1:{port}", "--worker-class", "uvicorn_worker.UvicornWorker"]
COMMANDS = {
    "uvicorn": uvicorn(),
    "uvicorn-workers": uvicorn("--workers", "2"),
    "uvicorn-reload": uvicorn("--reload", "--reload-dir", "{watched}"),
    "gunicorn": [*GUNICORN, "--workers", "2"],
    "gunicorn-preload": [*GUNICORN, "--workers", "2", "--preload"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_sigterm_drains_and_ends(command: str, tmp_path: Path) -> None:
    """What clients were told is in the table when the server has ended, and its writers said how many they accepted."""
    url, watched = f"sqlite:///{tmp_path / 'log.db'}", tmp_path / "watched"
    watched.mkdir()
    store = open_store(url, 256)
    store.open()
    env = {
        "INDELIBLE_DATABASE_URL": url,
        "INDELIBLE_DATA_DIR": str(tmp_path / "data"),
        "INDELIBLE_FLUSH_INTERVAL": "3600",
        "INDELIBLE_BATCH_SIZE": "1000",
        "RELIABILITY_SEGMENT_ROWS": "256",
    }
    parts = [part.replace("{watched}", str(watched)) for part in COMMANDS[command]]
    server = Server(parts, env, tmp_path / "server.log")
    server.start()
    try:
        server.wait_until_served()
        told = Load(server.port, clients=4, requests=60).finish()
        if command == "uvicorn-reload":
            before = {process.pid for process in server.workers()}
            (watched / "changed.py").write_text("")
            eventually(lambda: before.isdisjoint(p.pid for p in server.workers()), what="the server is reloaded")
            server.wait_until_served()
            more = Load(server.port, clients=4, requests=60).finish()
            told.ids += more.ids
            told.requests += more.requests
        status = server.stop(signal.SIGTERM)
    finally:
        if server.running:
            server.kill_everything()
    assert status in (0, -signal.SIGTERM), (tmp_path / "server.log").read_text()[-2000:]
    assert writers(tmp_path / "data" / "journal") == []
    metrics = server.metrics()
    found = assert_log_invariants(store, accepted=told.ids, correlations=told.requests, metrics=metrics)
    store.close()
    assert len(metrics) == found.writers, "each has told what became of its events"
    assert sum(each["events_accepted"] for each in metrics) == found.rows
    assert found.rows - found.own == told.answered
    assert found.own == 2 * found.writers, "each writer has said that it started and that it stopped"


def test_sigterm_under_load_loses_nothing(tmp_path: Path) -> None:
    """Clients that are cut off in the middle: what they had been told before is there."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    store = open_store(url, 256)
    store.open()
    env = {
        "INDELIBLE_DATABASE_URL": url,
        "INDELIBLE_DATA_DIR": str(tmp_path / "data"),
        "RELIABILITY_SEGMENT_ROWS": "256",
        "PWD": os.fspath(ROOT),
    }
    server = Server(uvicorn("--workers", "2", "--timeout-graceful-shutdown", "5"), env, tmp_path / "server.log")
    server.start()
    try:
        server.wait_until_served()
        with Load(server.port, clients=8).running() as told:
            answered(told, 300)
            server.stop(signal.SIGTERM)
    finally:
        if server.running:
            server.kill_everything()
    assert writers(tmp_path / "data" / "journal") == []
    metrics = server.metrics()
    assert len(metrics) == 2
    found = assert_log_invariants(store, accepted=told.ids, correlations=told.requests, metrics=metrics)
    store.close()
    assert 0 <= found.rows - found.own - told.answered <= told.failed
