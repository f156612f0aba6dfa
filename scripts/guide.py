"""Reads the integration guide: its statements, its code blocks, and the table that says which test shows which."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
GUIDE: Final = ROOT / "docs" / "guide.md"
COVERAGE: Final = ROOT / "docs" / "reference" / "guide.md"

_HEADING = re.compile(r"#{1,6} +(.+)")
_BULLET = re.compile(r"\s*(?:- |\d+\. )(.+)")
_FENCE = re.compile(r"```(\w*)")
_RULE = re.compile(r"\|[ :|-]+\|")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Statement:
    """One bullet, numbered point, table row, code block or line of prose, under the heading it stands below."""

    section: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block. ``heading`` is the nearest heading above it."""

    heading: str
    language: str
    code: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the coverage table: the tests that show a statement, or what is missing (``not_yet``)."""

    section: str
    text: str
    tests: tuple[str, ...]
    not_yet: str


def statements(guide: str) -> list[Statement]:
    """Everything the guide says, in order. A code block's text is its first line."""
    return [each for each in _walk(guide) if isinstance(each, Statement)]


def blocks(guide: str) -> list[Block]:
    """The fenced code blocks, in order."""
    return [each for each in _walk(guide) if isinstance(each, Block)]


def rows(coverage: str) -> list[Row]:
    """The rows of the coverage tables; raises ValueError for one that names neither a test nor what is missing."""
    found = []
    section = ""
    for line in coverage.splitlines():
        if heading := _HEADING.match(line):
            section = heading[1]
        elif line.startswith("| ") and not _RULE.fullmatch(line) and not line.startswith("| Statement |"):
            text, shown = (cell.strip() for cell in line.strip("|").rsplit(" | ", 1))
            tests = tuple(name for name in _CODE.findall(shown) if "::" in name)
            not_yet = shown.partition("not yet: ")[2]
            if bool(tests) == bool(not_yet):
                raise ValueError(f"names neither a test nor what is missing, or both: {line}")
            found.append(Row(section, text, tests, not_yet))
    return found


def _walk(guide: str) -> Iterator[Statement | Block]:
    section = ""
    lines = iter(guide.splitlines())
    in_table = False
    for line in lines:
        if heading := _HEADING.match(line):
            section = heading[1]
        elif fence := _FENCE.match(line):
            code = []
            for inner in lines:
                if inner.startswith("```"):
                    break
                code.append(inner)
            yield Statement(section, "code", code[0])
            yield Block(section, fence[1], "\n".join(code) + "\n")
        elif line.startswith("|"):
            # Only the rows below the rule state something; the one above it names the columns.
            if in_table:
                cells = (cell.strip() for cell in line.strip("|").split("|"))
                yield Statement(section, "row", " — ".join(cells))
            in_table = in_table or _RULE.fullmatch(line) is not None
            continue
        elif bullet := _BULLET.match(line):
            yield Statement(section, "point", bullet[1])
        elif line.strip() and not line.endswith(":"):
            yield Statement(section, "prose", line.strip())
        in_table = False
