"""List the skipped tests of a JUnit report; exit 1 if there is one."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def skipped(report: str) -> list[str]:
    """``test: reason`` of every skipped test. Expected failures are not skips."""
    return [
        f"{case.get('classname')}.{case.get('name')}: {skip.get('message')}"
        for case in ElementTree.fromstring(report).iter("testcase")  # noqa: S314 - our own report
        for skip in case.iter("skipped")
        if skip.get("type") != "pytest.xfail"
    ]


if __name__ == "__main__":
    lines = skipped(Path(sys.argv[1]).read_text())
    for line in lines:
        print(f"skipped: {line}", file=sys.stderr)
    sys.exit(1 if lines else 0)
