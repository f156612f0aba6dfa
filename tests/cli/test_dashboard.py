"""``dashboard``: the pages of a log without a host, for whoever started it and for nobody else."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine


@contextmanager
def serving(log: CommandLine, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the link that it printed."""
    process = log.popen("dashboard", *arguments)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def link(log: CommandLine) -> Iterator[str]:
    """The link of a running dashboard."""
    with serving(log) as (_, link):
        yield link


def test_the_link_leads_in_once(link: str) -> None:
    """It is exchanged for a cookie and the pages; a second time, or with another token, it leads nowhere."""
    assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/enter\?token=[A-Za-z0-9_-]{43}", link)
    with httpx.Client() as me, httpx.Client() as other:
        wrong = other.get(link[:-1] + ("A" if link[-1] != "A" else "B"))
        answer = me.get(link)
        again = other.get(link)
        assert (wrong.status_code, again.status_code) == (403, 403)
        assert "start it again" in again.text
        assert urljoin(link, answer.headers["location"]) == urljoin(link, "/audit/")
        name, *rules = answer.headers["set-cookie"].split("; ")
        assert name.startswith(f"indelible_{urlsplit(link).port}=")
        assert {"HttpOnly", "SameSite=lax"} <= set(rules)
        for page in ("/audit/", "/audit/events", "/audit/integrity"):
            assert me.get(urljoin(link, page)).status_code == 200
            assert other.get(urljoin(link, page)).status_code == 403
        other.cookies.set(name.partition("=")[0], "guessed")
        assert other.get(urljoin(link, "/audit/events")).status_code == 403
        assert me.get(urljoin(link, "/"), follow_redirects=True).status_code == 200


def test_other_names_are_not_served(link: str) -> None:
    """A page elsewhere that points its own name at this machine gets nothing; localhost is this machine."""
    with httpx.Client() as me:
        me.get(link)
        for host, status in (("evil.test", 400), ("127.0.0.1.evil.test", 400), ("localhost:1", 200)):
            cookie = "; ".join(f"{name}={value}" for name, value in me.cookies.items())
            answer = me.get(urljoin(link, "/audit/events"), headers={"Host": host, "Cookie": cookie})
            assert answer.status_code == status, host


def test_it_listens_on_this_machine_only(link: str) -> None:
    """Another address of this machine, as the network sees it, is refused."""
    port = urlsplit(link).port
    assert port is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=30)


def test_what_is_read_is_recorded_as_the_operators(log: CommandLine) -> None:
    """Each page is an audit.read event by the account that runs the command; Ctrl-C ends it without an error."""
    with serving(log) as (process, link), httpx.Client() as me:
        me.get(link)
        assert me.get(urljoin(link, "/audit/events?q=status:denied")).status_code == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
    assert "open this link, once" in errors
    assert "error" not in errors
    (read,) = [event for event in log.stored() if event.event_type == "audit.read"]
    assert (read.user_id, read.status, read.ip_address) == (pwd.getpwuid(os.geteuid()).pw_name, "success", "127.0.0.1")
    assert json.loads(str(read.metadata))["filters"]["status"] == ["denied"]
    assert "token" not in str(read)


def test_it_ends_under_a_live_page(log: CommandLine) -> None:
    """Ctrl-C waits for nobody: a page with live events is cut off, without a word of it, and its reading is recorded."""
    with serving(log) as (process, link), httpx.Client() as me:
        me.get(link)
        with me.stream("GET", urljoin(link, "/audit/events/tail?after=0")) as stream:
            lines = stream.iter_lines()
            assert any("mallory" in line for line in lines)
            process.send_signal(signal.SIGINT)
            with suppress(httpx.RemoteProtocolError):
                for _ in lines:
                    pass
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(errors.splitlines()) == 2, errors
    reads = [event for event in log.stored() if event.event_type == "audit.read"]
    assert [json.loads(str(event.metadata))["rows"] for event in reads] == [0, 4]


def test_a_port_that_is_taken_is_said(log: CommandLine) -> None:
    """One line and a hint, exit code 1, no link."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = log.run("dashboard", "--port", str(taken.getsockname()[1]))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "choose another --port" in result.stderr


def test_no_log_no_dashboard(missing_log: CommandLine) -> None:
    """A wrong address is an error with a hint, and leaves no empty database behind."""
    result = missing_log.run("dashboard")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "indelible db upgrade" in result.stderr
