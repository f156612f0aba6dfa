"""What many events come to: counts that add up, so that a question about millions of them need not look at each.

The log is cut into blocks of ``BLOCK`` rows; ``FAN`` blocks of one level are one block of the next, as in the tiles of its
tree. A block's rollup is made once, when its last row is stored, and never changes. Values only; ``stores.rolling`` keeps
them, and ``stores.tallies`` answers from them.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from indelible.queries import EARLIEST, LATEST, Stats, bucket_width

#: Rows in a block of level 0, and blocks of one level in a block of the next.
BLOCK: Final = 4_096
FAN: Final = 16
LEVELS: Final = 6

#: Level and number.
Block = tuple[int, int]


class Rollup(msgspec.Struct, array_like=True):
    """Counts over some rows, whose times lie between ``first`` and ``last`` (Unix µs, inclusive).

    ``kinds`` is event type → outcome → count; ``users``, ``addresses`` and ``resource_types`` count by name, rows
    without one are left out. ``times`` is n → outcome → count for the rows from ``n * grain`` µs up to ``(n + 1) * grain``.
    The grain is ``bucket_width(first, last)``: every wider one is a multiple of it, so these buckets add up to wider ones.
    """

    first: int
    last: int
    grain: int
    kinds: dict[str, dict[str, int]]
    users: dict[str, int]
    addresses: dict[str, int]
    resource_types: dict[str, int]
    times: dict[int, dict[str, int]]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Rollup)


def encode(rollup: Rollup) -> bytes:
    """As it is stored: MessagePack of its fields in order."""
    return _encoder.encode(rollup)


def decode(data: bytes) -> Rollup | None:
    """What ``encode`` wrote; None for anything else, which counts as a rollup that is not there."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def rows_of(block: Block) -> tuple[int, int]:
    """Which rows a block is about: from, up to."""
    level, number = block
    rows = int(BLOCK * FAN**level)
    return number * rows, (number + 1) * rows


def children(block: Block) -> list[Block]:
    """The blocks of the level below that make this one."""
    level, number = block
    return [(level - 1, FAN * number + i) for i in range(FAN)]


def next_block(made: Mapping[int, int], size: int) -> Block | None:
    """The block to make next, or None while none is due.

    ``made`` is how many blocks of each level there are, from 0 on; ``size`` is the log's. Parents come before the next
    block of level 0, so that what is read is always made of few.
    """
    for level in range(1, LEVELS):
        if FAN * (made.get(level, 0) + 1) <= made.get(level - 1, 0):
            return level, made.get(level, 0)
    number = made.get(0, 0)
    return (0, number) if (number + 1) * BLOCK <= size else None


def cover(made: Mapping[int, int], first: int, end: int) -> tuple[list[Block], int]:
    """The fewest blocks that follow each other from ``first``, a block's first row, and where the last of them ends.

    None of them reaches beyond ``end``.
    """
    found: list[Block] = []
    at = first
    while True:
        for level in reversed(range(LEVELS)):
            number, offset = divmod(at, rows_of((level, 0))[1])
            reach = rows_of((level, number))[1]
            if offset == 0 and number < made.get(level, 0) and reach <= end:
                found.append((level, number))
                at = reach
                break
        else:
            return found, at


def merged(parts: Iterable[Rollup], grain: int | None = None) -> Rollup | None:
    """The rollup of all the rows of ``parts``, which have none in common; None for no parts.

    ``grain`` (default: that of the whole) must be a multiple of each part's.
    """
    parts = list(parts)
    if not parts:
        return None
    first, last = min(part.first for part in parts), max(part.last for part in parts)
    width = bucket_width(first, last) if grain is None else grain
    whole = Rollup(first, last, width, {}, {}, {}, {}, {})
    # The largest first: it is copied, the others are added name by name.
    for part in sorted(parts, key=lambda part: len(part.users) + len(part.addresses), reverse=True):
        _add(whole.users, part.users)
        _add(whole.addresses, part.addresses)
        _add(whole.resource_types, part.resource_types)
        for kind, outcomes in part.kinds.items():
            _add(whole.kinds.setdefault(kind, {}), outcomes)
        for number, outcomes in part.times.items():
            _add(whole.times.setdefault(number * part.grain // width, {}), outcomes)
    return whole


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    if not counts:
        counts.update(more)
        return
    get = counts.get
    for name, n in more.items():
        counts[name] = get(name, 0) + n


def as_stats(rollup: Rollup, *, top: int) -> Stats:
    """``rollup`` as the answer to a question, with at most ``top`` users, addresses and types of resources."""
    by_type = {kind: sum(outcomes.values()) for kind, outcomes in rollup.kinds.items()}
    by_status: Counter[str] = Counter()
    for outcomes in rollup.kinds.values():
        by_status.update(outcomes)
    times, grain = rollup.times, rollup.grain
    # The first bucket may begin before the year 1, which has no written form.
    buckets = [(max(n * grain, EARLIEST), times.get(n, {})) for n in _filled(times)]
    return Stats(
        total_events=by_status.total(),
        event_type_breakdown=dict(greatest(by_type, len(by_type))),
        status_breakdown=dict(greatest(by_status, len(by_status))),
        top_users=greatest(rollup.users, top),
        top_ips=greatest(rollup.addresses, top),
        top_resource_types=greatest(rollup.resource_types, top),
        events_over_time=tuple((start, sum(outcomes.values())) for start, outcomes in buckets),
        outcomes_over_time=tuple((start, dict(outcomes)) for start, outcomes in buckets),
        bucket=grain,
    )


def _filled(times: Mapping[int, object]) -> Iterable[int]:
    return range(min(times), max(times) + 1) if times else ()


def greatest(counts: Mapping[str, int], most: int) -> tuple[tuple[str, int], ...]:
    """The names with the greatest counts, ties by name."""
    return tuple(heapq.nsmallest(most, counts.items(), key=lambda item: (-item[1], item[0])))


def clamped(at: int) -> int:
    """A time within the years that can be written down: a row forged to stand outside counts at their edge."""
    return min(max(at, EARLIEST), LATEST)


#: The answer when no event matches.
NOTHING: Final = as_stats(Rollup(0, 0, bucket_width(0, 0), {}, {}, {}, {}, {}), top=0)
