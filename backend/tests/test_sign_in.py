"""Signing in with a browser: there and back again, the cookie, the events, and what other sites may not do."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from urllib.parse import unquote, urljoin, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from backend.server.models import User
from backend.server.returning import HOME, safe
from backend.server.routes.auth import add_user
from backend.server.services.audit_service import get_audit_service
from indelible.events import StoredEvent

PASSWORD = "correct horse battery staple"
OURS = {"Sec-Fetch-Site": "same-origin"}
Stored = Callable[[str], Awaitable[list[StoredEvent]]]


@pytest.fixture
def ann(app: FastAPI) -> User:
    """An admin."""
    return add_user("Ann", "ann@example.org", PASSWORD, role="admin")


@pytest.fixture
def bob(app: FastAPI) -> User:
    """Somebody who is none."""
    return add_user("bob", "bob@example.org", PASSWORD)


async def log_in(client: httpx.AsyncClient, username: str, **more: str) -> httpx.Response:
    form = {"username": username, "password": PASSWORD, **more}
    return await client.post("/login", data=form, headers=OURS)


def at(response: httpx.Response) -> str:
    """Where the browser goes now."""
    assert response.status_code == 303
    return urljoin(str(response.url), response.headers["location"])


@pytest.mark.parametrize(
    "view",
    [
        "/audit/",
        "/audit/events",
        "/audit/events?q=status%3Adenied+user%3A%22Ann+Lee%22&columns=time,user",
        "/audit/events/01a20ed2-071d-764b-9cd5-e2d1c5ecbc95?q=%E2%9C%93&x=[1]|{2}",
    ],
)
async def test_a_signed_out_visitor_comes_back_to_the_exact_view(
    client: httpx.AsyncClient, ann: User, view: str
) -> None:
    """Any page of the log leads to the form, and the form leads back to that page with all its parameters."""
    away = at(await client.get(view, follow_redirects=False))
    page = await client.get(away)
    assert (page.status_code, urlsplit(away).path) == (200, "/login")
    assert [re.search(rf"<label for=\"{name}\">(\w+)</label>", page.text)[1] for name in ("username", "password")] == [  # type: ignore[index]
        "Username",
        "Password",
    ]
    assert '<button type="submit">Sign in</button>' in page.text
    wanted = re.search(r'name="next" value="([^"]*)"', page.text)
    assert wanted is not None
    signed_in = await log_in(client, "ann", next=wanted[1].replace("&amp;", "&").replace("&#39;", "'"))
    assert unquote(at(signed_in)) == unquote(f"http://fog.test{view}")


async def test_the_cookie_is_for_this_site_and_no_script(client: httpx.AsyncClient, ann: User) -> None:
    """HttpOnly, SameSite=Lax, as long as a token lives, for the application's root; the pages open with it."""
    response = await log_in(client, "ann")
    assert at(response) == f"http://fog.test/{HOME}"
    parts = response.headers["set-cookie"].split("; ")
    assert sorted(parts[1:]) == ["HttpOnly", "Max-Age=3600", "Path=/", "SameSite=lax"]
    assert (await client.get("/audit/events")).status_code == 200
    assert at(await client.get("/login?next=audit/integrity")) == "http://fog.test/audit/integrity"
    # The API is for tokens: a page of another site cannot use the cookie on it.
    assert (await client.get("/api/audit/logs")).status_code == 401


async def test_a_program_may_read_the_pages_with_its_token(
    client: httpx.AsyncClient, sign_in: Callable[..., Awaitable[dict[str, str]]]
) -> None:
    """A bearer token counts as it does for the API, and a wrong one is 401, not the form."""
    headers = await sign_in("carol", role="admin")
    assert (await client.get("/audit/events", headers=headers)).status_code == 200
    assert (await client.get("/audit/events", headers={"Authorization": "Bearer x"})).status_code == 401


@pytest.mark.parametrize(
    ("scheme", "peer", "forwarded", "secure"),
    [
        ("https", "192.0.2.7", None, True),
        ("http", "192.0.2.7", None, False),
        ("http", "10.0.0.1", "https", True),
        ("http", "10.0.0.1", "http", False),
        ("http", "192.0.2.7", "https", False),
    ],
)
async def test_the_cookie_is_secure_where_the_connection_is(
    app: FastAPI,
    ann: User,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    peer: str,
    forwarded: str | None,
    secure: bool,
) -> None:
    """TLS here, or at a trusted proxy; what a stranger says about its connection changes nothing."""
    settings = get_audit_service().settings.model_copy(update={"trusted_proxies": ("10.0.0.0/8",)})
    monkeypatch.setattr(get_audit_service(), "settings", settings)
    headers = {**OURS, **({"X-Forwarded-Proto": forwarded} if forwarded else {})}
    transport = httpx.ASGITransport(app, client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url=f"{scheme}://fog.test", headers=headers) as client:
        response = await client.post("/login", data={"username": "ann", "password": PASSWORD})
    assert ("Secure" in response.headers["set-cookie"].split("; ")) == secure


async def test_it_works_below_a_path_prefix(app: FastAPI, ann: User) -> None:
    """With a root path, cookie and addresses are those below it, and every reference is relative."""
    transport = httpx.ASGITransport(app, root_path="/fog")
    async with httpx.AsyncClient(transport=transport, base_url="https://host.test/fog") as client:
        away = at(await client.get("/audit/events?q=x"))
        assert away == "https://host.test/fog/login?next=audit%2Fevents%3Fq%3Dx"
        response = await log_in(client, "ann", next="audit/events?q=x")
        assert at(response) == "https://host.test/fog/audit/events?q=x"
        assert "Path=/fog" in response.headers["set-cookie"].split("; ")
        assert (await client.get("/audit/events?q=x")).status_code == 200
        page = (await client.get("/login?next=x", headers={"Cookie": ""})).text
        assert not re.search(r'(href|src|action)="(/|[a-z]+:)', page)
        assert at(await client.post("/logout", headers=OURS)) == "https://host.test/fog/login"
        assert at(await client.get("/audit/events")).startswith("https://host.test/fog/login")


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.test/",
        "//evil.test",
        "/\\evil.test",
        "\\\\evil.test",
        "javascript:alert(1)",
        "data:text/html,x",
        "/audit/",
        "../other",
        "audit/../../other",
        "audit/%2E%2e/%2e%2e/other",
        ".",
        "\thttps://evil.test",
        "audit\r\nSet-Cookie: x=1",
        "audit/\x00",
        "audit/#x",
        "a" * 5000,
        "",
        "?x",
        "@evil.test",
    ],
)
async def test_a_link_to_sign_in_leads_to_no_other_site(client: httpx.AsyncClient, ann: User, target: str) -> None:
    """Whatever stands in ``next``, signing in ends at home unless it is a path of this application."""
    assert safe(target) == HOME
    assert at(await log_in(client, "ann", next=target)) == f"http://fog.test/{HOME}"


@given(st.text() | st.text("/\\.:%2eEaA?#@\t\n -"))
def test_wherever_it_leads_is_below_the_root(target: str) -> None:
    """A browser that resolves it stays on this host, under this prefix."""
    there = urlsplit(urljoin("https://host.test/fog/login", safe(target)))
    assert (there.scheme, there.netloc) == ("https", "host.test")
    assert there.path.startswith("/fog/")


async def test_a_part_of_a_page_makes_the_page_load_again(client: httpx.AsyncClient) -> None:
    """When the session ends under an open page, its next request for a part is 401 with an order to reload."""
    response = await client.get("/audit/events", headers={"HX-Request": "true"})
    assert (response.status_code, response.headers["hx-refresh"]) == (401, "true")


async def test_the_events_are_those_of_the_api(client: httpx.AsyncClient, ann: User, stored: Stored) -> None:
    """A log-in, a failed one and a log-out by page leave what the same by API leaves."""
    api = {"username": "ANN", "password": PASSWORD}
    token = (await client.post("/api/auth/login", json=api)).json()["access_token"]
    await client.post("/api/auth/login", json={**api, "password": "wrong"})
    await client.post("/api/auth/logout", headers={"Authorization": f"Bearer {token}"})
    assert (await client.post("/login", data={**api, "password": "wrong"}, headers=OURS)).status_code == 401
    await log_in(client, "ANN")
    await client.post("/logout", headers=OURS)
    for event_type, by in (("login", str(ann.id)), ("login_failed", None), ("logout", str(ann.id))):
        first, second = await stored(event_type)
        assert (first.user_id, second.user_id) == (by, by)
        for name in ("action", "status", "resource_type", "resource_id", "ip_address", "metadata"):
            assert getattr(first, name) == getattr(second, name), (event_type, name)
    (_, failed) = await stored("login_failed")
    assert json.loads(str(failed.metadata))["username"] == "ANN"
    assert PASSWORD not in str(await stored("login"))


async def test_a_wrong_password_is_told_on_the_form(client: httpx.AsyncClient, ann: User) -> None:
    """401 with the form, the name still in it and never the password; a name no user can have is just as wrong."""
    response = await client.post(
        "/login", data={"username": '<b>"x', "password": "<i>secret", "next": "audit/events"}, headers=OURS
    )
    assert response.status_code == 401
    assert 'role="alert"' in response.text
    assert 'value="&lt;b&gt;&#34;x"' in response.text
    assert 'value="audit/events"' in response.text
    assert "secret" not in response.text
    assert "set-cookie" not in response.headers
    for form in ({"username": "x" * 300, "password": "y" * 300}, {"username": "ann"}, {}):
        assert (await client.post("/login", data=form, headers=OURS)).status_code == 401
    assert (await client.post("/login", data={"username": "x" * 20_000}, headers=OURS)).status_code == 413


async def test_somebody_who_is_no_admin_is_refused(client: httpx.AsyncClient, bob: User, stored: Stored) -> None:
    """403 with a page that lets them sign out, and one permission_denied event that names them."""
    await log_in(client, "bob")
    response = await client.get("/audit/events?q=x")
    assert response.status_code == 403
    assert "Sign out" in response.text
    (event,) = await stored("permission_denied")
    assert (event.user_id, event.status, event.resource_type) == (str(bob.id), "denied", "audit_log")
    assert await stored("audit.read") == []


async def test_a_signed_out_visit_is_recorded_as_denied(client: httpx.AsyncClient, stored: Stored) -> None:
    """Being sent to the form is no read of the log; like a 401 of the API it is a denied access to it."""
    await client.get("/audit/events")
    await client.get("/api/audit/logs")
    page, api = await stored("data_access")
    assert (page.status, page.resource_type) == (api.status, api.resource_type) == ("denied", "audit_log")


async def test_signing_out_ends_the_session_everywhere(client: httpx.AsyncClient, ann: User) -> None:
    """The cookie is taken away, and a copy of it is worth nothing any more; signing out twice is no error."""
    await log_in(client, "ann")
    copy = client.cookies["fog_session"]
    response = await client.post("/logout", headers=OURS)
    assert (at(response), "fog_session" in client.cookies) == ("http://fog.test/login", False)
    client.cookies.set("fog_session", copy, domain="fog.test", path="/")
    assert at(await client.get("/audit/events")).startswith("http://fog.test/login")
    assert (await client.post("/logout", headers=OURS)).status_code == 303


@pytest.mark.parametrize("path", ["/login", "/logout"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {},
    ],
)
async def test_another_site_signs_nobody_in_or_out(
    client: httpx.AsyncClient, ann: User, path: str, headers: dict[str, str]
) -> None:
    """A form that does not come from a page of this site is refused, and changes nothing."""
    await log_in(client, "ann")
    before = dict(client.cookies)
    response = await client.post(path, data={"username": "ann", "password": PASSWORD}, headers=headers)
    assert (response.status_code, dict(client.cookies)) == (403, before)
    assert (await client.get("/audit/events")).status_code == 200


async def test_nothing_inline_runs_on_the_form(client: httpx.AsyncClient) -> None:
    """A policy without scripts, nothing inline, no framing, no copy in a cache; its files come from this host."""
    page = await client.get("/login")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r"<script|<style|style=|\son\w+=", page.text)
    for reference in re.findall(r'(?:href|src)="([^"]+)"', page.text):
        assert (await client.get(urljoin("/login", reference))).status_code == 200
