"""Every page in both themes, on a desk and on a phone: accessible, within its window, small, and kept as a picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from playwright.sync_api import Page, Response, expect

from indelible.synthetic import person
from tests.browser.conftest import OpenPage

#: Pages by the names of their pictures.
PAGES = {
    "overview": "/audit/",
    "explorer": "/audit/events?q=until:2099-01-01",
    "explorer-narrowed": "/audit/events?q=type:data_modify+status:success",
    "subject": f"/audit/subject?user={person(0)}",
    "integrity": "/audit/integrity",
    "mistake": "/audit/events?q=usr:alice",
    "nothing": "/audit/events?q=user:nobody",
    "missing": "/audit/events/00000000-0000-0000-0000-000000000000",
}
#: Those that are answered with an error, of which Chromium's console tells.
WRONG = ("mistake", "missing")
LIMIT = 200_000


def an_event(page: Page) -> str:
    """The address of an event that changed something."""
    page.goto("/audit/events?q=type:data_modify+until:2099-01-01")
    page.locator("tr.event a.open").nth(3).click()
    page.wait_for_url("**/events/*-*")
    return page.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_look_good(
    open_page: OpenPage,
    axe: Callable[[Page], None],
    screenshot: Callable[[Page, str], None],
    troubles: list[str],
    scheme: str,
    width: int,
) -> None:
    """No sideways scrolling whatever the page is looked at with, and no serious finding of axe-core.

    That is asked of each theme and of each width, but not of each of both: it takes a second a page.
    """
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 860})
    for name, address in {**PAGES, "event": an_event(page)}.items():
        page.goto(address)
        if name in ("overview", "integrity"):
            expect(page.locator(".uplot")).to_have_count(1)
        steps = page.locator(".proof details")
        if name == "event":
            steps.evaluate("each => { each.open = true }")
        if (width, scheme) in ((1280, "light"), (390, "dark")):
            axe(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width, name
        screenshot(page, f"{name}-{width}-{scheme}")
        if name in WRONG:
            assert len(troubles) == 1
            troubles.clear()


def test_the_theme_is_the_systems_until_one_is_chosen(open_page: OpenPage) -> None:
    """The button switches, the choice holds for the next page, and the chart is drawn anew in its colours."""
    page = open_page(color_scheme="dark")
    page.goto("/audit/")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Switch between light and dark").click()
    light = page.evaluate(background)
    assert light != dark
    page.get_by_role("link", name="Integrity").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Integrity")
    assert page.evaluate(background) == light
    page.keyboard.press("t")
    assert page.evaluate(background) == dark


def test_no_page_loads_much(open_page: OpenPage) -> None:
    """Over the wire, with an empty cache, no page takes 200 kB; a second page of the same kind takes its HTML alone."""
    for address in PAGES.values():
        if address in (PAGES["mistake"], PAGES["missing"]):
            continue
        page = open_page()
        answers: list[Response] = []
        page.on("response", partial(list.append, answers))
        page.goto(address, wait_until="networkidle")
        sizes = {answer.url: answer.request.sizes()["responseBodySize"] for answer in answers}
        assert sum(sizes.values()) < LIMIT, sizes
        page.context.close()


def test_times_are_local_and_utc_on_hover(open_page: OpenPage) -> None:
    """A time is shown in the browser's zone; its title has it in UTC, to the microsecond."""
    page = open_page(timezone_id="America/New_York")
    page.goto("/audit/events?q=until:2099-01-01")
    time = page.locator("tr.event time").first
    instant = time.get_attribute("datetime")
    assert instant is not None
    local = page.evaluate("t => new Date(t).toLocaleString('sv-SE', {timeZone: 'America/New_York'})", instant)
    expect(time).to_have_text(local)
    title = time.get_attribute("title")
    assert title is not None
    assert title.endswith(" UTC")
    assert title[:19] == instant[:19].replace("T", " ")


def test_usual_hours_are_the_browsers(open_page: OpenPage) -> None:
    """The strip is turned by the zone's hours, nothing is lost, and it names the zone."""
    counts = "[...document.querySelectorAll('#hours tbody td')].map(cell => +cell.dataset.n)"
    seen = {}
    for zone in ("UTC", "Asia/Tokyo"):
        page = open_page(timezone_id=zone)
        page.goto(f"/audit/subject?user={person(0)}")
        seen[zone] = page.evaluate(counts)
    expect(page.locator("#hours-zone")).to_have_text("Asia/Tokyo")
    assert seen["Asia/Tokyo"] == seen["UTC"][-9:] + seen["UTC"][:-9]
    assert sum(seen["UTC"]) > 0


def test_everything_can_be_read_without_script(open_page: OpenPage) -> None:
    """With script switched off the search, the list and its pages work all the same."""
    page = open_page(java_script_enabled=False)
    page.goto("/audit/events?q=until:2099-01-01")
    first = page.locator("tr.event").first.get_attribute("id")
    page.get_by_role("link", name="Show more").click()
    expect(page.locator("tr.event").first).not_to_have_id(first or "")
    page.get_by_label("Search the log").fill("status:denied")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**/events?q=status%3Adenied*")
    outcomes = page.locator("tr.event .outcome").all_inner_texts()
    assert outcomes
    assert set(outcomes) == {"denied"}


def test_nothing_moves_for_who_asks_for_that(open_page: OpenPage) -> None:
    """With reduced motion no element has an animation or a transition."""
    page = open_page(reduced_motion="reduce")
    page.goto("/audit/events")
    moving = """[...document.querySelectorAll('*')].filter(each => {
        const style = getComputedStyle(each);
        return style.animationName !== 'none' || parseFloat(style.transitionDuration) > 0;
    }).length"""
    assert page.evaluate(moving) == 0
