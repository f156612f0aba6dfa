"""The same work in several processes, with the results in order: for reading millions of rows with every CPU."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from indelible.errors import IndelibleError

Task = TypeVar("Task")
Result = TypeVar("Result")


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

    At most two results for each process wait for their turn, so memory does not grow with the tasks. Raises what
    ``work`` raises, and IndelibleError when a process dies.
    """
    # Not forked: the threads and connections of whoever calls would come along.
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=begin, initargs=arguments
    )
    running: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            running.append(pool.submit(work, task))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    except BrokenProcessPool as error:
        raise IndelibleError("a worker process died", hint="is there memory enough?") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
