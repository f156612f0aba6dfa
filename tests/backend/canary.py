"""The reference host with one more route, whose handler tells the audit log everything it should not."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from backend.server.main import app
from backend.server.services.audit_service import log_audit_event
from indelible import enrich


@app.post("/api/careless")
async def careless(request: Request) -> None:
    body: dict[str, Any] = await request.json()
    headers = request.headers
    enrich(
        old_value={"account": [{"profile": body}]},
        new_value=[("Authorization", headers["authorization"]), ("Cookie", headers["cookie"])],
        metadata={"headers": dict(headers), "cookies": request.cookies, "note": body["note"]},
        error=f"refused: Authorization: {headers['authorization']}",
    )
    # Stored, and so is all that this worker accepted before: the events of the requests that came first.
    deep = {"deep": {"er": [{"form": body}]}}
    await log_audit_event(event_type="data_modify", action="update", metadata=deep, wait="stored")
