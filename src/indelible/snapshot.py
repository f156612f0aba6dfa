"""A fixed end to read up to: rows never change, so the log's size is all that a snapshot needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from indelible.ports import Store
from indelible.queries import Filter

_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows with seq < ``end`` that match a filter, and how many they are."""

    end: int
    rows: int


def snapshot(store: Store, wanted: Filter) -> Snapshot:
    """The log as it is now, with an exact count of what matches. Raises StoreUnavailable."""
    for _ in range(_ATTEMPTS):
        end = _size(store)
        count = store.count(wanted, cap=None)
        if _size(store) == end:
            return Snapshot(end, count.value)
    # The log never stood still for as long as counting took: count exactly what will be read.
    return Snapshot(end, sum(len(rows) for rows in store.scan(wanted, end=end)))


def _size(store: Store) -> int:
    head = store.head()
    return 0 if head is None else head.size
