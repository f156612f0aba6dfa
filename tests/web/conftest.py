"""A host with the query API on a store in memory, and events to ask about."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest
from fastapi import FastAPI, Header, HTTPException

from indelible import runtime
from indelible.events import AuditEvent
from indelible.testing import CapturedEvents, MemoryStore, capture_events
from indelible.web.api import audit_router

WRITER = uuid.UUID(int=1)
#: 2024-01-01T00:00:00Z in Unix microseconds.
NEW_YEAR = 1_704_067_200_000_000


@dataclass
class Admin:
    """What the host's dependency returns."""

    id: str


def require_admin(authorization: str | None = Header(default=None)) -> Admin:
    """The test's authorisation: ``admin`` may, everybody else may not."""
    if authorization is None:
        raise HTTPException(401, "not signed in")
    if authorization != "admin":
        raise HTTPException(403, "admins only")
    return Admin("the-admin")


@pytest.fixture
def events() -> Iterator[CapturedEvents]:
    """What is recorded during the test; nothing of it reaches the store."""
    with capture_events() as captured:
        yield captured


@pytest.fixture
def store(events: CapturedEvents) -> MemoryStore:
    """The store the API reads."""
    found = runtime.get_audit_service().store
    assert isinstance(found, MemoryStore)
    return found


@pytest.fixture
def put(store: MemoryStore) -> Callable[..., AuditEvent]:
    """Store one event, a second after the one before."""

    def put(**fields: object) -> AuditEvent:
        number = len(store.rows)
        values = {"event_type": "login", "action": "login", "status": "success", **fields}
        event = AuditEvent(id=uuid.uuid4(), timestamp=NEW_YEAR + number * 1_000_000, **values)  # type: ignore[arg-type]
        store.append(WRITER, number, [event])
        return event

    return put


@pytest.fixture
def app(events: CapturedEvents) -> FastAPI:
    """A host with the API and nothing else: no middleware."""
    application = FastAPI()
    application.include_router(audit_router(require_admin=require_admin))
    return application


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The admin's client."""
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 4711))
    headers = {"Authorization": "admin", "User-Agent": "tests"}
    async with httpx.AsyncClient(transport=transport, base_url="http://host/api/audit", headers=headers) as made:
        yield made
