"""COPY in parts: the next part is made while the server is busy, and a part that fails leaves a usable connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from indelible import pacing
from indelible.stores.pgconnection import WritingConnection
from indelible.stores.pgcopy import copied, copy_in

STATEMENT = "COPY numbers FROM STDIN (FORMAT BINARY)"


@pytest.fixture
def connection(postgres_url: str) -> Iterator[WritingConnection]:
    """A writer's connection, with a table."""
    with WritingConnection.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE numbers (n int8 CHECK (n >= 0), name text)")
        yield connection


def rows(connection: WritingConnection) -> list[tuple[int, str | None]]:
    """What is in the table."""
    return connection.execute("SELECT n, name FROM numbers ORDER BY n").fetchall()


def copy(connection: WritingConnection, parts: Iterable[Sequence[tuple[int, str | None]]]) -> None:
    """Copy the rows of each part."""
    copy_in(connection, STATEMENT, ((len(part), copied(connection, ["int8", "text"], part)) for part in parts))


def numbers(*, parts: int, size: int = 10) -> list[list[tuple[int, str | None]]]:
    """So many parts of so many rows."""
    return [[(n, None if n % 3 else f"number {n}") for n in range(at * size, (at + 1) * size)] for at in range(parts)]


@pytest.mark.parametrize("parts", [0, 1, 2, 5, 25, 26, 60])
def test_all_rows_arrive(connection: WritingConnection, parts: int) -> None:
    """Each row of each part, as it was."""
    given = numbers(parts=parts)
    copy(connection, given)
    assert rows(connection) == [row for part in given for row in part]


def test_parts_are_made_while_the_server_works(connection: WritingConnection) -> None:
    """When a part but the first is asked for, a COPY has been sent and its answer has not been read."""
    statuses: list[TransactionStatus] = []

    def parts() -> Iterator[list[tuple[int, str | None]]]:
        for part in numbers(parts=4, size=250):
            statuses.append(connection.info.transaction_status)
            yield part

    copy(connection, parts())
    assert statuses == [TransactionStatus.IDLE, *[TransactionStatus.ACTIVE] * 3]


@pytest.mark.parametrize(("rows_at_once", "first"), [(None, 25), (50, 25), (49, 1), (15, 1)])
def test_small_parts_share_a_copy(
    connection: WritingConnection, monkeypatch: pytest.MonkeyPatch, rows_at_once: int | None, first: int
) -> None:
    """Nothing is sent before there are 250 rows, but where an event loop is near; the next are made meanwhile."""
    monkeypatch.setattr(pacing, "_PAUSE", 0.0)
    statuses: list[TransactionStatus] = []

    def parts() -> Iterator[list[tuple[int, str | None]]]:
        for part in numbers(parts=60):
            statuses.append(connection.info.transaction_status)
            yield part

    with pacing.beside_others(rows_at_once):
        copy(connection, parts())
    assert statuses == [TransactionStatus.IDLE] * first + [TransactionStatus.ACTIVE] * (60 - first)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_part_that_cannot_be_made(connection: WritingConnection, bad: int) -> None:
    """Its error is raised as it is; the transaction can be rolled back, and the connection goes on."""

    def parts() -> Iterator[list[tuple[int, str | None]]]:
        for at, part in enumerate(numbers(parts=3, size=250)):
            if at == bad:
                raise LookupError("no such part")
            yield part

    connection.execute("BEGIN")
    with pytest.raises(LookupError, match="no such part"):
        copy(connection, parts())
    connection.execute("ROLLBACK")
    assert rows(connection) == []
    assert connection.meanwhile is None


def test_a_part_that_the_server_refuses(connection: WritingConnection) -> None:
    """The server's error is raised, though the next part is made already."""
    first, second, third = numbers(parts=3, size=250)
    connection.execute("BEGIN")
    with pytest.raises(psycopg.errors.CheckViolation):
        copy(connection, [first, [*second, (-1, None)], third])
    connection.execute("ROLLBACK")
    assert rows(connection) == []


def test_parts_larger_than_a_socket_takes(connection: WritingConnection) -> None:
    """A part of some megabytes is sent whole."""
    given = [[(n, "x" * 10_000) for n in range(at * 300, at * 300 + 300)] for at in range(2)]
    copy(connection, given)
    assert rows(connection) == [row for part in given for row in part]
