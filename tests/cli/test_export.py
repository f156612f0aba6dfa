"""``export``: everything that matches, whole or not at all."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from backports import zstd

from indelible import exports
from indelible.rendering import FIELDS
from indelible.stores.raw import RawReader

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine


def test_jsonl_is_the_log_oldest_first(log: CommandLine) -> None:
    """One object a line in order of seq, every event that was there when the export began and none after."""
    result = log.run("export")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["seq"] for event in events] == [0, 1, 2, 3]
    assert events[2]["new_value"] == {"role": "admin"}
    assert "4 events exported" in result.stderr
    assert result.exit_code == 0


def test_csv_neutralises_formulas(log: CommandLine) -> None:
    """The same cells as the API's export; a formula behind invisible characters starts with an apostrophe."""
    log.seed([{"event_type": "data_access", "action": "get", "user_agent": "=cmd|'/c calc'!A1"}])
    header, *rows = csv.reader(io.StringIO(log.run("export", "--format", "csv").stdout, newline=""))
    assert tuple(header) == FIELDS
    assert [dict(zip(header, row, strict=True))["user_agent"] for row in rows][-1] == "'=cmd|'/c calc'!A1"


def test_a_file_is_private_and_complete(log: CommandLine, tmp_path: Path) -> None:
    """The file takes its name when it is whole, is readable by its owner alone, and nothing else stays behind."""
    out = tmp_path / "out" / "audit.jsonl"
    out.parent.mkdir()
    out.write_text("an older export")
    result = log.run("export", "--out", str(out), "--event-type", "login_failed")
    assert (result.exit_code, result.stdout) == (0, "")
    assert len(out.read_text().splitlines()) == 2
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [path.name for path in out.parent.iterdir()] == ["audit.jsonl"]


def test_a_symbolic_link_stays_one(log: CommandLine, tmp_path: Path) -> None:
    """What the link points at is replaced, not the link."""
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    log.run("export", "--out", str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert len((tmp_path / "real").read_text().splitlines()) == 4


def test_a_pipe_is_written_as_it_is(log: CommandLine, tmp_path: Path) -> None:
    """A FIFO or device is never replaced by a file."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(fifo.read_text()))
    reader.start()
    log.run("export", "--out", str(fifo))
    reader.join()
    assert len(received[0].splitlines()) == 4
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_export_that_breaks_off_leaves_the_old_file(
    log: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Ctrl-C or a full disk: the old file is as it was, and no half one lies beside it."""
    out = tmp_path / "out" / "audit.jsonl"
    out.parent.mkdir()
    out.write_text("an older export")

    def broken(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(exports, "rendered", broken)
    result = log.run("export", "--out", str(out))
    assert result.exit_code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert out.read_text() == "an older export"
    assert [path.name for path in out.parent.iterdir()] == ["audit.jsonl"]


def test_a_place_that_cannot_be_written_is_one_line(log: CommandLine, tmp_path: Path) -> None:
    """Found before the log is read: nothing is recorded as exported."""
    result = log.run("export", "--out", str(tmp_path / "no" / "such" / "folder"))
    assert result.exit_code == 1
    assert "cannot write" in result.stderr
    assert len(log.stored()) == 4


def test_an_export_is_recorded_before_its_first_row(log: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever breaks it off after a glance has exported all the same."""

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RawReader, "matching", broken)
        result = log.run("export", "--user-id", "mallory", "--format", "csv")
    assert result.exit_code == 130
    recorded = log.stored()[4]
    assert (recorded.event_type, recorded.action, recorded.source) == ("audit.exported", "export", "cli")
    told = json.loads(str(recorded.metadata))
    assert (told["filters"], told["rows"], told["format"], told["end"]) == ({"user_id": ["mallory"]}, 2, "csv", 4)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_compressed_export_unpacks_to_the_plain_one(log: CommandLine, tmp_path: Path, kind: str) -> None:
    """The record says that it was compressed, and how."""
    plain = log.run("export", "--end-date", "2024-01-02").stdout.encode()
    out = tmp_path / "packed"
    assert log.run("export", "--end-date", "2024-01-02", "--compress", kind, "--out", str(out)).exit_code == 0
    unpack = gzip.decompress if kind == "gzip" else zstd.decompress
    assert unpack(out.read_bytes()) == plain
    assert json.loads(str(log.stored()[-1].metadata))["compress"] == kind


def test_an_export_that_ends_early_is_none(log: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer events than were counted: no file, and what to run."""
    monkeypatch.setattr(RawReader, "matching", lambda *_, **__: iter(()))
    result = log.run("export", "--out", str(tmp_path / "file"))
    assert (result.exit_code, "ended after 0 of 4 events" in result.stderr) == (1, True)
    assert list(tmp_path.glob("*file*")) == []


def test_an_empty_log_exports_nothing(empty_log: CommandLine) -> None:
    """A CSV has its header all the same."""
    assert empty_log.run("export").stdout == ""
    assert len(empty_log.run("export", "--format", "csv", "--end-date", "2000-01-01").stdout.splitlines()) == 1


def test_an_unknown_format_is_a_usage_error(log: CommandLine) -> None:
    """jsonl and csv are all there is."""
    assert log.run("export", "--format", "xml").exit_code == 2
