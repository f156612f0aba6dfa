"""The journal: crash-safe files between accepting an event and storing it. It knows bytes, not events.

One directory per writer (one start of one process), below one directory per installation::

    journal/<writer id>/header          one page, mapped by the writer and by whoever drains it
    journal/<writer id>/00000007.frames fallocated, mapped, and used again under a new number once its frames are stored

A frame is put into the map with one slice assignment, so it belongs to the kernel when ``append`` returns: ``kill -9``
loses nothing, without a system call. ``sync`` makes it survive a power cut. Frames are numbered from 0 without holes;
the number is given here and nowhere else.

Layout (native byte order, all offsets multiples of 8; the specification with test vectors is docs/formats/journal.md)::

    data file   magic u64 | generation u64 | first number u64 | CRC-32 u64 | frames ...
    frame       length u32 | CRC-32 u32 | number u64 | payload | padding to 8
    length      of number and payload; the CRC covers the same bytes and starts from ``seed(generation, offset)``,
                so that a frame left over from the file's former life can never be taken for a new one
    header      see ``Slot``: u64 counters, each written by one side only and with one store
"""

from __future__ import annotations

from indelible.journal.frames import FILE_BYTES, MAX_PAYLOAD, QUOTA_BYTES, Frame, Hole, decode_frame, encode_frame
from indelible.journal.intents import open_intents
from indelible.journal.reading import JournalReader, sweep, writers
from indelible.journal.writing import Journal

__all__ = [
    "FILE_BYTES",
    "MAX_PAYLOAD",
    "QUOTA_BYTES",
    "Frame",
    "Hole",
    "Journal",
    "JournalReader",
    "decode_frame",
    "encode_frame",
    "open_intents",
    "sweep",
    "writers",
]
