"""docs/reference/guide.md has a row for everything the guide says, and the tests it names exist and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

import pytest

from scripts import guide

_COLLECT = """
import json, sys
import pytest
from _pytest.skipping import evaluate_skip_marks

class Collected:
    def pytest_collection_finish(self, session):
        found = {item.nodeid: evaluate_skip_marks(item) is not None for item in session.items}
        print("COLLECTED " + json.dumps(found))

sys.exit(pytest.main(["--collect-only", "-q", "-q", "--continue-on-collection-errors", "-p", "no:cacheprovider",
                      "-p", "no:xdist", *sys.argv[1:]], plugins=[Collected()]))
"""


@cache
def coverage() -> list[guide.Row]:
    """The rows of the table."""
    return guide.rows(guide.COVERAGE.read_text())


def test_every_statement_has_its_row() -> None:
    """The rows are the guide's statements: the same, in the same order, under the same headings."""
    said = [(each.section, each.text) for each in guide.statements(guide.GUIDE.read_text())]
    assert [(row.section, row.text) for row in coverage()] == said


def test_every_named_test_is_collected_and_not_skipped() -> None:
    """Each test that a row names can be collected, alone or with its parameters, and carries no skip that applies."""
    named = {name for row in coverage() for name in row.tests}
    # pytest collects nothing at all when one of its arguments does not exist.
    files = sorted({file for name in named if (guide.ROOT / (file := name.partition("::")[0])).exists()})
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-c", _COLLECT, *files], cwd=guide.ROOT, env=clean, capture_output=True, text=True, timeout=110
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("COLLECTED ")), None)
    assert line is not None, done.stdout + done.stderr
    skipped: dict[str, bool] = json.loads(line.removeprefix("COLLECTED "))
    # A name without parameters stands for all of them.
    runs: dict[str, bool] = {}
    for node, skip in skipped.items():
        for name in (node, node.partition("[")[0]):
            runs[name] = runs.get(name, False) or not skip
    assert sorted(name for name in named if not runs.get(name)) == []


@pytest.mark.parametrize(
    "table",
    ["| Statement | Shown by |\n|---|---|\n| a bullet | nothing |\n", "| a bullet | `tests/a.py::b` not yet: c |\n"],
)
def test_a_row_names_a_test_or_what_is_missing(table: str) -> None:
    """A row with neither a test nor a "not yet", or with both, is an error."""
    with pytest.raises(ValueError, match="a bullet"):
        guide.rows(table)
