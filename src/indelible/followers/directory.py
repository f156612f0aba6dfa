"""A directory as a place for checkpoints: another disk, a mount of another machine, a backup's source."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from uuid import uuid4

from indelible.errors import AnchorFailed


class Directory:
    """Writes files by renaming them into place: a reader sees a whole file or none."""

    def __init__(self, path: Path) -> None:
        self.name = f"directory {path}"
        self._path = path

    def write(self, path: str, data: bytes, *, kept: bool) -> None:
        """See anchors.Place. A directory keeps nothing by itself: its file system, or who owns it, has to."""
        target = self._target(path)
        new = target.with_name(f".{target.name}.{uuid4().hex}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with new.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                new.replace(target)
            finally:
                new.unlink(missing_ok=True)
            fd = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise AnchorFailed(f"{target} cannot be written: {error.strerror}") from error

    def read(self, path: str) -> bytes | None:
        """See anchors.Place."""
        try:
            return self._target(path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AnchorFailed(f"{path} cannot be read in {self.name}: {error.strerror}") from error

    def _target(self, path: str) -> Path:
        parts = PurePosixPath(path).parts
        # An origin is a key's name, and may hold anything but blanks and plus signs.
        if path.startswith("/") or any(part == ".." or part.startswith(".") for part in parts):
            raise AnchorFailed(f"{path!r} is not a path for a checkpoint", hint="choose another origin")
        return self._path.joinpath(*parts)
