"""The examples: short, served by a real uvicorn, and audited."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.demo.serving import ROOT, Server
from indelible import rendering
from indelible.ports import Store
from indelible.queries import Filter, Query
from indelible.runtime import open_store
from indelible.settings import load

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*_app.py"))


def stored(store: Store, correlation_id: str) -> dict[str, Any]:
    """The event of a request, once it is in the table."""
    wanted = Query(filter=Filter(correlation_id=correlation_id))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for row in store.page(wanted).rows:
            if row.request_method is not None:
                return dict(rendering.as_json(row))
    raise AssertionError("the event did not reach the table within 20 s")


def test_there_is_one_for_each_framework() -> None:
    """FastAPI, Starlette, Litestar and Django have an example each, of fewer than thirty lines of code."""
    assert EXAMPLES == ["django_app", "fastapi_app", "litestar_app", "starlette_app"]
    for name in EXAMPLES:
        lines = (ROOT / "examples" / f"{name}.py").read_text().splitlines()
        assert len([line for line in lines if line.strip()]) < 30


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_how_it_is_started(name: str) -> None:
    """Its first line is the command that serves it, with every variable that it reads."""
    source = (ROOT / "examples" / f"{name}.py").read_text()
    first = source.splitlines()[0]
    assert f"uvicorn examples.{name}:app" in first
    for variable in re.findall(r"environ\[['\"](\w+)", source):
        assert f"{variable}=" in first


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_audited(name: str, tmp_path: Path) -> None:
    """A request to the example is one event with its resource and what the handler added, whatever the framework."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    env = {
        "INDELIBLE_DATABASE_URL": url,
        "INDELIBLE_DATA_DIR": str(tmp_path / "data"),
        "INDELIBLE_FLUSH_INTERVAL": "0.02",
        "ADMIN_TOKEN": "letmein",
    }
    with Server(f"examples.{name}:app", env=env, log=tmp_path / "server.log") as server:
        answer = httpx.put(f"{server.url}/api/invoices/17", headers={"User-Agent": "till/1"}, timeout=30)
        assert (answer.status_code, answer.json()) == (200, {"id": 17})
        missing = httpx.get(f"{server.url}/api/nothing", timeout=30)
        assert missing.status_code == 404
        store = open_store(load(database_url=url, data_dir=tmp_path / "data"))
        store.open()
        try:
            event = stored(store, answer.headers["X-Correlation-ID"])
            not_found = stored(store, missing.headers["X-Correlation-ID"])
        finally:
            store.close()
    assert (event["event_type"], event["status"], event["action"]) == ("data_modify", "success", "pay")
    assert (event["resource_type"], event["resource_id"]) == ("invoice", "17")
    assert (event["old_value"], event["new_value"]) == ({"paid": False}, {"paid": True})
    assert (event["user_agent"], event["ip_address"]) == ("till/1", "127.0.0.1")
    assert (not_found["event_type"], not_found["status"]) == ("data_access", "failure")


def test_the_fastapi_example_shows_its_log_to_the_admin(tmp_path: Path) -> None:
    """The router of the example answers the holder of the token and nobody else."""
    env = {
        "INDELIBLE_DATABASE_URL": f"sqlite:///{tmp_path / 'log.db'}",
        "INDELIBLE_DATA_DIR": str(tmp_path / "data"),
        "ADMIN_TOKEN": "letmein",
    }
    with Server("examples.fastapi_app:app", env=env) as server:
        assert httpx.get(f"{server.url}/api/audit/stats", timeout=30).status_code == 403
        headers = {"Authorization": "Bearer letmein"}
        assert httpx.get(f"{server.url}/api/audit/stats", headers=headers, timeout=30).status_code == 200
