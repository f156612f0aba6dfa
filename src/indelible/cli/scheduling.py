"""How a drainer process asks the system to let requests go first. It needs no privilege, and is not vital."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys
from pathlib import Path
from typing import Final
from zlib import crc32

#: The longest a time slice may be (Linux, ``kernel/sched/syscalls.c``).
_SLICE_NS: Final = 100_000_000
#: The number of ``sched_setattr(2)``: on x86-64 its own, elsewhere that of the generic table.
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
#: ``struct sched_attr``: size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")


def keep_to_one_cpu(directory: Path) -> None:
    """However much there is to catch up on, requests find a CPU that is not ours. Before any thread: they inherit it.

    The directory chooses, so that the writers of a host's applications are not all on the same.
    """
    # Not on every system, and not in every sandbox.
    with contextlib.suppress(AttributeError, OSError):
        ours = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {ours[crc32(os.fsencode(directory.resolve())) % len(ours)]})


def take_long_slices() -> None:
    """Whoever wakes goes first, though our share of a CPU stays what it is. Before any thread: they inherit it.

    Since Linux 6.12 a task that wakes with a shorter time slice than the one that runs need not wait for its end
    (``PREEMPT_SHORT``; Documentation/scheduler/sched-eevdf.rst). Earlier kernels, and other systems, ignore it.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return
    # Not in every sandbox.
    with contextlib.suppress(AttributeError, OSError):
        # Another policy than the default one was somebody's choice.
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            nice = os.getpriority(os.PRIO_PROCESS, 0)
            attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, _SLICE_NS, 0, 0)
            ctypes.CDLL(None).syscall(number, 0, ctypes.c_char_p(attributes), 0)
