"""Who works beside others works in pieces and sleeps between them; nobody else does."""

from __future__ import annotations

import threading
import time

import pytest

from indelible import pacing


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept, in order."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def test_alone_nothing_is_done_in_pieces(sleeps: list[float]) -> None:
    """As much at once as there is, and no sleep."""
    pacing.breathe()
    assert pacing.at_once(1_000) == 1_000
    assert sleeps == []


def test_beside_others_work_is_done_in_pieces(sleeps: list[float]) -> None:
    """Never more rows than asked for; and a sleep that is one: of no time at all, nobody wakes up."""
    with pacing.beside_others(15):
        assert [pacing.at_once(most) for most in (1, 15, 16, 1_000)] == [1, 15, 15, 15]
        pacing.breathe()
    assert len(sleeps) == 1
    assert sleeps[0] > 0
    assert pacing.at_once(1_000) == 1_000


def test_an_error_ends_it() -> None:
    """A thread that goes on after one is as it was."""
    with pytest.raises(LookupError), pacing.beside_others(15):
        raise LookupError
    assert pacing.at_once(1_000) == 1_000


def test_other_threads_are_not_concerned(sleeps: list[float]) -> None:
    """It is the thread that is considerate, not the process."""
    found: list[int] = []

    def other() -> None:
        pacing.breathe()
        found.append(pacing.at_once(1_000))

    with pacing.beside_others(15):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [1_000]
    assert sleeps == []
