"""Events that the journal did not take: counted, left in its header, and told as a gap as soon as it takes one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from indelible.delivery import Repeats
from indelible.events import rfc3339
from indelible.journal import Journal

log: Final = logging.getLogger("indelible.service")


class Shedding:
    """How many events were shed since the last gap that told of them. From any thread."""

    __slots__ = ("_begun", "_lock", "_over", "_since", "count")

    def __init__(self) -> None:
        self.count = 0
        self._begun, self._over = Repeats(), Repeats()
        self._since = 0
        self._lock = threading.Lock()

    def add(self, timestamp: int, journal: Journal | None) -> None:
        """One more, of that time (Unix µs). ``journal`` keeps the count for whoever drains it if this process dies."""
        with self._lock:
            if not self.count:
                self._since = timestamp
                if (silent := self._begun.due(time.monotonic())) is not None:
                    log.error(
                        "the journal takes no events: they are being shed and counted (%d more times since the last line)",
                        silent,
                    )
            self.count += 1
            if journal is not None:
                journal.note_shed(self.count)

    def confess(self, journal: Journal, note: Callable[[Mapping[str, object]], None]) -> bool:
        """Hand ``note`` what a gap event tells, if there is anything to tell. Where it raises, all stays as it was."""
        with self._lock:
            if not self.count:
                return False
            now = time.time_ns() // 1000
            note({"count": self.count, "first": rfc3339(self._since), "last": rfc3339(now), "reason": "shed"})
            # crash here ⇒ the header still tells of them, and they are recorded a second time.
            journal.note_shed(0)
            if (silent := self._over.due(time.monotonic())) is not None:
                log.error(
                    "%d events were shed; the log says so (%d more times since the last line)", self.count, silent
                )
            self.count = 0
            return True

    def move(self, old: Journal, fresh: Journal) -> None:
        """From now on ``fresh`` keeps the count."""
        with self._lock:
            old.note_shed(0)
            fresh.note_shed(self.count)
