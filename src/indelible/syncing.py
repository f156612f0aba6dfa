"""The thread that makes what was accepted survive a power cut, a few milliseconds after it was."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Final

from indelible.delivery import Repeats
from indelible.errors import JournalUnavailable
from indelible.journal import Journal
from indelible.metrics import Recorder

log: Final = logging.getLogger("indelible.service")

#: Seconds between two rounds where ``tend`` asks for another although nothing was appended.
TEND: Final = 0.5
#: Seconds before it goes on after an error that nobody foresaw.
_PAUSE: Final = 1.0


class Syncer:
    """Syncs the journal when something was appended, until ``closing`` is set: at once where somebody waits for it,
    otherwise at most once per ``interval`` (seconds).

    ``journal`` gives the one that is open, None when there is none. ``failed`` is told of a journal that cannot be relied
    on any more. ``tend`` runs after each round; while it returns true, rounds go on without anything being appended.
    """

    def __init__(
        self,
        journal: Callable[[], Journal | None],
        *,
        interval: float,
        closing: threading.Event,
        recorder: Recorder,
        failed: Callable[[Journal, JournalUnavailable], None],
        tend: Callable[[], bool],
    ) -> None:
        #: Whether the thread knows that there is something to sync: ``if not syncer.dirty: syncer.wake()``.
        self.dirty = False
        self._journal = journal
        self._interval = interval
        self._closing = closing
        self._recorder = recorder
        self._failed = failed
        self._tend = tend
        self._wake = threading.Event()
        self._awaited = threading.Event()
        self._lock = threading.Lock()
        self._awaiting: list[Future[None]] = []
        self._failing = Repeats()

    def wake(self) -> None:
        """Sync soon."""
        self.dirty = True
        self._wake.set()

    def next(self) -> Future[None]:
        """A future that the next fdatasync resolves which begins after now, and so covers what was appended before."""
        done: Future[None] = Future()
        with self._lock:
            self._awaiting.append(done)
            self._awaited.set()
        self.wake()
        return done

    def run(self) -> None:
        """Work until closing; an error that nobody foresaw ends nothing."""
        again = False
        while not self._closing.is_set():
            self._wake.wait(TEND if again else None)
            self._wake.clear()
            try:
                self._round()
                again = self._tend()
            except Exception:  # whatever it is: power cuts are guarded against only as long as this thread runs
                if (silent := self._failing.due(time.monotonic())) is not None:
                    log.exception("syncing the journal failed and is tried again (%d more since the last line)", silent)
                self.wake()
                self._closing.wait(_PAUSE)
            self._awaited.wait(self._interval)

    def _round(self) -> None:
        journal = self._journal()
        self.dirty = False  # before the sync: an event that comes during it asks for the next one
        with self._lock:
            awaiting, self._awaiting = self._awaiting, []
            self._awaited.clear()
        if journal is None:
            return
        began = time.perf_counter()
        try:
            journal.sync()
        except JournalUnavailable as error:
            for future in awaiting:
                _settle(future, error)
            self._failed(journal, error)
        else:
            self._recorder.observe("journal_sync_seconds", time.perf_counter() - began)
            for future in awaiting:
                _settle(future, None)


def _settle(future: Future[None], error: Exception | None) -> None:
    """Resolve a future that its owner may have cancelled meanwhile."""
    with contextlib.suppress(InvalidStateError):
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
