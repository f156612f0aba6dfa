from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from indelible.cli import scheduling

# Says the length of a thread's time slice, ns, before and after: sched_getattr(2), whose runtime it is since Linux 6.12.
_SLICES = """
import ctypes, os, platform, struct, sys, threading
from indelible.cli.scheduling import take_long_slices

def told():
    number = {"x86_64": 315}.get(platform.machine(), 275)
    attributes = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(number, 0, attributes, 48, 0) == 0
    _, policy, _, nice, _, runtime, _, _ = struct.unpack("=IIQiIQQQ", attributes.raw)
    print(policy, nice, runtime)

if "idle" in sys.argv:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
os.nice(3)
told()
take_long_slices()
thread = threading.Thread(target=told)
thread.start()
thread.join()
"""


def _slices(*options: str) -> list[tuple[int, int, int]]:
    done = subprocess.run([sys.executable, "-c", _SLICES, *options], capture_output=True, text=True, check=True)
    told = [[int(each) for each in line.split()] for line in done.stdout.splitlines()]
    return [(policy, nice, runtime) for policy, nice, runtime in told]


def test_threads_inherit_long_slices_and_nothing_else_changes() -> None:
    before, after = _slices()
    assert before[:2] == after[:2] == (0, 3)
    # A kernel that knows no slice of one's own says 0.
    assert after[2] == (100_000_000 if before[2] else 0)


def test_a_policy_that_somebody_chose_stays() -> None:
    before, after = _slices("idle")
    assert before == after
    assert before[0] == 5


def test_a_machine_that_is_not_known_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    scheduling.take_long_slices()
