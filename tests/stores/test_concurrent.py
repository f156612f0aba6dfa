"""Eight writers in four processes, killed and interrupted at random: one dense log, one tree, nothing lost."""

from __future__ import annotations

import itertools
import random
import selectors
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from indelible.integrity.checkpoint import Checkpoint, sign_checkpoint
from indelible.integrity.merkle import consistency_proof, verify_consistency
from indelible.integrity.note import Ed25519Signer
from indelible.integrity.tiles import node_reader
from indelible.proving import tile_reader
from indelible.queries import Filter
from indelible.stores.base import SegmentedStore
from indelible.verification import Outside, Request, verify

CHILD = Path(__file__).with_name("appending.py")
SIGNER = Ed25519Signer("audit.example.com/crowd", bytes(range(32)))
TARGET = 120
KILLS = 6


class Crowd:
    """Four processes of two writers each; a killed one is started again."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self.url, self.chance = url, chance
        self.confirmed: Counter[uuid.UUID] = Counter()
        self.kills = 0
        self.selector = selectors.DefaultSelector()
        for pair in range(4):
            self.start([uuid.UUID(int=2 * pair + 1), uuid.UUID(int=2 * pair + 2)])

    def start(self, writers: list[uuid.UUID]) -> None:
        """A process that lives until it is done, or for a few appends."""
        arguments = [self.url, str(self.chance.randrange(2**30)), str(TARGET), *map(str, writers)]
        process = subprocess.Popen([sys.executable, str(CHILD), *arguments], stdout=subprocess.PIPE, bufsize=0)
        lives = self.chance.randint(1, 12) if self.kills < KILLS else None
        self.kills += lives is not None
        assert process.stdout is not None
        self.selector.register(process.stdout, selectors.EVENT_READ, (process, writers, lives, bytearray()))

    def run(self, look: Callable[[], None]) -> None:
        """Read what was confirmed until all are done; ``look`` at the log in between."""
        while self.selector.get_map():
            for key, _ in self.selector.select(timeout=60):
                process, writers, lives, buffer = key.data
                data = process.stdout.read(4096)
                buffer += data
                *lines, rest = bytes(buffer).split(b"\n")
                buffer[:] = rest
                for line in lines:
                    writer, position = line.decode().split()
                    self.confirmed[uuid.UUID(writer)] = max(self.confirmed[uuid.UUID(writer)], int(position))
                if lives is not None:
                    lives -= len(lines)
                    if lives <= 0:
                        process.kill()
                    self.selector.modify(key.fileobj, selectors.EVENT_READ, (process, writers, lives, buffer))
                if not data:
                    self.selector.unregister(key.fileobj)
                    process.stdout.close()
                    if process.wait(timeout=30) != 0:
                        assert process.returncode == -9
                        self.start(writers)
            look()


def test_a_crowd_of_writers_makes_one_log(store: SegmentedStore, engine_url: str) -> None:
    """seq is dense, every writer's events are there once and in order, and the roots seen on the way fit the last."""
    seen: dict[int, bytes] = {}

    def look() -> None:
        head = store.head()
        if head is not None and head.root is not None:
            seen[head.size] = head.root

    crowd = Crowd(engine_url, random.Random(engine_url.startswith("sqlite")))
    crowd.run(look)
    rows = [row for part in store.scan(Filter()) for row in part]
    assert [row.seq for row in rows] == list(range(8 * TARGET))
    for number in range(1, 9):
        writer = uuid.UUID(int=number)
        assert crowd.confirmed[writer] <= TARGET
        mine = [(row.writer_seq, row.id) for row in rows if row.writer_id == writer]
        assert mine == [(n, uuid.uuid5(writer, str(n))) for n in range(TARGET)]
    look()
    sizes = sorted(seen)
    node = node_reader(sizes[-1], tile_reader(store))
    for first, second in itertools.pairwise(sizes):
        verify_consistency(first, second, consistency_proof(first, second, node), seen[first], seen[second])
    outside = [
        Outside(str(size), sign_checkpoint(Checkpoint(SIGNER.key.name, size, root), SIGNER), None)
        for size, root in seen.items()
    ]
    report, _ = verify(
        Request(url=engine_url, now=time.time(), logs=(SIGNER.key,), outside=outside, schema=store.check())
    )
    assert (report.verdict, report.findings) == ("verified", ())


@pytest.fixture
def store(make_store: Callable[..., SegmentedStore]) -> SegmentedStore:
    """A log whose segments hold 256 rows: several are filled on the way."""
    return make_store(segment_rows=256)
