"""What ``doctor`` says about this machine."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from indelible.cli import environment as env


def test_a_relative_path_is_a_warning_that_names_the_place() -> None:
    """A relative path is another place in every directory: doctor shows which it is from here."""
    check = env.relative_path("INDELIBLE_DATA_DIR", Path(".indelible"))
    assert (check.state, str(Path.cwd() / ".indelible") in check.detail) == ("warn", True)
    assert env.relative_path("INDELIBLE_DATA_DIR", Path("/var/lib/indelible")).state == "ok"


def test_a_private_data_directory_is_fine(tmp_path: Path) -> None:
    """Mode 700 is what the service makes."""
    tmp_path.chmod(0o700)
    assert env.data_directory(tmp_path).state == "ok"


def test_a_data_directory_open_to_others_is_a_warning(tmp_path: Path) -> None:
    """The journal holds events: nobody else has to read them, or to put others in their place."""
    journal = tmp_path / "journal"
    journal.mkdir()
    tmp_path.chmod(0o755)
    journal.chmod(0o750)
    check = env.data_directory(tmp_path)
    assert (check.state, check.hint) == ("warn", f"chmod 700 {journal}")
    journal.chmod(0o700)
    assert env.data_directory(tmp_path).state == "ok"
    tmp_path.chmod(0o775)
    check = env.data_directory(tmp_path)
    assert (check.state, check.hint) == ("warn", f"chmod 700 {tmp_path}")


def test_a_data_directory_of_somebody_else_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's drainer could not read a journal that another user wrote."""
    monkeypatch.setattr("os.geteuid", lambda: tmp_path.stat().st_uid + 1)
    check = env.data_directory(tmp_path)
    assert (check.state, "belongs to another user" in check.detail) == ("warn", True)


def test_a_data_directory_to_be_made_is_fine_if_it_can_be(tmp_path: Path) -> None:
    """Nothing is there before the first event, and doctor makes nothing."""
    place = tmp_path / "a" / "b"
    assert env.data_directory(place).state == "ok"
    assert not place.parent.exists()


def test_a_data_directory_that_cannot_be_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in its place, or no permission to write, means that no event would be accepted."""
    (tmp_path / "file").touch()
    assert env.data_directory(tmp_path / "file").state == "fail"
    assert env.data_directory(tmp_path / "file" / "below").state == "fail"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert env.data_directory(tmp_path).state == "fail"
    assert env.data_directory(tmp_path / "new").state == "fail"


@pytest.mark.parametrize(
    ("mode", "state"), [(0o600, "ok"), (0o640, "ok"), (0o644, "warn"), (0o660, "warn"), (0o666, "warn")]
)
def test_a_database_file_others_can_write_or_all_can_read_is_a_warning(tmp_path: Path, mode: int, state: str) -> None:
    """Triggers do not bind whoever can write the file itself; and what people did is not for everybody to read."""
    file = tmp_path / "log.db"
    file.touch()
    file.chmod(mode)
    assert env.database_file(file).state == state


@pytest.mark.parametrize(("free", "state"), [(1 << 40, "ok"), (1 << 29, "warn"), (1 << 20, "fail")])
def test_a_full_disk_is_told_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    """Below 1 GiB it is a warning, below 64 MiB a failure."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free, total=1 << 41))
    assert next(iter(env.disk("journal", tmp_path / "not" / "there"))).state == state


def test_the_innermost_mount_decides_the_file_system(tmp_path: Path) -> None:
    """Mount points are compared by whole path segments, blanks in them are unescaped, the deepest one counts."""
    inner = tmp_path / "a b"
    (inner / "x").mkdir(parents=True)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 0:1 / / rw - overlay overlay rw\n"
        f"2 1 0:2 / {str(inner).replace(' ', chr(92) + '040')} rw shared:1 - nfs4 server:/x rw\n"
        f"3 1 0:3 / {tmp_path}/a rw - tmpfs tmpfs rw\n"
    )
    assert env.file_system(inner / "x", mounts) == "nfs4"
    assert env.file_system(Path("/"), mounts) == "overlay"
    assert env.file_system(Path("/"), tmp_path / "none") == ""


def test_a_disk_over_the_network_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File locks and shared mappings do not hold there."""
    monkeypatch.setattr(env, "file_system", lambda _: "nfs4")
    assert [check.state for check in env.disk("journal", tmp_path)][-1] == "warn"
