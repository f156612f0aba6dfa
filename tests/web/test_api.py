"""The query API, against a store in memory."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from backports import zstd
from fastapi import FastAPI

from indelible import context, rendering
from indelible.events import AuditEvent
from indelible.exports import Columns
from indelible.queries import FILTERS, PARAMETERS, Count, Filter
from indelible.service import AuditService
from indelible.settings import load
from indelible.testing import CapturedEvents, MemoryStore
from indelible.web.api import audit_router
from indelible.web.openapi import LogEntry

Put = Callable[..., AuditEvent]
READS = ("/logs", "/stats", "/export")


async def test_logs_answers_a_page_with_totals(client: httpx.AsyncClient, put: Put) -> None:
    """The answer holds the page's events, newest first, and where they stand among all that match."""
    for number in range(5):
        put(user_id=f"u{number}")
    answer = await client.get("/logs", params={"page_size": 2, "page": 2})
    assert answer.status_code == 200
    body = answer.json()
    assert [entry["user_id"] for entry in body.pop("logs")] == ["u2", "u1"]
    assert isinstance(body.pop("next_cursor"), str)
    assert body == {
        "total": 5,
        "total_is_exact": True,
        "page": 2,
        "page_size": 2,
        "total_pages": 3,
        "complete": True,
    }


async def test_next_cursor_walks_to_the_end(client: httpx.AsyncClient, put: Put) -> None:
    """Following next_cursor gives every event once, and null after the last page."""
    ids = [str(put(user_id=f"u{n % 3}").id) for n in range(7)]
    seen: list[str] = []
    params: dict[str, str] = {"page_size": "3", "sort_order": "asc"}
    while True:
        body = (await client.get("/logs", params=params)).json()
        seen += [entry["id"] for entry in body["logs"]]
        if body["next_cursor"] is None:
            break
        params["cursor"] = body["next_cursor"]
    assert seen == ids


async def test_an_entry_shows_every_field_but_the_salts(client: httpx.AsyncClient, put: Put) -> None:
    """Times are RFC 3339 with six digits, JSON columns are values, big numbers keep their digits, salts are not shown."""
    event = put(
        resource_id="42", old_value='{"n":123456789012345678901234567890}', new_value="not json", metadata="[NaN]"
    )
    entry = json.loads((await client.get(f"/logs/{event.id}")).content)
    assert tuple(entry) == rendering.FIELDS == tuple(LogEntry.model_fields)
    assert entry["timestamp"] == "2024-01-01T00:00:00.000000Z"
    assert entry["old_value"] == {"n": 123456789012345678901234567890}
    assert (entry["new_value"], entry["metadata"]) == ("not json", "[NaN]")
    assert entry["seq"] == 0
    assert not any("salt" in name for name in entry)


async def test_filters_narrow_and_repeat(client: httpx.AsyncClient, put: Put) -> None:
    """Repeated parameters match any of their values; different ones must all hold."""
    put(event_type="login", ip_address="10.0.0.1")
    put(event_type="login_failed", status="failure", ip_address="10.0.0.1")
    put(event_type="login_failed", status="failure", ip_address="10.0.0.2")
    both = await client.get("/logs", params=[("event_type", "login"), ("event_type", "login_failed")])
    one = await client.get("/logs", params={"event_type": "login_failed", "ip_address": "10.0.0.2"})
    assert (both.json()["total"], one.json()["total"]) == (3, 1)


async def test_a_network_matches_the_addresses_in_it(client: httpx.AsyncClient, put: Put) -> None:
    """``ip_address`` takes CIDR notation, beside single addresses; what is no network is refused, not ignored."""
    for address in ("10.1.2.3", "192.0.2.1", "2001:db8::7", "10.0.0.0.example", None):
        put(ip_address=address)
    found = (await client.get("/logs", params={"ip_address": ["10.9.9.9/8", "2001:DB8::/32", "192.0.2.1"]})).json()
    assert [row["ip_address"] for row in found["logs"]] == ["2001:db8::7", "192.0.2.1", "10.1.2.3"]
    assert (found["total"], found["complete"]) == (3, True)
    wrong = await client.get("/logs", params={"ip_address": "10.0.0.0/33"})
    assert (wrong.status_code, wrong.json()["detail"][0]["loc"]) == (422, ["query", "ip_address"])


async def test_a_text_search_counts_only_what_it_saw(client: httpx.AsyncClient, put: Put) -> None:
    """With q the total is what has been seen, exact when that was everything."""
    for _ in range(3):
        put(request_path="/api/nodes/42")
    part = (await client.get("/logs", params={"q": "NODES", "page_size": 2})).json()
    rest = (await client.get("/logs", params={"q": "NODES", "page_size": 2, "page": 2})).json()
    beyond = (await client.get("/logs", params={"q": "NODES", "page": 9})).json()
    assert (part["total"], part["total_is_exact"], part["complete"]) == (3, False, True)
    assert (rest["total"], rest["total_is_exact"]) == (3, True)
    assert (beyond["total"], beyond["total_is_exact"]) == (0, False)


async def test_stats_count_by_type_outcome_user_address_and_time(client: httpx.AsyncClient, put: Put) -> None:
    """Stats answers the fields of the guide, and what a chart of outcomes needs."""
    put(user_id="a", ip_address="10.0.0.1", resource_type="node")
    put(user_id="a", ip_address="10.0.0.2", event_type="login_failed", status="failure")
    body = (await client.get("/stats", params={"start_date": "2024-01-01", "end_date": "2024-01-01"})).json()
    over_time, outcomes = body.pop("events_over_time"), body.pop("outcomes_over_time")
    assert body == {
        "total_events": 2,
        "event_type_breakdown": {"login": 1, "login_failed": 1},
        "status_breakdown": {"success": 1, "failure": 1},
        "top_users": [{"user_id": "a", "count": 2}],
        "top_ips": [{"ip": "10.0.0.1", "count": 1}, {"ip": "10.0.0.2", "count": 1}],
        "top_resource_types": [{"resource_type": "node", "count": 1}],
    }
    assert sum(bucket["count"] for bucket in over_time) == 2
    assert over_time[0]["start"] == "2024-01-01T00:00:00.000000Z"
    assert outcomes == [{"start": "2024-01-01T00:00:00.000000Z", "outcomes": {"success": 1, "failure": 1}}]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("evnt_type=login", "evnt_type"),
        ("status=maybe", "status"),
        ("start_date=yesterday", "start_date"),
        ("start_date=2024-02-01&end_date=2024-01-01", "start_date"),
        ("page_size=1001", "page_size"),
        ("page_size=0", "page_size"),
        ("sort_by=password", "sort_by"),
        ("cursor=Zm9yZ2Vk", "cursor"),
        ("user_id=", "user_id"),
    ],
)
async def test_a_query_that_means_nothing_is_422(
    client: httpx.AsyncClient, events: CapturedEvents, query: str, parameter: str
) -> None:
    """The answer names the parameter, in FastAPI's form, and nothing was read."""
    answer = await client.get(f"/logs?{query}")
    assert answer.status_code == 422
    (error,) = answer.json()["detail"]
    assert error["loc"] == ["query", parameter]
    assert error["msg"]
    assert not events


@pytest.mark.parametrize(
    "url",
    ["/stats?event_type=login", "/export?page=2", "/export?format=xml", "/export?format=csv&format=csv", "/stats?x=1"],
)
async def test_each_endpoint_refuses_what_it_does_not_use(client: httpx.AsyncClient, url: str) -> None:
    """A parameter that would be ignored is an error everywhere."""
    assert (await client.get(url)).status_code == 422


async def test_one_event_by_id(client: httpx.AsyncClient, put: Put, events: CapturedEvents) -> None:
    """200 for an event, 404 for an unknown id, 422 for a malformed one or a stray parameter; only the first is a read."""
    event = put()
    assert (await client.get(f"/logs/{uuid.uuid4()}")).status_code == 404
    assert (await client.get("/logs/17")).status_code == 422
    assert (await client.get(f"/logs/{event.id}?verbose=1")).status_code == 422
    assert not events
    assert (await client.get(f"/logs/{event.id}")).json()["id"] == str(event.id)
    assert events.only().resource_id == str(event.id)


@pytest.mark.parametrize("path", [*READS, f"/logs/{uuid.UUID(int=5)}", "/logs/17", "/logs?nonsense=1"])
async def test_strangers_learn_nothing(client: httpx.AsyncClient, events: CapturedEvents, path: str) -> None:
    """401 and 403 come before anything else is looked at, a mistake in the query included."""
    del client.headers["Authorization"]
    assert (await client.get(path)).status_code == 401
    assert (await client.get(path, headers={"Authorization": "somebody"})).status_code == 403
    assert not events


async def test_every_read_is_one_event(client: httpx.AsyncClient, put: Put, events: CapturedEvents) -> None:
    """The event says who read, from where, which filters and how many rows; without the middleware as well."""
    put()
    await client.get("/logs", params={"event_type": "login", "page_size": "20", "sort_order": "asc"})
    event = events.only()
    assert (event.event_type, event.action, event.status) == ("audit.read", "read", "success")
    assert (event.user_id, event.ip_address, event.user_agent) == ("the-admin", "192.0.2.7", "tests")
    assert (event.resource_type, event.request_method, event.response_status) == ("audit_log", "GET", 200)
    assert event.request_path == "/api/audit/logs?event_type=login&page_size=20&sort_order=asc"
    assert event.duration_us is not None
    assert event.duration_us >= 0
    assert json.loads(event.metadata or "") == {
        "filters": {"event_type": ["login"], "page_size": 20, "sort_by": "timestamp", "sort_order": "asc"},
        "rows": 1,
    }


async def test_the_request_has_no_second_event(app: FastAPI, client: httpx.AsyncClient, events: CapturedEvents) -> None:
    """Inside a request that the middleware watches, its record is marked, and its actor and correlation id are used."""
    record = context.RequestRecord()
    token = context.REQUEST.set(record)
    try:
        with context.bound(correlation_id="c-1", ip_address="198.51.100.1", user_agent="proxied", user_id="token-user"):
            await client.get("/stats")
    finally:
        context.REQUEST.reset(token)
    event = events.only()
    assert record.recorded
    assert (event.correlation_id, event.ip_address, event.user_agent) == ("c-1", "198.51.100.1", "proxied")
    assert event.user_id == "the-admin"


@pytest.mark.parametrize("path", READS)
async def test_an_unreachable_store_is_503(
    client: httpx.AsyncClient, store: MemoryStore, events: CapturedEvents, path: str
) -> None:
    """The caller is told to try again, and nothing was read."""
    store.down = True
    answer = await client.get(path)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert not events


@pytest.mark.parametrize("path", READS)
async def test_what_cannot_be_recorded_is_not_read(tmp_path: Path, path: str, client: httpx.AsyncClient) -> None:
    """If the journal does not take the event, the answer is 503 and holds no row."""
    blocked = tmp_path / "file"
    blocked.touch()
    store = MemoryStore()
    service = AuditService(store, load(data_dir=blocked / "below"))
    event = AuditEvent(
        id=uuid.uuid4(), timestamp=0, event_type="login", action="login", status="success", user_id="secret"
    )
    store.append(uuid.UUID(int=1), 0, [event])
    host = FastAPI()
    host.include_router(audit_router(require_admin=lambda: {"sub": "x"}, service=service, prefix=""))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(host), base_url="http://host") as other:
        answer = await other.get(path)
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("principal", "user_id"),
    [({"id": 7}, "7"), ({"sub": "s"}, "s"), ("name", "name"), (True, None), (None, None), (object(), None)],
)
async def test_whoever_require_admin_returns_is_the_reader(
    events: CapturedEvents, principal: object, user_id: str | None
) -> None:
    """An object with an id, a mapping with id or sub, or the id; anything else leaves the reader to the middleware."""
    host = FastAPI()
    host.include_router(audit_router(require_admin=lambda: principal))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(host), base_url="http://host") as other:
        assert (await other.get("/api/audit/stats")).status_code == 200
    assert events.only().user_id == user_id


async def test_export_as_json_lines(client: httpx.AsyncClient, put: Put, events: CapturedEvents) -> None:
    """One object a line, oldest first, as a dated file; one audit.exported event with the exact number of rows."""
    ids = [str(put(user_id="a").id) for _ in range(3)]
    put(user_id="b")
    answer = await client.get("/export", params={"user_id": "a"})
    assert [json.loads(line)["id"] for line in answer.text.splitlines()] == ids
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert answer.headers["cache-control"] == "no-store"
    today = f"{datetime.now(UTC):%Y-%m-}"
    assert re.fullmatch(rf'attachment; filename="audit-{today}\d\d\.jsonl"', answer.headers["content-disposition"])
    event = events.only()
    assert (event.event_type, event.action) == ("audit.exported", "export")
    assert json.loads(event.metadata or "") == {"filters": {"user_id": ["a"], "format": "jsonl"}, "rows": 3}


async def test_export_as_csv_runs_no_formulas(client: httpx.AsyncClient, put: Put) -> None:
    """A header line, then one line an event; what a spreadsheet might run is marked as text."""
    put(user_agent="=HYPERLINK(1)", resource_id="@x", request_path="/plain")
    answer = await client.get("/export?format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert tuple(rows[0]) == rendering.FIELDS
    assert (rows[0]["user_agent"], rows[0]["resource_id"], rows[0]["request_path"]) == (
        "'=HYPERLINK(1)",
        "'@x",
        "/plain",
    )
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"


@pytest.mark.parametrize(("kind", "suffix"), [("gzip", "gz"), ("zstd", "zst")])
async def test_a_compressed_export_is_a_compressed_file(
    client: httpx.AsyncClient, put: Put, events: CapturedEvents, kind: str, suffix: str
) -> None:
    """Named and typed as what it is, not as the transfer's encoding; what comes out is the plain export."""
    for _ in range(3):
        put()
    plain = await client.get("/export?format=csv")
    answer = await client.get(f"/export?format=csv&compress={kind}")
    assert answer.headers["content-type"] == f"application/{kind}"
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-disposition"].endswith(f'.csv.{suffix}"')
    unpack = gzip.decompress if kind == "gzip" else zstd.decompress
    assert unpack(answer.content) == plain.content
    told = json.loads(events[-1].metadata or "")
    assert told["filters"] == {"format": "csv", "compress": kind}


async def test_a_compression_that_the_server_lacks_says_what_is_missing(
    client: httpx.AsyncClient, events: CapturedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is read or recorded."""
    monkeypatch.setitem(sys.modules, "backports", None)
    answer = await client.get("/export?compress=zstd")
    assert answer.status_code == 422
    assert "backports.zstd on this server" in answer.text
    assert (await client.get("/export?compress=brotli")).status_code == 422


async def test_an_export_ends_where_the_log_ended_when_it_was_asked_for(
    client: httpx.AsyncClient, store: MemoryStore, put: Put, events: CapturedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that arrive meanwhile are neither counted nor sent, even if the log never stands still."""
    put(user_id="a")
    count = store.count

    def busy(filter: Filter, *, cap: int | None) -> Count:
        put(user_id="a")
        return count(filter, cap=cap)

    monkeypatch.setattr(store, "count", busy)
    answer = await client.get("/export?user_id=a")
    sent = answer.text.count("\n")
    assert json.loads(events.only().metadata or "")["rows"] == sent
    assert sent < len(store.rows)


async def test_an_export_that_fails_half_way_does_not_look_complete(
    app: FastAPI, store: MemoryStore, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error leaves the application, so that the server breaks the connection off: no last chunk is sent."""
    put()
    put()
    columns = store.columns

    def cut(filter: Filter, *, first: int = 0, end: int | None = None) -> Iterator[Columns]:
        yield from columns(filter, first=first, end=1)

    monkeypatch.setattr(store, "columns", cut)
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/api/audit/export",
        "raw_path": b"/api/audit/export",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"authorization", b"admin")],
        "client": ("192.0.2.7", 1),
        "server": ("host", 80),
    }
    with pytest.raises(Exception, match="1 of 2 rows"):
        await app(scope, receive, send)
    assert sent[0]["status"] == 200
    assert all(message.get("more_body") for message in sent[1:])


async def test_the_schema_names_every_parameter(app: FastAPI) -> None:
    """Every parameter the parser knows is in the OpenAPI document with a description, and no other."""
    paths = app.openapi()["paths"]
    stated = {
        path.rpartition("/")[2]: [p["name"] for p in item["get"].get("parameters", ()) if p["in"] == "query"]
        for path, item in paths.items()
    }
    assert sorted(stated["logs"]) == sorted(PARAMETERS)
    assert sorted(stated["export"]) == sorted((*FILTERS, "format", "compress"))
    assert stated["stats"] == ["start_date", "end_date"]
    assert stated["{log_id}"] == []
    described = [p for item in paths.values() for p in item["get"].get("parameters", ()) if p["in"] != "header"]
    assert all(p["description"] for p in described)


async def test_answers_are_not_cached(client: httpx.AsyncClient) -> None:
    """What only an admin may see stays in no cache."""
    assert (await client.get("/logs")).headers["cache-control"] == "no-store"
