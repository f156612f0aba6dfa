"""Rollups as values: blocks that cover a log, and counts that add up."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible import rollups
from indelible.queries import EARLIEST, LATEST, bucket_width
from indelible.rollups import Rollup, as_stats, cover, decode, encode, merged, next_block, rows_of


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8, 24, 72, ... rows."""
    monkeypatch.setattr(rollups, "BLOCK", 8)
    monkeypatch.setattr(rollups, "FAN", 3)


def made_for(size: int) -> dict[int, int]:
    """The blocks of a log of this size when nothing is due any more."""
    made: dict[int, int] = {}
    while (block := next_block(made, size)) is not None:
        level, number = block
        assert number == made.get(level, 0), "blocks of a level come in order"
        made[level] = number + 1
    return made


def test_blocks_are_made_in_order_and_parents_at_once() -> None:
    """Every full block gets its rollup, and every parent as soon as its last child has one."""
    for size in range(1000):
        made = made_for(size)
        for level in range(rollups.LEVELS):
            assert made.get(level, 0) == size // rows_of((level, 0))[1]


def test_a_cover_is_gapless_and_of_few() -> None:
    """The cover reaches the last full block, block by block, with at most FAN - 1 of a level."""
    for size in range(1000):
        blocks, at = cover(made_for(size), 0, size)
        assert at == size - size % 8
        ends = [rows_of(block) for block in blocks]
        assert [start for start, _ in ends] == [0, *(end for _, end in ends)][:-1] if ends else at == 0
        assert all(n < 3 for level, n in Counter(level for level, _ in blocks).items() if level < 5)


def test_a_cover_does_without_what_is_missing() -> None:
    """Where a parent has not been made yet, its children stand in."""
    made = {0: 10, 1: 2}
    blocks, at = cover(made, 0, 85)
    assert blocks == [(1, 0), (1, 1), (0, 6), (0, 7), (0, 8), (0, 9)]
    assert at == 80
    assert cover({}, 0, 100) == ([], 0)
    assert cover(made, 0, 50) == ([(1, 0), (1, 1)], 48), "nothing beyond the end"


names = st.sampled_from(["a", "b", "ü", ""])
times = st.integers(EARLIEST, LATEST) | st.integers(1_700_000_000_000_000, 1_700_000_100_000_000)
rows = st.tuples(times, names, st.sampled_from(["success", "failure", "denied"]), names | st.none())


def rollup_of(given: list[tuple[int, str, str, str | None]]) -> Rollup:
    """The rollup that a look at the rows gives."""
    first, last = min(row[0] for row in given), max(row[0] for row in given)
    made = Rollup(first, last, bucket_width(first, last), {}, {}, {}, {}, {})
    for at, kind, outcome, user in given:
        outcomes = made.kinds.setdefault(kind, {})
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        bucket = made.times.setdefault(at // made.grain, {})
        bucket[outcome] = bucket.get(outcome, 0) + 1
        if user is not None:
            made.users[user] = made.users.get(user, 0) + 1
    return made


@given(st.lists(st.lists(rows, min_size=1, max_size=8), min_size=1, max_size=6))
def test_parts_add_up_to_the_whole(parts: list[list[tuple[int, str, str, str | None]]]) -> None:
    """Merging the rollups of parts gives the rollup of all rows, whatever their times, and merges in any grouping."""
    whole = rollup_of([row for part in parts for row in part])
    assert merged(rollup_of(part) for part in parts) == whole
    half = len(parts) // 2
    halves = [merged(rollup_of(part) for part in some) for some in (parts[:half], parts[half:])]
    assert merged(half for half in halves if half is not None) == whole
    assert merged([]) is None


@given(st.lists(rows, min_size=1, max_size=20))
def test_a_rollup_round_trips(given_rows: list[tuple[int, str, str, str | None]]) -> None:
    """What is stored is what is read; it can be asked as any other."""
    rollup = rollup_of(given_rows)
    assert decode(encode(rollup)) == rollup
    stats = as_stats(rollup, top=2)
    assert stats.total_events == len(given_rows)
    assert sum(n for _, n in stats.events_over_time) == len(given_rows)
    assert sum(sum(outcomes.values()) for _, outcomes in stats.outcomes_over_time) == len(given_rows)


@given(st.binary())
def test_a_damaged_rollup_is_none(data: bytes) -> None:
    """Any bytes decode to a rollup or to None: never an exception."""
    assert isinstance(decode(data), Rollup | None)
