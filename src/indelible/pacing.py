"""Long work beside an event loop: in pieces, with room between them for whoever waits.

CPython takes the interpreter's lock from a thread only when another has waited for 5 ms, and a kernel may let a process
that is busy go on for as long before one that has just woken up. A thread that works beside an event loop, in its process
or on its machine, says so with ``beside_others``: whatever it calls takes ``at_once`` rows at a time and calls ``breathe``
between two pieces. In every other thread nothing is done in pieces, and nobody sleeps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Seconds. It has to be a real sleep: who waits for the interpreter takes longer to wake up than this thread to take it
#: again. The kernel makes some 60 µs of it.
_PAUSE: Final = 1e-6


class _Here(threading.local):
    rows: int | None = None


_here: Final = _Here()


@contextmanager
def beside_others(rows: int | None) -> Iterator[None]:
    """While it is entered, this thread works on so many rows at a time, and breathes. None: on all, and does not."""
    before, _here.rows = _here.rows, rows
    try:
        yield
    finally:
        _here.rows = before


def at_once(most: int) -> int:
    """How many rows to work on before the next ``breathe``: ``most``, or fewer beside others."""
    return most if _here.rows is None else min(most, _here.rows)


def breathe() -> None:
    """Let others run, if this thread works beside any."""
    if _here.rows is not None:
        time.sleep(_PAUSE)
