"""Intents: what is about to happen, written before it may happen, and struck out once its outcome is in the journal.

One file of fixed slots beside the frames, ``intents``, made when it is first needed. A slot holds one frame (the same
bytes as in a data file; the slot's index is its generation, the use count its number) or, when it is free, a length of 0.
What is still there when the writer is dead is a request whose outcome nobody knows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from indelible.errors import JournalFull
from indelible.journal.frames import PREFIX, decode_frame, encode_frame, mapped

SLOT_BYTES: Final = 8192
SLOTS: Final = 512
NAME: Final = "intents"
_FREE: Final = bytes(PREFIX.size)


class Intents:
    """The writing side. Every method may be called from any thread."""

    def __init__(self, directory: Path) -> None:
        """Make the file in ``directory``, a writer's journal. Raises OSError when the disk is full."""
        self.fd = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self.fd, 0, SLOT_BYTES * SLOTS)
            self._map = mapped(self.fd, SLOT_BYTES * SLOTS)
        except BaseException:
            os.close(self.fd)
            raise
        self._lock = threading.Lock()
        self._free = list(range(SLOTS - 1, -1, -1))
        self._uses = 0

    def arm(self, payload: bytes) -> int:
        """Write an intent and return its slot. Raises JournalFull when SLOTS of them are open or it is too large."""
        with self._lock:
            self._uses += 1
            if not self._free:
                raise JournalFull(f"{SLOTS} audited requests are under way already")
            slot = self._free.pop()
            frame = encode_frame(payload, self._uses, slot, slot * SLOT_BYTES)
            if len(frame) > SLOT_BYTES:
                self._free.append(slot)
                raise JournalFull("the intent does not fit into its slot")
            start = slot * SLOT_BYTES
            self._map[start : start + len(frame)] = frame
        return slot

    def strike(self, slot: int) -> None:
        """Free the slot: its outcome is in the journal."""
        with self._lock:
            # crash before this line ⇒ intent and outcome are both there; the outcome's id tells that they are one.
            start = slot * SLOT_BYTES
            self._map[start : start + PREFIX.size] = _FREE
            self._free.append(slot)

    @property
    def open(self) -> int:
        """How many intents wait for their outcome."""
        return SLOTS - len(self._free)

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        os.close(self.fd)


def open_intents(directory: Path) -> Iterator[bytes]:
    """The payloads of the intents without an outcome in a dead writer's journal; none if it never made any."""
    try:
        content = (directory / NAME).read_bytes()
    except FileNotFoundError:
        return
    for slot in range(len(content) // SLOT_BYTES):
        start = slot * SLOT_BYTES
        if hit := decode_frame(content[start : start + SLOT_BYTES], 0, slot, start):
            yield hit[0].payload
