"""The table of stored values names its proofs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from indelible.redaction import LIMITS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/reference/values.md").read_text()


def _tests(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_row_names_a_test_that_is_there() -> None:
    """A row without a test, or with the name of one that is gone, is a claim without a proof."""
    rows = [
        line
        for line in PAGE.splitlines()
        if line.startswith("|") and not line.startswith(("|---", "| What", "| Value |"))
    ]
    assert len(rows) > 40
    for row in rows:
        names = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.rsplit("|", 2)[1])
        assert names, row
        for path, name in names:
            assert name in _tests(path), name


def test_the_limits_are_those_of_the_code() -> None:
    """Each limit on the page is the one that cuts."""
    text = PAGE[PAGE.index("The limits, in characters") :]
    told = {
        name: int(group[1].replace(",", ""))
        for group in re.finditer(r"(?:`\w+`,?\s+)+([\d,]+)(?=[;.])", text)
        for name in re.findall(r"`(\w+)`", group[0])
    }
    assert told == {name: limit for name, limit in LIMITS.items() if limit < 65_536 and name != "status"}
