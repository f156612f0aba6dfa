"""The journal's bytes: frames, file heads and the header page. docs/formats/journal.md specifies them."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
from enum import IntEnum
from typing import Final, cast
from zlib import crc32

import msgspec

from indelible.native import native

FILE_BYTES: Final = 8 << 20
QUOTA_BYTES: Final = 1 << 30
MAX_PAYLOAD: Final = 1 << 20

HEADER_BYTES: Final = 4096
MAGIC: Final = int.from_bytes(b"INDLJRN1", "little")
_FILE_MAGIC: Final = int.from_bytes(b"INDLFRM1", "little")
FILE_HEAD: Final = struct.Struct("=QQQQ")
FRAME_HEAD: Final = struct.Struct("=IIQ")
PREFIX: Final = struct.Struct("=II")
NUMBER: Final = struct.Struct("=Q")
_pack_number: Final = NUMBER.pack
_pack_prefix: Final = PREFIX.pack
#: By the length of number and payload, modulo eight: length and CRC before them are eight bytes.
_PADDING: Final = tuple(bytes(-length & 7) for length in range(8))


class Slot(IntEnum):
    """The header's u64 slots. STORED, DEAD, LOST, CONFIRMED and DRAINER are the drainer's; the rest is the writer's."""

    MAGIC = 0
    WRITER_HIGH = 1
    WRITER_LOW = 2
    CREATED = 3  # Unix µs
    APPENDED = 4  # how many frames are in the map
    SYNCED = 5  # how many of them survive a power cut
    WANTED = 6  # somebody waits for so many to be stored: do not wait for the timer
    STORED = 7  # how many numbers are done with: stored, or dead-lettered, or lost
    CLOSED = 8  # 1 after an orderly close
    DEAD = 9  # how many of STORED the store refused for good
    LOST = 10  # how many of STORED could not be read back
    CONFIRMED = 11  # the writer's position in the store when STORED was written: STORED less what was skipped since
    SHED = 12  # how many events were shed and are not recorded as a gap yet
    DRAINER = 13  # process id of whoever drains it


def seed(generation: int, offset: int) -> int:
    """Where a frame's CRC starts from: its file's generation and its offset in it."""
    return (generation * 0x9E3779B1 + offset) & 0xFFFFFFFF


def padded(size: int) -> int:
    """The next multiple of eight."""
    return (size + 7) & ~7


# Nothing that the collector counts: a batch of hundreds must not make it search the host's whole heap.
class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame as read back: its number in the writer's numbering and its payload."""

    number: int
    payload: bytes


class Hole(msgspec.Struct, frozen=True, gc=False):
    """Numbers ``first`` up to, not including, ``end`` were given out and cannot be read back."""

    first: int
    end: int


def encode_frame(payload: bytes, number: int, generation: int, offset: int) -> bytes:
    """The bytes of one frame for its place: ``offset`` in the file of that ``generation``."""
    body = _pack_number(number) + payload
    length = len(body)
    # Written out, not seed(): this is the request path.
    return (
        _pack_prefix(length, crc32(body, (generation * 0x9E3779B1 + offset) & 0xFFFFFFFF)) + body + _PADDING[length & 7]
    )


def decode_frame(buffer: bytes, at: int, generation: int, offset: int) -> tuple[Frame, int] | None:
    """The frame at ``buffer[at:]``, which stands at ``offset`` in its file, with its padded size, or None."""
    run, size = decode_frames(buffer, at, generation, offset, 0)
    return (run[0], size) if run else None


def decode_frames(buffer: bytes, at: int, generation: int, offset: int, end: int) -> tuple[list[Frame], int]:
    """The frames from ``buffer[at:]`` on, which stands at ``offset`` in its file, and their padded size together.

    Their numbers are in a row and, but for the first, below ``end``.
    """
    if native is not None:
        return cast("tuple[list[Frame], int]", native.read_frames(Frame, buffer, at, generation, offset, end))
    run: list[Frame] = []
    size = 0
    while at + FRAME_HEAD.size <= len(buffer):
        length, crc, number = FRAME_HEAD.unpack_from(buffer, at)
        start = at + PREFIX.size
        if (
            not NUMBER.size <= length <= MAX_PAYLOAD + NUMBER.size
            or start + length > len(buffer)
            or (run and not run[-1].number + 1 == number < end)
            or crc32(body := buffer[start : start + length], seed(generation, offset + size)) != crc
        ):
            break
        run.append(Frame(number, body[NUMBER.size :]))
        size += padded(PREFIX.size + length)
        at += padded(PREFIX.size + length)
    return run, size


def file_head(generation: int, first: int) -> bytes:
    """The bytes that a data file begins with; ``first`` is the number of its first frame."""
    crc = crc32(struct.pack("=QQQ", _FILE_MAGIC, generation, first))
    return FILE_HEAD.pack(_FILE_MAGIC, generation, first, crc)


def read_file_head(head: bytes, generation: int) -> int | None:
    """First number of a data file, or None if these are not the bytes that this generation begins with."""
    if len(head) != FILE_HEAD.size or head != file_head(generation, FILE_HEAD.unpack(head)[2]):
        return None
    return int(FILE_HEAD.unpack(head)[2])


def file_name(generation: int) -> str:
    """The name of the data file of one generation."""
    return f"{generation:08d}.frames"


class _Written:
    """A file written with ``pwrite``, used like a map: for file systems that refuse to be mapped.

    A system call for each frame, so slower beside busy threads, but as safe: the bytes are the kernel's at once.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __setitem__(self, place: slice, data: bytes) -> None:
        written = os.pwrite(self._fd, data, place.start or 0)
        if written != len(data):
            raise OSError(errno.EIO, f"{written} of {len(data)} bytes were written")

    def close(self) -> None:
        pass


def mapped(fd: int, size: int) -> Map:
    """A shared, writable map of the file, or what stands in for it where the file system refuses."""
    try:
        return mmap.mmap(fd, size)
    except OSError:
        return _Written(fd)


#: What a file is written through.
Map = mmap.mmap | _Written


class Header:
    """The header page's slots. One aligned native u64 store is atomic on every platform CPython runs on."""

    __slots__ = ("_fd", "_map", "_view")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        page = mapped(fd, HEADER_BYTES)
        self._map = page
        self._view = None if isinstance(page, _Written) else memoryview(page).cast("Q")

    def __getitem__(self, slot: int) -> int:
        if self._view is not None:
            return self._view[slot]
        return int.from_bytes(os.pread(self._fd, 8, slot * 8), sys.byteorder)

    def __setitem__(self, slot: int, value: int) -> None:
        if self._view is not None:
            self._view[slot] = value
        else:
            os.pwrite(self._fd, value.to_bytes(8, sys.byteorder), slot * 8)

    @property
    def slots(self) -> memoryview[int] | Header:
        """What reads and writes the slots by number, fastest: the map itself, where there is one."""
        return self if self._view is None else self._view

    def close(self) -> dict[int, int]:
        """Let go of the map; return what stood in it."""
        final = {int(slot): self[slot] for slot in Slot}
        if self._view is not None:
            self._view.release()
        self._map.close()
        return final
