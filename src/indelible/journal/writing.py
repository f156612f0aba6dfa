"""The writing side of a journal: append, sync, and files that are used again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from indelible.errors import JournalFull, JournalUnavailable
from indelible.journal.frames import (
    FILE_BYTES,
    FILE_HEAD,
    FRAME_HEAD,
    HEADER_BYTES,
    MAGIC,
    MAX_PAYLOAD,
    QUOTA_BYTES,
    Header,
    Slot,
    file_head,
    file_name,
    mapped,
    padded,
)
from indelible.journal.intents import Intents
from indelible.journal.tail import Tail, make_tail


class _DataFile:
    """One fallocated, mapped file on the writing side."""

    __slots__ = ("end", "fd", "generation", "map", "path")

    def __init__(self, path: Path, generation: int, size: int) -> None:
        self.path = path
        self.generation = generation
        self.end = 0  # one past the last number in it, once it is full
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Never sparse: a full disk has to fail here, typed, and not as SIGBUS in the middle of an append.
            os.posix_fallocate(self.fd, 0, size)
            # The first page of a new file may have to wait for the file system's own log: here, and not in ``append``. By a
            # call, which lets go of the interpreter meanwhile; a touch of the map does not.
            os.pwrite(self.fd, b"\0", 0)
            self.map = mapped(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise

    def reuse(self, path: Path, generation: int) -> None:
        self.path.rename(path)
        self.path, self.generation, self.end = path, generation, 0

    def healthy(self, size: int) -> bool:
        stat = os.fstat(self.fd)
        return stat.st_nlink > 0 and stat.st_size >= size

    def close(self) -> None:
        # In a child that was forked while a Tail was made, that Tail still has the map, and nobody has the Tail.
        with contextlib.suppress(BufferError):
            self.map.close()
        os.close(self.fd)


class Journal:
    """The writing side: one per process. Every method may be called from any thread."""

    def __init__(
        self, directory: Path, writer_id: UUID, *, file_bytes: int = FILE_BYTES, quota: int = QUOTA_BYTES
    ) -> None:
        """Make ``directory/<writer_id>`` with room for the first frames.

        ``file_bytes`` is the size of each data file, ``quota`` the most that all of this writer's files may take.
        Raises JournalUnavailable when the directory cannot be written or the disk is full.
        """
        self.writer_id = writer_id
        self.path = directory / str(writer_id)
        self._file_bytes = file_bytes
        self._max_files = max(2, quota // file_bytes)
        self._max_frame = min(padded(FRAME_HEAD.size + MAX_PAYLOAD), file_bytes - FILE_HEAD.size)
        #: Held for no more than one frame takes, but by whoever finds no next file ready, or no room for an intent.
        self._lock = threading.Lock()
        #: Held by whoever makes or renames a file, or changes which there are; the last one taken.
        self._making = threading.Lock()
        self._syncing = threading.Lock()
        self._closed = False
        self._broken: JournalUnavailable | None = None
        self._generation = 0
        self._full: list[_DataFile] = []  # oldest first, waiting to be stored and then used again
        self._unsynced: list[_DataFile] = []
        self._spare: _DataFile | None = None
        self._intents: Intents | None = None
        self._reserve: _DataFile | None = None
        self._reserved_only = False  # the reserve is in use: no room for anything but outcomes
        self._unlisted = True  # a name was made or changed that the directory on the disk may not show yet
        self._create_header(directory)
        try:
            self._file = self._open_file()
        except OSError as error:
            self._discard()
            raise _unavailable(self.path, error) from error
        self._header_stat = os.fstat(self._header_fd)
        self._tail: Tail
        #: ``append`` of what needs no look but whether there is room, and so no lock. None says that it was not done.
        self.quick: Callable[[bytes], int | None]
        self._aim(self._file, FILE_HEAD.size, 0)

    def _create_header(self, directory: Path) -> None:
        staging = directory / f".{self.writer_id}.new"
        self._header_fd = -1
        self._header: Header | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The header is complete before the directory has its name: a reader never meets half a journal.
            staging.mkdir(mode=0o700)
            self._header_fd = os.open(staging / "header", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(self._header_fd, 0, HEADER_BYTES)
            # Held as long as the process lives: who can take it knows that the writer is dead.
            fcntl.flock(self._header_fd, fcntl.LOCK_EX)
            self._header = Header(self._header_fd)
            slots = self._header.slots
            self._slots: memoryview[int] | Header | dict[int, int] = slots
            slots[Slot.WRITER_HIGH] = self.writer_id.int >> 64
            slots[Slot.WRITER_LOW] = self.writer_id.int & 0xFFFFFFFFFFFFFFFF
            slots[Slot.CREATED] = time.time_ns() // 1000
            slots[Slot.MAGIC] = MAGIC
            os.fdatasync(self._header_fd)
            staging.rename(self.path)
            _sync_directory(directory)
        except OSError as error:
            shutil.rmtree(staging, ignore_errors=True)
            self._discard()
            raise _unavailable(self.path, error) from error

    def _discard(self) -> None:
        """Take away what there is of a journal that could not be made: who tries again and again leaves nothing."""
        if self._header is not None:
            self._header.close()
        if self._header_fd >= 0:
            os.close(self._header_fd)
        shutil.rmtree(self.path, ignore_errors=True)

    # --- intents ------------------------------------------------------------------------------------------------------

    def arm(self, payload: bytes) -> int:
        """Write an intent and set aside room for its outcome; return the slot to give to ``append`` afterwards.

        The intent survives a power cut after the next ``sync``. Raises JournalFull or JournalUnavailable.
        """
        with self._lock:
            if not self.accepting:
                raise self._unusable()
            try:
                if self._intents is None:
                    self._intents = Intents(self.path)
                    self._unlisted = True
                if self._reserve is None:
                    # Whatever the disk and the quota come to: the outcomes of open intents fit into this file.
                    self._reserve = self._make_reserve()
                    self._reserved_only = False
                    self._pass()
                return self._intents.arm(payload)
            except OSError as error:
                raise _unavailable(self.path, error) from error

    def _make_reserve(self) -> _DataFile:
        path = self.path / "reserve"
        with self._making:
            if (file := self._stored_file()) is not None:
                file.reuse(path, 0)
                return self._full.pop(0)
            if self._files_held() >= self._max_files:
                raise self._full_up()
            return _DataFile(path, 0, self._file_bytes)

    def strike(self, slot: int) -> None:
        """Free an intent's slot after its outcome was appended."""
        with self._lock:
            if self._intents is not None and not self._closed:
                # If it fails, it is the outcome's id that tells that the intent is done with.
                with contextlib.suppress(OSError):
                    self._intents.strike(slot)

    # --- the request path ---------------------------------------------------------------------------------------------

    def append(self, payload: bytes, *, reserved: bool = False) -> int:
        """Take one payload of at most MAX_PAYLOAD bytes and return its number.

        ``reserved`` marks what must find room so that the journal gets emptier, or keeps a promise: a gap event, or the
        outcome of an intent. It may use the room that ``arm`` has set aside, or one file more than the quota allows.

        When it returns, the frame is in the kernel's pages: ``kill -9`` of this process does not lose it.
        Raises JournalFull (quota) or JournalUnavailable (closed, disk full, file gone); then the journal is unchanged.
        """
        if (number := self.quick(payload)) is not None:
            return number
        if padded(FRAME_HEAD.size + len(payload)) > self._max_frame:
            raise JournalUnavailable(f"a payload of {len(payload)} bytes does not fit into the journal")
        with self._lock:
            if not self.accepting:
                raise self._unusable()
            if self._reserved_only and not reserved:
                raise JournalFull("what is left of the journal is set aside for the outcomes of open intents")
            try:
                number = self._tail.append(payload)
                while number is None:
                    self._roll(reserved=reserved)
                    number = self._tail.append(payload)
            except OSError as error:
                # Only where the file system refuses maps. How much of the frame is there is not known: write no more.
                raise self._break(_unavailable(self.path, error)) from error
        return number

    def _aim(self, file: _DataFile, offset: int, number: int) -> None:
        """The next frame goes to ``offset`` of this file."""
        assert self._header is not None
        self._tail, self._atomic = make_tail(
            file.map, file.generation, offset, self._file_bytes, self._header.slots, number
        )
        self._pass()

    def _pass(self) -> None:
        """Let ``append`` do without the lock where nothing but room has to be looked at."""
        self.quick = self._tail.append if self._atomic and self.accepting and not self._reserved_only else _no_number

    def _break(self, error: JournalUnavailable) -> JournalUnavailable:
        """Write no more, for good; the lock is held."""
        self._broken, self.quick = error, _no_number
        self._tail.stop()
        return error

    def _roll(self, *, reserved: bool) -> None:
        with self._making:
            # From here on every other append waits for the lock.
            self._tail.stop()
            file, offset, number = self._file, self._tail.offset, self._tail.number
            try:
                fresh = self._next_file(reserved=reserved)
                if not fresh.healthy(self._file_bytes):
                    raise _gone(fresh.path.name)
                fresh.map[: FILE_HEAD.size] = file_head(fresh.generation, number)
                self._spare = None
                file.end = number
                self._full.append(file)
                self._unsynced.append(file)
                self._file = file = fresh
                offset = FILE_HEAD.size
            except OSError as error:
                raise _unavailable(self.path, error) from error
            finally:
                self._aim(file, offset, number)

    def _next_file(self, *, reserved: bool) -> _DataFile:
        if self._spare is not None:
            return self._spare
        self._unlisted = True
        try:
            return self._recycled() or self._open_file()
        except (OSError, JournalFull):
            if not reserved:
                raise
            file = self._open_file(beyond=True) if self._reserve is None else self._reserve
            if file is self._reserve:
                self._reserve = None
                file.reuse(self.path / file_name(self._generation), self._generation)
                self._generation += 1
            self._reserved_only = True
            return file

    def _recycled(self) -> _DataFile | None:
        """The oldest file under its next number, if all its frames are stored and no fdatasync is pending on it."""
        file = self._stored_file()
        if file is None:
            return None
        # crash here ⇒ the file is missing under its old number; all its frames are stored, nobody asks for it.
        file.reuse(self.path / file_name(self._generation), self._generation)
        # crash here ⇒ its head still names the old generation: no file to read from yet.
        self._generation += 1
        return self._full.pop(0)

    def _stored_file(self) -> _DataFile | None:
        if not self._full or self._full[0].end > self._slots[Slot.STORED] or self._full[0] in self._unsynced:
            return None
        return self._full[0]

    def _open_file(self, *, beyond: bool = False) -> _DataFile:
        if self._generation and self._files_held() >= self._max_files + beyond:
            raise self._full_up()
        file = _DataFile(self.path / file_name(self._generation), self._generation, self._file_bytes)
        if self._generation == 0:
            file.map[: FILE_HEAD.size] = file_head(0, 0)
        self._generation += 1
        return file

    def _unusable(self) -> JournalUnavailable:
        # A new one each time: an exception that is raised again and again gathers tracebacks, and all they refer to.
        known = self._broken
        return JournalUnavailable("the journal is closed") if known is None else _copy(known)

    def _full_up(self) -> JournalFull:
        return JournalFull(
            f"the journal holds {self._max_files} files of {self._file_bytes} bytes that are not stored yet",
            hint="is the database reachable? INDELIBLE_JOURNAL_QUOTA raises the limit",
        )

    # --- the sync thread ----------------------------------------------------------------------------------------------

    def sync(self) -> int:
        """fdatasync what was appended until now; return how many frames survive a power cut.

        Also makes the next file when this one is half full, so that ``append`` seldom has to.
        Raises JournalUnavailable.
        """
        with self._syncing:
            with self._lock:
                if self._closed:
                    return self.synced
                if self._broken is not None:
                    raise self._unusable()
                target = self._tail.number
                intents, unlisted, self._unlisted = self._intents, self._unlisted, False
                finished, current = list(self._unsynced), self._file
                short = self._spare is None and (self._reserved_only or self._tail.offset * 2 > self._file_bytes)
            if short:
                self._prepare()
            try:
                # Without its header the journal is found by nobody who does not read it already.
                if os.fstat(self._header_fd).st_nlink == 0:
                    raise _gone("header")
                for file in (*finished, current):
                    if not file.healthy(self._file_bytes):
                        raise _gone(file.path.name)
                    os.fdatasync(file.fd)
                if intents is not None:
                    os.fdatasync(intents.fd)
                if unlisted:
                    # A file that a power cut leaves under its old name, or under none, is read by nobody.
                    _sync_directory(self.path)
            except OSError as error:
                # The kernel may have dropped the pages it could not write: what comes next must not stand behind them.
                with self._lock:
                    raise self._break(_unavailable(self.path, error)) from error
            except JournalUnavailable as error:
                with self._lock:
                    raise self._break(error) from None
            with self._lock:
                # crash here ⇒ the frames are durable and SYNCED says less than the truth: harmless.
                self._slots[Slot.SYNCED] = target
                self._unsynced = self._unsynced[len(finished) :]
        return target

    def _prepare(self) -> None:
        # If it fails, append meets the same obstacle and reports it, if it lasts until then.
        with self._making, contextlib.suppress(OSError, JournalFull):
            self._spare = self._recycled() or self._open_file()
            self._reserved_only, self._unlisted = False, True
            self._pass()

    # --- positions ----------------------------------------------------------------------------------------------------

    @property
    def appended(self) -> int:
        """How many frames were accepted."""
        return self._tail.number

    @property
    def synced(self) -> int:
        """How many frames survive a power cut."""
        return self._slots[Slot.SYNCED]

    @property
    def stored(self) -> int:
        """How many frames are stored, as the drainer, here or in another process, last said."""
        return self._slots[Slot.STORED]

    @property
    def dead(self) -> int:
        """How many frames the store refused for good."""
        return self._slots[Slot.DEAD]

    @property
    def lost(self) -> int:
        """How many frames could not be read back."""
        return self._slots[Slot.LOST]

    @property
    def accepting(self) -> bool:
        """Whether ``append`` may succeed: not closed, files where they belong, last fdatasync without an error."""
        return not self._closed and self._broken is None

    @property
    def drainer(self) -> int:
        """The id of the process that last took this journal up to drain it; 0 for none."""
        return self._slots[Slot.DRAINER]

    def note_shed(self, count: int) -> None:
        """Leave in the header how many events were shed and are not recorded as a gap: a dead process cannot tell."""
        with self._lock, contextlib.suppress(OSError):
            self._slots[Slot.SHED] = count

    def want(self, number: int) -> None:
        """Ask the drainer, wherever it runs, to store the first ``number`` frames without waiting for its timer."""
        with self._lock:
            if number > self._slots[Slot.WANTED]:
                self._slots[Slot.WANTED] = number

    def bytes_held(self) -> int:
        """How many bytes this writer's files take on disk."""
        with self._making:
            return self._files_held() * self._file_bytes + HEADER_BYTES

    def _files_held(self) -> int:
        return len(self._full) + 1 + (self._spare is not None) + (self._reserve is not None)

    def close(self) -> None:
        """``finish``, and forget the positions' source. Twice does nothing."""
        try:
            self.finish()
        finally:
            self._release()

    def finish(self) -> None:
        """Sync and let go. What is not stored stays for whoever drains the directory next.

        The positions go on telling what becomes of it, until ``abandon``. Raises JournalUnavailable, and lets go then too.
        """
        if self._closed:
            return
        try:
            self.sync()
            self._slots[Slot.CLOSED] = 1
        finally:
            self.leave()

    @property
    def in_place(self) -> bool:
        """Whether who looks for it now finds this journal: its header is where it was made."""
        try:
            return os.path.samestat((self.path / "header").stat(), self._header_stat)
        except OSError:
            return False

    def leave(self) -> None:
        """Let go without a sync, as if the process had died: for a journal that cannot be relied on any more."""
        with self._syncing, self._lock:
            if not self._closed:
                self._closed = True
                self._close_files()
                # The map keeps the file open, and with it a lock that nobody takes away.
                fcntl.flock(self._header_fd, fcntl.LOCK_UN)

    def abandon(self) -> None:
        """Let go of everything, the positions' source as well: in a forked child, or when all is said.

        Takes no lock: at the moment of the fork another thread, which the child does not have, may have held it. The
        files, the lock and the numbering stay the parent's.
        """
        self._release()

    def _release(self) -> None:
        if not self._closed:
            self._closed = True
            self._close_files()
        if self._header is not None:
            header, self._header = self._header, None
            self._slots = header.close()  # the positions stay readable
            os.close(self._header_fd)

    def _close_files(self) -> None:
        self.quick = _no_number
        self._tail.stop()
        for file in (*self._full, self._file, self._spare, self._reserve, self._intents):
            if file is not None:
                file.close()


def _no_number(_: bytes) -> None:
    """Stands for a Tail that must not be used."""


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _copy(error: JournalUnavailable) -> JournalUnavailable:
    return JournalUnavailable(error.message, hint=error.hint)


def _gone(name: str) -> JournalUnavailable:
    return JournalUnavailable(f"journal file {name} was removed or cut while in use")


def _unavailable(path: Path, error: OSError) -> JournalUnavailable:
    return JournalUnavailable(
        f"cannot write the journal in {path.parent}: {error.strerror or error}",
        hint="INDELIBLE_DATA_DIR must be a writable directory on a local disk with free space",
    )
