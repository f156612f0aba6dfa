"""The pages on PostgreSQL: the same answers from the other engine."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
from fastapi import FastAPI

from indelible import runtime
from indelible.migrations import upgrade_engine
from indelible.stores.postgres import PostgresStore
from indelible.testing import capture_events
from indelible.web.dashboard import audit_dashboard
from tests.web.dashboard.conftest import SIGNER, Log, require_admin
from tests.web.dashboard.reading import Html


async def test_every_page_answers(fresh_postgres: Callable[[], str], tmp_path: Path) -> None:
    """Overview, explorer and its facets, an event with its proof, a subject, integrity and a verification."""
    url = fresh_postgres()
    store = PostgresStore(url, segment_rows=65_536, prepare=upgrade_engine)
    store.open()
    with capture_events(database_url=url, data_dir=tmp_path, signing_key=SIGNER.encode()) as reads:
        service = runtime.get_audit_service()
        service.store = store
        log = Log(service, store, reads)
        for n in range(60):
            log.put(
                user_id="alice", status=("success", "denied")[n % 2], ip_address=f"10.0.0.{n}", resource_type="node"
            )
        log.publish()
        app = FastAPI()
        app.include_router(audit_dashboard(require_admin=require_admin))
        headers = {"Authorization": "admin", "Sec-Fetch-Site": "same-origin"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://host/audit/", headers=headers) as client:

            async def page(address: str) -> Html:
                return Html((await client.get(address)).raise_for_status().text)

            assert (await page("")).all("a", cls="tile")[0].text == "Events 60"
            found = await page("events?q=status:denied+ip:10.0.0.0/28")
            assert found.one("p", cls="total").text == "8 events"
            assert "is in the log that checkpoint 60 speaks of" in (await page(f"events/{uuid.UUID(int=7)}")).text
            assert len((await page("subject?user=alice")).all("tr", cls="event")) == 50
            assert (await page("integrity")).one("h1").text == "Integrity"
            answer = await client.post("integrity/verify")
            assert "60 of 60 events were read" in Html(answer.text).text
            assert len((await client.get("events/export?format=jsonl&q=status:denied")).text.splitlines()) == 30
    store.close()
