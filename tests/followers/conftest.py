"""A log to publish, with a clock that the test turns and a host that stores what followers record at once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from indelible.errors import AnchorFailed
from indelible.events import AuditEvent
from indelible.followers.anchors import Published
from indelible.followers.keyring import Keyring
from indelible.followers.publisher import Publisher
from indelible.integrity.checkpoint import Checkpoint, open_checkpoint
from indelible.integrity.merkle import root_hash
from indelible.integrity.note import Note, VerifierKey
from indelible.keys import KeyDirectory
from indelible.metrics import Tally
from indelible.migrations import upgrade_engine
from indelible.ports import Host, StoredCheckpoint
from indelible.stores.postgres import PostgresStore
from indelible.stores.sqlite import SqliteStore

ORIGIN = "audit.example.com/prod"


def an_event(**fields: Any) -> AuditEvent:
    """An event; keyword arguments replace its fields."""
    defaults = {"event_type": "login", "action": "login", "status": "success"}
    return AuditEvent(**{"id": uuid.uuid4(), "timestamp": 1_700_000_000_000_000, **defaults, **fields})


@dataclass
class Clock:
    """Seconds, monotonic and Unix time alike."""

    time: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


@dataclass
class MemoryAnchor:
    """A place outside in memory, which can be away."""

    name: str = "memory"
    away: bool = False
    taken: list[Published] = field(default_factory=list)
    asked: int = 0

    def put(self, published: Published) -> None:
        """See anchors.Anchor."""
        self.asked += 1
        if self.away:
            raise AnchorFailed("away")
        self.taken.append(published)


@dataclass
class Bench:
    """One log and everything around a publisher of it."""

    store: SqliteStore | PostgresStore
    keys: KeyDirectory
    clock: Clock
    stack: ExitStack
    tally: Tally = field(default_factory=Tally)
    writer: uuid.UUID = field(default_factory=uuid.uuid4)
    written: int = 0
    holding_back: bool = False

    def append(self, count: int = 1, **fields: Any) -> int:
        """Store so many events; return the log's size."""
        events = [an_event(**fields) for _ in range(count)]
        size = self.store.append(self.writer, self.written, events)
        self.written += count
        return size

    def record(self, **fields: Any) -> uuid.UUID:
        """What followers record: stored at once, unless it is held back."""
        if not self.holding_back:
            fields.pop("metadata")
            self.append(**fields)
        return self.writer

    @property
    def host(self) -> Host:
        """What the service would give to its followers."""
        return Host(self.record, self.tally)

    def publisher(self, *, creates: bool = True, origin: str | None = ORIGIN, **more: Any) -> Publisher:
        """A publisher of this log."""
        keyring = more.pop("keyring", None) or Keyring(self.keys, origin=origin, creates=creates)
        store = more.pop("store", self.store)
        made = Publisher(store, keyring, interval=5.0, clock=self.clock, now=self.clock, **more)
        self.stack.callback(made.close)
        return made

    def step(self, publisher: Publisher, *, closing: bool = False, later: float = 5.0) -> float:
        """Let time pass, then step."""
        self.clock.time += later
        return publisher.step(self.host, closing=closing)

    def published(self) -> list[StoredCheckpoint]:
        """The table."""
        return list(self.store.checkpoints())

    def sizes(self) -> list[int]:
        """The sizes in the table."""
        return [each.size for each in self.published()]

    @property
    def vkey(self) -> VerifierKey:
        """The public half of the signing key."""
        ring = self.keys.load()
        assert ring is not None
        return ring.signing.key

    def check(self, note: bytes, *vkeys: VerifierKey) -> Checkpoint:
        """The checkpoint, if it is signed by the key and its root is that of the stored rows."""
        checkpoint = open_checkpoint(note, logs=vkeys or (self.vkey,)).checkpoint
        leaves = [leaf for leaf in self.store.leaf_hashes(0, checkpoint.size) if leaf is not None]
        assert len(leaves) == checkpoint.size
        assert root_hash(leaves) == checkpoint.root
        return checkpoint


def signers_of(note: bytes) -> set[bytes]:
    """The key IDs on a note."""
    return {signature.key_id for signature in Note.parse(note).signatures}


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[[str], Bench]]:
    """A function that makes the bench of the log at a URL."""
    with ExitStack() as stack:

        def make(url: str) -> Bench:
            kind = SqliteStore if url.startswith("sqlite") else PostgresStore
            store = kind(url, segment_rows=1024, prepare=upgrade_engine)
            stack.callback(store.close)
            store.open()
            return Bench(store, KeyDirectory(tmp_path / "keys"), Clock(), stack)

        yield make


@pytest.fixture
def bench(make_bench: Callable[[str], Bench], sqlite_url: str) -> Bench:
    """A SQLite log."""
    return make_bench(sqlite_url)


@pytest.fixture
def either(make_bench: Callable[[str], Bench], engine_url: str) -> Bench:
    """A log on each engine in turn."""
    return make_bench(engine_url)


@pytest.fixture
def anchor() -> MemoryAnchor:
    """A place outside."""
    return MemoryAnchor()
