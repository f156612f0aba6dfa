"""The draining side of a journal: read in order, report holes, retire."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from indelible.errors import JournalCorrupt
from indelible.journal.frames import (
    FILE_HEAD,
    FRAME_HEAD,
    HEADER_BYTES,
    MAGIC,
    MAX_PAYLOAD,
    NUMBER,
    PREFIX,
    Frame,
    Header,
    Hole,
    Slot,
    decode_frame,
    decode_frames,
    file_name,
    read_file_head,
)

#: A damaged stretch is searched for a frame no further ahead than this; keeps a wrong guess from costing a CRC.
_MAX_HOLE: Final = 1 << 24
#: What is read of a file at a time, at the least and, but for the largest frames, at the most: as much as the frames that
#: are wanted will take if they are as long as the last ones, or a little longer. What is behind them is not written yet, or
#: would be read again.
_READ_LEAST: Final = 1 << 12
_READ_BYTES: Final = 1 << 18
_MORE: Final = 64
_GENERATION: Final = re.compile("[0-9]{8,18}")
_POSITIONS: Final = (Slot.APPENDED, Slot.STORED, Slot.CONFIRMED, Slot.DEAD, Slot.LOST, Slot.SHED)
#: What the name of a journal ends with, behind a dot, while it is deleted.
_RETIRED: Final = ".retired"
#: No process appends so many frames; a header that says so is damaged.
_MAX_POSITION: Final = 1 << 48


class JournalReader:
    """The draining side of one writer's journal, for one thread. Reads with ``pread``: a cut file is no SIGBUS."""

    def __init__(self, path: Path) -> None:
        """Open ``path``, a writer's directory. Raises JournalCorrupt for a bad header, OSError if it is gone."""
        self.path = path
        self._header_fd = os.open(path / "header", os.O_RDWR | os.O_CLOEXEC)
        self._header: Header | None = None
        self._fd = -1
        try:
            if os.fstat(self._header_fd).st_size < HEADER_BYTES:
                raise JournalCorrupt(f"{path.name}: the header is cut short")
            self._header = Header(self._header_fd)
            self._slots = self._header
            if self._slots[Slot.MAGIC] != MAGIC:
                raise JournalCorrupt(f"{path.name}: not a journal of this version")
            if max(self._slots[slot] for slot in _POSITIONS) > _MAX_POSITION:
                raise JournalCorrupt(f"{path.name}: the header has positions that cannot be")
        except BaseException:
            self.close()
            raise
        self.writer_id = UUID(int=(self._slots[Slot.WRITER_HIGH] << 64) | self._slots[Slot.WRITER_LOW])
        self.next = self._slots[Slot.STORED]
        self._generation = -1
        self._offset = 0
        self._number = 0  # of the frame at the offset, if all is well
        self._size = _READ_LEAST // 8  # of a frame, likely

    @property
    def appended(self) -> int:
        """How many frames the writer says it appended."""
        return self._slots[Slot.APPENDED]

    @property
    def created(self) -> int:
        """When the writer made the journal, in Unix µs."""
        return self._slots[Slot.CREATED]

    @property
    def dead(self) -> int:
        """How many frames the store refused for good."""
        return self._slots[Slot.DEAD]

    @property
    def lost(self) -> int:
        """How many frames could not be read back."""
        return self._slots[Slot.LOST]

    @property
    def wanted(self) -> int:
        """How many frames somebody waits for."""
        return self._slots[Slot.WANTED]

    @property
    def stored(self) -> int:
        """How many frames are stored."""
        return self._slots[Slot.STORED]

    @property
    def confirmed(self) -> int:
        """The writer's position in the store, as the last drainer knew it."""
        return self._slots[Slot.CONFIRMED]

    def mark_stored(self, count: int, *, confirmed: int | None = None, dead: int = 0, lost: int = 0) -> None:
        """Tell the writer, and the next reader, that the first ``count`` numbers are done with.

        ``confirmed`` (default: ``count``) is the writer's position in the store; ``dead`` and ``lost`` of the numbers,
        counted since the last call, are not in it.
        """
        self._slots[Slot.CONFIRMED] = count if confirmed is None else confirmed
        if count > self._slots[Slot.STORED]:
            self._slots[Slot.DEAD] += dead
            self._slots[Slot.LOST] += lost
            self._slots[Slot.STORED] = count

    @property
    def shed(self) -> int:
        """How many events the writer shed and did not record as a gap."""
        return self._slots[Slot.SHED]

    def claim(self, pid: int) -> None:
        """Tell the writer who drains its journal, and will say so if it finds something missing."""
        self._slots[Slot.DRAINER] = pid

    def alive(self) -> bool:
        """Whether the writer's process still runs. Once it is dead, it stays dead."""
        try:
            fcntl.flock(self._header_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False

    def seek(self, number: int) -> None:
        """Continue with frame ``number``; smaller numbers are passed over."""
        self.next = number
        self._close_file()
        self._generation = -1

    def read(self, limit: int, *, final: bool) -> Sequence[Frame | Hole]:
        """At most ``limit`` frames from ``next`` on, in order, with the holes between them.

        ``final`` says that the writer is dead, or that what is unreadable now will stay so: only then are damaged
        stretches searched for the frames behind them, and reported as holes. Each is given once: ``next`` moves on.
        """
        promised = self.appended
        found: list[Frame | Hole] = []
        while (wanted := limit - len(found)) > 0 and (run := self._run(self.next + wanted, final=final)):
            first = run[0].number
            if first > self.next:
                found.append(Hole(self.next, first))
                self.next = first
            run = run[self.next - first :]
            found += run
            self.next += len(run)
        if wanted > 0 and final and self.next < promised:
            found.append(Hole(self.next, promised))
            self.next = promised
        return found

    def _run(self, end: int, *, final: bool) -> list[Frame]:
        """The next frames, their numbers in a row and below ``end``, but for the first; empty if there are none now."""
        while final or self.next < self.appended:
            if self._fd < 0 and not self._open_following(final=final):
                break
            if run := self._file_run(end if final else min(end, self.appended), final=final):
                return run
            following = self._following()
            if not following or (following[0][0] != self.next and not final):
                break
            self._close_file()
        return []

    def _file_run(self, end: int, *, final: bool) -> list[Frame]:
        """The same from the current offset of the open file."""
        while True:
            likely = max(_READ_LEAST, (end - self._number) * self._size)
            for size in (min(_READ_BYTES, likely), _READ_BYTES, MAX_PAYLOAD + FRAME_HEAD.size + 8):
                buffer = os.pread(self._fd, size, self._offset)
                run, taken = decode_frames(buffer, 0, self._generation, self._offset, end)
                if run:
                    self._offset += taken
                    self._size = taken // len(run) + _MORE
                    self._number = run[-1].number + 1
                    return run
            if not final or not self._skip_damage():
                return []

    def _skip_damage(self) -> bool:
        """Move to the next readable frame of this file, if there is one."""
        start = self._offset
        buffer = os.pread(self._fd, max(0, os.fstat(self._fd).st_size - start), start)
        for at in range(8, len(buffer) - FRAME_HEAD.size + 1, 8):
            number = NUMBER.unpack_from(buffer, at + PREFIX.size)[0]
            if self.next <= number < self.next + _MAX_HOLE and decode_frame(buffer, at, self._generation, start + at):
                self._offset = start + at
                return True
        return False

    def _following(self) -> list[tuple[int, int]]:
        """(first number, generation) of the files behind the current one that have begun, in order."""
        names = (p.stem for p in self.path.glob("*.frames"))
        generations = (int(name) for name in names if _GENERATION.fullmatch(name))
        begun = ((self._first_of(g), g) for g in generations if g > self._generation)
        return sorted((first, g) for first, g in begun if first is not None)

    def _open_following(self, *, final: bool) -> bool:
        """Open the last file that does not begin behind frame ``next``; finally, the first one there is."""
        following = self._following()
        usable = [g for first, g in following if first <= self.next]
        if not usable and not (final and following):
            return False
        generation = usable[-1] if usable else following[0][1]
        try:
            self._fd = os.open(self.path / file_name(generation), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self._generation, self._offset = generation, FILE_HEAD.size
        self._number = {g: first for first, g in following}[generation]
        return True

    def _first_of(self, generation: int) -> int | None:
        try:
            with (self.path / file_name(generation)).open("rb") as file:
                return read_file_head(file.read(FILE_HEAD.size), generation)
        except OSError:
            return None

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def retire(self) -> None:
        """Delete the journal of a dead writer, every frame of which is stored."""
        self.close()
        # crash here ⇒ it is read again, and the store drops what it has already.
        retired = self.path.with_name(f".{self.path.name}{_RETIRED}")
        with contextlib.suppress(OSError):
            self.path.rename(retired)
            # crash here, or half-way ⇒ no journal any more; the next drainer sweeps up what is left.
            shutil.rmtree(retired, ignore_errors=True)

    def close(self) -> None:
        """Let go of files and map."""
        self._close_file()
        if self._header is not None:
            self._header.close()
            self._header = None
        if self._header_fd >= 0:
            os.close(self._header_fd)
            self._header_fd = -1


def sweep(directory: Path) -> None:
    """Delete what is left below ``directory`` of retired journals: their drainer died over it. For the next drainer."""
    with contextlib.suppress(OSError):  # the directory is gone, and they with it
        for path in directory.glob(f".*{_RETIRED}"):
            shutil.rmtree(path, ignore_errors=True)


def writers(directory: Path) -> list[Path]:
    """The writer directories below ``directory``, oldest name first; empty if it does not exist."""
    try:
        with os.scandir(directory) as entries:
            return sorted(Path(e.path) for e in entries if e.is_dir() and not e.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
