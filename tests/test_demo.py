"""The demo: its traffic is a pure script, and one run leaves a summary and nothing else behind."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.demo import traffic
from backend.demo.__main__ import guide_questions
from backend.demo.serving import ROOT, Server, StartError, port_is_free


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def run_demo(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    command = [sys.executable, "-m", "backend.demo", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, stdin=subprocess.DEVNULL)


def test_the_script_is_the_same_for_the_same_seed() -> None:
    """Seed and size decide the script; another seed tells another story."""
    assert traffic.script(3, calls=300) == traffic.script(3, calls=300)
    assert traffic.script(3, calls=300) != traffic.script(4, calls=300)
    assert len(traffic.script(calls=300)) == 300
    with pytest.raises(ValueError, match="60"):
        traffic.script(calls=59)


@pytest.mark.parametrize("seed", range(5))
def test_the_script_is_believable(seed: int) -> None:
    """It has log-ins, failures, denials, every kind of change, an admin's action, and people of unequal diligence."""
    calls = traffic.script(seed)
    kinds = Counter((call.method, call.expect) for call in calls)
    for kind in [
        ("POST", 201),
        ("POST", 401),
        ("GET", 403),
        ("PATCH", 200),
        ("PUT", 200),
        ("DELETE", 204),
        ("GET", 404),
    ]:
        assert kinds[kind] > 0, kind
    assert any(call.who == traffic.ADMIN and call.method == "PATCH" for call in calls)
    assert [call.at for call in calls] == sorted(call.at for call in calls)
    assert calls[-1].at <= 60
    busiest = [count for _, count in Counter(call.who for call in calls if call.who in traffic.PEOPLE).most_common()]
    assert busiest[0] > 3 * busiest[-1]


def test_references_are_saved_before_they_are_used() -> None:
    """Every ``{node:3}`` and every token of the script comes from an earlier answer."""
    saved: set[str] = set()
    for call in traffic.script(2, calls=1000):
        assert set(re.findall(r"\{([^}]+)\}", call.path)) <= saved
        assert call.who is None or f"token:{call.who}" in saved
        if call.saves:
            saved.add(call.saves)


def test_the_guides_questions_are_ready_to_paste() -> None:
    """Each curl example of the guide becomes one line without a placeholder."""
    questions = guide_questions(
        (ROOT / "docs" / "guide.md").read_text(), url="http://localhost:9", token="T0K3N", user_id="a-user"
    )
    assert [title for title, _ in questions] == [
        "Get recent failed logins",
        "Get user activity for specific user",
        "Get audit statistics",
    ]
    for _, command in questions:
        assert re.fullmatch(r'curl -H "Authorization: Bearer T0K3N" "http://localhost:9/api/audit/[^<>\n]+"', command)
    assert "user_id=a-user&" in questions[1][1]


def test_once_prints_the_summary_and_leaves_nothing_running(tmp_path: Path) -> None:
    """``--once`` plays everything through a real server, prints what the log says, exits 0 and stops the server.

    The log can still be asked at the terminal, by the line that was printed.
    """
    own = {**os.environ, "INDELIBLE_DATA_DIR": str(tmp_path)}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    state = ROOT / ".demo" / str(port)
    try:
        done = run_demo("--once", "--port", str(port))
        (command,) = re.findall(r"^\S*indelible .*$", done.stdout, re.MULTILINE)
        asked = subprocess.run(shlex.split(command), cwd=ROOT, env=own, capture_output=True, text=True, timeout=60)
    finally:
        shutil.rmtree(state, ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "240 requests in" in done.stdout
    counts = dict(re.findall(r"^    (\w+) +(\d+)$", done.stdout, re.MULTILINE))
    for event_type in ("login", "login_failed", "permission_denied", "data_create", "data_delete", "admin_action"):
        assert int(counts[event_type]) > 0
    assert done.stdout.count("\ncurl -H") == 3
    assert "This server stops now" in done.stdout
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.count("login_failed") == int(counts["login_failed"])
    assert port_is_free(port)


def test_a_busy_port_is_one_line(busy_port: int) -> None:
    """When the port is taken the demo says so in one line and changes nothing."""
    done = run_demo("--port", str(busy_port))
    assert done.returncode == 1
    assert done.stderr == f"Port {busy_port} is busy. Choose another: make demo PORT={busy_port + 1}\n"
    assert not (ROOT / ".demo" / str(busy_port)).exists()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """StartError carries the last lines of a server that ended before it was ready."""
    with pytest.raises(StartError, match="no_such_module"), Server("no_such_module:app", cwd=tmp_path):
        raise AssertionError("it must not start")


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_cannot_be_is_a_message(port: str) -> None:
    """What is no port is refused in a line, without a traceback."""
    done = run_demo("--port", port)
    assert done.returncode == 2
    assert f"invalid port value: '{port}'" in done.stderr
