"""A host with the dashboard on a real log in SQLite. What is read is recorded in a list, and so changes nothing here."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Header, HTTPException

from indelible import runtime
from indelible.events import AuditEvent
from indelible.integrity.checkpoint import Checkpoint, sign_checkpoint
from indelible.integrity.note import Ed25519Signer
from indelible.migrations import upgrade_engine
from indelible.ports import StoredCheckpoint
from indelible.service import AuditService
from indelible.stores.postgres import PostgresStore
from indelible.stores.sqlite import SqliteStore
from indelible.testing import CapturedEvents, capture_events
from indelible.web.dashboard import audit_dashboard

ORIGIN = "audit.example.com/pages"
SIGNER = Ed25519Signer(ORIGIN, bytes(range(32)))
WRITER = uuid.UUID(int=7)
#: 2024-01-01T00:00:00Z, a Monday, in Unix microseconds.
NEW_YEAR = 1_704_067_200_000_000
MINUTE = 60_000_000


def require_admin(authorization: str | None = Header(default=None)) -> str:
    """The host's authorisation: ``admin`` may, everybody else may not."""
    if authorization is None:
        raise HTTPException(303, headers={"Location": "/login"})
    if authorization != "admin":
        raise HTTPException(403, "admins only")
    return "the-admin"


@dataclass
class Log:
    """A log that a test fills, and what was recorded about reading it."""

    service: AuditService
    store: SqliteStore | PostgresStore
    reads: CapturedEvents
    written: list[AuditEvent] = field(default_factory=list)

    def put(self, **fields: object) -> AuditEvent:
        """Store one event, a minute after the one before."""
        number = len(self.written)
        values: dict[str, object] = {
            "timestamp": NEW_YEAR + number * MINUTE,
            "event_type": "login",
            "action": "login",
            "status": "success",
            **fields,
        }
        event = AuditEvent(id=uuid.UUID(int=number + 1), **values)  # type: ignore[arg-type]
        self.store.append(WRITER, number, [event])
        self.written.append(event)
        return event

    def publish(self) -> Checkpoint:
        """Sign the newest head."""
        head, lease = self.store.head(), self.store.lease()
        assert head is not None
        assert head.root is not None
        assert lease is not None
        checkpoint = Checkpoint(ORIGIN, head.size, head.root)
        lease.insert(StoredCheckpoint(head.size, NEW_YEAR, sign_checkpoint(checkpoint, SIGNER)))
        lease.close()
        return checkpoint


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """An empty log whose signing key this host has."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    store = SqliteStore(url, segment_rows=65_536, prepare=upgrade_engine)
    store.open()
    with capture_events(database_url=url, data_dir=tmp_path / "data", signing_key=SIGNER.encode()) as reads:
        service = runtime.get_audit_service()
        service.store = store
        yield Log(service, store, reads)
    store.close()


@pytest.fixture
def app(log: Log) -> FastAPI:
    """A host with the dashboard and nothing else: no middleware."""
    application = FastAPI()
    application.include_router(audit_dashboard(require_admin=require_admin, sign_out="../logout"))
    return application


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The admin's browser, without its script."""
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 4711))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://host/audit/", headers={"Authorization": "admin"}
    ) as made:
        yield made
