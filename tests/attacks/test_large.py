"""A log of more than one range of 65,536 rows: tiles, several processes, and runs that go on where the last one was."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from indelible.events import AuditEvent
from indelible.integrity.edge import EDGE_UNIT
from indelible.integrity.leaf import hash_columns
from indelible.integrity.merkle import CompactRange, perfect_root
from indelible.migrations import upgrade_engine
from indelible.stores.postgres import PostgresStore
from indelible.stores.raw import open_raw
from indelible.stores.sqlite import SqliteStore
from indelible.verification import Request, run, verify
from indelible.verification.state import load, save

if TYPE_CHECKING:
    from .conftest import Log
else:
    Log = Any

SIZE = EDGE_UNIT + 200
NOW = 4_000_000_000.0


@pytest.fixture
def large(engine_url: str, fresh_log: Callable[[str, Any], Log]) -> Log:
    """65,736 rows in two appends, with a checkpoint of the last kept outside."""
    kind: Any = SqliteStore if engine_url.startswith("sqlite") else PostgresStore
    store = kind(engine_url, segment_rows=65_536, prepare=upgrade_engine)
    store.open()
    made = fresh_log(engine_url, store)
    for first, end in ((0, EDGE_UNIT), (EDGE_UNIT, SIZE)):
        store.append(uuid.UUID(int=5), first, [_event(number) for number in range(first, end)])
    made.publish(SIZE)
    return made


def _event(number: int) -> AuditEvent:
    return AuditEvent(
        id=uuid.UUID(int=number + 1),
        timestamp=number,
        event_type="login",
        action="login",
        status="success",
        user_id="u",
    )


def test_tiles_several_processes_and_later_runs(large: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In one test, for making the log is what takes time."""
    # Two processes read it, and say the same as one.
    monkeypatch.setattr(run, "PARALLEL", 2)
    told: list[tuple[int, int | None]] = []
    asked = Request(
        url=large.url,
        now=NOW,
        logs=(large.signer.key,),
        registered=(large.signer.key,),
        outside=large.outside(),
        workers=2,
    )
    report, state = verify(asked, progress=lambda more, total: told.append((more, total)))
    assert (report.verdict, report.rows, told) == ("verified", SIZE, [(EDGE_UNIT, SIZE), (200, SIZE)])
    assert large.verify(workers=1) == report

    # What is left for the next run survives its file.
    save(tmp_path / "state.json", state)
    assert load(tmp_path / "state.json") == state
    assert len(state.known.nodes) == 1

    # A tile that is changed, one that is missing, one that nothing filled.
    (tile,) = large.raw("SELECT hashes FROM audit_tiles")[0]
    for attack, kind in (
        (("UPDATE audit_tiles SET hashes = ?", (bytes(tile[::-1]),)), "tile"),
        ("DELETE FROM audit_tiles", "tile"),
        (("INSERT INTO audit_tiles (level, number, hashes) VALUES (1, 0, ?), (1, 1, ?)", (tile, tile)), "tile"),
    ):
        large.without_guards(attack)
        assert [f.kind for f in large.verify().findings] == [kind]

    # An edit with its leaf hash, tile and heads: the checkpoint from outside tells, and so does the earlier run.
    large.without_guards("UPDATE audit_logs_0 SET user_id = 'nobody' WHERE seq = 77")
    with open_raw(large.url) as reader:
        leaves = [leaf for _, part in reader.rows(0, SIZE) for leaf in hash_columns(part)]
    whole = [perfect_root(leaves[at : at + 256]) for at in range(0, EDGE_UNIT, 256)]
    large.without_guards(
        ("UPDATE audit_logs_0 SET leaf_hash = ? WHERE seq = 77", (leaves[77],)),
        ("UPDATE audit_tiles SET hashes = ?", (b"".join(whole),)),
        *(
            ("UPDATE audit_heads SET root = ? WHERE size = ?", (CompactRange().extend(leaves[:size])[0].root, size))
            for size in (EDGE_UNIT, SIZE)
        ),
        "DELETE FROM audit_tiles WHERE number = 1",
        "DELETE FROM audit_checkpoints",
    )
    assert [f.kind for f in large.verify([]).findings] == ["unwitnessed"]
    assert [f.kind for f in large.verify().findings] == ["checkpoint", "unwitnessed"]
    again = large.verify([], since=state)
    assert {"previous", "head"} <= {f.kind for f in again.findings}


def test_old_ranges_take_turns() -> None:
    """A 24th of them in each run, all of them in 24."""
    assert run._swept(0, 0) == range(0)
    assert run._swept(0, 25) == range(2)
    assert run._swept(24, 25) == range(24, 25)
    start, read = 0, set()
    for _ in range(run.SWEEP_RUNS):
        turn = run._swept(start, 100)
        read |= set(turn)
        start = turn.stop
    assert read == set(range(100))
