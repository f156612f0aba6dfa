"""The browser tests can fail: what a page does wrong is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import OpenPage
from tests.browser.hosting import Site


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("console.error('broken')", "broken"),
        ("document.body.append(Object.assign(document.createElement('script'), {text: '1'}))", "policy: script-src"),
        ("document.body.append(Object.assign(new Image(), {src: 'https://elsewhere.test/x.png'}))", "policy: img-src"),
        ("fetch('nothing-here')", "404"),
    ],
)
def test_what_a_page_says_is_noticed(page: Page, troubles: list[str], script: str, said: str) -> None:
    """Errors on the console, violations of the policy, missing files."""
    page.goto("/audit/events")
    assert troubles == []
    with page.expect_console_message(lambda message: said in message.text):
        page.evaluate(f"{{ {script} }}")
    assert any(said in trouble for trouble in troubles)
    troubles.clear()


def test_what_a_page_throws_is_noticed(page: Page, troubles: list[str]) -> None:
    """An exception that no script catches."""
    page.goto("/audit/events")
    with page.expect_event("pageerror"):
        page.evaluate("{ setTimeout(() => { throw new TypeError('thrown') }) }")
    assert troubles == ["TypeError: thrown"]
    troubles.clear()


def test_requests_to_other_hosts_are_noticed(page: Page, site: Site, troubles: list[str]) -> None:
    """Whatever leaves the site, be it for the same machine under another name."""
    elsewhere = site.url.replace("localhost", "127.0.0.1")
    page.goto(f"{elsewhere}/login", wait_until="networkidle")
    assert troubles[0] == f"a request to another host: {elsewhere}/login"
    troubles.clear()


def test_inaccessible_pages_are_noticed(page: Page, axe: Callable[[Page], None]) -> None:
    """A field without a label is a critical finding of axe-core."""
    page.goto("/audit/events")
    page.evaluate("document.querySelector('main').append(document.createElement('input'))")
    with pytest.raises(AssertionError, match="label"):
        axe(page)


def test_a_machine_without_chromium_fails() -> None:
    """Nothing is skipped: the tests fail at once, with the line that installs it."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"{__file__}::test_each_tab_is_somebody_of_its_own",
        ],
        env={**os.environ, "PATH": str(Path(sys.executable).parent)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    assert "apt-get install -y chromium" in done.stdout
    assert "skipped" not in done.stdout


def test_each_tab_is_somebody_of_its_own(open_page: OpenPage) -> None:
    """Tabs share no cookies: one that is not signed in stays so beside one that is."""
    mine, nobodys = open_page(), open_page(signed_in=False)
    mine.goto("/audit/events")
    nobodys.goto("/audit/events")
    assert "/login?" not in mine.url
    assert "/login?" in nobodys.url
