"""The API's proofs, on a real log with a published checkpoint: what a stranger does with them."""

from __future__ import annotations

import sqlite3
import uuid
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Header, HTTPException

from indelible.events import AuditEvent
from indelible.integrity.checkpoint import Checkpoint, sign_checkpoint
from indelible.integrity.leaf import open_leaf
from indelible.integrity.merkle import root_hash, verify_consistency
from indelible.integrity.note import Ed25519Signer
from indelible.integrity.policy import Policy
from indelible.integrity.proof import TlogProof
from indelible.migrations import upgrade_engine
from indelible.ports import StoredCheckpoint
from indelible.queries import Filter
from indelible.service import AuditService
from indelible.settings import load
from indelible.stores.sqlite import SqliteStore
from indelible.web.api import audit_router

SIGNER = Ed25519Signer("audit.example.com/api", bytes(range(32)))
WRITER = uuid.UUID(int=7)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AuditService]:
    """A service on a log of 300 events in appends of 100."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    service = AuditService(
        SqliteStore(url, segment_rows=256, prepare=upgrade_engine),
        load(database_url=url, data_dir=tmp_path / "data", flush_interval=3600),
        announce=False,
    )
    service.open()
    service.store.open()
    for first in range(0, 300, 100):
        service.store.append(WRITER, first, [_event(n) for n in range(first, first + 100)])
    yield service
    service.close()


def _event(number: int) -> AuditEvent:
    return AuditEvent(
        id=uuid.UUID(int=number + 1),
        timestamp=1_700_000_000_000_000,
        event_type="login",
        action="login",
        status="success",
        user_id=f"u{number}",
        metadata=f'{{"n":{number}}}',
    )


def publish(service: AuditService) -> None:
    """Sign the newest head."""
    head, lease = service.store.head(), service.store.lease()
    assert head is not None
    assert head.root is not None
    assert lease is not None
    lease.insert(
        StoredCheckpoint(head.size, 0, sign_checkpoint(Checkpoint(SIGNER.key.name, head.size, head.root), SIGNER))
    )
    lease.close()


@pytest.fixture
async def client(service: AuditService) -> AsyncIterator[httpx.AsyncClient]:
    """The admin's client."""

    def require_admin(authorization: str | None = Header(default=None)) -> str:
        if authorization != "admin":
            raise HTTPException(401, "not signed in")
        return "the-admin"

    app = FastAPI()
    app.include_router(audit_router(require_admin=require_admin, service=service))
    headers = {"Authorization": "admin"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://host/api/audit", headers=headers
    ) as made:
        yield made


async def test_before_the_first_checkpoint_there_is_nothing(client: httpx.AsyncClient) -> None:
    """404, with a reason."""
    for path in ("/checkpoint", f"/logs/{uuid.UUID(int=1)}/proof"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["detail"]) == (404, "no checkpoint has been published")


async def test_the_checkpoint_is_the_signed_note(client: httpx.AsyncClient, service: AuditService) -> None:
    """Byte for byte, as plain text."""
    publish(service)
    answer = await client.get("/checkpoint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    newest = service.store.newest_checkpoint()
    assert newest is not None
    assert answer.content == newest.note


@pytest.mark.parametrize("number", [0, 255, 256, 299])
async def test_a_proof_convinces_a_stranger(client: httpx.AsyncClient, service: AuditService, number: int) -> None:
    """With the log's vkey alone: the entry is in the tree, and the disclosures open it."""
    publish(service)
    answer = (await client.get(f"/logs/{uuid.UUID(int=number + 1)}/proof")).json()
    proof = TlogProof.parse(answer["proof"].encode())
    proof.verify(answer["entry"].encode(), Policy((SIGNER.key,)))
    assert proof.index == number
    fields = open_leaf(answer["entry"].encode(), answer["disclosures"])
    assert (fields["user_id"], fields["metadata"]) == (f"u{number}", f'{{"n":{number}}}')


async def test_an_event_behind_the_checkpoint_has_to_wait(client: httpx.AsyncClient, service: AuditService) -> None:
    """404 with Retry-After: the next checkpoint is seconds away."""
    publish(service)
    service.store.append(WRITER, 300, [_event(300)])
    answer = await client.get(f"/logs/{uuid.UUID(int=301)}/proof")
    assert (answer.status_code, answer.headers["retry-after"]) == (404, "5")
    assert (await client.get(f"/logs/{uuid.UUID(int=999)}/proof")).status_code == 404


async def test_a_damaged_log_proves_nothing(client: httpx.AsyncClient, service: AuditService, tmp_path: Path) -> None:
    """A proof that would not hold is not handed out."""
    publish(service)
    with sqlite3.connect(tmp_path / "log.db") as connection:
        connection.execute("DROP TRIGGER audit_guard_update_0")
        connection.execute("UPDATE audit_logs_0 SET user_id = 'x' WHERE seq = 3")
    connection.close()
    assert (await client.get(f"/logs/{uuid.UUID(int=4)}/proof")).status_code == 503


async def test_consistency_between_any_two_sizes(client: httpx.AsyncClient, service: AuditService) -> None:
    """The proof leads from root to root."""
    with_roots = {size: service.store.leaf_hashes(0, size) for size in (1, 100, 255, 256, 300)}
    roots = {size: root_hash([h for h in leaves if h is not None]) for size, leaves in with_roots.items()}
    for first in roots:
        for second in (size for size in roots if size >= first):
            answer = await client.get("/consistency", params={"first": first, "second": second})
            proof = [b64decode(text) for text in answer.json()["proof"]]
            verify_consistency(first, second, proof, roots[first], roots[second])


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"first": 2, "second": 1}, 404),
        ({"first": 1, "second": 301}, 404),
        ({"first": 0, "second": 1}, 422),
        ({"first": 1}, 422),
        ({"first": 1, "second": "x"}, 422),
        ({"first": 1, "second": "2.0"}, 422),
        ({"first": 1, "second": 2**63}, 422),
        ({"first": 1, "second": 2, "third": 3}, 422),
    ],
)
async def test_sizes_that_mean_nothing(client: httpx.AsyncClient, params: dict[str, str | int], status: int) -> None:
    """Refused, each with the status that says why."""
    assert (await client.get("/consistency", params=params)).status_code == status


async def test_proofs_are_for_admins_and_are_recorded(client: httpx.AsyncClient, service: AuditService) -> None:
    """As all of the log's API: nobody else gets one, and each that was given is an audit.read event."""
    publish(service)
    paths = ["/checkpoint", f"/logs/{uuid.UUID(int=1)}/proof", "/consistency?first=1&second=2"]
    for path in paths:
        assert (await client.get(path, headers={"Authorization": "guest"})).status_code == 401
        assert (await client.get(path)).status_code == 200
    await service.flush()
    actions = [row.action for part in service.store.scan(_reads()) for row in part]
    assert actions == ["checkpoint", "prove", "consistency"]


def _reads() -> Filter:

    return Filter(event_type=("audit.read",))
