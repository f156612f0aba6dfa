"""What must hold before this goes live: who did what is recorded, and nobody gets further than they may."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from backend.server.models import User
from backend.server.settings import get_settings
from indelible.events import StoredEvent, moment

Stored = Callable[..., Awaitable[list[StoredEvent]]]
SignIn = Callable[..., Awaitable[dict[str, str]]]
Sql = Callable[..., list[Any]]
SECRET = "hunter2 but a good deal longer"


class TestMonitoringAndLogging:
    """Sensitive operations leave a trace that cannot be wiped out."""

    async def test_audit_log_for_sensitive_operations(
        self, client: httpx.AsyncClient, stored: Stored, sql: Sql
    ) -> None:
        """A registration becomes one row with everything in it, and the database lets nobody change or delete it."""
        before = datetime.now(UTC)
        answer = await client.post(
            "/api/auth/register",
            json={"username": "newcomer", "email": "newcomer@example.org", "password": SECRET},
            headers={"User-Agent": "hardening/1.0", "X-Correlation-ID": "registration-1"},
        )
        assert answer.status_code == 201
        assert answer.headers["X-Correlation-ID"] == "registration-1"
        user_id = answer.json()["id"]

        (event,) = await stored("user_created")
        after = datetime.now(UTC)
        assert isinstance(event.id, UUID)
        assert event.id.version == 7
        assert before <= moment(event.timestamp) <= moment(event.recorded_at) <= after
        assert event.action == "register"
        assert event.status == "success"
        assert event.user_id == user_id
        assert event.resource_type == "user"
        assert event.resource_id == user_id
        assert event.ip_address == "192.0.2.7"
        assert event.user_agent == "hardening/1.0"
        assert event.correlation_id == "registration-1"
        assert event.request_method == "POST"
        assert event.request_path == "/api/auth/register"
        assert event.response_status == 201
        assert event.duration_us is not None
        assert 0 < event.duration_us < (after - before) / timedelta(microseconds=1)
        assert event.source == "fog-compute"
        assert event.old_value is None
        assert json.loads(event.new_value or "") == {
            "username": "newcomer",
            "email": "newcomer@example.org",
            "role": "user",
        }
        assert json.loads(event.metadata or "") == {"username": "newcomer"}
        assert (event.error, event.tenant_id, event.on_behalf_of, event.session_id) == (None, None, None, None)

        (segment,) = sql("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'audit_logs_[0-9]'")
        for table in ("audit_logs", segment[0]):
            for statement in (
                f"UPDATE {table} SET action = 'nothing'",
                f"UPDATE {table} SET user_id = NULL WHERE id = '{event.id}'",
                f"DELETE FROM {table}",
                f"DELETE FROM {table} WHERE id = '{event.id}'",
            ):
                with pytest.raises(sqlite3.Error):
                    sql(statement)
        assert await stored("user_created") == [event]

    async def test_log_in_log_out_and_failure(self, client: httpx.AsyncClient, stored: Stored, sign_in: SignIn) -> None:
        """A log-in names its user, a failed one the name that was tried, a log-out who left."""
        headers = await sign_in("ann")
        me = (await client.get("/api/users/me", headers=headers)).json()["id"]
        wrong = await client.post("/api/auth/login", json={"username": "ann", "password": "not this one"})
        nobody = await client.post("/api/auth/login", json={"username": "nobody", "password": "not this one"})
        assert (wrong.status_code, nobody.status_code) == (401, 401)
        assert wrong.json() == nobody.json()
        assert (await client.post("/api/auth/logout", headers=headers)).status_code == 200

        (login,) = await stored("login")
        assert (login.user_id, login.status) == (me, "success")
        failed = await stored("login_failed")
        assert [json.loads(event.metadata or "")["username"] for event in failed] == ["ann", "nobody"]
        assert {(event.user_id, event.status) for event in failed} == {(None, "failure")}
        (logout,) = await stored("logout")
        assert (logout.user_id, logout.status) == (me, "success")

    async def test_every_change_keeps_old_and_new_values(
        self, client: httpx.AsyncClient, stored: Stored, sign_in: SignIn, user: Callable[[str], User]
    ) -> None:
        """Create has the new value, change both, delete the old one; never a password."""
        headers = await sign_in("boss", role="admin")
        target = user("worker")
        node = (await client.post("/api/nodes", json={"name": "berlin-1"}, headers=headers)).json()
        job = (await client.post("/api/jobs", json={"name": "train", "node_id": node["id"]}, headers=headers)).json()
        await client.patch(f"/api/nodes/{node['id']}", json={"status": "online"}, headers=headers)
        await client.put(f"/api/jobs/{job['id']}", json={"name": "train again"}, headers=headers)
        await client.delete(f"/api/nodes/{node['id']}", headers=headers)
        await client.patch(f"/api/admin/users/{target.id}", json={"role": "admin"}, headers=headers)
        await client.patch(f"/api/users/{target.id}", json={"password": SECRET}, headers=headers)

        created = await stored("data_create")
        assert [(event.resource_type, event.resource_id, event.old_value) for event in created] == [
            ("node", str(node["id"]), None),
            ("job", str(job["id"]), None),
        ]
        assert json.loads(created[0].new_value or "")["name"] == "berlin-1"
        status, name, credentials = await stored("data_modify")
        assert _difference(status) == {"status": ("offline", "online")}
        assert _difference(name) == {"name": ("train", "train again"), "node_id": (node["id"], None)}
        assert json.loads(credentials.metadata or "") == {"credentials_changed": True}
        (deleted,) = await stored("data_delete")
        assert json.loads(deleted.old_value or "")["status"] == "online"
        assert deleted.new_value is None
        (promoted,) = await stored("admin_action")
        assert (promoted.resource_type, promoted.resource_id) == ("user", str(target.id))
        assert _difference(promoted) == {"role": ("user", "admin")}

    async def test_an_unhandled_error_is_recorded_and_can_be_traced(
        self, client: httpx.AsyncClient, stored: Stored, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The 500 names the correlation id under which the event is found, and nothing about the error."""
        headers = await sign_in("ann")

        def fail(*_: object) -> None:
            raise RuntimeError(SECRET)

        monkeypatch.setattr("backend.server.routes.nodes.enrich", fail)
        monkeypatch.setattr("backend.server.routes.nodes._find", fail)
        answer = await client.get("/api/nodes/1", headers={**headers, "X-Correlation-ID": "trace-me"})
        assert answer.status_code == 500
        assert answer.headers["X-Correlation-ID"] == "trace-me"
        assert SECRET not in answer.text
        (event,) = await stored("api_request_error")
        assert (event.correlation_id, event.response_status, event.status) == ("trace-me", 500, "failure")
        assert SECRET not in str(event)

    async def test_reading_the_log_is_logged(self, client: httpx.AsyncClient, stored: Stored, sign_in: SignIn) -> None:
        """A read by an admin is one audit.read event and nothing else; a refused one is permission_denied."""
        admin = await sign_in("boss", role="admin")
        other = await sign_in("ann")
        correlated = {"X-Correlation-ID": "the-read"}
        await stored("login")
        assert (await client.get("/api/audit/logs?event_type=login", headers=admin | correlated)).status_code == 200
        assert (await client.get("/api/audit/logs", headers=other)).status_code == 403
        assert (await client.get("/api/audit/logs")).status_code == 401
        (read,) = await stored("audit.read")
        boss = (await client.get("/api/users/me", headers=admin)).json()["id"]
        assert (read.user_id, read.correlation_id, read.ip_address) == (boss, "the-read", "192.0.2.7")
        assert json.loads(read.metadata or "") == {"filters": {"event_type": ["login"]}, "rows": 2}
        (denied,) = await stored("permission_denied")
        assert (denied.status, denied.response_status, denied.request_path) == ("denied", 403, "/api/audit/logs")
        answer = await client.get("/api/audit/logs?correlation_id=the-read", headers=admin)
        assert answer.json()["total"] == 1

    async def test_nothing_secret_is_on_disk(self, client: httpx.AsyncClient, database: Path, stored: Stored) -> None:
        """A password sent to register, to log in and in a query string is in no file, nor is the token."""
        body = {"username": "ann", "email": "ann@example.org", "password": SECRET}
        await client.post("/api/auth/register", json=body)
        login = await client.post(f"/api/auth/login?password={SECRET}", json={"username": "ann", "password": SECRET})
        token = login.json()["access_token"]
        await client.get(f"/api/nodes/none?token={token}", headers={"Authorization": f"Bearer {token}"})
        await stored("login")
        for path in database.parent.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert SECRET.encode() not in content
                assert SECRET.replace(" ", "%20").encode() not in content
                assert token.encode() not in content


class TestAccessControl:
    """What a token is good for."""

    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
    async def test_only_the_owner_or_an_admin_changes_a_thing(
        self, client: httpx.AsyncClient, sign_in: SignIn, stored: Stored, method: str
    ) -> None:
        """Somebody else's job is 403, with an event that says who tried."""
        owner, other, admin = await sign_in("ann"), await sign_in("ben"), await sign_in("boss", role="admin")
        job = (await client.post("/api/jobs", json={"name": "mine"}, headers=owner)).json()["id"]
        body = None if method in ("GET", "DELETE") else {"name": "stolen"}
        refused = await client.request(method, f"/api/jobs/{job}", json=body, headers=other)
        assert refused.status_code == 403
        assert (await client.get(f"/api/jobs/{job}", headers=owner)).json()["name"] == "mine"
        assert (await client.request(method, f"/api/jobs/{job}", json=body, headers=admin)).status_code in (200, 204)
        (denied,) = await stored("permission_denied")
        assert (denied.resource_type, denied.resource_id, denied.request_method) == ("job", str(job), method)

    async def test_a_token_ends_with_log_out_and_with_its_user(
        self, client: httpx.AsyncClient, sign_in: SignIn, user: Callable[[str], User]
    ) -> None:
        """After log-out or deletion the token is refused, although its signature is still right."""
        first, second = await sign_in("ann"), await sign_in("ben")
        await client.post("/api/auth/logout", headers=first)
        me = (await client.get("/api/users/me", headers=second)).json()["id"]
        assert (await client.delete(f"/api/users/{me}", headers=second)).status_code == 204
        for headers in (first, second):
            assert (await client.get("/api/nodes", headers=headers)).status_code == 401

    async def test_forged_tokens_are_nobody(self, client: httpx.AsyncClient, stored: Stored, sign_in: SignIn) -> None:
        """A malformed token, no signature, a wrong key, an expired one: 401, and the event names no user.

        A token that we signed, for somebody who does not exist, is refused as well; who it spoke for is recorded.
        """
        victim = (await client.get("/api/users/me", headers=await sign_in("ann"))).json()["id"]
        claims = {"sub": victim, "jti": str(uuid4()), "exp": datetime.now(UTC) + timedelta(hours=1)}
        late = claims | {"exp": datetime.now(UTC) - timedelta(hours=1)}
        unsigned = ".".join(_b64(part) for part in ({"alg": "none"}, claims | {"exp": 4102444800})) + "."
        forged = [
            "garbage",
            unsigned,
            jwt.encode(claims, "a key that is long enough but not ours", "HS256"),
            jwt.encode(late, get_settings().signing_key(), "HS256"),
            jwt.encode(claims | {"sub": "no uuid"}, get_settings().signing_key(), "HS256"),
        ]
        for token in forged:
            assert (await client.get("/api/nodes", headers={"Authorization": f"Bearer {token}"})).status_code == 401
        refused = [event for event in await stored("data_access") if event.response_status == 401]
        assert [event.user_id for event in refused] == [None] * 4 + ["no uuid"]

    async def test_a_spoofed_address_is_not_believed(self, client: httpx.AsyncClient, stored: Stored) -> None:
        """Without a trusted proxy, X-Forwarded-For is what a stranger says; a bad correlation id is replaced."""
        spoofed = {"X-Forwarded-For": "203.0.113.9", "X-Correlation-ID": "not valid, it has spaces"}
        answer = await client.post("/api/auth/login", json={"username": "x", "password": "y"}, headers=spoofed)
        (event,) = await stored("login_failed")
        assert event.ip_address == "192.0.2.7"
        assert event.correlation_id == answer.headers["X-Correlation-ID"] != spoofed["X-Correlation-ID"]

    async def test_the_last_admin_stays(self, client: httpx.AsyncClient, sign_in: SignIn) -> None:
        """The only admin can neither be demoted nor deleted; with a second one it can."""
        headers = await sign_in("boss", role="admin")
        me = (await client.get("/api/users/me", headers=headers)).json()["id"]
        assert (await client.patch(f"/api/admin/users/{me}", json={"role": "user"}, headers=headers)).status_code == 409
        assert (await client.delete(f"/api/users/{me}", headers=headers)).status_code == 409
        await sign_in("deputy", role="admin")
        assert (await client.patch(f"/api/admin/users/{me}", json={"role": "user"}, headers=headers)).status_code == 200
        assert (await client.get("/api/admin/users", headers=headers)).status_code == 403

    async def test_a_name_or_address_is_given_once(self, client: httpx.AsyncClient) -> None:
        """A second account of the same name, whatever its capitals, or the same address is 409."""
        ann = {"username": "Ann", "email": "ann@example.org", "password": SECRET}
        assert (await client.post("/api/auth/register", json=ann)).status_code == 201
        for again in (
            ann | {"email": "b@example.org", "username": "aNN"},
            ann | {"username": "b", "email": "ANN@example.org"},
        ):
            assert (await client.post("/api/auth/register", json=again)).status_code == 409


class TestInput:
    """What comes in wrong is refused, not stored and not echoed."""

    @pytest.mark.parametrize(
        "body",
        [
            {"username": "a\x00b", "email": "a@b.c", "password": SECRET},
            {"username": "ann", "email": "nobody", "password": SECRET},
            {"username": "ann", "email": "a@b.c", "password": "short"},
            {"username": "ann", "email": "a@b.c", "password": SECRET, "role": "admin"},
            {"username": "x" * 65, "email": "a@b.c", "password": SECRET},
            {"username": ["ann"], "email": {"a": SECRET}, "password": None},
        ],
    )
    async def test_a_registration_that_cannot_be_is_422(self, client: httpx.AsyncClient, body: dict[str, Any]) -> None:
        """The answer says which field is wrong and repeats nothing that was sent."""
        answer = await client.post("/api/auth/register", json=body)
        assert answer.status_code == 422
        assert all(set(error) == {"type", "loc", "msg"} for error in answer.json()["detail"])
        assert SECRET not in answer.text

    @pytest.mark.parametrize(
        "raw", [b'{"username": "\\ud800", "\\udfff": 1}', b"{", b"\xff\xfe", b"[" * 100_000, b"null"]
    )
    async def test_bodies_that_are_no_proper_json_are_refused(self, client: httpx.AsyncClient, raw: bytes) -> None:
        """Broken encodings and nesting without end are the caller's mistake, never a 500."""
        answer = await client.post("/api/auth/register", content=raw, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500

    @pytest.mark.parametrize("name", ["0", "-1", "9" * 30, "none", "%00", "1.5", "٣"])
    async def test_an_id_that_cannot_be_is_unknown(self, client: httpx.AsyncClient, sign_in: SignIn, name: str) -> None:
        """Whatever stands where an id belongs, the answer is that there is no such thing."""
        assert (await client.get(f"/api/nodes/{name}", headers=await sign_in("ann"))).status_code == 404


def _difference(event: StoredEvent) -> dict[str, tuple[Any, Any]]:
    old, new = json.loads(event.old_value or ""), json.loads(event.new_value or "")
    return {name: (old[name], new[name]) for name in old if old[name] != new[name]}


def _b64(part: dict[str, Any]) -> str:
    text = json.dumps(part, default=str).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()
