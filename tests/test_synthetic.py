"""The generator of made-up events: the same for the same seed, skewed as a real log is, in order of time."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import islice

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from indelible.events import AuditEvent
from indelible.synthetic import START, STEP, events, person
from indelible.taxonomy import GUIDE_EVENT_TYPES, STATUSES


def take(number: int, **options: int) -> list[AuditEvent]:
    """The first events of seed 1."""
    return list(islice(events(1, **options), number))


def test_the_same_seed_makes_the_same_events() -> None:
    """Another one makes others; no two have the same id."""
    made = take(3_000)
    assert made == take(3_000)
    assert made[:10] != list(islice(events(2), 10))
    assert len({event.id for event in made}) == 3_000


@given(first=st.integers(0, 5_000))
def test_an_event_does_not_depend_on_where_one_began(first: int) -> None:
    """But for its time and what of its id is time."""
    (resumed,) = take(1, first=first)
    (whole,) = islice(events(1), first, first + 1)
    assert msgspec.structs.replace(resumed, id=whole.id, timestamp=whole.timestamp) == whole
    assert resumed.timestamp == START


@given(step=st.integers(1, 10 * STEP), begin=st.integers(START, START + 10**14))
def test_times_never_go_back(step: int, begin: int) -> None:
    """From ``begin`` on, to the microsecond or so that a float is exact to."""
    times = [event.timestamp for event in take(300, step=step, begin=begin)]
    assert times == sorted(times)
    assert abs(times[0] - begin) <= 100


def test_a_log_that_is_continued_keeps_its_nights() -> None:
    """Events that go on at a later time fall into the same hours as if they had never stopped."""
    begin = START + 3 * 86_400_000_000 + 11 * 3_600_000_000
    hours = Counter(datetime.fromtimestamp(e.timestamp / 1e6, UTC).hour for e in take(40_000, begin=begin))
    assert min(hours[hour] for hour in range(8, 18)) > 3 * max(hours[hour] for hour in range(1, 5))


def test_few_do_most() -> None:
    """The busiest tenth of the people does most of it, from addresses that come again; outcomes are as in a real log."""
    made = take(20_000)
    users = Counter(event.user_id for event in made if event.user_id)
    assert users.most_common(1)[0][0] == person(0)
    assert sum(n for _, n in users.most_common(len(users) // 10)) > 0.5 * len(made)
    assert len({event.ip_address for event in made}) < len(made) / 4
    statuses = Counter(event.status for event in made)
    assert set(statuses) == set(STATUSES)
    assert statuses["success"] > 0.9 * len(made)
    assert {event.event_type for event in made} <= set(GUIDE_EVENT_TYPES)
    assert len({event.event_type for event in made}) >= 10


def test_rows_have_the_size_of_real_ones() -> None:
    """About 600 bytes, as the measurements say."""
    made = take(2_000)
    assert 450 < sum(len(msgspec.json.encode(event)) for event in made) / len(made) < 750
