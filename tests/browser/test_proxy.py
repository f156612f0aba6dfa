"""Behind nginx, below a path, with TLS: everything works, and the host knows nothing of it."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.hosting import Site
from tests.browser.proxying import nginx

VIEW = "/audit/events?q=type%3Alogin_failed"


@pytest.fixture(scope="module")
def proxied(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the site behind the proxy."""
    with nginx(tmp_path_factory.mktemp("nginx"), site.url) as url:
        yield url


@pytest.fixture
def there(open_page: OpenPage, proxied: str) -> Page:
    """A tab at the proxy that is signed in as the admin."""
    return open_page(url=proxied, ignore_https_errors=True)


def test_signing_in_and_out(open_page: OpenPage, proxied: str, site: Site) -> None:
    """The form, the way back to the view, a cookie that never travels in clear, and the button that ends it."""
    page = open_page(url=proxied, signed_in=False, ignore_https_errors=True)
    page.goto(proxied + VIEW)
    assert urlsplit(page.url).path == "/fog/login"
    page.get_by_label("Username").fill(site.username)
    page.get_by_label("Password").fill(site.password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(proxied + VIEW)
    (cookie,) = page.context.cookies()
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{proxied}/login")
    page.goto(proxied + VIEW)
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def test_every_link_stays_below_the_prefix(there: Page, proxied: str) -> None:
    """From page to page by the navigation, into an event and on to its proof: no link knows where it is."""
    there.goto(f"{proxied}/audit")
    assert there.url == f"{proxied}/audit/"
    for name, path in (("Explorer", "/audit/events"), ("Integrity", "/audit/integrity"), ("Overview", "/audit/")):
        there.get_by_role("navigation").get_by_role("link", name=name).click()
        there.wait_for_url(f"{proxied}{path}**")
        for link in there.get_by_role("link").all():
            assert str(link.evaluate("element => element.href")).startswith(f"{proxied}/"), link
    there.goto(proxied + VIEW)
    there.get_by_role("row").nth(1).get_by_role("link").first.click()
    there.wait_for_url(f"{proxied}/audit/events/*")
    expect(there.get_by_role("heading", level=1)).to_be_visible()


def test_live_events_arrive(there: Page, proxied: str, site: Site) -> None:
    """The stream passes the proxy as it is written, not when its buffer is full."""
    path = f"/api/live-{uuid.uuid4().hex}"
    there.goto(f"{proxied}/audit/events?q={path}")
    row = there.get_by_role("cell", name=f"GET {path}", exact=True)
    expect(row).to_have_count(0)
    with there.expect_response("**/events/tail?**"):
        there.get_by_role("button", name="Live").click()
    assert httpx.get(site.url + path).status_code == 404
    expect(row).to_be_visible()
    there.get_by_role("button", name="Live").click()


def test_exports_are_downloaded(there: Page, proxied: str) -> None:
    """The file is what the view shows, whole, under a name of its own."""
    there.goto(proxied + VIEW)
    there.get_by_text("Export", exact=True).click()
    with there.expect_download() as started:
        there.get_by_role("link", name="CSV").click()
    download = started.value
    assert download.suggested_filename.endswith(".csv")
    text = Path(download.path()).read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert rows
    assert {row["event_type"] for row in rows} == {"login_failed"}


def test_a_verification_is_started_from_the_page(there: Page, proxied: str) -> None:
    """What changes something is checked for where it comes from, and that holds behind the proxy too."""
    there.goto(f"{proxied}/audit/integrity")
    with there.expect_response(lambda response: response.request.method == "POST") as answered:
        there.get_by_role("button", name="Verify").first.click()
    assert answered.value.ok
