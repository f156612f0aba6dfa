"""A real Chromium in front of a real uvicorn with the reference host and a week of events.

Whatever a page says to its console, every script error, every violation of its policy and every request to another host
fails the test that opened it. Screenshots go to ``.artifacts/screenshots``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.hosting import Site, serve

SCREENSHOTS = Path(__file__).resolve().parents[2] / ".artifacts" / "screenshots"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
#: Milliseconds that a step of a test may take on a machine that does other things as well.
PATIENCE = 30_000
OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Debian's Chromium is. A machine without it fails these tests: nothing is skipped."""
    found = shutil.which("chromium")
    if found is None:
        pytest.fail("there is no Chromium on this machine: apt-get install -y chromium", pytrace=False)
    return found


# For one module: between start and stop an event loop counts as running, which tests that bring their own do not take.
@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Chromium, driven by Playwright."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The reference host on SQLite, with a week of events and the traffic of the demo in its log."""
    with serve(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def troubles() -> list[str]:
    """What the pages of this test complained about. It must be empty at the end: a test that provokes one clears it."""
    return []


@pytest.fixture
def open_page(browser: Browser, site: Site, troubles: list[str]) -> Iterator[OpenPage]:
    """A function that opens an empty tab, as the admin or with ``signed_in=False`` as nobody.

    ``url`` is another place that serves the site; further arguments are those of Playwright's ``new_context``, for example
    ``color_scheme="dark"`` or ``viewport={"width": 390, "height": 844}``.
    """
    contexts: list[BrowserContext] = []

    def open_page(*, signed_in: bool = True, url: str | None = None, **options: Any) -> Page:
        base = url or site.url
        defaults = {
            "base_url": base,
            "viewport": {"width": 1280, "height": 800},
            "locale": "en-GB",
            "timezone_id": "UTC",
            "reduced_motion": "reduce",
        }
        context = browser.new_context(**(defaults | options))
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        if signed_in:
            context.add_cookies([{"name": "fog_session", "value": site.session, "url": base}])
        context.add_init_script(
            "document.addEventListener('securitypolicyviolation', event =>"
            " console.error('policy: ' + event.violatedDirective + ' ' + event.blockedURI))"
        )
        page = context.new_page()
        page.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(f"{error.name}: {error.message}"))
        host = urlsplit(base).netloc
        page.on("request", lambda request: _check_host(request.url, host, troubles))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def _check_host(url: str, host: str, troubles: list[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != host:
        troubles.append(f"a request to another host: {url}")


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """A tab that is signed in as the admin."""
    return open_page()


@pytest.fixture
def axe() -> Callable[[Page], None]:
    """A function that fails when axe-core finds something serious or critical on a page."""

    def check(page: Page) -> None:
        found = Axe().run(page).response["violations"]
        grave = [each for each in found if each["impact"] in ("serious", "critical")]
        told = [f"{each['id']}: {each['help']}: {node['html']}" for each in grave for node in each["nodes"][:5]]
        assert not told, "\n".join(told)

    return check


@pytest.fixture
def screenshot() -> Callable[[Page, str], None]:
    """A function that keeps what a page looks like, from top to bottom, under a name."""

    def keep(page: Page, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    return keep
