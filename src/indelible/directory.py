"""What a data directory tells about itself: the events in its journals, who drains it, what waits."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from indelible.errors import JournalCorrupt
from indelible.events import decode_event
from indelible.journal import Frame, JournalReader, writers

_BEAT: Final = struct.Struct("=QQ")


def beat(lock_fd: int) -> None:
    """Leave a sign of life in the lock's file: process id and CLOCK_MONOTONIC in µs, which all processes share."""
    os.pwrite(lock_fd, _BEAT.pack(os.getpid(), time.monotonic_ns() // 1000), 0)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the journals of a data directory hold that is not stored; ``age`` of the oldest event, in seconds."""

    journals: int
    events: int
    age: float


def oldest_waiting(directory: Path) -> Waiting:
    """Look at every journal in ``directory``, whoever wrote it."""
    count = events = 0
    oldest: int | None = None
    for path in writers(directory / "journal"):
        try:
            reader = JournalReader(path)
        except (OSError, JournalCorrupt):
            continue
        with contextlib.closing(reader):
            count += 1
            waiting = reader.appended - reader.stored
            if waiting <= 0:
                continue
            events += waiting
            for item in reader.read(1, final=False):
                if isinstance(item, Frame):
                    with contextlib.suppress(msgspec.MsgspecError):
                        at = decode_event(item.payload).timestamp
                        oldest = at if oldest is None else min(at, oldest)
    return Waiting(count, events, 0.0 if oldest is None else max(0.0, time.time() - oldest / 1e6))


@dataclass(frozen=True, slots=True)
class DrainerStatus:
    """Who drains a data directory: the process's id, and the seconds since its last round."""

    pid: int
    silent: float


def drainer_status(directory: Path) -> DrainerStatus | None:
    """Who drains ``directory``, or None if nobody does."""
    try:
        fd = os.open(directory / "journal" / "drainer.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        beat = os.pread(fd, _BEAT.size, 0)
    else:
        return None
    finally:
        os.close(fd)
    if len(beat) < _BEAT.size:
        return DrainerStatus(0, 0.0)
    pid, at = _BEAT.unpack(beat)
    return DrainerStatus(pid, max(0.0, time.monotonic_ns() / 1e9 - at / 1e6))
