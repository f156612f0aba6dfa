"""``/api/audit/health``: one word for everybody, the reasons for admins, no event."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Header, HTTPException

from indelible import AuditService
from indelible.capture.asgi import AuditMiddleware
from indelible.errors import NotAccepted
from indelible.health import Health, Signs, assess
from indelible.settings import load
from indelible.testing import MemoryStore
from indelible.web.api import audit_router
from tests.reliability.serving import eventually

WELL = Signs(
    accepting=True,
    shed=0,
    journal_share=0.1,
    waiting=0,
    oldest=0.0,
    drainer_silent=0.1,
    store_failures=0,
    restarts=0,
    dead_letters=0,
)


def require_admin(authorization: str | None = Header(default=None)) -> str:
    if authorization != "admin":
        raise HTTPException(401, "not signed in")
    return "the-admin"


async def ask(service: AuditService, path: str, **headers: str) -> httpx.Response:
    app = FastAPI()
    app.include_router(audit_router(require_admin=require_admin, service=service))
    app.add_middleware(AuditMiddleware, service=service, log_successful_reads=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(path, headers=headers)


async def test_one_word_without_sign_in_and_no_event(tmp_path: Path) -> None:
    """Asked every few seconds by strangers: nothing is shown, nothing is recorded."""
    service = AuditService(MemoryStore(), load(data_dir=tmp_path / "data"), announce=False)
    await service.start()
    # Until its drainer has taken the directory, nobody drains it.
    await asyncio.to_thread(eventually, lambda: service.health().state == "ok")
    answer = await ask(service, "/api/audit/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert (await ask(service, "/api/audit/health/reasons")).status_code == 401
    answer = await ask(service, "/api/audit/health/reasons", authorization="admin")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "reasons": []})
    await service.stop()
    assert [row.response_status for row in service.store.rows] == [401]  # type: ignore[attr-defined]


async def test_a_store_that_is_away_is_degraded(tmp_path: Path) -> None:
    """Events are kept, so the answer is 200; an admin reads why."""
    store = MemoryStore()
    store.down = True
    service = AuditService(store, load(data_dir=tmp_path / "data", batch_size=1), announce=False)
    service.log(event_type="login", action="login")
    drainer = service._drainer
    assert drainer is not None
    with pytest.raises(Exception, match="not stored within"):
        service.flush_sync(0.2)
    answer = await ask(service, "/api/audit/health/reasons", authorization="admin")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert "attempts in a row" in answer.text
    service.close(0.1)


@pytest.mark.parametrize("on_full", ["shed", "raise"])
async def test_a_journal_that_takes_nothing_is_failing(tmp_path: Path, on_full: str) -> None:
    """503, for a load balancer or a pager to see, whether the caller was told or not."""
    (tmp_path / "data").write_text("in the way")
    service = AuditService(MemoryStore(), load(data_dir=tmp_path / "data", on_full=on_full), announce=False)
    with contextlib.suppress(NotAccepted):
        service.log(event_type="login", action="login")
    answer = await ask(service, "/api/audit/health")
    assert (answer.status_code, answer.json()) == (503, {"status": "failing"})


@pytest.mark.parametrize(
    ("sign", "state"),
    [
        ({}, "ok"),
        ({"accepting": False}, "failing"),
        ({"shed": 3}, "failing"),
        ({"drainer_silent": None}, "degraded"),
        ({"drainer_silent": 60.0}, "degraded"),
        ({"store_failures": 1}, "degraded"),
        ({"waiting": 5, "oldest": 60.0}, "degraded"),
        ({"waiting": 5, "oldest": 1.0}, "ok"),
        ({"journal_share": 0.9}, "degraded"),
        ({"dead_letters": 1}, "degraded"),
        ({"restarts": 1}, "degraded"),
    ],
)
def test_each_sign_has_its_state_and_sentence(sign: dict[str, object], state: str) -> None:
    """The worst sign decides; each that is not well is told."""
    import dataclasses

    health = assess(dataclasses.replace(WELL, **sign))  # type: ignore[arg-type]
    assert health.state == state
    assert (health == Health("ok")) == (state == "ok")
