"""Where the next frame goes: the append itself, commit point A."""

from __future__ import annotations

import sys
from mmap import mmap
from typing import Final, Protocol

from indelible.journal.frames import FRAME_HEAD, Header, Map, Slot, encode_frame
from indelible.native import native

#: Whether what C does is one step to other threads: there is a lock that all of Python runs under.
_STEPWISE: Final = native is not None and getattr(sys, "_is_gil_enabled", lambda: True)()
#: As plain numbers: this is the request path.
_APPENDED: Final = int(Slot.APPENDED)
#: Added to a payload's length before it is rounded down to a multiple of eight: the size of its frame.
_TO_PAD: Final = FRAME_HEAD.size + 7


class Tail(Protocol):
    """The end of a journal: ``offset`` in the newest of its files, ``number`` of the next frame."""

    @property
    def offset(self) -> int:
        """Where the next frame begins."""
        ...

    @property
    def number(self) -> int:
        """The number that it gets: how many there are."""
        ...

    def append(self, payload: bytes) -> int | None:
        """Write a frame and count it; return its number, or None where there is no room, or after ``stop``."""
        ...

    def stop(self) -> None:
        """Let go of the file: nothing is appended any more."""
        ...


class PlainTail:
    """A Tail for one thread at a time.

    ``append`` raises OSError only where the file system refuses maps: nobody knows then how much of the frame is there.
    """

    __slots__ = ("_generation", "_map", "_room", "_slots", "number", "offset")

    def __init__(
        self, place: Map, generation: int, offset: int, room: int, slots: memoryview[int] | Header, number: int
    ) -> None:
        self._map: Map | None = place
        self._generation, self._room, self._slots = generation, room, slots
        self.offset, self.number = offset, number

    def append(self, payload: bytes) -> int | None:
        """See ``Tail``."""
        place, offset, number = self._map, self.offset, self.number
        end = offset + ((len(payload) + _TO_PAD) & ~7)
        if place is None or end > self._room:
            return None
        place[offset:end] = encode_frame(payload, number, self._generation, offset)
        # crash here ⇒ the frame may be read back although append never returned: stored once, like any other.
        self.offset, self.number = end, number + 1
        self._slots[_APPENDED] = number + 1
        # crash from here on ⇒ commit point A is passed: the frame is accepted and will be read back.
        return number

    def stop(self) -> None:
        """See ``Tail``."""
        self._map = None


def make_tail(
    place: Map, generation: int, offset: int, room: int, slots: memoryview[int] | Header, number: int
) -> tuple[Tail, bool]:
    """A Tail, and whether an ``append`` is one step to other threads, which need no lock then: in C it is.

    ``room`` is the size of the file that ``place`` maps; ``slots`` are the header's.
    """
    if not _STEPWISE or not isinstance(place, mmap) or isinstance(slots, Header):
        return PlainTail(place, generation, offset, room, slots, number), False
    return native.Tail(place, generation, offset, room, slots[_APPENDED : _APPENDED + 1], number), True
