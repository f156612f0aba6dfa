"""When to flush, how long to back off and when to speak of it: decisions without clock, thread or I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """Store a journal's waiting events when there are ``batch_size`` of them, or after ``interval`` seconds.

    ``linger`` (seconds) waits for more than ``batch_size``, but not for more than the ``max_batch`` that one append takes:
    to append at all costs as much as some fifty events. None of it costs any safety: what waits is in the journal.

    ``pieces`` are the fewest and the most rows that are worked on at a time, so that others need not wait; None: all.
    """

    batch_size: int = 10
    interval: float = 5.0
    linger: float = 0.0
    max_batch: int = 1000
    pieces: tuple[int, int] | None = None

    def together(self, waiting: int) -> int | None:
        """How many rows to work on at a time while so many wait.

        A thread gets hold of the interpreter some two hundred times a second beside an event loop that never rests: whoever
        falls behind has to do more each time.
        """
        if self.pieces is None:
            return None
        fewest, most = self.pieces
        return min(most, max(fewest, waiting // 16))

    def due(self, *, waiting: int, since: float, now: float, urgent: bool) -> bool:
        """Whether to flush ``waiting`` events of which the first was seen at ``since``.

        ``urgent``: somebody waits for them, or nobody will add to them. A clock that went back counts as elapsed.
        """
        if waiting <= 0:
            return False
        waited = now - since
        if urgent or waiting >= self.max_batch or not 0 <= waited < self.interval:
            return True
        return waiting >= self.batch_size and waited >= self.linger


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter (Brooker 2015): half to all of ``base · 2^failures``, at most ``cap``.

    Times in seconds. Half is kept as a floor so that a store that is away is never asked in a tight loop.
    """

    base: float = 0.1
    cap: float = 15.0

    def delay(self, failures: int, jitter: float) -> float:
        """Seconds to wait after the ``failures``-th failure in a row (from 1); ``jitter`` is uniform in [0, 1)."""
        ceiling = min(self.cap, self.base * 2.0 ** min(failures - 1, 32))
        return ceiling * (0.5 + 0.5 * jitter)


class Repeats:
    """A failure that repeats itself is told once per ``interval`` (seconds), with how often it was not told."""

    __slots__ = ("_interval", "_last", "_silent")

    def __init__(self, interval: float = 60.0) -> None:
        self._interval = interval
        self._last: float | None = None
        self._silent = 0

    def due(self, now: float) -> int | None:
        """It has happened again: how often it did since the last line if this one is to be told, else None."""
        if self._last is not None and 0 <= now - self._last < self._interval:
            self._silent += 1
            return None
        silent, self._silent, self._last = self._silent, 0, now
        return silent
