"""A sealed log with its checkpoints, whoever owns its database, and the verdict on what they did."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from indelible.events import AuditEvent
from indelible.integrity.checkpoint import Checkpoint, sign_checkpoint
from indelible.integrity.leaf import hash_columns
from indelible.integrity.merkle import CompactRange
from indelible.integrity.note import Ed25519Signer
from indelible.integrity.verify import Report
from indelible.migrations import upgrade_engine
from indelible.ports import StoredCheckpoint
from indelible.stores import urls
from indelible.stores.pgtypes import register
from indelible.stores.postgres import PostgresStore
from indelible.stores.raw import open_raw
from indelible.stores.sqlite import SqliteStore
from indelible.verification import Outside, Request, verify

#: Small enough for a test to fill several.
SEGMENT_ROWS = 256
#: The moment of every verdict: long after any row.
NOW = 4_000_000_000.0
ORIGIN = "audit.example.com/test"
SIZE = 600
WRITER = uuid.UUID(int=0xA)


@dataclass
class Log:
    """A log of 600 rows: 20 appends of 30 by one writer, with checkpoints at 90, 300 and 600 in its table."""

    url: str
    store: SqliteStore | PostgresStore
    signer: Ed25519Signer = field(default_factory=lambda: Ed25519Signer(ORIGIN, bytes(range(32))))
    notes: dict[int, bytes] = field(default_factory=dict)

    @property
    def is_sqlite(self) -> bool:
        """Which engine this run of the test is about."""
        return self.url.startswith("sqlite")

    def sign(self, size: int, root: bytes) -> bytes:
        """A checkpoint signed with the log's key."""
        return sign_checkpoint(Checkpoint(ORIGIN, size, root), self.signer)

    def publish(self, size: int) -> None:
        """Put the checkpoint of this size into the table, and keep a copy outside."""
        (root,) = self.raw("SELECT root FROM audit_heads WHERE size = ?", [size])[0]
        self.notes[size] = self.sign(size, bytes(root))
        lease = self.store.lease()
        assert lease is not None
        try:
            lease.insert(StoredCheckpoint(size, 1_700_000_000_000_000, self.notes[size]))
        finally:
            lease.close()

    def outside(self, *sizes: int) -> list[Outside]:
        """Copies that were kept outside, under their file's name; all of them by default."""
        return [
            Outside(f"kept/{size}", note, NOW - 60)
            for size, note in self.notes.items()
            if size in (sizes or self.notes)
        ]

    def verify(self, outside: Sequence[Outside] | None = None, *, at: float = NOW, **more: Any) -> Report:
        """The report, with what was kept outside unless other evidence is given."""
        keys = (self.signer.key,)
        asked = Request(
            url=self.url,
            now=at,
            logs=keys,
            registered=keys,
            outside=self.outside() if outside is None else outside,
            schema=self.store.check(),
            **more,
        )
        return verify(asked)[0]

    def raw(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """One statement past the store, as whoever owns the database; its rows."""
        if self.is_sqlite:
            with closing(sqlite3.connect(urls.parse(self.url).database or "")) as connection:
                rows = connection.execute(statement, parameters).fetchall()
                connection.commit()
                return rows
        with psycopg.connect(self.url) as connection:
            register(connection)
            cursor = connection.execute(statement.replace("?", "%s").encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def without_guards(self, *statements: str | tuple[str, Sequence[Any]]) -> None:
        """Do something as a superuser who takes the guards away first, and puts them back: nothing shows in the schema."""
        if self.is_sqlite:
            with closing(sqlite3.connect(urls.parse(self.url).database or "")) as connection:
                triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
                for name, _ in triggers:
                    connection.execute(f"DROP TRIGGER {name}")
                for statement in statements:
                    connection.execute(*((statement,) if isinstance(statement, str) else statement))
                for _, sql in triggers:
                    connection.execute(sql)
                connection.commit()
            return
        with psycopg.connect(self.url) as connection:
            off = "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal AND tgparentid = 0"
            triggers = connection.execute(off).fetchall()
            for table, name in triggers:
                connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {name}".encode())
            for given in statements:
                statement, parameters = (given, ()) if isinstance(given, str) else given
                connection.execute(statement.replace("?", "%s").encode(), parameters or None)
            for table, name in triggers:
                connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}".encode())

    def reseal(self, *, heads: bool, resign: bool = False) -> None:
        """Give every row the leaf hash that it has now; with ``heads``, every head its root; sign all of it again."""
        with open_raw(self.url) as reader:
            parts = [columns for _, columns in reader.rows(0, SIZE)]
            sizes = [head.size for head in reader.heads(0, SIZE)]
        rows = [row for columns in parts for row in zip(*columns, strict=True)]
        leaves = [leaf for columns in parts for leaf in hash_columns(columns)]
        work: list[tuple[str, Sequence[Any]]] = [
            (f"UPDATE {self.table(row[-1])} SET leaf_hash = ? WHERE seq = ?", (leaf, row[-1]))
            for row, leaf in zip(rows, leaves, strict=True)
            if leaf != row[-2]
        ]
        roots = {size: CompactRange().extend(leaves[:size])[0].root for size in sizes}
        if heads:
            work += [("UPDATE audit_heads SET root = ? WHERE size = ?", (roots[size], size)) for size in sizes]
        if resign:
            work += [
                ("UPDATE audit_checkpoints SET note = ? WHERE size = ?", (self.sign(size, roots[size]).decode(), size))
                for size in self.notes
            ]
        self.without_guards(*work)

    def table(self, seq: int) -> str:
        """The table of a row."""
        return f"audit_logs_{seq // SEGMENT_ROWS}"


def _event(number: int) -> AuditEvent:
    return AuditEvent(
        id=uuid.UUID(int=(0x0190_0000_0000 << 80) + number),
        timestamp=1_700_000_000_000_000 + number * 1_000_000,
        event_type="data_modify",
        action="update",
        status="success",
        tenant_id="t1",
        resource_type="node",
        request_method="PUT",
        response_status=200,
        duration_us=1234,
        source="api",
        user_id=f"user-{number}",
        on_behalf_of="root",
        ip_address="192.0.2.1",
        user_agent="curl",
        session_id="s1",
        correlation_id=f"c-{number}",
        resource_id="7",
        request_path="/nodes/7",
        old_value='{"a":1}',
        new_value='{"a": 2}',
        metadata='{"k":"v"}',
        error="none",
    )


@pytest.fixture
def make_store(engine_url: str) -> Iterator[Callable[[], SqliteStore | PostgresStore]]:
    """A function that opens another store on the test's one database; all are closed after the test."""
    with ExitStack() as stack:

        def make() -> SqliteStore | PostgresStore:
            kind: Callable[..., SqliteStore | PostgresStore] = (
                SqliteStore if engine_url.startswith("sqlite") else PostgresStore
            )
            store = kind(engine_url, segment_rows=SEGMENT_ROWS, prepare=upgrade_engine)
            stack.callback(store.close)
            store.open()
            return store

        yield make


@pytest.fixture
def log(engine_url: str, make_store: Callable[[], SqliteStore | PostgresStore]) -> Log:
    """The log, on each engine in turn, verified before anybody touches it."""
    made = Log(engine_url, make_store())
    for first in range(0, SIZE, 30):
        made.store.append(WRITER, first, [_event(number) for number in range(first, first + 30)])
    for size in (90, 300, 600):
        made.publish(size)
    report = made.verify()
    assert (report.verdict, report.findings, report.witnessed) == ("verified", (), SIZE)
    return made


@pytest.fixture
def fresh_log() -> Iterator[Callable[[str, SqliteStore | PostgresStore], Log]]:
    """A function that makes an empty ``Log`` of an open store, which is closed after the test."""
    with ExitStack() as stack:

        def make(url: str, store: SqliteStore | PostgresStore) -> Log:
            stack.callback(store.close)
            return Log(url, store)

        yield make


@pytest.fixture
def event() -> Callable[[int], AuditEvent]:
    """A function that makes event number n, with a value in every column."""
    return _event
