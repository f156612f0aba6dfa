"""A follower that makes the rollups: counts over blocks of rows, so that statistics need not look at every row."""

from __future__ import annotations

import logging
from typing import Final

from indelible.errors import StoreError
from indelible.ports import Host, Store

_log: Final = logging.getLogger("indelible.followers.rollups")

#: Seconds between two looks whether a block has become full, and after a store that did not answer.
INTERVAL: Final = 1.0
_RETRY: Final = 5.0
#: Rollups made in one step: other followers wait meanwhile, and so does the append that comes next.
STEP: Final = 1


class Rollups:
    """``ports.Follower`` over ``Store.roll_up``. Its cursor is in the database: the newest block that has a rollup."""

    name = "rollups"

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cursor = 0
        self._failing = False

    @property
    def cursor(self) -> int:
        """Rows with a smaller ``seq`` are in a rollup."""
        return self._cursor

    def step(self, host: Host, *, closing: bool = False) -> float:
        """Make what is due, a few blocks at a time."""
        try:
            self._cursor, more = self._store.roll_up(STEP)
        except StoreError as error:
            _log.log(logging.DEBUG if self._failing else logging.INFO, "no rollups for now: %s", error)
            self._failing = True
            return _RETRY
        self._failing = False
        return 0.0 if more else INTERVAL

    def close(self) -> None:
        """Nothing to let go of: the connections are the store's."""

    def abandon(self) -> None:
        """Nothing to forget."""
