"""What ``doctor`` looks at on this machine: paths, permissions, disks. It reads, and changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was examined. ``hint`` says what to do if ``state`` is not ok."""

    name: str
    state: State
    detail: str
    hint: str = ""


#: Free bytes below which the disk is nearly full, and below which writing will soon fail.
LOW_DISK: Final = 1 << 30
FULL_DISK: Final = 64 << 20
#: What of the data directory holds events or keys, and so is nobody else's to read.
_PRIVATE: Final = ("journal", "dead-letters", "keys")
#: File systems over a network: file locks and shared mappings do not hold there.
_REMOTE: Final = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "afs"))
#: How mountinfo writes blanks and backslashes.
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def relative_path(setting: str, path: Path) -> Check:
    """A relative path means another place for every directory a command is started in."""
    if path.is_absolute():
        return Check(f"path of {setting}", "ok", str(path))
    return Check(
        f"path of {setting}",
        "warn",
        f"{path} is relative: from here it is {Path.cwd() / path}",
        f"set {setting} to an absolute path",
    )


def path_as_written(url: str) -> Path:
    """The path in a SQLite URL as the setting has it: ``sqlite:///x.db`` is relative, ``sqlite:////x.db`` is not."""
    return Path(url.partition("///")[2].partition("?")[0])


def data_directory(path: Path) -> Check:
    """The journal's directory: there or can be made, ours to write, nobody else's to read."""
    name = "data directory"
    if not path.exists():
        parent = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
            return Check(name, "ok", f"{path} will be made when the first event is logged")
        return Check(name, "fail", f"{path} is not there and {parent} cannot be written", "set INDELIBLE_DATA_DIR")
    if not path.is_dir():
        return Check(name, "fail", f"{path} is not a directory", "set INDELIBLE_DATA_DIR")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Check(name, "fail", f"{path} cannot be written by this user", "give it to the service's user")
    mode, owner = stat.S_IMODE(path.stat().st_mode), path.stat().st_uid
    if owner != os.geteuid():
        # Journals belong to whoever wrote them: the service's drainer could not read ours.
        return Check(
            name, "warn", f"{path} belongs to another user (uid {owner})", "run indelible as the service's user"
        )
    if mode & 0o022:
        return Check(name, "warn", f"other users can write {path} (mode {mode:03o})", f"chmod 700 {path}")
    for inner in filter(Path.is_dir, map(path.joinpath, _PRIVATE)):
        if stat.S_IMODE(inner.stat().st_mode) & 0o077:
            return Check(name, "warn", f"{inner} is open to other users", f"chmod 700 {inner}")
    return Check(name, "ok", f"{path} (mode {mode:03o})")


def database_file(path: Path) -> Check:
    """The permissions of a SQLite log: whoever can write the file can change the log, guards or not.

    A group may well read it; that every user of the machine can is a warning, as it is for the journal.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if not os.access(path, os.W_OK):
        return Check("database file", "fail", f"{path} cannot be written by this user", "check its owner and mode")
    if mode & 0o022:
        return Check("database file", "warn", f"others can write {path} (mode {mode:03o})", f"chmod 600 {path}")
    if mode & 0o004:
        return Check("database file", "warn", f"every user can read {path} (mode {mode:03o})", f"chmod o-r {path}")
    return Check("database file", "ok", f"{path} (mode {mode:03o})")


def disk(name: str, path: Path) -> Iterator[Check]:
    """Space and kind of the file system that holds ``path`` or will hold it."""
    place = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    usage = shutil.disk_usage(place)
    detail = f"{usage.free / (1 << 30):,.1f} GiB free of {usage.total / (1 << 30):,.1f} at {place}"
    state: State = "fail" if usage.free < FULL_DISK else "warn" if usage.free < LOW_DISK else "ok"
    yield Check(f"disk of the {name}", state, detail, "" if state == "ok" else "free some space, or move it")
    kind = file_system(place)
    if kind in _REMOTE:
        yield Check(
            f"disk of the {name}",
            "warn",
            f"{place} is on {kind}: locks do not hold there",
            "use a local disk",
        )


def file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system at ``path``, as ``ext4`` (proc(5), mountinfo); empty where the system does not say."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    target, best, kind = str(path.resolve()), "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = _OCTAL.sub(lambda m: chr(int(m[1], 8)), left.split(" ")[4])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind
