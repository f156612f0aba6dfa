"""When to flush and how long to back off."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from indelible.delivery import Backoff, FlushPolicy, Repeats

POLICY = FlushPolicy(batch_size=10, interval=5.0)


def test_flush_on_batch_size_interval_or_urgency() -> None:
    """Ten events, five seconds, or somebody who waits: any of them is enough."""
    assert not POLICY.due(waiting=9, since=100, now=104.9, urgent=False)
    assert POLICY.due(waiting=10, since=100, now=100, urgent=False)
    assert POLICY.due(waiting=1, since=100, now=105, urgent=False)
    assert POLICY.due(waiting=1, since=100, now=100, urgent=True)
    assert not POLICY.due(waiting=0, since=0, now=100, urgent=True)


def test_lingering_for_a_larger_batch() -> None:
    """With ``linger`` a batch waits for more, but not for more than an append takes, and not when somebody waits."""
    policy = FlushPolicy(batch_size=10, interval=5.0, linger=0.25)
    assert not policy.due(waiting=10, since=100, now=100.125, urgent=False)
    assert not policy.due(waiting=9, since=100, now=100.25, urgent=False)
    assert policy.due(waiting=10, since=100, now=100.25, urgent=False)
    assert policy.due(waiting=1_000, since=100, now=100, urgent=False)
    assert policy.due(waiting=1, since=100, now=100, urgent=True)
    assert policy.due(waiting=1, since=100, now=105, urgent=False)


def test_whoever_falls_behind_does_more_at_a_time() -> None:
    """The fewest as long as few wait, then a part of those that wait, up to the most; alone, all at once."""
    policy = FlushPolicy(pieces=(15, 250))
    assert {waiting: policy.together(waiting) for waiting in (0, 200, 1_600, 4_000, 1_000_000)} == {
        0: 15,
        200: 15,
        1_600: 100,
        4_000: 250,
        1_000_000: 250,
    }
    assert FlushPolicy(pieces=(50, 50)).together(1_000_000) == 50
    assert FlushPolicy().together(1_000_000) is None


EIGHTHS = st.integers(0, 80).map(lambda eighths: eighths / 8)


@given(waiting=st.integers(0, 5_000), most=st.integers(1, 5_000), waited=EIGHTHS, linger=EIGHTHS, urgent=st.booleans())
def test_lingering_never_flushes_sooner(waiting: int, most: int, waited: float, linger: float, urgent: bool) -> None:
    """What is due with ``linger`` is due without it; what is not due with it is due once it is over."""
    calm = FlushPolicy(batch_size=10, interval=5.0, max_batch=most)
    policy = replace(calm, linger=linger)
    without = calm.due(waiting=waiting, since=100, now=100 + waited, urgent=urgent)
    assert without or not policy.due(waiting=waiting, since=100, now=100 + waited, urgent=urgent)
    if without:
        assert policy.due(waiting=waiting, since=100, now=100 + waited + linger, urgent=urgent)


def test_a_clock_that_jumps_back_flushes() -> None:
    """An interval measured across a jump must not wait for an hour."""
    assert POLICY.due(waiting=1, since=3700, now=100, urgent=False)


@given(failures=st.integers(1, 10**6), jitter=st.floats(0, 1, exclude_max=True))
def test_backoff_grows_and_stays_bounded(failures: int, jitter: float) -> None:
    """Never below half of the base, never above the cap, and without overflow after any number of failures."""
    delay = Backoff(base=0.1, cap=15).delay(failures, jitter)
    assert 0.05 <= delay <= 15
    assert delay >= Backoff(base=0.1, cap=15).delay(max(1, failures - 1), jitter) / 1.0001


@given(st.lists(st.floats(0, 30), max_size=60))
def test_what_repeats_itself_is_told_once_a_minute_with_a_count(pauses: list[float]) -> None:
    """The first time at once; no two lines closer than the interval; every failure is a line or in the next line's count."""
    repeats, now, last, silent = Repeats(60.0), 1000.0, None, 0
    for pause in pauses:
        now += pause
        told = repeats.due(now)
        if last is None or now - last >= 60:
            assert told == silent
            last, silent = now, 0
        else:
            assert told is None
            silent += 1


def test_a_clock_that_jumps_back_silences_nothing() -> None:
    """A line too many is better than an hour without any."""
    repeats = Repeats(60.0)
    assert (repeats.due(5000), repeats.due(5001), repeats.due(100)) == (0, None, 1)
