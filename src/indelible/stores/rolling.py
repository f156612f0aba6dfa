"""Rollups as they are stored: which there are, finding those of a time range, and making the one that is due next.

A rollup is derived from rows that never change, so whoever makes it makes the same: several processes may do so at once,
and one that is missing or damaged is replaced by a look at its rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, func, insert, select
from sqlalchemy.exc import IntegrityError

from indelible.rollups import Block, Rollup, children, cover, decode, encode, merged, next_block, rows_of
from indelible.stores.faults import translated
from indelible.stores.schema import rollups
from indelible.stores.tallies import tally
from indelible.stores.walks import Walk


@dataclass(slots=True)
class Gathered:
    """What a time range comes to: whole rollups, and rows (from, up to) that have to be looked at."""

    rollups: list[Rollup] = field(default_factory=list)
    rows: list[tuple[int, int]] = field(default_factory=list)


def made(connection: Connection) -> dict[int, int]:
    """How many blocks of each level there are."""
    rows = connection.execute(select(rollups.c.level, func.max(rollups.c.number)).group_by(rollups.c.level))
    return {level: newest + 1 for level, newest in rows}


def gather(connection: Connection, start: float, end: float, size: int, grain: int) -> Gathered:
    """The rollups of the blocks whose times all lie from ``start`` to ``end`` (µs), and the other rows below ``size``.

    ``grain`` is that of the whole: a rollup that does not divide it is of no use.
    """
    found = Gathered()
    blocks, at = cover(made(connection), 0, size)
    if at < size:
        found.rows.append((at, size))
    while blocks:
        spans = _spans(connection, blocks)
        inside = [b for b in blocks if b in spans and start <= spans[b][0] and spans[b][1] <= end]
        apart = {b for b in blocks if b in spans and (spans[b][1] < start or end < spans[b][0])}
        bodies = _bodies(connection, inside)
        found.rollups += (body for body in bodies.values() if grain % body.grain == 0)
        whole = {b for b, body in bodies.items() if grain % body.grain == 0}
        rest = [b for b in blocks if b not in whole and b not in apart]
        found.rows += [rows_of(b) for b in rest if b[0] == 0]
        blocks = [child for b in rest if b[0] > 0 for child in children(b)]
    return found


def roll_up(engine: Engine, walk: Walk, size: int, most: int) -> tuple[int, bool]:
    """Make at most ``most`` rollups that are due; return up to which row they reach, and whether more are due.

    ``walk`` is over every segment, without conditions.
    """
    with translated(), engine.connect() as connection:
        counts = made(connection)
        for _ in range(most):
            block = next_block(counts, size)
            if block is None:
                break
            level, number = block
            rollup = _parent(connection, block) if level else None
            rollup = rollup or tally(walk, *rows_of(block))
            if rollup is None:
                # Rows that a head speaks of and that are not there: nothing to count, and verify says so.
                break
            _insert(connection, block, rollup)
            # Crash here ⇒ it is there, or is made again.
            counts[level] = number + 1
        return rows_of((0, counts.get(0, 0)))[0], next_block(counts, size) is not None


def _insert(connection: Connection, block: Block, rollup: Rollup) -> None:
    level, number = block
    row = insert(rollups).values(
        level=level, number=number, min_timestamp=rollup.first, max_timestamp=rollup.last, body=encode(rollup)
    )
    try:
        connection.execute(row)
        connection.commit()
    except IntegrityError:
        # Somebody else made it meanwhile, and made the same.
        connection.rollback()


def _parent(connection: Connection, block: Block) -> Rollup | None:
    wanted = children(block)
    bodies = _bodies(connection, wanted)
    return merged(bodies.values()) if len(bodies) == len(wanted) else None


def _by_level(blocks: Iterable[Block]) -> dict[int, list[int]]:
    numbers: defaultdict[int, list[int]] = defaultdict(list)
    for level, number in blocks:
        numbers[level].append(number)
    return numbers


def _spans(connection: Connection, blocks: Sequence[Block]) -> dict[Block, tuple[int, int]]:
    c = rollups.c
    return {
        (level, number): (first, last)
        for level, numbers in _by_level(blocks).items()
        for number, first, last in connection.execute(
            select(c.number, c.min_timestamp, c.max_timestamp).where(c.level == level, c.number.in_(numbers))
        )
    }


def _bodies(connection: Connection, blocks: Sequence[Block]) -> dict[Block, Rollup]:
    c = rollups.c
    return {
        (level, number): rollup
        for level, numbers in _by_level(blocks).items()
        for number, body in connection.execute(select(c.number, c.body).where(c.level == level, c.number.in_(numbers)))
        if (rollup := decode(body)) is not None
    }
