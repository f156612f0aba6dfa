"""``indelible.parallel``: results in order, whatever becomes of the processes."""

from __future__ import annotations

import math
import multiprocessing
import operator
import os
import signal
from contextlib import closing
from pickle import PickleBuffer
from typing import Any, cast

import pytest

from indelible import exporting
from indelible.errors import ConfigurationError, IndelibleError, InvalidQuery
from indelible.exporting import Export
from indelible.parallel import in_order
from indelible.queries import Filter


def nothing(**more: Any) -> dict[str, Any]:
    return {"begin": int, "arguments": (), **more}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    tasks = list(range(10))
    assert list(in_order(operator.neg, tasks, workers=workers, **nothing())) == [-task for task in tasks]


@pytest.mark.parametrize("workers", [1, 2])
def test_large_buffers_arrive_whole_and_last_until_the_next(workers: int) -> None:
    # Larger than a pipe and smaller, larger than the one before and smaller, one empty: memory that is used again must
    # not show, though the next result arrives while this one is looked at.
    tasks = [bytes([n]) * size for n, size in enumerate((3_000_000, 5, 0, 70_000, 2_000_000, 1, 4_000_000))]
    seen = []
    for data in in_order(cast("Any", PickleBuffer), tasks, workers=workers, **nothing()):
        assert type(data) is memoryview
        seen.append(bytes(data))
    assert seen == tasks


def test_more_processes_than_tasks_and_no_tasks() -> None:
    assert list(in_order(operator.neg, [1], workers=2, **nothing())) == [-1]
    assert list(in_order(operator.neg, [], workers=1, **nothing())) == []
    assert not multiprocessing.active_children()


def test_what_the_work_raises_is_raised_in_its_turn() -> None:
    results = in_order(math.sqrt, [4, 9, -1, 16], workers=2, **nothing())
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ValueError, match=r"math domain error|nonnegative") as told:
        next(results)
    assert "in _answers" in told.value.__notes__[0], "where it happened"
    assert not multiprocessing.active_children()


def test_what_the_beginning_raises_is_raised_with_its_hint() -> None:
    arguments = ("mysql://localhost/log", Export(Filter(), 1, 1))
    with pytest.raises(ConfigurationError, match="mysql") as told:
        list(in_order(operator.neg, [1, 2], workers=2, begin=exporting._begin, arguments=arguments))
    assert told.value.hint


def refuse(task: str) -> None:
    raise InvalidQuery(f"{task} means nothing", parameter="limit")


def break_pipe(task: str) -> None:
    raise BrokenPipeError(task)


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(IndelibleError, match="InvalidQuery: ten means nothing"):
        list(in_order(refuse, ["ten"], workers=1, **nothing()))


def test_a_pipe_of_the_work_that_breaks_is_not_ours() -> None:
    with pytest.raises(BrokenPipeError, match="the server's"):
        list(in_order(break_pipe, ["the server's"], workers=1, **nothing()))


def halves(task: int) -> PickleBuffer:
    if task == 2:
        write = os.write

        def die_on_the_way(pipe: int, data: memoryview) -> None:
            write(pipe, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        cast("Any", os).write = die_on_the_way
    return PickleBuffer(bytes(3_000_000))


def test_a_process_killed_in_the_middle_of_an_answer() -> None:
    with pytest.raises(IndelibleError, match="died"):
        for _ in in_order(halves, [1, 2, 3], workers=1, **nothing()):
            pass
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(IndelibleError, match="died"):
        list(in_order(cast("Any", os._exit), [3, 3, 3], workers=2, **nothing()))
    assert not multiprocessing.active_children()


def interrupts_held_back(_task: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_an_interrupt_is_for_whoever_started_them() -> None:
    assert list(in_order(interrupts_held_back, [1, 2, 3], workers=3, **nothing())) == [True] * 3
    assert not interrupts_held_back(0)


def test_who_stops_early_leaves_no_process_behind() -> None:
    # They wait with results larger than their pipes, so that nothing but a signal ends them.
    tasks = [b"x" * 3_000_000] * 8
    with closing(in_order(PickleBuffer, tasks, workers=2, **nothing())) as results:
        next(results)
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()
