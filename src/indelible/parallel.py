"""The same work in several processes, with the results in order: for reading millions of rows with every CPU.

Each process has a pipe of its own and takes every n-th task, so nobody keeps a queue. A result's large buffers go from
the worker's memory into the pipe and from the pipe into ours, and are copied nowhere else.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import multiprocessing
import os
import pickle
import signal
import struct
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar

from indelible.errors import IndelibleError

Task = TypeVar("Task")
Result = TypeVar("Result")

#: What a pipe holds, in bytes: as much as Linux gives without asking.
_PIPE: Final = 1 << 20
#: How many parts an answer has, a pickle and its buffers; then the length of each.
_NUMBER: Final = struct.Struct("=Q")

#: mallopt(3): what free memory at the end of the heap is given back, and what is too large for the heap, in bytes.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT: Final = 32 << 20


def processes(workers: int | None, tasks: int) -> int:
    """How many are worth starting: ``workers`` (None: one for each CPU), and no more than there are tasks."""
    return min(tasks, workers or len(os.sched_getaffinity(0)))


def in_order(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int,
    begin: Callable[..., None],
    arguments: tuple[Any, ...],
) -> Generator[Result, None, None]:
    """``work(task)`` for each task, each process having called ``begin(*arguments)`` first.

    Of each process one result waits for its turn, and what a pipe holds, so memory does not grow with the tasks. What a
    result holds as ``pickle.PickleBuffer`` comes as ``memoryview``, valid until the next result is asked for. Raises what
    ``begin`` or ``work`` raises (IndelibleError in place of what cannot be pickled), and IndelibleError when a process
    dies.
    """
    # Not forked: the threads and connections of whoever calls would come along.
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(workers)]
    with contextlib.ExitStack() as stack:
        # Left in the opposite order: processes are ended, so that nobody waits for them, and only then are pipes closed.
        for end in itertools.chain(*pipes):
            stack.enter_context(end)
        receivers = stack.enter_context(ThreadPoolExecutor(workers, thread_name_prefix="indelible-receiver"))
        for turn, (ours, theirs) in enumerate(pipes):
            # Another system, or a user with many pipes: smaller ones.
            with contextlib.suppress(AttributeError, OSError):
                fcntl.fcntl(ours.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
            process = context.Process(
                target=_serve, args=(theirs, work, tasks[turn::workers], begin, arguments), daemon=True
            )
            with _interrupts_held_back():
                process.start()
                stack.callback(process.close)
                stack.callback(process.join)
                stack.callback(process.terminate)
            # Else a process that dies leaves its pipe open.
            theirs.close()
        inboxes = [_Inbox(ours.fileno()) for ours, _ in pipes]
        coming = [receivers.submit(inbox.receive) for inbox in inboxes]
        for number in range(len(tasks)):
            turn = number % workers
            done, value = coming[turn].result()
            if not done:
                raise value
            if number + workers < len(tasks):
                coming[turn] = receivers.submit(inboxes[turn].receive)
            yield value


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    # What is started inherits it: Ctrl-C is for us, who end the others, and not for an interpreter that is just starting.
    resource_tracker.ensure_running()  # which lets them through again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Inbox:
    """Our end of a process's pipe. What was received last but one is overwritten by what comes."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._memory, self._before = bytearray(), bytearray()

    def receive(self) -> tuple[bool, Any]:
        """What ``_send`` has sent. Raises IndelibleError at the end of the pipe."""
        (count,) = _NUMBER.unpack(self._filled(memoryview(bytearray(_NUMBER.size))))
        sizes = struct.unpack(f"={count}Q", self._filled(memoryview(bytearray(count * _NUMBER.size))))
        # Memory that was used before costs no page faults: a tenth of an export.
        self._memory, self._before = self._before, self._memory
        if len(self._memory) < sum(sizes):
            self._memory = bytearray(sum(sizes))
        rest = memoryview(self._memory)
        self._filled(rest[: sum(sizes)])
        parts = []
        for size in sizes:
            parts.append(rest[:size])
            rest = rest[size:]
        answer: tuple[bool, Any] = pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301 - our own process wrote it
        return answer

    def _filled(self, place: memoryview) -> memoryview:
        rest = place
        while rest:
            got = os.readv(self._pipe, [rest])
            if got == 0:
                raise IndelibleError("a worker process died", hint="is there memory enough?")
            rest = rest[got:]
        return place


# In a worker process.


def _serve(
    pipe: Connection,
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    begin: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    _keep_memory()
    with pipe, contextlib.suppress(BrokenPipeError):
        for answer in _answers(work, tasks, begin, arguments):
            _send(pipe.fileno(), answer)


def _answers(
    work: Callable[[Task], Result], tasks: Sequence[Task], begin: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[tuple[bool, Any]]:
    try:
        begin(*arguments)
        for task in tasks:
            yield True, work(task)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the result was awaited
        yield False, _portable(error)


def _portable(error: Exception) -> Exception:
    """``error`` with a note of where it came from; what would not survive the way, as an IndelibleError that names it."""
    where = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - an error's own methods may do anything
        error = IndelibleError(f"{type(error).__name__}: {error}")
    error.add_note(where)
    return error


def _keep_memory() -> None:
    """Have the C library keep what is freed: the same megabytes are taken again, each time at the cost of page faults."""
    with contextlib.suppress(AttributeError, OSError):  # another C library: slower, and nothing else
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _KEPT)


def _send(pipe: int, answer: tuple[bool, Any]) -> None:
    buffers: list[pickle.PickleBuffer] = []
    message = pickle.dumps(answer, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(message), *(buffer.raw() for buffer in buffers)]
    head = struct.pack(f"={1 + len(parts)}Q", len(parts), *(part.nbytes for part in parts))
    for part in (memoryview(head), *parts):
        rest = part
        while rest:
            rest = rest[os.write(pipe, rest) :]
