"""Starting the backend, and making its first admin, as a person does: from a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(database: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs a Python module from the repository, with the test's environment and what is given."""

    def run(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
        )

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(("secret", "fault"), [("", "is not set"), ("too short", "is shorter than 32 bytes")])
def test_without_a_proper_secret_the_server_does_not_start(run: Run, database: Path, secret: str, fault: str) -> None:
    """The server ends at once and says what to set; nothing is made."""
    done = run("-m", "uvicorn", "backend.server.main:app", "--port", "0", JWT_SECRET=secret)
    assert done.returncode != 0
    assert f"JWT_SECRET {fault}" in done.stderr
    assert "Uvicorn running" not in done.stderr
    assert not database.exists()


def test_the_first_admin(run: Run, sql: Callable[..., list[Any]]) -> None:
    """The command makes an admin with the password from standard input, on a database that was not there; it is logged."""
    done = run("-m", "backend.server.create_admin", "root", stdin="a long enough password\n")
    assert (done.returncode, done.stdout) == (0, "root is an admin now.\n"), done.stderr
    assert sql("SELECT username, role, email FROM users") == [("root", "admin", "root@localhost")]
    ((event_type, status, resource_type, user, metadata),) = sql(
        "SELECT event_type, status, resource_type, new_value, metadata FROM audit_logs WHERE event_type NOT LIKE 'audit.%'"
    )
    assert (event_type, status, resource_type) == ("user_created", "success", "user")
    assert user == '{"username":"root","email":"root@localhost","role":"admin"}'
    assert metadata == '{"command":"create_admin"}'

    again = run("-m", "backend.server.create_admin", "ROOT", stdin="a long enough password\n")
    assert again.returncode == 1
    assert again.stderr == "ROOT: the user name or the e-mail address is taken\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (["root"], "short\n", "password: "),
        (["root"], "", "password: "),
        (["no spaces please"], "a long enough password\n", "username: "),
    ],
)
def test_an_admin_that_cannot_be(run: Run, database: Path, arguments: list[str], stdin: str, said: str) -> None:
    """One line says what is wrong, without the password, and nothing is made."""
    done = run("-m", "backend.server.create_admin", *arguments, stdin=stdin)
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert not database.exists()


def test_two_processes_may_make_the_database_at_once(run: Run, sql: Callable[..., list[Any]]) -> None:
    """Two workers that start on no database at all bring it to the newest revision once."""
    with ThreadPoolExecutor() as pool:
        commands = [("-m", "backend.server.create_admin", name) for name in ("one", "two")]
        for done in pool.map(lambda command: run(*command, stdin="a long enough password\n"), commands):
            assert done.returncode == 0, done.stderr
    assert sorted(sql("SELECT username FROM users")) == [("one",), ("two",)]
