"""``tail``: the newest events, those that come, and the record of having read them."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine


def numbers(text: str) -> list[int]:
    return [json.loads(line)["seq"] for line in text.splitlines()]


def told(log: CommandLine) -> list[dict[str, Any]]:
    return [json.loads(str(event.metadata)) for event in log.stored() if event.action == "tail"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], [0, 1, 2, 3]),
        (["-n", "2"], [2, 3]),
        (["--status", "denied", "--status", "failure"], [0, 1]),
        (["status:denied status:failure"], [0, 1]),
        (["ip:203.0.113.0/24", "-n", "1"], [1]),
        (["resource:user/42 since:2024-05-01"], [2]),
        (["since:2h"], []),
    ],
)
def test_the_newest_events_that_match_oldest_first(log: CommandLine, arguments: list[str], found: list[int]) -> None:
    """As many as asked for, chosen by filters or by a search, in the order in which they happened."""
    result = log.run("tail", "--json", *arguments)
    assert (result.exit_code, numbers(result.stdout)) == (0, found)


def test_a_line_for_each_event(log: CommandLine) -> None:
    """Number, time, type, outcome, user, address, action and resource; hostile values are shown, and do nothing."""
    _, denied, admin, hostile = log.run("tail").stdout.splitlines()
    assert denied.split() == [
        "1",
        "2024-05-01",
        "12:00:01.000000Z",
        "login_failed",
        "denied",
        "mallory",
        "203.0.113.9",
        "login",
    ]
    assert admin.split()[3:] == ["admin_action", "success", "alice", "-", "update", "user/42"]
    assert "\x1b" not in hostile
    assert r"\x1b[2J" in hostile


def test_it_is_recorded(log: CommandLine) -> None:
    """One audit.read event with the filters, whether the reading goes on, and the number of rows."""
    log.run("tail", "user:mallory", "-n", "1")
    (record,) = told(log)
    assert (record["filters"], record["rows"], record["follow"]) == ({"user_id": ["mallory"]}, 1, False)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["usr:alice"], "usr:alice"),
        (["status:deneid"], "success, failure, denied"),
        (["user:alice", "--status", "denied"], "exclude each other"),
        (["--status", "deneid"], "--status"),
        (["-n", "0"], "--newest"),
    ],
)
def test_what_means_nothing_is_a_usage_error(log: CommandLine, arguments: list[str], word: str) -> None:
    """Exit code 2, the word in question, nothing shown and nothing recorded."""
    result = log.run("tail", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert word in result.stderr
    assert told(log) == []


@contextmanager
def following(log: CommandLine, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = log.popen("tail", "-f", "--json", *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_it_follows_until_interrupted(log: CommandLine) -> None:
    """What is stored meanwhile appears, if it matches; Ctrl-C is the end of it, not an error, and is recorded."""
    with following(log, "type:login_failed type:login", "-n", "1") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["seq"] == 1
        log.seed(
            [{"event_type": "logout", "action": "logout"}, {"event_type": "login", "action": "login", "user_id": "bob"}]
        )
        assert json.loads(process.stdout.readline())["user_id"] == "bob"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "")
    assert "error" not in errors
    assert [(record["rows"], record["follow"]) for record in told(log)] == [(1, True), (1, True)]


def test_it_ends_when_its_reader_goes_away(log: CommandLine) -> None:
    """``indelible tail -f | head -1`` stops with the exit code of a closed pipe at the next event, which is recorded."""
    with following(log, "type:login_failed type:login", "-n", "1") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        log.seed([{"event_type": "login", "action": "login"}])
        assert process.wait(60) == 141
    log.run("stats")  # brings in what two processes that ended together may have left in the journal
    assert [record["follow"] for record in told(log)] == [True, True]
