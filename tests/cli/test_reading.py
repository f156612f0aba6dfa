"""``query``, ``show``, ``stats``: what they print, and what they leave in the log."""

from __future__ import annotations

import csv
import io
import json
import os
import pwd
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from indelible.rendering import FIELDS
from indelible.runtime import open_store
from indelible.service import AuditService
from indelible.settings import load

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_query_prints_a_table_newest_first(log: CommandLine) -> None:
    """Without options: the newest page, one row an event, the count and the log's address on standard error."""
    result = log.run("query")
    heading, *rows = result.stdout.splitlines()
    assert heading.split() == ["SEQ", "TIME", "EVENT", "STATUS", "USER", "IP", "ACTION", "RESOURCE"]
    assert [row.split()[0] for row in rows] == ["3", "2", "1", "0"]
    assert "alice" in rows[1]
    assert "user/42" in rows[1]
    assert "2024-05-01 12:00:02.000000Z" in rows[1]
    assert "4 of 4 matching events" in result.stderr
    assert result.exit_code == 0


def test_the_log_read_is_named_on_standard_error_without_its_password(log: CommandLine) -> None:
    """Which log it was is said once, beside the results and not among them."""
    result = log.run("query", "--json")
    assert result.stderr.count("log: ") == 1
    assert result.stderr.startswith(("log: sqlite:////", "log: postgresql://"))
    assert len(lines(result.stdout)) == 4


def test_json_is_one_object_a_line_with_every_field(log: CommandLine) -> None:
    """What a program needs: all columns, JSON columns as values, nothing else on standard output."""
    [event] = lines(log.run("query", "--event-type", "admin_action", "--json").stdout)
    assert tuple(event) == FIELDS
    assert (event["user_id"], event["old_value"], event["new_value"]) == ("alice", {"role": "user"}, {"role": "admin"})
    assert event["timestamp"] == "2024-05-01T12:00:02.000000Z"


def test_csv_has_a_header_and_no_formulas(log: CommandLine, hostile: str) -> None:
    """In a pipe CSV is exact but for the apostrophe before what a spreadsheet would run."""
    header, row = csv.reader(io.StringIO(log.run("query", "--q", "/API/nodes", "--csv").stdout, newline=""))
    assert tuple(header) == FIELDS
    assert dict(zip(header, row, strict=True))["user_agent"] == hostile
    result = log.run("query", "--q", "=cmd", "--csv")
    assert result.exit_code == 0


def test_hostile_values_do_not_reach_the_terminal(log: CommandLine) -> None:
    """Escape sequences and bidi overrides of a stranger are shown as escapes in the table, the sheet and in JSON."""
    for arguments in (("query",), ("show", "3"), ("query", "--json"), ("show", "3", "--json"), ("stats",)):
        result = log.run(*arguments)
        assert result.exit_code == 0
        shown = result.stdout.replace("\n", "")
        assert shown.isprintable(), arguments
    assert r"\x1b[2J\u202e=cmd" in log.run("query").stdout
    assert r"\x1b[2J\u202e=cmd" in log.run("show", "3").stdout


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--event-type", "login_failed"], [1, 0]),
        (["--event-type", "login_failed", "--event-type", "admin_action"], [2, 1, 0]),
        (["--user-id", "alice", "--user-id", "nobody"], [2]),
        (["--status", "denied", "--status", "failure"], [1, 0]),
        (["--ip-address", "203.0.113.9"], [1, 0]),
        (["--ip-address", "203.0.0.0/16"], [1, 0]),
        (["--resource-type", "user", "--resource-id", "42"], [2]),
        (["--correlation-id", "c-1"], [2]),
        (["--action", "update"], [2]),
        (["--q", "/API/NODES"], [3]),
        (["--start-date", "2024-05-01T12:00:01Z", "--end-date", "2024-05-01T12:00:02Z"], [2, 1]),
        (["--start-date", "2024-05-01", "--end-date", "2024-05-01"], [3, 2, 1, 0]),
        (["--sort-order", "asc"], [0, 1, 2, 3]),
        (["--sort-by", "user_id", "--sort-order", "asc"], [2, 0, 1, 3]),
        (["--page-size", "2", "--page", "2"], [1, 0]),
    ],
)
def test_every_filter_of_the_api_is_an_option(log: CommandLine, options: list[str], found: list[int]) -> None:
    """The same names with dashes, the same meaning; repeated ones match any of their values."""
    result = log.run("query", "--json", *options)
    assert [event["seq"] for event in lines(result.stdout)] == found, result.stderr


def test_the_cursor_printed_leads_to_the_next_page(log: CommandLine) -> None:
    """Following the cursors shows every event once, though each read adds an event of its own."""
    seen: list[int] = []
    cursor: list[str] = []
    while True:
        result = log.run(
            "query", "--json", "--page-size", "2", "--sort-order", "asc", "--end-date", "2024-06-01", *cursor
        )
        seen += [event["seq"] for event in lines(result.stdout)]
        following = [line for line in result.stderr.splitlines() if line.startswith("next page: ")]
        if not following:
            break
        cursor = following[0].removeprefix("next page: ").split()
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--status", "sucess"], "--status: unknown status"),
        (["--start-date", "yesterday"], "--start-date: not a date"),
        (["--start-date", "2024-02-01", "--end-date", "2024-01-01"], "--start-date: start_date is after end_date"),
        (["--page-size", "1001"], "--page-size:"),
        (["--sort-by", "action"], "--sort-by:"),
        (["--cursor", "forged"], "--cursor: not a cursor"),
        (["--user-id", ""], "--user-id:"),
        (["--json", "--csv"], "--json and --csv"),
    ],
)
def test_a_filter_that_means_nothing_is_a_usage_error(log: CommandLine, options: list[str], word: str) -> None:
    """Exit code 2, the option named, nothing printed and nothing recorded: the log was not read."""
    result = log.run("query", *options)
    assert result.exit_code == 2
    assert word in result.stderr
    assert result.stdout == ""
    assert len(log.stored()) == 4


def test_a_misspelt_option_is_a_usage_error(log: CommandLine) -> None:
    """It must not return everything."""
    assert log.run("query", "--user", "alice").exit_code == 2


def test_show_takes_the_id_or_the_number(log: CommandLine) -> None:
    """Both name the same event; JSON columns are shown as values, fields without a value are left out."""
    event_id = str(log.stored()[2].id)
    by_id, by_number = log.run("show", event_id), log.run("show", "2")
    assert by_id.stdout == by_number.stdout
    assert f"id               {event_id}" in by_id.stdout
    assert '"role": "admin"' in by_id.stdout
    assert "ip_address" not in by_id.stdout
    assert lines(log.run("show", "2", "--json").stdout)[0]["id"] == event_id


def test_an_event_that_is_not_there_is_exit_code_1(log: CommandLine) -> None:
    """The attempt to read it is recorded all the same."""
    for key in ("00000000-0000-7000-8000-000000000000", "999"):
        result = log.run("show", key)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"no event {key}" in result.stderr
    assert [json.loads(str(event.metadata))["rows"] for event in log.stored()[4:]] == [0, 0]


@pytest.mark.parametrize("key", ["x", "-1", "1" * 30, "0197a3c2"])
def test_what_is_neither_id_nor_number_is_a_usage_error(log: CommandLine, key: str) -> None:
    """Malformed keys are refused before the log is opened."""
    assert log.run("show", "--", key).exit_code == 2


def test_stats_count_by_type_status_user_address_and_time(log: CommandLine) -> None:
    """The numbers of /api/audit/stats, with bars; --json has the same names as the API."""
    result = log.run("stats")
    assert result.stdout.startswith("4 events\n")
    assert any(line.split()[:2] == ["login_failed", "2"] and "█" in line for line in result.stdout.splitlines())
    [counted] = lines(log.run("stats", "--end-date", "2024-06-01", "--json").stdout)
    assert counted["total_events"] == 4
    assert counted["status_breakdown"] == {"success": 2, "failure": 1, "denied": 1}
    assert counted["top_users"][0] == {"user_id": "mallory", "count": 2}
    assert counted["top_ips"] == [{"ip": "203.0.113.9", "count": 2}]
    assert sum(bucket["count"] for bucket in counted["events_over_time"]) == 4


def test_an_empty_log_is_no_error(empty_log: CommandLine) -> None:
    """No events, exit code 0."""
    for arguments in (("query",), ("stats",), ("query", "--json")):
        assert empty_log.run(*arguments).exit_code == 0
    assert empty_log.stored()[0].event_type == "audit.read"


def test_every_read_is_recorded_with_who_what_and_how_much(log: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's user, the command, the filters and the number of rows are one audit.read event."""
    monkeypatch.setenv("USER", "somebody else")
    monkeypatch.setenv("SUDO_USER", "carol")
    log.run("query", "--status", "failure", "--status", "denied", "--q", "x", "--start-date", "2024-01-01")
    log.run("query", "--user-id", "mallory")
    first, second = log.stored()[4:]
    assert (first.event_type, first.action, first.status, first.source) == ("audit.read", "query", "success", "cli")
    assert first.user_id == pwd.getpwuid(os.geteuid()).pw_name
    told = json.loads(str(first.metadata))
    assert told["filters"] == {"status": ["failure", "denied"], "q": "x", "start_date": "2024-01-01T00:00:00.000000Z"}
    assert (told["rows"], told["sudo_user"]) == (0, "carol")
    assert json.loads(str(second.metadata))["rows"] == 2


def test_events_on_their_way_are_told(log: CommandLine) -> None:
    """Whoever looks at once is told that the table lags behind what was accepted, and not that nothing happened."""
    assert "accepted events" not in log.run("query").stderr
    settings = load(database_url=log.url, data_dir=log.data_dir, flush_interval=3600, batch_size=1000)
    service = AuditService(open_store(settings), settings, announce=False)
    service.open()
    try:
        service.log(event_type="login", action="login")
        service.log(event_type="login", action="login")
        assert "2 accepted events are not in it yet" in log.run("query").stderr
    finally:
        service.close()
    assert "accepted events" not in log.run("query").stderr


@pytest.mark.parametrize("arguments", [("query",), ("show", "0"), ("stats",), ("export",), ("query", "--json")])
def test_what_cannot_be_recorded_is_not_shown(log: CommandLine, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """When the journal does not take the record, nothing is printed and the exit code is 3."""
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data").write_text("in the way")
    result = log.run(*arguments)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "cannot be recorded" in result.stderr
    assert len(log.stored()) == 4


def test_reading_makes_no_log(missing_log: CommandLine, tmp_path: Path) -> None:
    """A wrong path is an error with a hint, and leaves no empty database behind."""
    for arguments in (("query",), ("stats",), ("show", "1"), ("export",), ("db", "check"), ("db", "current")):
        result = missing_log.run(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "indelible db upgrade" in result.stderr
    assert not (tmp_path / "missing.db").exists()
