"""``indelible bench load``: made-up events in a log like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indelible.cli.bench import writer_of
from indelible.verification import Request, verify

if TYPE_CHECKING:
    from .conftest import CommandLine
else:
    CommandLine = Any


def test_loads_a_valid_log_and_continues_it(empty_log: CommandLine) -> None:
    """A second run brings what is missing, later in time; a third nothing; verification finds nothing wrong."""
    for rows, appended in ((150, 150), (400, 250), (400, 0)):
        done = empty_log.run("bench", "load", "--rows", str(rows), "--batch", "100", "--json")
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert (told["rows"], told["appended"]) == (rows, appended)
    stored = empty_log.stored()
    assert [event.writer_seq for event in stored] == list(range(400))
    assert {event.writer_id for event in stored} == {writer_of(1)}
    assert [event.timestamp for event in stored] == sorted(event.timestamp for event in stored)
    report, _ = verify(Request(url=empty_log.url, now=4e9, workers=1))
    assert (report.rows, [finding.kind for finding in report.findings]) == (400, ["unwitnessed"])


def test_covers_the_time_asked_for(missing_log: CommandLine) -> None:
    """--span is the time from the first event to the last, whatever the number of events; the tables are made."""
    done = missing_log.run("bench", "load", "--rows", "800", "--span", "4w", "--rate", "100000")
    assert done.exit_code == 0, done.output
    times = [event.timestamp / 86_400e6 for event in missing_log.stored()]
    assert 27 < times[-1] - times[0] <= 28


def test_never_into_a_log_of_others(log: CommandLine) -> None:
    """Made-up events could not be taken out again: it takes a word more."""
    before = len(log.stored())
    refused = log.run("bench", "load", "--rows", "10")
    assert refused.exit_code == 1
    assert "--into-existing" in refused.stderr
    assert len(log.stored()) == before
    assert log.run("bench", "load", "--rows", "10", "--into-existing").exit_code == 0
    assert len(log.stored()) == before + 10
    # What this command has begun it may go on with.
    assert log.run("bench", "load", "--rows", "12").exit_code == 0


def test_refuses_what_means_nothing(tmp_path: Path, missing_log: CommandLine) -> None:
    """A length of time without a unit is a mistake."""
    refused = missing_log.run("bench", "load", "--rows", "10", "--span", "90")
    assert refused.exit_code == 2
    assert "90d" in refused.stderr
