"""The report: from results to Markdown and SVG."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import plots, report, results
from bench.bars import judge
from bench.figures import Result, Samples, Spread

FACTS = {
    "command": "python -m bench",
    "date": "2026-11-24T18:00:00+00:00",
    "commit": "0123456789ab",
    "changed": False,
    "machine": {"system": "Linux 6.1 x86_64", "processor": "a processor", "cores": 2, "memory_gib": 23.0},
    "versions": {"python": "3.11.7", "sqlite": "3.40.1"},
}
CALLS: Samples = {
    "journal": {"p50_us": [14.0, 12.0, 16.0]},
    "capture": {"p50_us": [9.0, 9.0, 9.0]},
    "QueueHandler": {"p50_us": [20.0, 20.0, 20.0]},
    "encode": {"p50_us": [2.0, 2.0, 2.0]},
}
PAGE = "\n".join(
    f"{report.BEGIN.format(name)}\n\nold\n\n{report.END.format(name)}"
    for name in ("bars", "plots", "profiles", "details")
)


def large(size: int, ms: float) -> Result:
    samples: Samples = {
        "lookup by id": {"ms": [1.0]},
        "first page: status": {"ms": [ms]},
        "ingest, here": {"rows_per_s": [9_000.0]},
        "ingest, empty log": {"rows_per_s": [10_000.0]},
    }
    return Result(f"large-sqlite-{size}", FACTS, samples)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0"), (0.18249, "0.182"), (12.34, "12.3"), (31_234.5, "31,234"), (0.00012, "0.00012")]
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    """More would not be true."""
    assert report.number(value) == shown


def test_a_single_value_has_no_spread() -> None:
    """And none at all is a dash."""
    assert report.told(Spread(2.0, 2.0, 2.0, 1), "×") == "2×"
    assert report.told(Spread(2.0, 1.0, 3.0, 3), "×") == "2× (1–3)"
    assert report.told(None) == "—"


def test_a_verdict_stands_beside_its_figure() -> None:
    """Asked, measured with its spread, reached or not, and the physical limit."""
    lines = report.table(judge([Result("log-call", FACTS, CALLS)])).splitlines()
    assert "| 4 | log() with journal against QueueHandler | ≤ 0.8× | 0.7× (0.6–0.8) | yes |" in lines[2]
    assert "copy into a map: 0.1× (0.1–0.1) |" in lines[2]
    assert "| ≤ 0.3× | 0.45× (0.45–0.45) | **no** |" in lines[3]


def test_writes_into_the_page_between_its_marks(tmp_path: Path) -> None:
    """What people wrote stays; what was measured is replaced; profiles are another command's."""
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{PAGE}\n\nEnd.\n")
    told = [Result("log-call", FACTS, CALLS), large(5_000_000, 3.0)]
    report.write(told, page, tmp_path / "images")
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("End.\n")
    assert text.count("old") == 1
    assert "### log-call" in text
    assert "commit 0123456789ab, 2026-11-24, 2 cores of a processor" in text
    assert "worst first page, SQLite, 5,000,000 rows (status) | ≤ 5× | 3× | yes" in text
    for name in ("ingest.svg", "first-page.svg"):
        assert f"](../images/{name})" in text
    report.write(told, page, tmp_path / "images")
    assert page.read_text() == text
    with pytest.raises(ValueError, match="no place for bars"):
        report.replaced("nothing", "bars", "text")


def test_curves_go_by_size(tmp_path: Path) -> None:
    """From the smallest log to the largest, each engine by itself; the plot is an SVG without a background."""
    told = [large(20_000_000, 4.0), large(1_000_000, 2.0), Result("large-sqlite-quick", FACTS, {})]
    (line,) = plots.curves(told, "ms", lambda way: way.startswith("first"))["sqlite"].values()
    assert [(size, value.median) for size, value in line] == [(1_000_000, 2.0), (20_000_000, 4.0)]
    drawn = plots.draw(told, tmp_path)
    assert [name for name, _ in drawn] == ["ingest.svg", "first-page.svg"]
    root = ElementTree.fromstring((tmp_path / "first-page.svg").read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    again = tmp_path / "again"
    plots.draw(told, again)
    assert (again / "first-page.svg").read_bytes() == (tmp_path / "first-page.svg").read_bytes()


def test_results_survive_their_files(tmp_path: Path) -> None:
    """With five significant digits; a second run replaces the first."""
    results.write(Result("log-call", FACTS, CALLS), tmp_path)
    kept = Result("log-call", FACTS, {"a": {"ms": [1.23456789]}})
    results.write(kept, tmp_path)
    (read,) = results.read(tmp_path)
    assert read == Result("log-call", FACTS, {"a": {"ms": [1.2346]}})
