"""What people do with the pages: search, narrow down, zoom, go on, follow, open, prove, verify, with or without a mouse."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import time
import uuid
import zipfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
from playwright.sync_api import Page, expect

from indelible.queries import Filter, parse_search
from tests.browser.conftest import OpenPage
from tests.browser.hosting import Site


def until_now() -> str:
    """The words of a search that leave out what comes from now on."""
    return f"until:{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() - 1))}"


def query(page: Page) -> str:
    """The search in the page's address."""
    return parse_qs(urlsplit(page.url).query).get("q", [""])[0]


def shown(page: Page) -> list[str]:
    """The ids of the rows, from the top."""
    return [str(row.get_attribute("id")) for row in page.locator("tr.event").all()]


def test_dragging_across_the_chart_zooms_everywhere(page: Page) -> None:
    """The range that was drawn stands in the address, in the numbers, and in the way to the explorer."""
    page.goto("/audit/")
    total = page.locator(".tile b").first.inner_text()
    area = page.locator(".u-over").bounding_box()
    assert area is not None
    page.mouse.move(area["x"] + area["width"] * 0.3, area["y"] + 60)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.6, area["y"] + 80, steps=4)
    page.mouse.up()
    page.wait_for_url("**q=since*")
    assert re.fullmatch(r"since:\S+Z until:\S+Z", query(page))
    fewer = page.locator(".tile b").first.inner_text()
    assert 0 < int(fewer.replace(",", "")) < int(total.replace(",", ""))
    zoomed = query(page)
    page.get_by_role("navigation", name="Audit log").get_by_role("link", name="Explorer").click()
    page.wait_for_url("**/events?*")
    assert query(page) == zoomed
    expect(page.locator(".total b")).to_have_text(fewer)
    page.get_by_role("navigation", name="Audit log").get_by_role("link", name="Overview").click()
    expect(page.locator(".tile b").first).to_have_text(fewer)


def test_the_chart_tells_what_is_under_the_mouse(page: Page) -> None:
    """Hovering shows the span's numbers by outcome."""
    page.goto("/audit/")
    page.locator(".u-over").hover(position={"x": 200, "y": 50})
    expect(page.locator(".tip")).to_contain_text("success")


def test_a_range_is_one_click(page: Page) -> None:
    """The buttons set a span that counts back from now."""
    page.goto("/audit/")
    page.get_by_role("navigation", name="Range of time").get_by_role("link", name="Day").click()
    page.wait_for_url("**q=since%3A24h")
    expect(page.get_by_role("link", name="Day")).to_have_attribute("aria-current", "true")


def test_the_table_zooms_with_the_keyboard(page: Page) -> None:
    """What the mouse does with the chart, the keyboard does with the table that says the same."""
    page.goto("/audit/")
    page.get_by_text("The same as a table").focus()
    page.keyboard.press("Enter")
    page.locator("#chart-table a").nth(3).focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**q=since*")
    assert re.fullmatch(r"since:\S+ until:\S+", query(page))


def test_busiest_lead_to_their_events(page: Page) -> None:
    """A click on an event type shows exactly its events."""
    page.goto(f"/audit/?q={until_now()}")
    entry = page.locator(".tops", has_text="Event types").locator("a").first
    name, count = entry.locator(".name").inner_text(), entry.locator(".count").inner_text()
    entry.click()
    page.wait_for_url("**/events?*")
    expect(page.locator(".total b")).to_have_text(count)
    assert f"type:{name}" in query(page)


def test_typing_a_search_with_completion(page: Page) -> None:
    """Keys and values are offered as one types; arrows and Enter take them; a second Enter searches."""
    page.goto("/audit/events")
    page.keyboard.press("/")
    box = page.get_by_label("Search the log")
    expect(box).to_be_focused()
    page.keyboard.type("stat")
    expect(page.get_by_role("option", name="status:")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(box).to_have_value("status:")
    page.keyboard.type("den")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    expect(box).to_have_value("status:denied ")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.wait_for_url("**/events?q=status%3Adenied*")
    assert set(page.locator("tr.event .outcome").all_inner_texts()) == {"denied"}


def test_a_suggestion_can_be_clicked(page: Page) -> None:
    """The mouse takes one as well."""
    page.goto("/audit/events")
    page.get_by_label("Search the log").fill("type:login_f")
    page.get_by_role("option", name="type:login_failed").click()
    expect(page.get_by_label("Search the log")).to_have_value("type:login_failed ")


def test_narrowing_down_and_widening_again(page: Page) -> None:
    """A value of a facet becomes a condition with its number of events; the chip takes it away."""
    page.goto(f"/audit/events?q={until_now()}")
    all_of_them = page.locator(".total b").inner_text()
    choice = page.locator(".facets a", has_text="login_failed").first
    count = choice.locator(".count").inner_text()
    choice.click()
    page.wait_for_url("**login_failed**")
    expect(page.locator(".total b")).to_have_text(count)
    page.get_by_role("list", name="Conditions").get_by_text("login_failed").click()
    page.wait_for_url(lambda url: "login_failed" not in url)
    expect(page.locator(".total b")).to_have_text(all_of_them)


def test_showing_more(page: Page, site: Site) -> None:
    """More rows come below those that are there, each once; every page of them is a reading of its own."""
    page.goto(f"/audit/events?q={until_now()}")
    before = len(site.stored(Filter(event_type=("audit.read",), action=("read",))))
    page.get_by_role("link", name="Show more").click()
    expect(page.locator("tr.event")).to_have_count(100)
    assert len(set(shown(page))) == 100
    assert page.locator("time[datetime]:not([data-local])").count() == 0
    reads = site.stored(Filter(event_type=("audit.read",), action=("read",)), lambda rows: len(rows) > before)
    assert '"rows":50' in (reads[-1].metadata or "").replace(" ", "")


def test_more_that_does_not_come(page: Page, troubles: list[str]) -> None:
    """When the server refuses or is away, the list stays and the button says so; it works again when the server does."""
    page.goto(f"/audit/events?q={until_now()}")
    before = shown(page)
    page.route("**/events?*cursor=*", lambda route: route.fulfill(status=503, body="<h1>No</h1>"))
    page.get_by_role("link", name="Show more").click()
    expect(page.get_by_role("link", name="The server answered with 503. Try again")).to_be_visible()
    page.unroute("**/events?*cursor=*")
    page.route("**/events?*cursor=*", lambda route: route.abort())
    page.get_by_role("link", name="Try again").click()
    expect(page.get_by_role("link", name="The server did not answer. Try again")).to_be_visible()
    assert shown(page) == before
    page.unroute("**/events?*cursor=*")
    page.get_by_role("link", name="Try again").click()
    expect(page.locator("tr.event")).to_have_count(100)
    assert all("503" in trouble or "ERR_FAILED" in trouble or "htmx" in trouble for trouble in troubles), troubles
    troubles.clear()


def test_more_that_leads_elsewhere(page: Page, site: Site) -> None:
    """A host that redirects to its form, as it does for pages, gets the whole page and not a form in the list."""
    page.goto(f"/audit/events?q={until_now()}")
    page.evaluate("document.body.dataset.before = 1")
    page.route(
        "**/events?*cursor=*", lambda route: route.fulfill(status=303, headers={"Location": f"{site.url}/login"})
    )
    page.get_by_role("link", name="Show more").click()
    expect(page.locator("body:not([data-before])")).to_have_count(1)
    expect(page.locator("tr.event")).to_have_count(50)


def test_columns_are_chosen(page: Page) -> None:
    """The boxes make the table, and the address says which they are."""
    page.goto("/audit/events?q=type:data_modify")
    page.locator("summary", has_text="Columns").click()
    for name in ("Outcome", "Address", "Request"):
        page.get_by_label(name, exact=True).uncheck()
    page.get_by_label("Took").check()
    page.get_by_role("button", name="Show these").click()
    page.wait_for_url("**columns=**")
    heads = page.locator("table.events th").all_inner_texts()
    assert heads == ["Time", "Event", "User", "Resource", "Took"]
    assert query(page) == "type:data_modify"


def test_the_order_can_be_turned(page: Page, site: Site) -> None:
    """Oldest first shows the beginning of the log; live events are for the newest."""
    page.goto("/audit/events")
    expect(page.get_by_role("button", name="Live")).to_be_visible()
    page.get_by_role("link", name="Newest first").click()
    page.wait_for_url("**order=asc**")
    oldest = min(site.stored(Filter()), key=lambda row: (row.timestamp, row.seq))
    assert shown(page)[0] == f"e-{oldest.seq}"
    expect(page.get_by_role("button", name="Live")).to_have_count(0)


def test_exporting_what_is_shown(page: Page, tmp_path: Path) -> None:
    """The file has exactly the events of the search, as many as the page says."""
    page.goto(f"/audit/events?q=status:denied+{until_now()}")
    total = int(page.locator(".total b").inner_text())
    page.locator("summary", has_text="Export").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    download.value.save_as(tmp_path / "export.csv")
    with (tmp_path / "export.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == total
    assert {f"e-{row['seq']}" for row in rows} >= set(shown(page))
    assert {row["status"] for row in rows} == {"denied"}


def test_live_events_come_by_themselves(page: Page, site: Site) -> None:
    """Off until it is switched on; then what matches appears on top, and no more once it is off again."""
    page.goto("/audit/events?q=type:login_failed")
    live = page.get_by_role("button", name="Live")
    expect(live).to_have_attribute("aria-pressed", "false")
    before = shown(page)
    live.click()
    expect(live).to_have_attribute("aria-pressed", "true")
    httpx.post(f"{site.url}/api/auth/login", json={"username": "alice", "password": "wrong-but-long-enough"})
    expect(page.locator("tr.event")).to_have_count(len(before) + 1)
    assert shown(page)[1:] == before
    assert "fresh" in (page.locator("tr.event").first.get_attribute("class") or "")
    expect(page.locator("#said")).to_have_text("1 new")
    live.click()
    expect(live).to_have_attribute("aria-pressed", "false")
    wanted = Filter(event_type=("audit.read",), action=("tail",))
    assert site.stored(wanted, lambda rows: any('"rows":1' in (row.metadata or "").replace(" ", "") for row in rows))


def test_live_events_begin_an_empty_list(page: Page, site: Site) -> None:
    """Where nothing matched so far, the first event makes the list, and the page goes on following."""
    mark = uuid.uuid4().hex
    page.goto(f"/audit/events?q=correlation:{mark}")
    expect(page.locator("main")).to_contain_text("No event matches")
    page.get_by_role("button", name="Live").click()
    for count in (1, 2):
        httpx.get(f"{site.url}/api/nodes", headers={"X-Correlation-ID": mark})
        expect(page.locator("tr.event")).to_have_count(count)
    expect(page.get_by_role("button", name="Live")).to_have_attribute("aria-pressed", "true")


def test_the_keyboard_alone(page: Page) -> None:
    """Rows are walked with j and k, Enter opens one, g and a letter go to a page, ? tells all that."""
    page.goto("/audit/events?q=type:data_modify")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator("tr.event.at")).to_have_id(shown(page)[1])
    page.keyboard.press("Enter")
    page.wait_for_url("**/events/*-*")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("g")
    page.keyboard.press("i")
    page.wait_for_url("**/integrity")
    page.keyboard.press("g")
    page.keyboard.press("o")
    page.wait_for_url("**/audit/")
    page.keyboard.press("/")
    page.wait_for_url("**/events")


def test_the_first_tab_skips_to_the_content(page: Page) -> None:
    """The first stop is a link to the content, and what has the focus can be seen."""
    page.goto("/audit/events")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Search the log")).to_be_focused()
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_a_row_opens_its_event(page: Page) -> None:
    """A click anywhere in a row opens it; its page has landmarks and headings in order."""
    page.goto("/audit/events?q=type:data_modify+status:success")
    page.locator("tr.event").nth(2).locator("td.c-time").click()
    page.wait_for_url("**/events/*-*")
    expect(page.get_by_role("heading", level=1)).to_contain_text("data_modify")
    names = page.get_by_role("heading", level=2).all_inner_texts()
    assert {"Who", "What", "What changed", "Proof"} <= set(names)
    expect(page.locator("main")).to_match_aria_snapshot("""
        - main:
          - paragraph:
            - link "Explorer"
          - heading "success data_modify" [level=1]
        """)


def test_the_proof_and_its_evidence(page: Page, tmp_path: Path) -> None:
    """The steps end with the signed root, and the downloaded evidence convinces its own verifier."""
    page.goto("/audit/events?q=type:data_modify+until:2099-01-01&order=asc")
    page.locator("tr.event a.open").first.click()
    page.wait_for_url("**/events/*-*")
    expect(page.locator(".verdict.good")).to_contain_text("This event is in the log")
    page.get_by_text("The computation, step by step").click()
    hashes = page.locator(".steps .hash").all_inner_texts()
    assert hashes[-1] == hashes[-2]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the evidence").click()
    download.value.save_as(tmp_path / "evidence.zip")
    with zipfile.ZipFile(tmp_path / "evidence.zip") as file:
        file.extractall(tmp_path)
    (folder,) = tmp_path.glob("evidence-*/")
    command = [sys.executable, "verify_bundle.py", "."]
    assert subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 0


def test_from_an_event_to_its_actor_and_back(page: Page) -> None:
    """The user's name leads to everything by the user, whose newest event leads on."""
    page.goto("/audit/events?q=type:data_modify")
    user = page.locator("tr.event td.c-user a").first.inner_text()
    page.locator("tr.event a.open").first.click()
    page.wait_for_url("**/events/*-*")
    page.locator("main").get_by_role("link", name=user).first.click()
    page.wait_for_url("**/subject?user=*")
    expect(page.get_by_role("heading", level=1)).to_have_text(user)
    page.locator("tr.event a.open").first.click()
    page.wait_for_url("**/events/*-*")


def test_verifying_with_a_click(page: Page) -> None:
    """A verification tells how far it is and ends with what it found, in words that claim no more than that."""
    page.goto("/audit/integrity")
    page.get_by_role("button", name="Verify now").click()
    report = page.locator("#verify-report")
    expect(report).to_contain_text("The log agrees with itself, and that is all that can be said")
    expect(report).to_contain_text("unwitnessed")
    expect(page.get_by_role("button", name="Verify now")).to_be_enabled()
    expect(page.locator("#verify-progress")).to_be_hidden()


def test_a_link_shows_another_admin_the_same(open_page: OpenPage, site: Site) -> None:
    """Whoever opens the address of a view sees the same rows, columns and order."""
    address = f"/audit/events?q=status:failure+{until_now()}&columns=time,event,address&order=asc"
    mine, others = open_page(), open_page(color_scheme="dark", timezone_id="Asia/Tokyo")
    seen = []
    for page in (mine, others):
        page.goto(address)
        seen.append((shown(page), page.locator("table.events th").all_inner_texts(), page.url))
    assert seen[0] == seen[1]
    wanted = parse_search(query(mine), now=0)
    assert seen[0][0] == [f"e-{row.seq}" for row in site.stored(wanted)][:50]


def test_going_back_shows_the_view_before(page: Page) -> None:
    """The browser's own buttons go from view to view."""
    page.goto("/audit/events?q=status:denied")
    page.locator(".facets a", has_text="permission_denied").first.click()
    page.wait_for_url("**permission_denied**")
    page.go_back()
    page.wait_for_url("**/events?q=status:denied")
    expect(page.get_by_label("Search the log")).to_have_value("status:denied")
