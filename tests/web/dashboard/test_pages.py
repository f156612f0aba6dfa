"""What holds for every page: who may see it, what is recorded, what a browser is told, what hostile values do."""

from __future__ import annotations

import re
import uuid
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from indelible.errors import ConfigurationError, JournalUnavailable
from indelible.events import AuditEvent
from indelible.web.dashboard import assets, audit_dashboard
from tests.web.dashboard.conftest import Log, require_admin
from tests.web.dashboard.reading import Html

#: Every page, and the action that its reading is recorded under.
PAGES = {
    "": "overview",
    "events": "read",
    f"events/{uuid.UUID(int=1)}": "read",
    "subject?user=alice": "timeline",
    "integrity": "integrity",
}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg/onload=alert(3)>{{7*7}}=cmd|' /C calc'!A0"


@pytest.fixture
def filled(log: Log) -> Log:
    """A log with something to show on every page."""
    log.put(user_id="alice", resource_type="node", resource_id="42", correlation_id="c-1", old_value="1", new_value="2")
    log.put(user_id="alice", status="denied", correlation_id="c-1", ip_address="192.0.2.1")
    log.publish()
    return log


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_is_one_event(client: httpx.AsyncClient, filled: Log, page: str) -> None:
    """Opening a page records exactly one audit.read: who, from where, which page, how many rows."""
    answer = await client.get(page)
    assert answer.status_code == 200
    event = filled.reads.only()
    assert (event.event_type, event.action, event.resource_type) == ("audit.read", PAGES[page], "audit_log")
    assert (event.user_id, event.ip_address) == ("the-admin", "192.0.2.7")
    assert event.request_path is not None
    assert event.request_path.startswith("/audit/")


@pytest.mark.parametrize("page", [*PAGES, "events/export", f"events/{uuid.UUID(int=1)}/evidence.zip"])
async def test_a_page_is_for_admins(client: httpx.AsyncClient, filled: Log, page: str) -> None:
    """Somebody else gets 403 as a page that shows nothing; who is not signed in goes where the host says."""
    refused = await client.get(page, headers={"Authorization": "somebody"})
    assert refused.status_code == 403
    assert "admins only" in Html(refused.text).text
    assert "alice" not in refused.text
    client.headers.pop("Authorization")
    away = await client.get(page)
    assert (away.status_code, away.headers["location"]) == (303, "/login")
    assert not filled.reads


@pytest.mark.parametrize("page", [*PAGES, "events/export"])
async def test_what_cannot_be_recorded_is_not_shown(
    client: httpx.AsyncClient, filled: Log, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    """A reading that the journal does not take is answered with 503 and nothing of the log."""

    def refuse(**fields: object) -> None:
        raise JournalUnavailable("no journal")

    monkeypatch.setattr(filled.service, "record", refuse)
    answer = await client.get(page)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "alice" not in Html(answer.text).text.replace("user:alice", "")


@pytest.mark.parametrize("page", PAGES)
async def test_a_store_that_is_away_is_told(client: httpx.AsyncClient, filled: Log, page: str) -> None:
    """While the database does not answer, pages say so with 503 and record no reading."""
    filled.store.close()
    answer = await client.get(page)
    assert answer.status_code == 503
    assert "cannot be read" in Html(answer.text).text
    assert not filled.reads


@pytest.mark.parametrize("page", [*PAGES, "events?q=nonsense:1", "events/no-uuid", f"events/{uuid.UUID(int=99)}"])
async def test_nothing_inline_and_nothing_from_elsewhere(client: httpx.AsyncClient, filled: Log, page: str) -> None:
    """Each page forbids everything but its own files, holds no inline script or style, and all that it loads is there."""
    answer = await client.get(page)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    html = Html(answer.text)
    assert not html.all("style")
    for element in html.elements:
        assert not [name for name in element.attributes if name.startswith("on") or name in ("style", "hx-on")]
    scripts = html.all("script")
    assert all(script.get("src") and not script.text for script in scripts)
    for address in [s.get("src") for s in scripts] + [e.get("href") for e in html.all("link")]:
        file = await client.get(urljoin(str(answer.url), address))
        assert file.status_code == 200
        assert "immutable" in file.headers["cache-control"]


@pytest.mark.parametrize("page", PAGES)
async def test_every_link_is_relative_and_leads_somewhere(log: Log, page: str) -> None:
    """Mounted elsewhere, behind a proxy that takes away a prefix, the same links work: none says where the root is."""
    log.put(user_id="alice", resource_type="node", resource_id="42")
    log.put(user_id="alice", resource_type="user", resource_id="alice")
    log.publish()
    app = FastAPI()
    app.include_router(audit_dashboard(require_admin=require_admin, prefix="/deep/in/here"))
    outside = "https://example.com/proxied/deep/in/here/"
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://inside/deep/in/here/", headers={"Authorization": "admin"}
    ) as client:
        addresses = Html((await client.get(page)).text).addresses
        assert addresses
        for address in addresses:
            assert not re.match("/|[a-z]+:", address), address
            absolute = urljoin(urljoin(outside, page), address)
            assert absolute.startswith(outside)
            rest = absolute.removeprefix(outside)
            if "integrity/verify" in rest or "events/tail" in rest:
                continue
            assert (await client.get(rest)).status_code == 200, address


async def test_the_root_leads_in(client: httpx.AsyncClient) -> None:
    """The address without its last slash redirects to the one with it, relative to wherever it is seen."""
    answer = await client.get("http://host/audit")
    assert (answer.status_code, answer.headers["location"]) == (307, "audit/")


@pytest.mark.parametrize("page", [*PAGES, "subject?type=" + httpx.QueryParams({"x": HOSTILE}).get("x", "")])
async def test_hostile_values_stay_text(client: httpx.AsyncClient, log: Log, page: str) -> None:
    """A value from outside is shown as the text it is, in every field and on every page."""
    fields = dict.fromkeys(AuditEvent.__struct_fields__, HOSTILE)
    del fields["id"], fields["timestamp"], fields["response_status"], fields["duration_us"]
    fields |= {"old_value": '{"<b onclick=x>": "<i>"}'}
    log.put(**fields)
    log.put(user_id="alice", resource_type=HOSTILE, resource_id=HOSTILE)
    log.publish()
    answer = await client.get(page)
    assert answer.status_code == 200
    html = Html(answer.text)
    assert not html.all("img")
    assert all(element.get("src") for element in html.all("script"))
    assert not [e for e in html.elements if e.tag in ("b", "i") and "onclick" in e.attributes]
    for element in html.elements:
        assert not [name for name in element.attributes if name.startswith("on")]
    assert "49" not in re.findall(r"onload=alert\(3\)>(\d*)", answer.text)


async def test_a_hostile_search_stays_text(client: httpx.AsyncClient, log: Log) -> None:
    """The search bar gives back what was typed, and a search that means nothing is quoted as text."""
    for text in (HOSTILE, '"' + HOSTILE.replace('"', '\\"') + '"', "user:" + '"><script>x</script>'):
        answer = await client.get("events", params={"q": text})
        html = Html(answer.text)
        assert html.one("input", id="^q$").get("value") == text.strip()
        assert all(element.get("src") for element in html.all("script"))
        assert not html.all("img")


async def test_a_forged_row_is_shown(client: httpx.AsyncClient, log: Log) -> None:
    """A row with impossible times, which only a forger writes, breaks no page."""
    import sqlite3

    log.put(user_id="alice")
    log.publish()
    database = log.store.url.removeprefix("sqlite:///")
    with sqlite3.connect(database) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')
        connection.execute("UPDATE audit_logs_0 SET timestamp = 9223372036854775807, old_value = '[' || char(10)")
    connection.close()
    for page in PAGES:
        answer = await client.get(page)
        assert answer.status_code == 200, page
    event = Html((await client.get(f"events/{uuid.UUID(int=1)}")).text)
    assert "cannot be proved" in event.text
    assert event.all("p", cls="wrong")


@pytest.mark.parametrize("page", PAGES)
async def test_an_empty_log_is_told(client: httpx.AsyncClient, log: Log, page: str) -> None:
    """Without a single event every page says so instead of failing."""
    answer = await client.get(page)
    if page.startswith("events/"):
        assert answer.status_code == 404
        assert "there is no event" in Html(answer.text).text
        assert not log.reads
    else:
        assert answer.status_code == 200
        assert Html(answer.text).one("h1")


async def test_files_are_kept_by_their_contents(client: httpx.AsyncClient) -> None:
    """A file under its digest may be kept for good; under another it is answered, and asked for again next time."""
    name = "dashboard.css"
    good = await client.get(assets.address(name))
    assert good.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert good.headers["content-encoding"] == "gzip"
    other = await client.get(f"static/0123456789abcdef/{name}", headers={"Accept-Encoding": "identity"})
    assert other.headers["cache-control"] == "no-cache"
    assert "content-encoding" not in other.headers
    assert good.content == other.content
    for missing in ("vendor/htmx.min.js", "README.md", "../router.py", "htmx.LICENSE"):
        assert (await client.get(f"static/0123456789abcdef/{missing}")).status_code == 404


async def test_files_need_no_sign_in_and_no_event(client: httpx.AsyncClient, log: Log) -> None:
    """The files hold nothing of the log: anybody gets them, and nothing is recorded."""
    client.headers.pop("Authorization")
    assert (await client.get(assets.address("mark.svg"))).status_code == 200
    assert not log.reads


@pytest.mark.parametrize("prefix", ["", "audit", "/audit/"])
def test_a_prefix_that_is_none_is_refused(prefix: str) -> None:
    """The dashboard needs a place of its own."""
    with pytest.raises(ConfigurationError, match="no place"):
        audit_dashboard(require_admin=require_admin, prefix=prefix)


async def test_a_page_is_small(client: httpx.AsyncClient, filled: Log) -> None:
    """With everything it loads for the first time, no page takes 200 kB over the wire, though the host does not compress."""
    for n in range(60):
        filled.put(user_id=f"user-{n}", request_path=f"/api/nodes/{n}", resource_type="node", resource_id=str(n))
    for page in PAGES:
        answer = await client.get(page)
        html = Html(answer.text)
        total = len(answer.content)
        for address in [s.get("src") for s in html.all("script")] + [e.get("href") for e in html.all("link")]:
            total += int((await client.get(urljoin(str(answer.url), address))).headers["content-length"])
        assert total < 200_000, (page, total)


async def test_signing_out_is_the_hosts(client: httpx.AsyncClient, filled: Log) -> None:
    """Where the host names an address, a button posts to it; pages deeper in the tree find it too."""
    for page in PAGES:
        answer = await client.get(page)
        form = Html(answer.text).one("form", method="post", action="logout")
        assert urlsplit(urljoin(str(answer.url), form.get("action"))).path == "/logout"
