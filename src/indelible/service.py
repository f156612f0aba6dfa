"""AuditService: accept → journal. It owns the thread that syncs the journal and the one that drains it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Unpack, get_args
from uuid import UUID, uuid4

import uuid_utils

from indelible.delivery import FlushPolicy, Repeats
from indelible.drainer import Drainer, Gap
from indelible.errors import (
    IndelibleError,
    InvalidEvent,
    JournalFull,
    JournalUnavailable,
    NotAccepted,
    StoreUnavailable,
    WaitTimeout,
)
from indelible.health import Health
from indelible.intake import EventFields, Intake
from indelible.journal import Journal
from indelible.metrics import Histogram, Tally
from indelible.ports import Follower, Host, Store
from indelible.redaction import Redactor
from indelible.settings import Settings
from indelible.shedding import Shedding
from indelible.syncing import Syncer
from indelible.taxonomy import LOGGABLE, check_event_type, check_status
from indelible.vitals import Past, examine, measure

__all__ = ["AuditService", "EventFields", "Wait"]

log: Final = logging.getLogger("indelible.service")

Wait = Literal["accepted", "durable", "stored"]
#: A misspelt one must not mean the weakest.
_WAITS: Final = get_args(Wait)
_DEADLINE: Final = 10.0
#: Seconds between two attempts to open a journal where none can be opened, and between two looks at one that was left.
_REOPEN: Final = 0.5
#: Seconds before a drainer, or a follower, that died of an error is started again.
_RESTART: Final = 1.0
#: Seconds that each thread is given to end when the deadline of ``close`` has passed: one that is not stuck needs less.
_GRACE: Final = 1.0
#: Seconds between two looks whether this process drains the data directory, and so runs the followers.
_FOLLOW: Final = 0.2
#: Seconds that a drainer lets less than a whole batch wait: batches of twenty cost twice as much an event.
_LINGER: Final = 0.2
#: The fewest and the most rows that a drainer works on at a time. In the application's process, to seal or to bind the
#: fewest takes some 0.1 ms; in one of its own it is in the way only where processors are few.
_BESIDE_A_LOOP: Final = (15, 250)
_BESIDE_A_PROCESS: Final = (50, 50)


@dataclass(frozen=True, slots=True)
class Intent:
    """Something that may happen now because it is written down; see ``AuditService.intend``."""

    event_id: UUID
    slot: int
    journal: Journal


class AuditService:
    """One per process: takes events, keeps them in the journal and sees to it that they reach the store.

    ``log`` may be called from any thread, before ``start`` too, and never waits for the store.
    ``announce`` records ``audit.started`` and ``audit.stopped``; tools that live for a moment leave it out.
    """

    def __init__(
        self, store: Store, settings: Settings, *, announce: bool = True, followers: Sequence[Follower] = ()
    ) -> None:
        self.store = store
        self._followers = tuple(followers)
        self.settings = settings
        self._announce = announce
        self._intake = Intake(
            Redactor(extra_keys=settings.redact_keys, path_rules=settings.redact_paths), settings.service_name
        )
        self._reset()
        _services.add(self)

    def _reset(self) -> None:
        self._tally = Tally()
        self._tick = self._tally.offered.tick
        self._lifecycle = threading.RLock()
        self._journal: Journal | None = None
        self._drainer: Drainer | None = None
        self._threads: list[threading.Thread] = []
        self._past = Past()
        self._closing = threading.Event()
        self._dying, self._replacing = Repeats(), Repeats()
        self._failing: dict[str, Repeats] = {}
        self._shedding = Shedding()
        self._syncer = Syncer(
            lambda: self._journal,
            interval=self.settings.fsync_interval,
            closing=self._closing,
            recorder=self._tally,
            failed=self._replace,
            tend=self._look_after_what_was_left,
        )
        self._refused: tuple[float, NotAccepted] | None = None

    # --- accepting ----------------------------------------------------------------------------------------------------

    def log(self, **fields: Unpack[EventFields]) -> UUID:
        """Take one event and return its id. It is in the journal when this returns: killing the process loses nothing.

        ``status`` defaults to ``success``; actor and correlation id default to what ``bound(...)`` or the request gave.
        Raises InvalidEvent for an unknown event type or status, NotAccepted only where ``on_full`` is ``raise``.
        """
        if fields.get("event_type") not in LOGGABLE or "action" not in fields or "status" in fields:
            _check(fields)
        return self._offer(fields)[0]

    def record(self, *, must: bool = False, **fields: Unpack[EventFields]) -> UUID:
        """``log`` for the log's own code: takes reserved event types, and with ``must`` raises NotAccepted always."""
        return self._offer(fields, must)[0]

    def offer(self, fields: EventFields) -> UUID:
        """``record`` of a mapping, which is used up: for whoever has one at each request."""
        return self._offer(fields)[0]

    def accept(self, payload: bytes) -> None:
        """``offer`` of an event that is in the journal's form already: checked, bounded, with an id and the time."""
        self._tick()
        journal = self._journal
        if journal is None or self._shedding.count or journal.quick(payload) is None:
            self._keep(payload, None)
        elif not self._syncer.dirty:
            self._syncer.wake()

    async def alog(self, *, wait: Wait = "accepted", timeout: float = _DEADLINE, **fields: Unpack[EventFields]) -> UUID:  # noqa: ASYNC109
        """``log``, then wait until the event is ``durable`` (survives a power cut) or ``stored`` (in the database).

        Raises WaitTimeout after ``timeout`` seconds: the event is accepted all the same. Where something is awaited, an
        event that is not accepted raises NotAccepted whatever ``on_full`` says.
        """
        if wait not in _WAITS:
            raise InvalidEvent(f"unknown wait {str(wait)[:64]!r}", hint="use accepted, durable or stored")
        _check(fields)
        event_id, number, journal = self._offer(fields, wait != "accepted")
        if wait == "durable" and journal is not None:
            try:
                await asyncio.wait_for(asyncio.wrap_future(self._syncer.next()), timeout)
            except (TimeoutError, NotAccepted) as error:
                raise WaitTimeout(f"accepted, but not durable within {timeout:g} s") from error
            if journal.synced <= number:
                # What was synced is the journal that has taken its place.
                raise WaitTimeout("accepted, but its journal had to be given up and cannot be synced any more")
        elif wait == "stored" and journal is not None:
            await asyncio.to_thread(self._wait_stored, journal, number + 1, timeout)
        return event_id

    def _offer(self, fields: EventFields, must: bool = False) -> tuple[UUID, int, Journal | None]:
        event, payload = self._intake.take(fields)
        self._tick()
        return event.id, *self._keep(payload, event.timestamp, must)

    def _keep(self, payload: bytes, at: int | None, must: bool = False) -> tuple[int, Journal | None]:
        # The request path: what is not needed for each event is done elsewhere.
        try:
            journal = self._journal
            if journal is None or self._shedding.count:
                journal = self._ready_again()
            number = journal.append(payload)
        except NotAccepted as error:
            if must or self.settings.on_full != "shed":
                journal, number = self._not_accepted(payload, error, must=must)
            else:
                self._shedding.add(time.time_ns() // 1000 if at is None else at, self._journal)
                self._tally.add("events_shed")
                self._replace_if_broken()
                return -1, None
        if not self._syncer.dirty:
            self._syncer.wake()
        return number, journal

    def _ready_again(self) -> Journal:
        """The journal, opened if need be; what was shed is recorded before anything else."""
        journal = self._journal or self._open_journal()
        self._confess(journal)
        return journal

    def _not_accepted(self, payload: bytes, error: NotAccepted, *, must: bool) -> tuple[Journal, int]:
        """Raise ``error``, or wait for room where that is asked for."""
        try:
            if must or self.settings.on_full != "block" or not isinstance(error, JournalFull):
                raise error
            return self._accept_when_there_is_room(payload)
        except NotAccepted:
            self._tally.add("events_raised")
            self._replace_if_broken()
            raise

    def _accept_when_there_is_room(self, payload: bytes) -> tuple[Journal, int]:
        """Wait, as ``on_full="block"`` asks, until the store has taken some of what waits. Raises JournalFull in the end."""
        deadline = time.monotonic() + self.settings.block_timeout
        while True:
            # The drainer may be in another process, which notifies nobody here: look again soon.
            if (drainer := self._drainer) is not None:
                drainer.wake()
            self._closing.wait(0.01)
            try:
                journal = self._ready_again()
                return journal, journal.append(payload)
            except JournalFull:
                if time.monotonic() >= deadline:
                    raise

    def _replace_if_broken(self) -> None:
        if self._journal is not None and not self._journal.accepting:
            self._syncer.wake()  # whose thread opens another

    def _confess(self, journal: Journal, *, reserved: bool = False) -> None:
        """Record how many events were shed, before the first one that is accepted again."""

        def note(told: Mapping[str, object]) -> None:
            self._note(journal, "audit.gap", "gap", told, status="failure", reserved=reserved)

        if self._shedding.confess(journal, note):
            self._tally.add("gaps")

    def _record_gap(self, gap: Gap) -> None:
        """Keep a gap event where it does not get lost itself: in files that are where they belong, quota or not."""
        journal = self._journal
        if journal is None:
            raise JournalUnavailable("the service is stopping")
        try:
            journal.sync()
        except JournalUnavailable:
            self._syncer.wake()
            raise
        told: dict[str, object] = {"count": gap.end - gap.first, "reason": gap.reason}
        if gap.reason != "shed":
            told |= {"first": gap.first, "end": gap.end}
        metadata = {**told, "writer_id": str(gap.writer_id)}
        self._note(journal, "audit.gap", "gap", metadata, status="failure", reserved=True)
        self._syncer.wake()

    def _record_here(self, **fields: Unpack[EventFields]) -> UUID:
        """``record`` for followers: into the journal that is open, or not at all. It never opens one that was closed."""
        journal = self._journal
        if journal is None:
            raise JournalUnavailable("the service is stopping")
        event, payload = self._intake.take(fields, own=True)
        journal.append(payload)
        self._tick()
        self._syncer.wake()
        return event.id

    def _note(
        self,
        journal: Journal,
        event_type: str,
        action: str,
        told: Mapping[str, object],
        status: str = "success",
        *,
        reserved: bool = False,
    ) -> None:
        """Append an event of the log's own to this very journal."""
        metadata = {"writer_id": str(journal.writer_id), **told}
        _, payload = self._intake.take(
            {"event_type": event_type, "action": action, "status": status, "metadata": metadata}, own=True
        )
        journal.append(payload, reserved=reserved)
        self._tick()

    # --- acting only when audited --------------------------------------------------------------------------------------

    async def intend(self, *, timeout: float = _DEADLINE, **fields: Unpack[EventFields]) -> Intent:  # noqa: ASYNC109
        """Write down what is about to happen, on the disk, before it may happen; ``fulfil`` completes it.

        Should the process die first, the event is stored as a ``failure`` with ``metadata.outcome = "unknown"``.
        Raises NotAccepted when it cannot be written: then the action must not take place.
        """
        metadata = fields.get("metadata")
        told = {**(metadata if isinstance(metadata, dict) else {}), "outcome": "unknown"}
        event, payload = self._intake.take({**fields, "status": "failure", "metadata": told})
        journal = self._journal or self._open_journal()
        slot = journal.arm(payload)
        durable = self._syncer.next()
        try:
            await asyncio.wait_for(asyncio.wrap_future(durable), timeout)
        except (TimeoutError, NotAccepted) as error:
            journal.strike(slot)
            raise JournalUnavailable("the journal's disk does not confirm the intent") from error
        except BaseException:
            journal.strike(slot)
            raise
        if not journal.accepting:
            # What was synced is the journal that has taken its place, or none.
            raise JournalUnavailable("the journal was given up before its disk confirmed the intent")
        return Intent(event.id, slot, journal)

    def fulfil(self, intent: Intent, **fields: Unpack[EventFields]) -> UUID:
        """Turn an intent into its event, under the same id, in the room that was set aside for it."""
        event, payload = self._intake.take(fields, intent.event_id)
        self._tick()
        journal = intent.journal if intent.journal.accepting else self._journal or self._open_journal()
        try:
            journal.append(payload, reserved=journal is intent.journal)
        except NotAccepted:
            # The intent stays where it is, and says that the outcome is not known.
            self._tally.add("events_raised")
            raise
        intent.journal.strike(intent.slot)
        self._syncer.wake()
        return event.id

    def withdraw(self, intent: Intent) -> None:
        """Give an intent up that needs no event of its own: what was intended is recorded elsewhere, or not at all."""
        intent.journal.strike(intent.slot)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _wait_stored(self, journal: Journal, count: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while journal.stored < count:
            if time.monotonic() >= deadline:
                raise WaitTimeout(
                    f"accepted, but not stored within {timeout:g} s", hint="is the database reachable? See the log"
                )
            journal.want(count)
            drainer = self._drainer
            # The drainer may be in another process, which notifies nobody here: look again soon.
            if drainer is None:
                self._closing.wait(0.01)
                continue
            drainer.wake()
            with drainer.stored:
                drainer.stored.wait_for(lambda: journal.stored >= count, 0.01)

    async def flush(self, timeout: float = _DEADLINE) -> None:  # noqa: ASYNC109
        """Wait until everything this process logged before the call is stored. Raises WaitTimeout (seconds)."""
        await asyncio.to_thread(self.flush_sync, timeout)

    def flush_sync(self, timeout: float = _DEADLINE) -> None:
        """``flush`` for synchronous hosts."""
        journal = self._journal
        if journal is not None:
            self._wait_stored(journal, journal.appended, timeout)

    # --- life cycle ---------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the journal is open: after ``start``, or the first event, until ``stop``."""
        return self._journal is not None

    async def start(self) -> None:
        """Open the journal and the store. An absent database is no error: events wait in the journal.

        Raises SchemaOutOfDate or ForeignTable, with the command to run, when the tables are not what they must be.
        """
        await asyncio.to_thread(self.open)

    async def stop(self) -> None:
        """Store what waits, for 10 s at the most, and close. What is left stays in the journal for the next start."""
        await asyncio.to_thread(self.close)

    def open(self) -> None:
        """``start`` for synchronous hosts. Opening an open service does nothing."""
        with self._lifecycle:
            try:
                self.store.open()
            except StoreUnavailable as error:
                log.warning("starting without the store; events stay in the journal: %s", error)
            if self._journal is None:
                self._open_journal()

    def _open_journal(self) -> Journal:
        with self._lifecycle:
            if self._journal is not None:
                return self._journal
            if self._refused is not None and time.monotonic() < self._refused[0]:
                # An attempt for each event would be too much for the request path.
                raise JournalUnavailable(self._refused[1].message, hint=self._refused[1].hint)
            journal = self._new_journal()
            self._closing.clear()
            self._threads = [threading.Thread(target=self._syncer.run, name="indelible-sync", daemon=True)]
            if self.settings.writer == "thread":
                self._drainer = self._new_drainer(_BESIDE_A_LOOP)
                self._threads.append(threading.Thread(target=self._drain_loop, name="indelible-drainer", daemon=True))
            if self._followers:
                following = threading.Thread(target=self._follow_loop, name="indelible-followers", daemon=True)
                self._threads.append(following)
            self._journal = journal
            for thread in self._threads:
                thread.start()
            self._syncer.wake()
            atexit.register(self.close)
            return journal

    def _new_journal(self) -> Journal:
        try:
            journal = Journal(
                self.settings.data_dir / "journal",
                uuid4(),
                file_bytes=self.settings.journal_file_bytes,
                quota=self.settings.journal_quota,
            )
        except NotAccepted as error:
            self._refused = (time.monotonic() + _REOPEN, error)
            raise
        self._refused = None
        if self._announce:
            try:
                self._note(journal, "audit.started", "start", {"pid": os.getpid(), "host": socket.gethostname()})
            except NotAccepted:
                journal.abandon()
                raise
        return journal

    def _new_drainer(self, pieces: tuple[int, int]) -> Drainer:
        settings = self.settings
        policy = FlushPolicy(settings.batch_size, settings.flush_interval, _LINGER, settings.max_batch, pieces)
        return Drainer(Path(settings.data_dir), self.store, self._record_gap, recorder=self._tally, policy=policy)

    def drain_here(self, ready: threading.Event | None = None) -> None:
        """Be the data directory's drainer, in this thread, until ``close`` is called: what ``indelible writer`` runs.

        Sets ``ready`` before the first round.
        """
        with self._lifecycle:
            self._open_journal()
            self._drainer = self._new_drainer(_BESIDE_A_PROCESS)
            self._threads.append(threading.current_thread())
        if ready is not None:
            ready.set()
        self._drain_loop()

    def close(self, timeout: float = _DEADLINE) -> None:
        """``stop`` for synchronous hosts; ``timeout`` in seconds. Closing a closed service does nothing."""
        with self._lifecycle:
            journal, drainer = self._journal, self._drainer
            if journal is None:
                return
            deadline = time.monotonic() + timeout
            try:
                self._confess(journal, reserved=True)
                if self._announce:
                    told = {"pid": os.getpid(), "accepted": journal.appended + 1}
                    self._note(journal, "audit.stopped", "stop", told, reserved=True)
                self._wait_stored(journal, journal.appended, timeout)
            except (NotAccepted, WaitTimeout) as error:
                waiting = journal.appended - journal.stored
                log.warning("stopping with %d events in the journal, kept for the next start: %s", waiting, error)
            self._past.leave(journal)
            self._journal = None
            self._closing.set()
            self._syncer.wake()
            self._threads[0].join(max(_GRACE, deadline - time.monotonic()))
            try:
                journal.finish()
            except NotAccepted as error:
                log.warning("closing the journal: %s", error)
            # The journal is closed first, so that the drainer's last round finds it finished and removes it.
            following = self._following
            if drainer is not None:
                drainer.stop()
            for thread in self._threads[1:]:
                thread.join(max(_GRACE, deadline - time.monotonic()))
            if not any(thread.is_alive() for thread in self._threads):
                # Otherwise a place outside is taking its time: what is missing is done at the next start.
                if following:
                    self._follow(closing=True)
                for follower in self._followers:
                    follower.close()
                self.store.close()
            else:
                log.warning("the store has not answered in time; what is not stored stays in the journal")
            self._drainer = None
            for left in self._past.leaving:
                self._past.bury(left)
            atexit.unregister(self.close)

    # --- the threads --------------------------------------------------------------------------------------------------

    def _replace(self, journal: Journal, error: JournalUnavailable) -> None:
        """The journal's files are gone or cannot be synced: go on with a new one. The drainer gets what is left."""
        while not self._lifecycle.acquire(timeout=_REOPEN):
            if self._closing.is_set():
                return
        try:
            if self._closing.is_set() or self._journal is not journal:
                return
            if self._refused is None and (silent := self._replacing.due(time.monotonic())) is not None:
                log.error(
                    "the journal cannot be relied on any more, opening another: %s (%d more times since the last line)",
                    error, silent,
                )  # fmt: skip
            try:
                fresh = self._new_journal()
            except NotAccepted as failed:
                # The old one refuses; the next sync tries again.
                log.debug("no other journal can be opened; events are shed or refused: %s", failed)
                self._syncer.wake()
                self._closing.wait(_REOPEN)
                return
            self._shedding.move(journal, fresh)
            self._past.leave(journal)
            self._journal = fresh
            journal.leave()
        finally:
            self._lifecycle.release()

    def _look_after_what_was_left(self) -> bool:
        for left in self._past.leaving:
            self._look_after(left)
        return bool(self._past.leaving)

    def _look_after(self, left: Journal) -> None:
        """Whoever drains a journal that was left says what is missing from it; who finds none to do so says it here."""
        if left.stored >= left.appended:
            self._past.bury(left)
        elif not left.in_place and not _runs(left.drainer):
            gap = Gap(left.writer_id, left.stored, left.appended, "journal_removed")
            log.error("%d accepted events were not stored before their journal was removed", gap.end - gap.first)
            try:
                self._record_gap(gap)
            except NotAccepted as error:
                log.debug("the gap cannot be recorded yet: %s", error)
            else:
                self._past.bury(left, given_up=True)

    def _drain_loop(self) -> None:
        """Run the drainer; an error that nobody foresaw is logged and the drainer started again."""
        while (drainer := self._drainer) is not None:
            try:
                drainer.run()
            except Exception:  # whatever it is: events are safe in the journal, and somebody has to go on
                if (silent := self._dying.due(time.monotonic())) is not None:
                    log.exception("the drainer died and is started again (%d more times since the last line)", silent)
                self._tally.add("drainer_restarts")
                self._closing.wait(_RESTART)
            else:
                return

    @property
    def _following(self) -> bool:
        """Whether the followers run here: in the process that drains the data directory."""
        return self._drainer is not None and self._drainer.owns_directory

    def _follow_loop(self) -> None:
        opened = False
        while not self._closing.is_set():
            if not self._following:
                self._closing.wait(_FOLLOW)
                continue
            if not opened:
                # Where ``log`` opened the service, the drainer may still be making the tables: that is no failure. A
                # store that is away is the drainer's to report and to try again.
                with contextlib.suppress(IndelibleError):
                    self.store.open()
                opened = True
            self._closing.wait(self._follow())

    def _follow(self, *, closing: bool = False) -> float:
        """Let every follower do what is due; return after how many seconds the next of them is."""
        host = Host(self._record_here, self._tally)
        wait = 60.0
        for follower in self._followers:
            try:
                wait = min(wait, follower.step(host, closing=closing))
            except Exception:  # whatever it is: the other followers, and the service, go on
                failing = self._failing.setdefault(follower.name, Repeats())
                if (silent := failing.due(time.monotonic())) is not None:
                    log.exception(
                        "the follower %s failed and is tried again (%d more times since the last line)",
                        follower.name, silent,
                    )  # fmt: skip
                wait = min(wait, _RESTART)
        return wait

    def _forked(self) -> None:
        """In a forked child: journal, threads and connections are the parent's. Start afresh when needed."""
        if self._journal is not None:
            self._journal.abandon()
        if self._drainer is not None:
            self._drainer.abandon()
        for follower in self._followers:
            follower.abandon()
        self.store.abandon()
        self._reset()

    # --- how it is ----------------------------------------------------------------------------------------------------

    def metrics(self) -> Mapping[str, float | Histogram]:
        """Every metric of ``indelible.metrics.METRICS`` that is known now, by its name without the prefix.

        Always: offered = accepted + raised + shed, and accepted = stored + journaled + dead-lettered + lost.
        """
        return measure(self._journal, self._past, self._tally, self.settings)

    def health(self) -> Health:
        """Whether events are kept and get where they should, with the reasons if not."""
        journal = self._journal
        return examine(
            journal,
            self.settings,
            accepting=self._refused is None if journal is None else journal.accepting,
            shed=self._shedding.count,
            store_failures=0 if self._drainer is None else self._drainer.failures,
            restarts=self._tally.counter("drainer_restarts"),
        )


def _runs(pid: int) -> bool:
    """Whether there is such a process."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _check(fields: EventFields) -> None:
    """Refuse a host's event without the two fields every event has, or outside the vocabulary."""
    if fields.get("event_type") is None or fields.get("action") is None:
        raise TypeError(f"log() needs {'event_type' if fields.get('event_type') is None else 'action'}")
    check_event_type(fields["event_type"])
    check_status(fields.get("status", "success"))


_services: Final[weakref.WeakSet[AuditService]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    uuid_utils.reseed_rng()
    for service in list(_services):
        service._forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
