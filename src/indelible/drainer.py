"""Journals → store: the loop that both a thread and a process run. One per data directory, by file lock.

The drainer reads every journal in the directory, those of dead processes like any other, and hands the store one
writer's next consecutive events at a time. It keeps no state that matters: what is stored is known to the store, what
is waiting is in the journals. So recovery after a crash is the normal path.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

import msgspec

from indelible.delivery import Backoff, FlushPolicy, Repeats
from indelible.directory import beat
from indelible.errors import (
    IndelibleError,
    JournalCorrupt,
    NotAccepted,
    OutOfSequence,
    RowRefused,
    StoreError,
    WriterCloned,
)
from indelible.events import AuditEvent, EncodedEvents, decode_event
from indelible.journal import Frame, Hole, JournalReader, open_intents, sweep, writers
from indelible.metrics import Recorder, Tally
from indelible.native import native
from indelible.pacing import at_once, beside_others, breathe
from indelible.ports import Store

log: Final = logging.getLogger("indelible.drainer")

#: Seconds between two looks at the journals; what other processes append becomes visible within it.
POLL: Final = 0.05
#: So many times as many frames are read together as rows are worked on, in C: it takes a twentieth of the time.
_LOOKS: Final = 1 if native is None else 8
_LOCK: Final = "drainer.lock"
#: Seconds between two attempts to become the drainer of the directory.
LOCK_RETRY: Final = 0.5
#: Seconds after which a frame that its living writer has announced, but that cannot be read, counts as damaged.
PATIENCE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Gap:
    """Events ``first`` up to, not including, ``end`` of a writer that will not be stored, and why.

    ``reason`` is ``journal_damaged`` (power cut, deleted or cut file), ``refused`` (by the store), ``writer_cloned`` (both
    kept as dead letters), ``store_rolled_back`` (restored or failed over) or ``journal_removed``; with ``shed`` (the
    process died before it could say so) the numbers only count events, which had none.
    """

    writer_id: UUID
    first: int
    end: int
    reason: str


class GapRecorder(Protocol):
    """Whoever turns a Gap into a sealed ``audit.gap`` event. MUST have it accepted when the call returns."""

    def __call__(self, gap: Gap, /) -> None:
        """Record ``gap``, or raise NotAccepted: then nothing behind the gap is stored."""
        ...


class _Source:
    """One writer's journal and how far the drainer is with it."""

    __slots__ = ("cloned", "known", "position", "reader", "rolled_back", "since", "stuck")

    def __init__(self, reader: JournalReader) -> None:
        self.reader = reader
        self.known = False  # whether the store was asked for the writer's position
        self.position = 0  # that position: where the writer's events in the store end
        self.cloned = False  # whether the store has other events under this writer's id
        self.rolled_back = False  # whether the store had forgotten some of them
        self.since: float | None = None  # when the first event that waits was seen
        self.stuck: float | None = None  # since when an announced frame cannot be read


@dataclass(slots=True)
class _Done:
    """Of the numbers in one flush, how many did not end in the store."""

    dead: int = 0
    lost: int = 0


class Drainer:
    """Drains one data directory into one store. ``step`` does the work; ``run`` repeats it until ``stop``."""

    def __init__(
        self,
        directory: Path,
        store: Store,
        record_gap: GapRecorder,
        *,
        recorder: Recorder | None = None,
        policy: FlushPolicy | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.journals = directory / "journal"
        self.dead_letters = directory / "dead-letters"
        self.store = store
        self._record_gap = record_gap
        self._recorder = recorder or Tally()
        self._policy = policy or FlushPolicy()
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._jitter = jitter
        self._sources: dict[Path, _Source] = {}
        self._listed: list[str] = []  # the directory's content when all journals in it had been opened
        self._lock_fd = -1
        self._retry_at = 0.0
        self._failures = 0
        self._told = False  # whether the failures in a row were told of, and so their end will be
        self._away, self._shut, self._refused = Repeats(), Repeats(), Repeats()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self.stored = threading.Condition()  # notified after every append

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Drain until ``stop`` is called, then one last round. Runs in a thread or as a process's main loop."""
        try:
            while not self._stopping.is_set():
                self._wake.wait(self.step())
                self._wake.clear()
            self.step()
        finally:
            self.release()

    def wake(self) -> None:
        """Look at the journals now."""
        self._wake.set()

    def stop(self) -> None:
        """Make ``run`` return after the round that is under way and one more."""
        self._stopping.set()
        self._wake.set()

    def abandon(self) -> None:
        """Let go in a forked child, without touching the lock, which is the parent's."""
        for source in self._sources.values():
            source.reader.close()
        self._sources.clear()
        self._listed = []
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def release(self) -> None:
        """Close every journal and give the directory to the next drainer."""
        self.abandon()

    def step(self) -> float:
        """One round over all journals; return after how many seconds the next is due."""
        now = self._clock()
        if not self._own_directory():
            return LOCK_RETRY
        self._beat()
        self._discover()
        if now < self._retry_at <= now + self._backoff.cap:
            return self._retry_at - now
        busy = False
        trouble: OSError | NotAccepted | None = None
        for source in list(self._sources.values()):
            try:
                busy = self._drain(source, now) or busy
            except StoreError as error:
                self._failed(error, now)
                return self._retry_at - now
            except (OSError, NotAccepted) as error:
                # This journal's files, its dead letters or its gaps: what is done for the others may make room for them.
                source.known, trouble = False, error
        if trouble is not None:
            self._failed(trouble, now)
        return 0.0 if busy else POLL

    def _failed(self, error: IndelibleError | OSError, now: float) -> None:
        self._failures += 1
        self._recorder.add("store_retries")
        delay = self._backoff.delay(self._failures, self._jitter())
        self._retry_at = now + delay
        if (silent := self._away.due(now)) is None:
            log.debug("attempt %d failed, next in %.1f s: %s", self._failures, delay, error)
            return
        self._told = True
        log.warning(
            "events cannot be stored; they stay in the journal, retrying: %s (%d more failures since the last line)",
            error, silent,
        )  # fmt: skip

    def _succeeded(self) -> None:
        if self._told:
            log.info("events are stored again after %d failed attempts", self._failures)
        self._failures, self._retry_at, self._told = 0, 0.0, False

    @property
    def failures(self) -> int:
        """How many attempts in a row the store has refused or missed."""
        return self._failures

    # --- who drains ---------------------------------------------------------------------------------------------------

    @property
    def owns_directory(self) -> bool:
        """Whether this drainer holds the directory's lock."""
        return self._lock_fd >= 0

    def _own_directory(self) -> bool:
        if self._lock_fd >= 0:
            if os.fstat(self._lock_fd).st_nlink:
                return True
            # Somebody deleted the directory: the lock keeps nobody out any more. What is open is still drained.
            os.close(self._lock_fd)
            self._lock_fd = -1
        try:
            self.journals.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.journals / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if (silent := self._shut.due(self._clock())) is not None:
                log.warning(
                    "cannot open the journal directory: %s (%d more since the last line)", error.strerror, silent
                )
            return False
        try:
            # The kernel gives the lock of a dead process to the next who asks: taking over needs nothing more.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._lock_fd = fd
        sweep(self.journals)
        log.info("draining %s", self.journals)
        return True

    def _beat(self) -> None:
        """Leave a sign of life in the lock's file."""
        with contextlib.suppress(OSError):  # a full disk; draining goes on all the same
            beat(self._lock_fd)

    def _discover(self) -> None:
        try:
            listed = os.listdir(self.journals)  # noqa: PTH208 - names are enough
        except (FileNotFoundError, NotADirectoryError):
            return
        if listed == self._listed:
            return  # as almost always, and this is done many times a second while nothing happens
        for path in writers(self.journals):
            if path not in self._sources:
                try:
                    reader = JournalReader(path)
                    reader.claim(os.getpid())
                    self._sources[path] = _Source(reader)
                except (OSError, JournalCorrupt) as error:
                    log.debug("not a journal: %s", error)
        opened = {path.name for path in self._sources}
        strange = [name for name in listed if name not in opened and name != _LOCK and not name.startswith(".")]
        self._listed = [] if strange else listed

    # --- one journal --------------------------------------------------------------------------------------------------

    def _drain(self, source: _Source, now: float) -> bool:
        """Store what is due of one journal; True if there is more."""
        reader = source.reader
        if not source.known:
            self.store.open()
            self._pick_up(source)
        waiting, alive = reader.appended - reader.next, reader.alive()
        if waiting <= 0 and alive:
            source.since = None
            return False
        if source.since is None:
            source.since = now
        urgent = not alive or reader.wanted > reader.next
        due = self._policy.due(waiting=waiting, since=source.since, now=now, urgent=urgent)
        if alive and not due:
            return False
        if source.cloned:
            self._disown(source)
        damaged = source.stuck is not None and not 0 <= now - source.stuck < PATIENCE
        with beside_others(self._policy.together(waiting)):
            return self._flush(source, waiting, final=damaged or not alive, alive=alive, now=now)

    def _flush(self, source: _Source, waiting: int, *, final: bool, alive: bool, now: float) -> bool:
        """Store what one append takes; True if there is more."""
        reader, most, began = source.reader, self._policy.max_batch, time.perf_counter()
        # What comes meanwhile is for the next append. A dead writer may have left more than its header says.
        items = self._read(reader, min(most, waiting) if alive else most, final=final)
        if not items:
            if not alive and not self._settle_intents(source):
                self._retire(source)
            elif source.stuck is None:
                source.stuck = now
            return False
        source.stuck = None
        try:
            done = self._store(source, items)
        except WriterCloned:
            self._disown(source)
            return False
        except OutOfSequence:
            source.known = False
            reader.seek(reader.stored)
            return True
        except IndelibleError:
            source.known = False  # ask for the position again: the append may have succeeded and the answer got lost
            raise
        # crash before this line ⇒ the store has them, the header does not say so: the next drainer asks the store.
        reader.mark_stored(reader.next, confirmed=source.position, dead=done.dead, lost=done.lost)
        source.since = None
        self._recorder.observe("flush_seconds", time.perf_counter() - began)
        self._recorder.observe("flush_events", len(items))
        log.debug("flushed %d events of writer %s", len(items), reader.writer_id)
        self._succeeded()
        with self.stored:
            self.stored.notify_all()
        return True

    def _read(self, reader: JournalReader, most: int, *, final: bool) -> list[Frame | Hole]:
        """What one append takes."""
        items: list[Frame | Hole] = []
        together = _LOOKS * at_once(most)
        while len(items) < most:
            asked = min(together, most - len(items))
            some = reader.read(asked, final=final)
            items += some
            if len(some) < asked:
                break
            breathe()
        return items

    def _settle_intents(self, source: _Source) -> bool:
        """Store what a dead writer intended and nobody knows the outcome of, as its last events; True if there was any.

        Whether an intent has its outcome is known by the event's id: all frames of the journal are stored by now.
        """
        reader = source.reader
        unknown = [event for event in _intended(reader.path) if self.store.get(event.id) is None]
        if not unknown:
            return False
        try:
            self.store.append(reader.writer_id, reader.next, unknown, after=source.position)
        except RowRefused as error:
            # Without the traceback: what the driver says holds the rows.
            log.error("the intents of writer %s cannot be stored: %s", reader.writer_id, error)
            return False
        source.position = reader.next + len(unknown)
        # crash here ⇒ the next drainer finds them in the store by their ids.
        reader.seek(reader.next + len(unknown))
        reader.mark_stored(reader.stored, confirmed=source.position)
        log.warning("%d requests of writer %s have no known outcome", len(unknown), reader.writer_id)
        return True

    def _pick_up(self, source: _Source) -> None:
        """Find out where to go on: the store's word counts, the header's only for what was never meant for the store."""
        reader = source.reader
        last = self.store.last_event(reader.writer_id)
        position = 0 if last is None else last[0] + 1
        if position < reader.confirmed:
            log.critical(
                "the store holds %d events of writer %s, and had confirmed %d: it was restored or failed over;"
                " what the journal still has is stored again, the rest is recorded as a gap",
                position, reader.writer_id, reader.confirmed,
            )  # fmt: skip
            reader.seek(position)
            source.rolled_back = True
        else:
            if last is not None and position > reader.confirmed and not self._is_ours(source, last):
                source.cloned = source.known = True
                return
            reader.seek(max(position, reader.stored))
        source.position = position
        reader.mark_stored(reader.next, confirmed=position)
        source.known = True

    def _is_ours(self, source: _Source, last: tuple[int, UUID]) -> bool:
        """The store is ahead of the header, as after a crash between commit and mark: of this journal's events?"""
        number, event_id = last
        if number >= source.reader.appended:
            # Intents without an outcome are stored behind the last frame, and have no frame of their own.
            return any(event.id == event_id for event in _intended(source.reader.path))
        source.reader.seek(number)
        for item in source.reader.read(1, final=False):
            if isinstance(item, Frame) and item.number == number:
                with contextlib.suppress(msgspec.MsgspecError):
                    return decode_event(item.payload).id == event_id
        return True  # unreadable: nothing says otherwise

    def _disown(self, source: _Source) -> None:
        """Another process goes on under this writer's id: keep what only this journal has, and say so."""
        reader, source.cloned = source.reader, True
        log.critical("writer %s was cloned: its waiting events are kept as dead letters", reader.writer_id)
        reader.seek(reader.stored)
        first, done = reader.next, _Done()
        while items := reader.read(self._policy.max_batch, final=True):
            for item in items:
                if isinstance(item, Frame):
                    self._keep(reader.writer_id, item.number, item.payload)
                    done.dead += 1
                else:
                    done.lost += item.end - item.first
        if reader.next > first:
            self._gap(Gap(reader.writer_id, first, reader.next, "writer_cloned"))
        reader.mark_stored(reader.next, confirmed=0, dead=done.dead, lost=done.lost)

    def _retire(self, source: _Source) -> None:
        if count := source.reader.shed:
            self._gap(Gap(source.reader.writer_id, 0, count, "shed"))
            # crash here ⇒ they are told of twice.
        log.debug("journal of writer %s is drained", source.reader.writer_id)
        del self._sources[source.reader.path]
        self._listed = []  # if it cannot be removed, it is opened again
        source.reader.retire()

    def _store(self, source: _Source, items: Sequence[Frame | Hole]) -> _Done:
        writer_id, done = source.reader.writer_id, _Done()
        batch: list[bytes] = []
        first = 0
        for item in items:
            if isinstance(item, Frame):
                first = item.number - len(batch)
                batch.append(item.payload)
                continue
            self._append(source, first, EncodedEvents(batch), done)
            batch = []
            done.lost += item.end - item.first
            why = "store_rolled_back" if source.rolled_back else "journal_damaged"
            self._gap(Gap(writer_id, item.first, item.end, why))
        self._append(source, first, EncodedEvents(batch), done)
        return done

    def _append(self, source: _Source, first: int, events: EncodedEvents, done: _Done) -> None:
        """Append; of a batch that holds what is no event, or that the store refuses, everything but that."""
        if not events:
            return
        began = time.perf_counter()
        writer_id = source.reader.writer_id
        try:
            self.store.append(writer_id, first, events, after=source.position)
        except RowRefused as error:
            if len(events) == 1:
                self._bury(writer_id, first, events.payloads[0], error.message, done)
                return
            middle = len(events) // 2
            self._append(source, first, EncodedEvents(events.payloads[:middle]), done)
            self._append(source, first + middle, EncodedEvents(events.payloads[middle:]), done)
        else:
            source.position = first + len(events)
            self._recorder.observe("store_append_seconds", time.perf_counter() - began)

    def _bury(self, writer_id: UUID, number: int, payload: bytes, why: str, done: _Done) -> None:
        """Keep what the store will never take, and say so in the log."""
        self._keep(writer_id, number, payload)
        if (silent := self._refused.due(self._clock())) is not None:
            log.error(
                "event %d of writer %s was refused by the store and kept as a dead letter: %s (%d more since the last line)",
                number, writer_id, why, silent,
            )  # fmt: skip
        done.dead += 1
        self._gap(Gap(writer_id, number, number + 1, "refused"))

    def _keep(self, writer_id: UUID, number: int, payload: bytes) -> None:
        self.dead_letters.mkdir(mode=0o700, exist_ok=True)
        path = self.dead_letters / f"{writer_id}-{number}.msgpack"
        staging = path.with_suffix(".new")
        staging.write_bytes(payload)
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        staging.rename(path)
        # crash here ⇒ the same dead letter is written again, under the same name, and the gap recorded then.

    def _gap(self, gap: Gap) -> None:
        self._record_gap(gap)
        self._recorder.add("gaps")


def _intended(path: Path) -> list[AuditEvent]:
    """The events of the intents in a dead writer's journal that have no outcome."""
    found = []
    for payload in open_intents(path):
        with contextlib.suppress(msgspec.MsgspecError):  # a slot that was torn: its request was never let through
            found.append(decode_event(payload))
    return found
