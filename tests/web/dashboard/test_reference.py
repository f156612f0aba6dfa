"""The page of the reference about the pages is true."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi.routing import APIRoute

from indelible.queries import FACETS_CAP
from indelible.web.dashboard import audit_dashboard, explorer, subject
from indelible.web.dashboard.asking import COLUMNS, SHOWN
from tests.web.dashboard.conftest import require_admin

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "pages.md").read_text()


def test_every_address_is_documented() -> None:
    """The tables list what is served, no more and no less."""
    router = audit_dashboard(require_admin=require_admin)
    served = {
        ("POST " if "POST" in (route.methods or ()) else "") + route.path.removeprefix("/audit")
        for route in router.routes
        if isinstance(route, APIRoute)
    }
    assert set(re.findall(r"^\| `((?:POST )?/[^`]*)`", PAGE, re.MULTILINE)) == served - {""}


def test_every_column_and_number_is_documented() -> None:
    """Columns in their order, the default ones first, and the bounds as they are."""
    listed = PAGE[PAGE.index("`columns` is a list") :].partition("\n\n")[0]
    assert re.findall(r"`(\w+)`", listed)[1:] == list(COLUMNS)
    assert tuple(COLUMNS)[: len(SHOWN)] == SHOWN
    for number in (FACETS_CAP, subject.SAMPLE):
        assert f"{number:,}" in PAGE
    assert f"{explorer.ROWS} rows" in PAGE
    assert explorer.ROWS == subject.ROWS
