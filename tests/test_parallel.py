"""``indelible.parallel``: results in order, whatever becomes of the processes."""

from __future__ import annotations

import math
import multiprocessing
import operator
import os
from contextlib import closing
from pickle import PickleBuffer
from typing import Any, cast

import pytest

from indelible import exporting
from indelible.errors import ConfigurationError, IndelibleError
from indelible.exporting import Export
from indelible.parallel import in_order
from indelible.queries import Filter


def nothing(**more: Any) -> dict[str, Any]:
    return {"begin": int, "arguments": (), **more}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    tasks = list(range(10))
    assert list(in_order(operator.neg, tasks, workers=workers, **nothing())) == [-task for task in tasks]


def test_large_buffers_arrive_whole_and_last_until_the_next() -> None:
    # Larger than a pipe, of different sizes, one of them empty: memory that is used again must not show.
    tasks = [bytes([n]) * size for n, size in enumerate((3_000_000, 5, 0, 70_000, 2_000_000, 1, 4_000_000))]
    seen = []
    for data in in_order(cast("Any", PickleBuffer), tasks, workers=2, **nothing()):
        assert type(data) is memoryview
        seen.append(bytes(data))
    assert seen == tasks


def test_what_the_work_raises_is_raised_in_its_turn() -> None:
    results = in_order(math.sqrt, [4, 9, -1, 16], workers=2, **nothing())
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        next(results)
    assert not multiprocessing.active_children()


def test_what_the_beginning_raises_is_raised_with_its_hint() -> None:
    arguments = ("mysql://localhost/log", Export(Filter(), 1, 1))
    with pytest.raises(ConfigurationError, match="mysql") as told:
        list(in_order(operator.neg, [1, 2], workers=2, begin=exporting._begin, arguments=arguments))
    assert told.value.hint


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(IndelibleError, match="died"):
        list(in_order(cast("Any", os._exit), [3, 3, 3], workers=2, **nothing()))
    assert not multiprocessing.active_children()


def test_who_stops_early_leaves_no_process_behind() -> None:
    # They wait with results larger than their pipes, so that nothing but a signal ends them.
    tasks = [b"x" * 3_000_000] * 8
    with closing(in_order(PickleBuffer, tasks, workers=2, **nothing())) as results:
        next(results)
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()
