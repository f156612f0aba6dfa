"""The drainer: every journal's events reach the store once, in order, whoever died in between."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import Mock
from uuid import UUID, uuid4

import pytest

from indelible.delivery import Backoff, FlushPolicy
from indelible.drainer import LOCK_RETRY, PATIENCE, POLL, Drainer, Gap
from indelible.errors import RowRefused, StoreUnavailable
from indelible.events import AuditEvent, encode_event
from indelible.journal import Journal, writers
from indelible.testing import MemoryStore


def event(n: int) -> bytes:
    return encode_event(
        AuditEvent(id=UUID(int=n), timestamp=n, event_type="api_request", action=f"a{n}", status="success")
    )


class Clock:
    """A clock that moves when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A data directory with a drainer on a clock that stands still."""

    def __init__(self, directory: Path, store: MemoryStore) -> None:
        self.directory = directory
        self.store = store
        self.clock = Clock()
        self.gaps: list[Gap] = []
        self.journals: list[Journal] = []
        self.drainer = self.another()

    def another(self) -> Drainer:
        return Drainer(
            self.directory,
            self.store,
            self.gaps.append,
            policy=FlushPolicy(batch_size=10, interval=5.0),
            backoff=Backoff(base=1.0, cap=8.0),
            clock=self.clock,
            jitter=lambda: 0.0,
        )

    def writer(self) -> Journal:
        journal = Journal(self.directory / "journal", uuid4(), file_bytes=1 << 16)
        self.journals.append(journal)
        return journal

    def actions(self) -> list[str]:
        return [row.action for row in self.store.rows]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, MemoryStore())
    yield bench
    bench.drainer.release()
    for journal in bench.journals:
        journal.close()


def test_waits_for_a_batch_or_the_interval(bench: Bench) -> None:
    """Nine events stay in the journal until five seconds are over; the tenth sends them at once."""
    journal = bench.writer()
    for n in range(9):
        journal.append(event(n))
    assert bench.drainer.step() == POLL
    bench.clock.now += 4.9
    bench.drainer.step()
    assert bench.store.rows == []
    bench.clock.now += 0.2
    bench.drainer.step()
    assert len(bench.store.rows) == 9
    for n in range(10):
        journal.append(event(n))
    bench.drainer.step()
    assert len(bench.store.rows) == 19
    assert journal.stored == 19


def test_somebody_who_waits_is_served_at_once(bench: Bench) -> None:
    """``want`` in the header is enough, from whichever process."""
    journal = bench.writer()
    journal.append(event(0))
    journal.want(1)
    bench.drainer.step()
    assert journal.stored == 1


@pytest.mark.parametrize("pieces", [None, (7, 7)])
def test_appends_are_bounded(bench: Bench, pieces: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long queue goes out in appends of ``max_batch``, one per journal and round, however much is done at a time."""
    breaths: list[float] = []
    monkeypatch.setattr(time, "sleep", breaths.append)
    bench.drainer._policy = FlushPolicy(pieces=pieces)
    first, second = bench.writer(), bench.writer()
    most = FlushPolicy().max_batch
    for n in range(most + 20):
        first.append(event(n))
        second.append(event(n))
    assert bench.drainer.step() < POLL
    assert len(bench.store.rows) == 2 * most
    while bench.drainer.step() < POLL:
        pass
    assert len(bench.store.rows) == 2 * (most + 20)
    assert len(breaths) >= 2 * most // (7 * 8) if pieces else not breaths
    for journal in (first, second):
        mine = [row for row in bench.store.rows if row.writer_id == journal.writer_id]
        assert [row.writer_seq for row in mine] == list(range(most + 20))


def test_a_batch_is_decoded_as_it_is_stored(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a piece of it is there at once: what the garbage collector sees of a batch does not grow with it."""
    journal = bench.writer()
    for n in range(500):
        journal.append(event(n))
    seen: list[Sequence[AuditEvent]] = []
    append = bench.store.append

    def spy(writer_id: UUID, first: int, events: Sequence[AuditEvent], *, after: int | None = None) -> int:
        seen.append(events)
        return append(writer_id, first, events, after=after)

    monkeypatch.setattr(bench.store, "append", spy)
    bench.drainer.step()
    (events,) = seen
    assert len(events) == 500
    assert not any(isinstance(kept, AuditEvent | UUID) for kept in gc.get_referents(*gc.get_referents(events)))
    assert [each.id.int for each in events] == list(range(500))
    assert [each.id.int for each in events[490:]] == list(range(490, 500))
    assert events[-1].id.int == 499


def test_one_drainer_per_directory(bench: Bench) -> None:
    """The second stands by, and takes over when the first lets go."""
    journal = bench.writer()
    bench.drainer.step()
    standby = bench.another()
    assert standby.step() == LOCK_RETRY
    journal.append(event(0))
    journal.want(1)
    standby.step()
    assert bench.store.rows == []
    bench.drainer.release()
    standby.step()
    assert bench.actions() == ["a0"]
    standby.release()


def test_a_dead_writers_journal_is_drained_and_removed(bench: Bench) -> None:
    """Without waiting for a batch or the timer, and nothing of it stays behind."""
    journal = bench.writer()
    journal.append(event(0))
    journal.close()
    bench.drainer.step()
    assert bench.actions() == ["a0"]
    bench.drainer.step()
    assert writers(bench.directory / "journal") == []


def test_a_journal_that_cannot_be_removed_is_removed_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refuses once: nothing is stored twice, and nothing stays behind."""
    journal = bench.writer()
    journal.append(event(0))
    journal.close()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", Mock(side_effect=PermissionError))
        for _ in range(3):
            bench.drainer.step()
        assert writers(bench.directory / "journal") == [journal.path]
    bench.drainer.step()
    bench.drainer.step()
    assert writers(bench.directory / "journal") == []
    assert bench.actions() == ["a0"]


def test_what_becomes_a_journal_is_found(bench: Bench) -> None:
    """Though nothing has changed in the directory above it since the last look."""
    journal = bench.writer()
    journal.append(event(0))
    journal.close()
    header = (journal.path / "header").read_bytes()
    (journal.path / "header").write_bytes(b"")
    bench.drainer.step()
    (journal.path / "header").write_bytes(header)
    bench.drainer.step()
    assert bench.actions() == ["a0"]


def test_a_store_that_is_away_is_retried_with_growing_delay(bench: Bench) -> None:
    """Nothing is lost, nothing is asked in a tight loop, and it goes on by itself."""
    journal = bench.writer()
    journal.append(event(0))
    journal.want(1)
    bench.store.down = True
    delays = []
    for _ in range(5):
        delays.append(bench.drainer.step())
        bench.clock.now += delays[-1]
    assert delays == [0.5, 1.0, 2.0, 4.0, 4.0]
    bench.store.down = False
    bench.drainer.step()
    assert journal.stored == 1


def test_repeated_failures_are_one_line_a_minute_with_a_count(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A warning when it begins and once a minute with how many there were, then one line that it is over."""
    journal = bench.writer()
    journal.append(event(0))
    journal.want(1)
    bench.store.down = True
    with caplog.at_level(logging.INFO, "indelible.drainer"):
        caplog.clear()
        for _ in range(30):
            bench.clock.now += 15.0
            bench.drainer.step()
        bench.store.down = False
        bench.clock.now += 15.0
        bench.drainer.step()
    told = [record.getMessage() for record in caplog.records if record.name == "indelible.drainer"]
    warnings = [line for line in told if "cannot be stored" in line]
    assert len(warnings) == 8
    assert "(0 more failures" in warnings[0]
    assert all("(3 more failures since the last line)" in line for line in warnings[1:])
    assert [line for line in told if "stored again" in line] == ["events are stored again after 30 failed attempts"]


def test_an_answer_that_got_lost_stores_nothing_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The append succeeds, the connection breaks before the answer: the position is asked for again."""
    journal = bench.writer()
    journal.append(event(0))
    journal.want(1)
    append = bench.store.append

    def lost(writer_id: UUID, first: int, events: Sequence[AuditEvent], *, after: int | None = None) -> int:
        append(writer_id, first, events, after=after)
        raise StoreUnavailable("connection reset after COMMIT")

    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "append", lost)
        bench.clock.now += bench.drainer.step()
    journal.append(event(1))
    journal.want(2)
    bench.drainer.step()
    assert bench.actions() == ["a0", "a1"]


def test_a_header_that_says_less_than_the_store_knows(bench: Bench) -> None:
    """A crash between commit and the mark in the header: the next drainer asks the store."""
    journal = bench.writer()
    for n in range(10):
        journal.append(event(n))
    bench.store.append(journal.writer_id, 0, [_decoded(n) for n in range(10)])
    journal.append(event(10))
    journal.want(11)
    bench.drainer.step()
    assert bench.actions() == [f"a{n}" for n in range(11)]


def _decoded(n: int, error: str | None = None) -> AuditEvent:
    return AuditEvent(
        id=UUID(int=n), timestamp=n, event_type="api_request", action=f"a{n}", status="success", error=error
    )


@pytest.mark.parametrize("poison", [0, 7, 19])
def test_a_row_that_the_store_refuses_blocks_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch, poison: int) -> None:
    """It is found by bisection, kept as a dead letter and recorded as a gap; its neighbours are stored in order."""
    append = bench.store.append

    def strict(writer_id: UUID, first: int, events: Sequence[AuditEvent], *, after: int | None = None) -> int:
        if any(e.action == f"a{poison}" for e in events):
            raise RowRefused("no such value")
        return append(writer_id, first, events, after=after)

    monkeypatch.setattr(bench.store, "append", strict)
    journal = bench.writer()
    for n in range(20):
        journal.append(event(n))
    bench.drainer.step()
    assert bench.actions() == [f"a{n}" for n in range(20) if n != poison]
    assert bench.gaps == [Gap(journal.writer_id, poison, poison + 1, "refused")]
    (letter,) = bench.drainer.dead_letters.iterdir()
    assert letter.read_bytes() == event(poison)
    assert journal.stored == 20


def test_what_follows_a_dead_letter_goes_on_in_the_next_flush_and_after_a_take_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers that were skipped are remembered in the header, so nobody takes them for a loss, or tries again."""
    append = bench.store.append

    def strict(writer_id: UUID, first: int, events: Sequence[AuditEvent], *, after: int | None = None) -> int:
        if any(e.action == "a1" for e in events):
            raise RowRefused("no such value")
        return append(writer_id, first, events, after=after)

    monkeypatch.setattr(bench.store, "append", strict)
    journal = bench.writer()
    for n in range(2):
        journal.append(event(n))
    journal.want(2)
    bench.drainer.step()
    bench.drainer.release()
    bench.drainer = bench.another()
    journal.append(event(2))
    journal.want(3)
    bench.drainer.step()
    assert bench.actions() == ["a0", "a2"]
    assert len(bench.gaps) == 1


def test_a_store_that_forgot_is_reported_and_filled_from_the_journal(bench: Bench) -> None:
    """After a restore or a lossy failover: what the journal still has is stored again, the rest becomes a gap."""
    journal = bench.writer()
    for n in range(300):
        journal.append(encode_event(_decoded(n, "x" * 600)))
        if n % 100 == 99:
            journal.sync()
            journal.want(n + 1)
            while journal.stored < n + 1:
                bench.drainer.step()
    # Only the first ten are left in the restored database, and the journal's first file was used again meanwhile.
    bench.store.rows = bench.store.rows[:10]
    bench.store.forget(journal.writer_id, 10)
    journal.append(event(300))
    journal.want(301)
    for _ in range(30):
        bench.drainer.step()
        bench.clock.now += 1
    assert [row.writer_seq for row in bench.store.rows if row.writer_seq < 10] == list(range(10))
    assert bench.store.rows[-1].action == "a300"
    stored = {row.writer_seq for row in bench.store.rows}
    explained = {n for gap in bench.gaps for n in range(gap.first, gap.end)}
    assert {gap.reason for gap in bench.gaps} <= {"store_rolled_back"}
    assert stored | explained == set(range(301))
    assert not stored & explained


def test_a_cloned_writer_is_an_alarm_and_a_gap(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Other events under this writer's numbers: what only this journal has is kept as dead letters, never dropped."""
    journal = bench.writer()
    bench.store.append(journal.writer_id, 0, [_decoded(1000 + n) for n in range(3)])
    for n in range(5):
        journal.append(event(n))
    journal.want(5)
    bench.drainer.step()
    bench.drainer.step()
    assert len(bench.store.rows) == 3
    assert bench.gaps == [Gap(journal.writer_id, 0, 5, "writer_cloned")]
    assert len(list(bench.drainer.dead_letters.iterdir())) == 5
    assert "was cloned" in caplog.text
    journal.append(event(5))
    journal.want(6)
    bench.drainer.step()
    assert bench.gaps[1:] == [Gap(journal.writer_id, 5, 6, "writer_cloned")]


@pytest.mark.parametrize("bad", [{0}, {3}, {0, 1, 6}, {6}, set(range(7))])
def test_a_payload_that_is_no_event_becomes_a_dead_letter(bench: Bench, bad: set[int]) -> None:
    """Bytes that cannot be decoded do not stop the drainer, and are kept as they are; what is around them is stored."""
    journal = bench.writer()
    for n in range(7):
        journal.append(b"\xc1%d" % n if n in bad else event(n))
    journal.want(7)
    bench.drainer.step()
    assert bench.actions() == [f"a{n}" for n in range(7) if n not in bad]
    assert bench.gaps == [Gap(journal.writer_id, n, n + 1, "refused") for n in sorted(bad)]
    letters = {path.name: path.read_bytes() for path in bench.drainer.dead_letters.glob("*.msgpack")}
    assert letters == {f"{journal.writer_id}-{n}.msgpack": b"\xc1%d" % n for n in bad}
    assert journal.stored == 7


def test_damage_in_a_living_journal_is_reported_after_some_patience(bench: Bench) -> None:
    """What cannot be read now may be a frame on its way; after a second it counts as lost, and the rest goes on."""
    journal = bench.writer()
    for n in range(20):
        journal.append(event(n))
    file = journal.path / "00000000.frames"
    with file.open("r+b") as handle:
        handle.seek(32 + 8)
        handle.write(b"\xff" * 40)
    bench.drainer.step()
    assert bench.store.rows == []
    bench.clock.now += PATIENCE
    bench.drainer.step()
    assert bench.gaps == [Gap(journal.writer_id, 0, 1, "journal_damaged")]
    assert bench.actions() == [f"a{n}" for n in range(1, 20)]
    assert bench.store.rows[0].writer_seq == 1


def test_foreign_directories_are_left_alone(bench: Bench) -> None:
    """Something that is not a journal is neither read nor removed."""
    other = bench.directory / "journal" / "other"
    other.mkdir(parents=True)
    (other / "header").write_bytes(b"something else")
    bench.drainer.step()
    assert (other / "header").exists()


def test_run_stops_when_told(bench: Bench, in_thread: Callable[[Callable[[], None]], None]) -> None:
    """``stop`` makes ``run`` drain once more, release the directory and return."""
    journal = bench.writer()
    journal.append(event(0))
    bench.drainer.stop()
    journal.close()
    in_thread(bench.drainer.run)
    assert bench.actions() == ["a0"]
    assert not bench.drainer.owns_directory


@pytest.fixture
def in_thread() -> Callable[[Callable[[], None]], None]:
    import threading

    def run(target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()

    return run
