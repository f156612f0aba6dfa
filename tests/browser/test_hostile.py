"""Stored values that want to be more than text: in a real browser, on every page, nothing of them runs."""

from __future__ import annotations

import time
import uuid

import pytest
from playwright.sync_api import Page, expect

from indelible.events import AuditEvent
from indelible.runtime import open_store
from tests.browser.hosting import Site

VALUES = (
    "<script>window.ran = 1</script>",
    '"><img src=x onerror="window.ran = 1">',
    "'><svg onload=window.ran=1>",
    "javascript:window.ran=1",
    "</textarea></title></style><iframe srcdoc='<script>parent.ran=1</script>'>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u0007\u2028",
    "x" * 3_000,
)


@pytest.fixture
def mark() -> str:
    """The correlation id of this test's events: the log is everybody's."""
    return f"hostile-{uuid.uuid4().hex[:8]}"


def store(site: Site, mark: str) -> uuid.UUID:
    """One event for each value, the value in every field that takes text; the id of the first."""
    names = (
        *("action", "tenant_id", "resource_type", "request_method", "source", "user_id", "on_behalf_of", "ip_address"),
        *("user_agent", "session_id", "correlation_id", "resource_id", "request_path", "error"),
    )
    events = [
        AuditEvent(
            id=uuid.uuid4(),
            timestamp=time.time_ns() // 1000,
            event_type="data_modify",
            status="success",
            **dict.fromkeys(names, value) | {"correlation_id": mark},  # type: ignore[arg-type]
            old_value=f'{{"{"k" * 40}": "before"}}',
            new_value=value,
            metadata=value,
        )
        for value in VALUES
    ]
    log = open_store(site.settings)
    log.open()
    log.append(uuid.uuid4(), 0, events)
    log.close()
    return events[0].id


def test_nothing_stored_runs(page: Page, site: Site, mark: str) -> None:
    """Every page that shows the values shows them as text: no script runs, nothing is asked for, no element appears."""
    first = store(site, mark)
    page.goto(f"/audit/events?q=correlation:{mark}")
    expect(page.locator("tr.event")).to_have_count(len(VALUES))
    addresses = [
        "/audit/",
        f"/audit/events?q=correlation:{mark}&columns=time,user,agent,error,correlation,source,action,address,event",
        f"/audit/events/{first}",
        *(page.locator("tr.event td.c-user a").nth(at).evaluate("link => link.href") for at in range(len(VALUES))),
        *(page.locator("tr.event td.c-resource a").nth(at).evaluate("link => link.href") for at in range(3)),
        *(page.locator("tr.event a.open").nth(at).evaluate("link => link.href") for at in range(len(VALUES))),
    ]
    width = page.viewport_size["width"] if page.viewport_size else 0
    for address in addresses:
        page.goto(address)
        assert page.evaluate("window.ran") is None, address
        assert page.locator("iframe, img, body script:not([src]), [onload], [onerror]").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
    page.goto(f"/audit/events/{first}")
    expect(page.locator("main")).to_contain_text(VALUES[0])


def test_nothing_typed_runs(page: Page, troubles: list[str]) -> None:
    """The search bar gives hostile text back as text, in the bar, in the title, in the message."""
    for value in VALUES[:6]:
        page.goto("/audit/events")
        page.get_by_label("Search the log").fill(f"usr:{value}")
        page.keyboard.press("Enter")
        page.wait_for_url("**q=usr**")
        expect(page.get_by_label("Search the log")).to_have_value(f"usr:{value}".strip())
        assert page.evaluate("window.ran") is None
        assert page.locator("iframe, img, body script:not([src])").count() == 0
    assert {trouble.split(" (")[0] for trouble in troubles} <= {
        "Failed to load resource: the server responded with a status of 422"
    }
    troubles.clear()


def test_live_rows_are_text_too(page: Page, site: Site, mark: str) -> None:
    """Rows that arrive while one looks are escaped like all others."""
    store(site, mark)
    page.goto(f"/audit/events?q=correlation:{mark}")
    page.get_by_role("button", name="Live").click()
    store(site, mark)
    expect(page.locator("tr.fresh")).to_have_count(len(VALUES))
    assert page.evaluate("window.ran") is None
    assert page.locator("iframe, img, body script:not([src])").count() == 0
