"""``indelible dashboard`` in a browser: its link leads in, and the pages work as a host's do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.hosting import Site


@pytest.fixture
def link(site: Site, tmp_path: Path) -> Iterator[str]:
    """The link that the command prints, for the site's log and a data directory of its own."""
    env = {
        **os.environ,
        "INDELIBLE_DATABASE_URL": site.settings.database_url,
        "INDELIBLE_DATA_DIR": str(tmp_path / "data"),
    }
    command = [sys.executable, "-c", "from indelible.cli import main; main()", "dashboard"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def test_the_link_leads_to_pages_that_work(open_page: OpenPage, link: str) -> None:
    """Overview, explorer with its live events, integrity; a second tab of the same browser is in as well, another is not."""
    root = link.partition("/enter")[0]
    page = open_page(url=root, signed_in=False)
    page.goto(link)
    page.wait_for_url(f"{root}/audit/")
    assert "token" not in urlsplit(page.url).query
    for name, path in (("Integrity", "/audit/integrity"), ("Explorer", "/audit/events")):
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        page.wait_for_url(f"{root}{path}**")
    with page.expect_response("**/events/tail?**") as stream:
        page.get_by_role("button", name="Live").click()
    assert stream.value.ok
    page.get_by_role("button", name="Live").click()
    assert page.get_by_role("button", name="Sign out").count() == 0
    second = page.context.new_page()
    second.goto(f"{root}/audit/events")
    expect(second.get_by_role("heading", level=1)).not_to_contain_text("Forbidden")


def test_without_the_link_there_is_a_page_that_says_how(open_page: OpenPage, link: str, troubles: list[str]) -> None:
    """Whoever comes by another way is told to open the link."""
    root = link.partition("/enter")[0]
    page = open_page(url=root, signed_in=False)
    page.goto(f"{root}/audit/events")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Forbidden")
    expect(page.get_by_text("open the link that indelible dashboard printed")).to_be_visible()
    assert len(troubles) == 1
    troubles.clear()
