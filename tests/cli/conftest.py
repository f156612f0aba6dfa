"""A log with a few events in it, and the command line in this process or in another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from indelible.cli.app import app
from indelible.events import StoredEvent
from indelible.queries import Filter
from indelible.runtime import open_store
from indelible.service import AuditService
from indelible.settings import load

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


@dataclass(frozen=True)
class CommandLine:
    """Runs ``indelible`` on one log."""

    url: str
    data_dir: Path

    def run(self, *args: str) -> Result:
        """The command in this process."""
        return CliRunner().invoke(app, ["--database-url", self.url, *args])

    def popen(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        """The command as a process of its own."""
        command = [sys.executable, "-c", "from indelible.cli import main; main()", "--database-url", self.url, *args]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, env=dict(os.environ), **{**pipes, **more})

    def make(self) -> None:
        """The tables."""
        made = self.run("db", "upgrade")
        assert made.exit_code == 0, made.output

    def seed(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Store these events, one second apart from ``START``."""
        settings = load(database_url=self.url, data_dir=self.data_dir)
        service = AuditService(open_store(settings), settings, announce=False)
        service.open()
        for number, event in enumerate(events):
            service.record(must=True, timestamp=START + timedelta(seconds=number), **event)
        service.close()

    def stored(self) -> list[StoredEvent]:
        """Everything in the log, in order, read beside the command line."""
        store = open_store(load(database_url=self.url, data_dir=self.data_dir))
        store.open()
        try:
            return [event for slice in store.scan(Filter()) for event in slice]
        finally:
            store.close()


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting from outside, a private data directory, and an empty directory to stand in."""
    for name in [name for name in os.environ if name.startswith("INDELIBLE_")]:
        if name != "INDELIBLE_TEST_POSTGRES_URL":
            monkeypatch.delenv(name)
    for name in ("COLUMNS", "FORCE_COLOR", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INDELIBLE_DATA_DIR", str(tmp_path / "data"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)


@pytest.fixture
def empty_log(engine_url: str, tmp_path: Path) -> CommandLine:
    """A log without events, on each engine in turn."""
    line = CommandLine(engine_url, tmp_path / "data")
    line.make()
    return line


HOSTILE = "\x1b[2J\u202e=cmd|'/c calc'!A1"


@pytest.fixture
def hostile() -> str:
    """What a stranger might send as user agent: an escape sequence, a bidi override, a formula."""
    return HOSTILE


@pytest.fixture
def missing_log(tmp_path: Path) -> CommandLine:
    """A log that is not there."""
    return CommandLine(f"sqlite:///{tmp_path / 'missing.db'}", tmp_path / "data")


@pytest.fixture
def log(empty_log: CommandLine) -> CommandLine:
    """Four events: two failed log-ins of mallory's, one change by alice, one hostile user agent."""
    empty_log.seed(
        [
            {
                "event_type": "login_failed",
                "action": "login",
                "status": "failure",
                "user_id": "mallory",
                "ip_address": "203.0.113.9",
            },
            {
                "event_type": "login_failed",
                "action": "login",
                "status": "denied",
                "user_id": "mallory",
                "ip_address": "203.0.113.9",
            },
            {
                "event_type": "admin_action",
                "action": "update",
                "user_id": "alice",
                "resource_type": "user",
                "resource_id": "42",
                "old_value": {"role": "user"},
                "new_value": {"role": "admin"},
                "correlation_id": "c-1",
            },
            {"event_type": "data_access", "action": HOSTILE, "user_agent": HOSTILE, "request_path": "/api/nodes/7"},
        ]
    )
    return empty_log
