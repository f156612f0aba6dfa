"""Signing in, coming back, and signing out, as a person does it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from indelible.queries import Filter
from tests.browser.conftest import OpenPage
from tests.browser.hosting import Site

VIEW = "/audit/events?q=type%3Alogin_failed&columns=time,user,address"


def sign_in(page: Page, username: str, password: str) -> None:
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_signed_out_it_leads_to_the_form_and_back_to_the_view(open_page: OpenPage, site: Site) -> None:
    """A link to a view asks for a name and a password, and then shows exactly that view."""
    page = open_page(signed_in=False)
    page.goto(VIEW)
    expect(page).to_have_title("Sign in · Fog Compute")
    expect(page.get_by_label("Username")).to_be_focused()
    sign_in(page, site.username, site.password)
    page.wait_for_url(site.url + VIEW)
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["secure"]) == (True, "Lax", False)


def test_the_form_works_with_the_keyboard_alone(open_page: OpenPage, site: Site) -> None:
    """The name has the focus; Tab leads to the password, Enter sends the form."""
    page = open_page(signed_in=False)
    page.goto(VIEW)
    # The focus comes with the first frame that the page draws, which may be later than its load event.
    expect(page.get_by_label("Username")).to_be_focused()
    page.keyboard.type(site.username)
    page.keyboard.press("Tab")
    page.keyboard.type(site.password)
    page.keyboard.press("Enter")
    page.wait_for_url(site.url + VIEW)


def test_a_wrong_password_is_said(
    open_page: OpenPage, site: Site, troubles: list[str], axe: Callable[[Page], None]
) -> None:
    """The form comes again with a sentence and the name, the password field has the focus; then the right one works."""
    page = open_page(signed_in=False)
    page.goto(VIEW)
    sign_in(page, site.username, "not this one")
    expect(page.get_by_role("alert")).to_have_text("The user name or the password is wrong.")
    expect(page.get_by_label("Username")).to_have_value(site.username)
    expect(page.get_by_label("Password")).to_be_focused()
    axe(page)
    # Chromium says that the page was answered with 401.
    assert len(troubles) == 1
    troubles.clear()
    page.get_by_label("Password").fill(site.password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(site.url + VIEW)


def test_signing_out_is_a_button(open_page: OpenPage, site: Site) -> None:
    """After it the pages ask for a name again, and the log has a logout."""
    page = open_page(signed_in=False)
    page.goto(VIEW)
    sign_in(page, site.username, site.password)
    page.wait_for_url(site.url + VIEW)
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{site.url}/login")
    assert page.context.cookies() == []
    page.goto(VIEW)
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert site.stored(Filter(event_type=("logout",)))[-1].user_id is not None


def test_whoever_is_no_admin_is_told_so_and_can_leave(open_page: OpenPage, site: Site, troubles: list[str]) -> None:
    """The page says that it is forbidden and has the button; the attempt is in the log with who made it."""
    page = open_page(signed_in=False)
    page.goto(VIEW)
    sign_in(page, site.bob, site.bob_password)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Forbidden")
    assert len(troubles) == 1
    troubles.clear()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{site.url}/login")
    denied = site.stored(Filter(event_type=("permission_denied",), resource_type="audit_log"))
    assert denied[-1].user_id is not None


def test_a_session_that_ends_under_an_open_page(open_page: OpenPage, site: Site, troubles: list[str]) -> None:
    """The next thing the page fetches sends the whole page to the form, from which it comes back to where it was."""
    page = open_page()
    page.goto(VIEW)
    page.context.clear_cookies()
    page.evaluate("htmx.ajax('GET', location.href, {target: 'main', swap: 'innerHTML'})")
    page.wait_for_url("**/login?next=*")
    troubles.clear()
    sign_in(page, site.username, site.password)
    page.wait_for_url(site.url + VIEW)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_form_looks_good(
    open_page: OpenPage, axe: Callable[[Page], None], screenshot: Callable[[Page, str], None], scheme: str, width: int
) -> None:
    """No serious finding of axe-core in either theme, no sideways scrolling on a phone; kept as a picture."""
    page = open_page(signed_in=False, color_scheme=scheme, viewport={"width": width, "height": 800})
    page.goto("/login")
    axe(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    screenshot(page, f"login-{width}-{scheme}")
