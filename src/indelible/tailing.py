"""Following the log: the rows that match a filter, as they are stored.

Rows never change and ``seq`` is dense, so whoever knows how far it has read needs to ask only for the size.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from indelible.events import StoredEvent
from indelible.ports import Store
from indelible.queries import Filter, Query

#: Seconds between two looks at the log.
POLL_INTERVAL: Final = 1.0
#: A reading that goes on is recorded again before the first rows that it shows so many seconds after the last record.
RECORD_INTERVAL: Final = 60.0


class Tail:
    """One reading that goes on. It blocks while it asks, so a web host calls it in a worker thread, one call at a time.

    ``record`` puts the reading into the log and returns the event's id; when it raises NotAccepted, nothing is given. It is
    called at the beginning, with the number of rows given then; before the first rows that come ``RECORD_INTERVAL`` or
    more after the last time; and at the end: both with the number of rows given since. So an event of the same minute
    precedes every row that is shown, and the events add up to what was. The reading's own events are rows of the log too:
    they are given where they match, but not counted, and no reason for another.

    ``clock`` gives seconds. Raises StoreUnavailable; a call that failed may be made again and misses nothing.
    """

    def __init__(
        self,
        store: Store,
        wanted: Filter,
        record: Callable[[int], UUID],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._record = record
        self._clock = clock
        self._own: deque[UUID] = deque(maxlen=256)
        self._next: int | None = None
        self._untold = 0
        self._told_at = 0.0

    def newest(self, count: int) -> Sequence[StoredEvent]:
        """Begin: the newest ``count`` rows that match and are stored now, oldest first. ``more`` goes on behind them."""
        size = self._size()
        page = self._store.page(Query(filter=self._wanted, page_size=count))
        # What arrived between the two questions comes with ``more``.
        rows = [row for row in reversed(page.rows) if row.seq < size]
        self._tell(len(rows))
        self._next = size
        return rows

    def start(self, first: int) -> None:
        """Begin where somebody has read before: ``more`` gives rows from ``seq`` = ``first`` on."""
        self._tell(0)
        self._next = first

    @property
    def place(self) -> int:
        """How far it has read: rows with a smaller ``seq`` were given where they match. 0 before it has begun."""
        return self._next or 0

    def more(self) -> Sequence[StoredEvent]:
        """The next rows that match, in order of ``seq``, a thousand at most; empty when there are none yet."""
        if self._next is None:
            raise RuntimeError("a tail begins with newest() or start()")
        size = self._size()
        if size <= self._next:
            return ()
        rows = next(iter(self._store.scan(self._wanted, first=self._next, end=size)), ())
        if any(row.id not in self._own for row in rows):
            if self._clock() - self._told_at >= RECORD_INTERVAL:
                self._tell(self._untold)
            self._untold += sum(row.id not in self._own for row in rows)
        self._next = rows[-1].seq + 1 if rows else size
        return rows

    def close(self) -> None:
        """End the reading. Raises NotAccepted when rows were given of which the log is not told."""
        if self._untold:
            self._tell(self._untold)

    def _tell(self, rows: int) -> None:
        self._own.append(self._record(rows))
        self._untold, self._told_at = 0, self._clock()

    def _size(self) -> int:
        head = self._store.head()
        return 0 if head is None else head.size
