"""The guide's statements, one by one, on the running reference host."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import jwt
import pytest
import yaml
from fastapi import FastAPI

from indelible.capture.asgi import AuditMiddleware
from indelible.delivery import FlushPolicy
from indelible.metrics import METRICS
from indelible.service import AuditService
from indelible.settings import Settings, load
from indelible.stores.schema import AuditLog
from indelible.testing import MemoryStore, capture_events
from scripts import guide

Call = Callable[[Any, dict[str, str]], httpx.Response]


def database(host: Any) -> sqlite3.Connection:
    """The log's file, opened by somebody who is not the log."""
    return sqlite3.connect(host.env["DATABASE_URL"].removeprefix("sqlite:///"), isolation_level=None)


def new_node(host: Any, headers: dict[str, str], name: str = "berlin") -> int:
    """The id of a node that the user has just made."""
    answer = host.http.post("/api/nodes", json={"name": name}, headers=headers)
    return int(answer.raise_for_status().json()["id"])


# --- model layer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["audit_logs", "audit_logs_0", "audit_heads"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET rowid = rowid", "DELETE FROM {}"])
def test_stored_rows_cannot_be_changed(host: Any, table: str, statement: str) -> None:
    """UPDATE and DELETE fail in the database itself, on the model's table and on what lies beneath."""
    host.stored(host.http.post("/api/auth/login", json={"username": "nobody", "password": "wrong-password"}))
    if table == "audit_logs":
        statement = statement.replace("rowid", "status")
    elif table == "audit_heads":
        statement = statement.replace("rowid", "size")
    with database(host) as connection, pytest.raises(sqlite3.Error, match=r"append-only|cannot modify|refus|protected"):
        connection.execute(statement.format(table))


QUESTIONS = {
    "idx_audit_timestamp": "SELECT * FROM audit_logs_0 ORDER BY timestamp DESC, seq DESC LIMIT 50",
    "idx_audit_user_id": "SELECT * FROM audit_logs_0 WHERE user_id = 'u' ORDER BY timestamp DESC LIMIT 50",
    "idx_audit_event_type": "SELECT * FROM audit_logs_0 WHERE event_type = 'login' ORDER BY timestamp DESC LIMIT 50",
    "idx_audit_resource": "SELECT * FROM audit_logs_0 WHERE resource_type = 'node' ORDER BY timestamp DESC LIMIT 50",
    "idx_audit_correlation": "SELECT * FROM audit_logs_0 WHERE correlation_id = 'c'",
}


@pytest.mark.parametrize("index", QUESTIONS)
def test_an_index_answers_its_question(host: Any, index: str) -> None:
    """The guide's index exists under its name and the database chooses it, without sorting, for what it is meant for."""
    assert index in {each.name for each in AuditLog.__table__.indexes}  # type: ignore[attr-defined]
    with database(host) as connection:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {QUESTIONS[index]}"))
    assert f"{index}_0 " in f"{plan} "
    assert "TEMP B-TREE" not in plan


def test_an_event_tells_who_did_what_to_which_from_where(host: Any) -> None:
    """One change is one event with user, type, resource, action, old and new values, address and user agent."""
    olga = host.sign_in("olga")
    node = new_node(host, olga, "porto")
    headers = {**olga, "X-Forwarded-For": "192.0.2.7", "User-Agent": "fogctl/2.3.1"}
    event = host.stored(host.http.patch(f"/api/nodes/{node}", json={"name": "lyon"}, headers=headers))
    assert event["user_id"] == host.http.get("/api/users/me", headers=olga).json()["id"]
    assert (event["event_type"], event["status"]) == ("data_modify", "success")
    assert (event["resource_type"], event["resource_id"]) == ("node", str(node))
    assert event["action"]
    assert event["old_value"]["name"] == "porto"
    assert event["new_value"]["name"] == "lyon"
    assert (event["ip_address"], event["user_agent"]) == ("192.0.2.7", "fogctl/2.3.1")


# --- service layer ------------------------------------------------------------------------------------------------


def test_batches_of_ten_every_five_seconds() -> None:
    """The defaults are those of the guide."""
    fields = Settings.model_fields
    assert (fields["batch_size"].default, fields["flush_interval"].default) == (10, 5.0)
    assert FlushPolicy() == FlushPolicy(batch_size=10, interval=5.0)


# --- middleware layer ---------------------------------------------------------------------------------------------


def test_every_request_is_one_event(host: Any) -> None:
    """Whatever changes, fails or is refused is in the log once, with method, path, status and duration."""
    pavel = host.sign_in("pavel")
    requests = [("POST", "/api/jobs"), ("GET", "/api/nodes/999999"), ("GET", "/api/admin/users"), ("PATCH", "/nowhere")]
    for method, path in requests:
        answer = host.http.request(method, path, json={"name": "index"} if method == "POST" else None, headers=pavel)
        event = host.stored(answer)
        assert (event["request_method"], event["request_path"]) == (method, path)
        assert event["response_status"] == answer.status_code
        assert event["duration_us"] > 0
        assert host.ask(correlation_id=event["correlation_id"])["total"] == 1


def test_only_a_verified_token_names_the_user(host: Any) -> None:
    """The user is the verified token's subject; a token of another key names nobody."""
    quinn = host.sign_in("quinn")
    me = host.http.get("/api/users/me", headers=quinn).json()["id"]
    assert host.stored(host.http.post("/api/nodes", json={"name": "oslo"}, headers=quinn))["user_id"] == me
    forged = jwt.encode({"sub": me, "exp": int(time.time()) + 600}, "k" * 48, "HS256")
    refused = host.http.post("/api/nodes", json={"name": "oslo"}, headers={"Authorization": f"Bearer {forged}"})
    event = host.stored(refused)
    assert (event["user_id"], event["status"]) == (None, "denied")


def test_correlation_ids_are_made_kept_and_returned(host: Any) -> None:
    """Every answer has an X-Correlation-ID: a new one, or the caller's if it is well formed."""
    first, second = (host.http.get("/api/nodes").headers["X-Correlation-ID"] for _ in range(2))
    assert first != second
    kept = host.http.get("/api/nodes", headers={"X-Correlation-ID": "order-17:retry.2"})
    assert kept.headers["X-Correlation-ID"] == "order-17:retry.2"
    assert host.stored(kept)["correlation_id"] == "order-17:retry.2"
    assert (
        host.http.get("/api/nodes", headers={"X-Correlation-ID": "no spaces"}).headers["X-Correlation-ID"]
        != "no spaces"
    )


@pytest.mark.parametrize("path", ["/health", "/metrics", "/docs", "/openapi.json"])
def test_excluded_paths_leave_no_event(host: Any, path: str) -> None:
    """The paths that step 3 excludes answer with a correlation id and are not in the log."""
    answer = host.http.get(path).raise_for_status()
    # A writer's events keep their order: what would have come before this one is there when this one is.
    host.stored(host.http.post("/api/auth/login", json={"username": "nobody", "password": "wrong-password"}))
    assert host.ask(correlation_id=answer.headers["X-Correlation-ID"])["total"] == 0


def test_resources_come_from_the_url(host: Any) -> None:
    """``/api/nodes/42`` is resource ``42`` of type ``node``, also when there is none."""
    event = host.stored(host.http.delete("/api/nodes/424242", headers=host.admin))
    assert (event["resource_type"], event["resource_id"]) == ("node", "424242")


async def test_reads_are_logged_where_asked() -> None:
    """A successful GET is left out by default and recorded with ``log_successful_reads=True``."""
    for wanted in (False, True):
        app = FastAPI()
        app.add_middleware(AuditMiddleware, log_successful_reads=wanted)
        app.add_api_route("/api/nodes", lambda: "none")
        with capture_events() as events:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
                await client.get("/api/nodes")
        assert [event.event_type for event in events] == (["data_access"] if wanted else [])


# --- event types --------------------------------------------------------------------------------------------------


def _log_in(host: Any, headers: dict[str, str]) -> httpx.Response:
    host.sign_in("rosa")
    account = {"username": "rosa", "password": "rosa-correct-horse-battery"}
    return host.http.post("/api/auth/login", json=account)  # type: ignore[no-any-return]


CALLS: dict[str, tuple[str, Call]] = {
    "login": ("success", _log_in),
    "login_failed": (
        "failure",
        lambda host, _: host.http.post("/api/auth/login", json={"username": "rosa", "password": "wrong-password"}),
    ),
    "logout": ("success", lambda host, headers: host.http.post("/api/auth/logout", headers=headers)),
    "user_created": (
        "success",
        lambda host, _: host.http.post(
            "/api/auth/register",
            json={
                "username": f"u{time.time_ns()}",
                "email": f"{time.time_ns()}@example.org",
                "password": "long-enough",
            },
        ),
    ),
    "data_access": ("failure", lambda host, headers: host.http.get("/api/nodes/999999", headers=headers)),
    "data_create": ("success", lambda host, headers: host.http.post("/api/nodes", json={"name": "a"}, headers=headers)),
    "data_modify": (
        "success",
        lambda host, headers: host.http.patch(
            f"/api/nodes/{new_node(host, headers)}", json={"name": "b"}, headers=headers
        ),
    ),
    "data_delete": (
        "success",
        lambda host, headers: host.http.delete(f"/api/nodes/{new_node(host, headers)}", headers=headers),
    ),
    "admin_action": ("success", lambda host, _: host.http.get("/api/admin/users", headers=host.admin)),
    "permission_denied": ("denied", lambda host, headers: host.http.get("/api/audit/logs", headers=headers)),
    "api_request": ("failure", lambda host, headers: host.http.options("/api/nodes", headers=headers)),
}


@pytest.mark.parametrize("event_type", CALLS)
def test_event_type(host: Any, event_type: str) -> None:
    """A request of the kind that the guide names becomes an event of this type, with the right outcome."""
    status, call = CALLS[event_type]
    event = host.stored(call(host, host.sign_in("sven")))
    assert (event["event_type"], event["status"]) == (event_type, status)


async def test_an_exception_is_an_api_request_error() -> None:
    """A request whose handler raises is recorded as such; the exception goes on to the host."""
    app = FastAPI()
    app.add_middleware(AuditMiddleware)

    @app.get("/api/broken")
    def broken() -> None:
        raise LookupError("nothing there")

    with capture_events() as events:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            with pytest.raises(LookupError):
                await client.get("/api/broken")
    assert (events.only().event_type, events.only().status) == ("api_request_error", "failure")


# --- query API ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/audit/logs", "/api/audit/logs/{id}", "/api/audit/stats", "/api/audit/export"])
def test_only_admins_read(host: Any, path: str) -> None:
    """401 without a token, 403 with an ordinary user's, 200 for an admin, who can see that somebody was refused."""
    some = host.ask(page_size=1)["logs"][0]["id"]
    path = path.replace("{id}", some)
    assert host.http.get(path).status_code == 401
    refused = host.http.get(path, headers=host.sign_in("tess"))
    assert refused.status_code == 403
    assert host.stored(refused)["event_type"] == "permission_denied"
    assert host.http.get(path, headers=host.admin).status_code == 200


def test_the_list_one_entry_and_the_statistics(host: Any) -> None:
    """The three endpoints: a page of events, the same event by its id, and counts."""
    page = host.ask(page_size=3)
    assert len(page["logs"]) == 3
    assert host.ask(f"/api/audit/logs/{page['logs'][0]['id']}") == page["logs"][0]
    stats = host.ask("/api/audit/stats")
    assert stats["total_events"] == sum(stats["event_type_breakdown"].values()) > 3


@pytest.fixture(scope="module")
def sample(host: Any) -> dict[str, Any]:
    """An event with a value in every field that can be filtered by, and others that differ in each."""
    uma = host.sign_in("uma")
    node = new_node(host, uma)
    headers = {**uma, "X-Forwarded-For": "192.0.2.99"}
    host.stored(host.http.delete("/api/jobs/31337", headers=host.admin))
    return dict(host.stored(host.http.patch(f"/api/nodes/{node}", json={"name": "tartu"}, headers=headers)))


@pytest.mark.parametrize(
    "field", ["event_type", "user_id", "resource_type", "resource_id", "status", "ip_address", "correlation_id"]
)
def test_filter(host: Any, sample: dict[str, Any], field: str) -> None:
    """Filtering by a field finds the event, and nothing that differs in it."""
    logs = host.ask(**{field: sample[field], "page_size": 1000})["logs"]
    assert sample["id"] in {log["id"] for log in logs}
    assert {log[field] for log in logs} == {sample[field]}


def test_filter_by_date(host: Any, sample: dict[str, Any]) -> None:
    """``start_date`` and ``end_date`` are inclusive."""
    at = datetime.fromisoformat(sample["timestamp"]).astimezone(UTC)
    tick = timedelta(microseconds=1)

    def found(start: datetime, end: datetime) -> bool:
        logs = host.ask(start_date=start.isoformat(), end_date=end.isoformat(), page_size=1000)["logs"]
        return sample["id"] in {log["id"] for log in logs}

    assert found(at, at)
    assert not found(at + tick, at + timedelta(minutes=1))
    assert not found(at - timedelta(minutes=1), at - tick)


def test_pages_and_order(host: Any, sample: dict[str, Any]) -> None:
    """Pages join without overlap in either order, and sorting by a field sorts by it."""
    only = {"end_date": sample["timestamp"], "page_size": 4}
    first, second = (host.ask(page=page, **only)["logs"] for page in (1, 2))
    whole = host.ask(**{**only, "page_size": 8})["logs"]
    assert [log["id"] for log in first + second] == [log["id"] for log in whole]
    rising = host.ask(sort_order="asc", **only)["logs"]
    assert [log["timestamp"] for log in rising] == sorted(log["timestamp"] for log in rising)
    by_type = host.ask(sort_by="event_type", sort_order="asc", **{**only, "page_size": 1000})["logs"]
    assert [log["event_type"] for log in by_type] == sorted(log["event_type"] for log in by_type)


# --- monitoring ---------------------------------------------------------------------------------------------------


async def test_each_flush_is_a_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The drainer's logger tells at debug of each flush with its size, so that the times between them can be read."""
    caplog.set_level(logging.DEBUG, "indelible.drainer")
    service = AuditService(MemoryStore(), load(data_dir=tmp_path), announce=False)
    await service.start()
    for _ in range(2):
        service.log(event_type="login", action="log_in")
        await service.flush()
    await service.stop()
    lines = [r for r in caplog.records if r.levelno == logging.DEBUG and r.getMessage().startswith("flushed 1 ")]
    assert len(lines) == 2


def test_batch_sizes_and_write_times_are_metrics(host: Any) -> None:
    """/metrics counts flushes by their size and appends to the database by their duration."""
    host.stored(host.http.post("/api/auth/login", json={"username": "nobody", "password": "wrong-password"}))
    text = host.http.get("/metrics").raise_for_status().text
    for metric in ("indelible_flush_events", "indelible_store_append_seconds"):
        (count,) = re.findall(rf"^{metric}_count (\S+)$", text, re.MULTILINE)
        assert float(count) > 0
        assert f'{metric}_bucket{{le="+Inf"}}' in text


def test_repeated_failures_raise_an_alert() -> None:
    """The alert rules that come along fire when the store goes on refusing, by a metric that exists."""
    rules = yaml.safe_load((guide.ROOT / "docs/operations/prometheus-rules.yaml").read_text())
    alerts = {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    assert "indelible_store_retries_total" in alerts["AuditStoreRepeatedFailures"]
    assert "store_retries" in METRICS


# --- next steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("", "Events over time"),
        ("events?q=user:{user}", "{path}"),
        ("events/{id}", "Correlation id"),
        ("subject?user={user}", "Usual hours"),
        ("integrity", "What this does not cover"),
    ],
)
def test_there_are_dashboards(host: Any, page: str, says: str) -> None:
    """The admin's browser sees what happened, searches it, opens an event, a user and the state of the log."""
    user = host.sign_in("dora")
    event = host.stored(host.http.post("/api/nodes", json={"name": "tartu"}, headers=user))
    values = {"user": event["user_id"], "id": event["id"], "path": event["request_path"]}
    answer = host.http.get("/audit/" + page.format(**values), headers=host.admin)
    assert answer.status_code == 200
    assert says.format(**values) in answer.text
    read = host.stored(answer)
    assert (read["event_type"], read["resource_type"]) == ("audit.read", "audit_log")
    assert host.http.get("/audit/" + page.format(**values), headers=user).status_code == 403
    nobody = host.http.get("/audit/" + page.format(**values))
    assert nobody.status_code == 303
    assert "login?next=" in nobody.headers["location"]


# --- the files ----------------------------------------------------------------------------------------------------


SEAMS = {
    path: lines
    for path, lines, _ in (
        each.text.split(" — ") for each in guide.statements(guide.GUIDE.read_text()) if each.kind == "row"
    )
}


@pytest.mark.parametrize("path", SEAMS)
def test_the_seam_is_there_and_small(path: str) -> None:
    """Each file of the guide's summary exists; the four seams need no more lines than the guide's."""
    source = (guide.ROOT / path).read_text()
    if SEAMS[path].isdigit():
        assert source.count("\n") <= int(SEAMS[path])


def test_requests_go_on_while_the_log_cannot_write() -> None:
    """A request that cannot be recorded is answered as if nothing were wrong."""
    app = FastAPI()
    app.add_middleware(AuditMiddleware, service=_Broken())
    app.add_api_route("/api/nodes", lambda: "made", methods=["POST"])

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            return await client.post(f"/api/nodes?q={quote('x' * 10_000)}")

    answer = asyncio.run(post())
    assert (answer.status_code, answer.json()) == (200, "made")
    assert answer.headers["X-Correlation-ID"]


class _Broken:
    """A service all of whose calls fail."""

    settings = load()

    def log(self, *_: Any, **__: Any) -> None:
        raise OSError("the disk is gone")

    accept = offer = record = log
