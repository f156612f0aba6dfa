"""The journal under Hypothesis: whatever happens in whatever order, no wrong frame and no exception but its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from indelible.errors import JournalCorrupt, JournalFull
from indelible.journal import Frame, Hole, Journal, JournalReader, encode_frame, open_intents, writers
from indelible.journal.frames import FILE_HEAD, Header, Slot, file_name

FILE_BYTES = 4096
MAX_EXAMPLES = 1000 if os.environ.get("INDELIBLE_SOAK") == "1" else 40


class JournalMachine(RuleBasedStateMachine):
    """A writer, a reader that follows it, and what both believe; then the writer dies in one of several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.reader: JournalReader | None = None
        self.begin()

    def begin(self) -> None:
        self.journal = Journal(self.directory, uuid4(), file_bytes=FILE_BYTES, quota=6 * FILE_BYTES)
        self.accepted: list[bytes] = []
        self.durable = 0
        self.places: list[tuple[int, int, int]] = []  # generation, offset and end of each frame
        self.read = 0
        self.stored = 0
        self.reader = JournalReader(self.journal.path)

    def teardown(self) -> None:
        if self.reader is not None:
            self.reader.close()
        self.journal.abandon()
        shutil.rmtree(self.directory)

    # --- a life -------------------------------------------------------------------------------------------------------

    @rule(size=st.integers(0, 1500), byte=st.integers(0, 255))
    def append(self, size: int, byte: int) -> None:
        payload = bytes([byte]) * size
        try:
            number = self.journal.append(payload)
        except JournalFull:
            return
        assert number == len(self.accepted)
        self.accepted.append(payload)
        end = self.journal._tail.offset
        self.places.append((self.journal._file.generation, end - (16 + size + 7) // 8 * 8, end))

    @rule()
    def sync(self) -> None:
        self.durable = self.journal.sync()
        assert self.durable == len(self.accepted)

    @rule(limit=st.integers(1, 20))
    def follow(self, limit: int) -> None:
        assert self.reader is not None
        for item in self.reader.read(limit, final=False):
            assert item == Frame(self.read, self.accepted[self.read])
            self.read += 1

    @rule()
    def ack(self) -> None:
        assert self.reader is not None
        self.reader.mark_stored(self.read)
        self.stored = self.read

    @rule()
    def another_reader(self) -> None:
        """The drainer is taken over: what was not acknowledged is read again."""
        assert self.reader is not None
        self.reader.close()
        self.reader = JournalReader(self.journal.path)
        assert self.reader.next == self.stored
        self.read = self.stored

    @invariant()
    def positions_are_told(self) -> None:
        assert self.journal.appended == len(self.accepted)
        assert self.journal.synced == self.durable
        assert self.journal.stored == self.stored
        assert len(list(self.journal.path.glob("*.frames"))) <= 6

    # --- a death ------------------------------------------------------------------------------------------------------

    def take_over(self, *, keeps: int, maybe: bytes | None = None) -> None:
        """Read as whoever comes next does: frames below ``keeps`` are all there, those above right or a hole."""
        assert self.reader is not None
        self.reader.close()
        reader = self.reader = JournalReader(self.journal.path)
        assert not reader.alive()
        expected = reader.next
        while items := reader.read(7, final=True):
            for item in items:
                if isinstance(item, Hole):
                    assert item.first == expected >= keeps, f"durable frames from {item.first} are said to be lost"
                    expected = item.end
                else:
                    assert item.number == expected
                    known = [*self.accepted, *([] if maybe is None else [maybe])]
                    assert item.payload == known[item.number]
                    expected += 1
        assert expected >= keeps
        reader.mark_stored(expected)
        reader.retire()
        self.journal.abandon()
        assert writers(self.directory) == []
        self.begin()

    @rule()
    def closed(self) -> None:
        self.journal.close()
        self.take_over(keeps=len(self.accepted))

    @rule()
    def killed(self) -> None:
        self.journal.leave()
        self.take_over(keeps=len(self.accepted))

    @rule(size=st.integers(0, 300), cut=st.integers(0, 400))
    def killed_in_the_middle_of_a_frame(self, size: int, cut: int) -> None:
        """Some bytes of the next frame are in the map, and the header does not tell of it."""
        journal, payload = self.journal, b"\xaa" * size
        frame = encode_frame(payload, len(self.accepted), journal._file.generation, journal._tail.offset)[:cut]
        room = FILE_BYTES - journal._tail.offset
        journal._file.map[journal._tail.offset : journal._tail.offset + min(len(frame), room)] = frame[:room]
        journal.leave()
        self.take_over(keeps=len(self.accepted), maybe=payload)

    @precondition(lambda self: self.durable < len(self.accepted))
    @rule(data=st.data())
    def power_cut(self, data: st.DataObject) -> None:
        """Of what was not synced, any sector may be zero, and the header may tell of less."""
        journal, lost = self.journal, self.places[self.durable :]
        journal._slots[Slot.APPENDED] = data.draw(st.integers(self.durable, len(self.accepted)))
        journal.leave()
        present = [place for place in lost if (journal.path / file_name(place[0])).exists()]
        for generation in {place[0] for place in present}:
            path = journal.path / file_name(generation)
            content = bytearray(path.read_bytes())
            begin = min(offset for g, offset, _ in present if g == generation)
            torn = data.draw(st.integers(begin, FILE_BYTES))
            if data.draw(st.booleans()):
                content[torn:] = bytes(FILE_BYTES - torn)  # from any byte on
            else:
                content[torn : torn + 512] = bytes(len(content[torn : torn + 512]))  # a sector in the middle
            path.write_bytes(content)
        self.take_over(keeps=self.durable)


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(
    max_examples=MAX_EXAMPLES,
    stateful_step_count=60,
    suppress_health_check=[HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A dead writer's journal of three files with intents, and what is in it."""
    directory = tmp_path_factory.mktemp("pristine")
    journal = Journal(directory, uuid4(), file_bytes=FILE_BYTES)
    payloads = [os.urandom(n * 7 % 300) for n in range(60)]
    for payload in payloads:
        journal.append(payload)
    journal.arm(b"an intent")
    journal.close()
    (journal.path / "reserve").unlink()
    return journal.path, payloads


DAMAGE = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 10**6), st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("cut"), st.integers(0, 10**6), st.just(b"")),
    st.tuples(st.just("delete"), st.just(0), st.just(b"")),
    st.tuples(st.just("duplicate"), st.integers(0, 5), st.just(b"")),
)


@settings(max_examples=MAX_EXAMPLES * 10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damages=st.lists(st.tuples(st.integers(0, 10), DAMAGE), min_size=1, max_size=6),
    midway=st.booleans(),
    junk=st.sampled_from(["", "x.frames", "9" * 30 + ".frames", "-1.frames", "٣.frames", "00000099.frames"]),
)
def test_a_reader_takes_any_damage(
    damages: list[tuple[int, tuple[str, int, bytes]]],
    midway: bool,
    junk: str,
    pristine: tuple[Path, list[bytes]],
) -> None:
    """Bytes overwritten, files cut, deleted and copied: each frame that comes back is the right one, in order."""
    source, payloads = pristine
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / source.name
        shutil.copytree(source, path)
        if junk:
            (path / junk).write_bytes(os.urandom(FILE_HEAD.size * 2))
        files = sorted(path.iterdir())
        reader = JournalReader(path) if midway else None
        expected = 0
        if reader is not None:
            assert [item.payload for item in reader.read(5, final=True) if isinstance(item, Frame)] == payloads[:5]
            expected = 5
        for which, (kind, where, what) in damages:
            file = files[which % len(files)]
            # A mapped header that is cut under a running process ends it with SIGBUS: the page says so.
            if not (midway and kind == "cut" and file.name == "header"):
                _damage(file, kind, where, what)
        try:
            reader = reader or JournalReader(path)
        except (JournalCorrupt, OSError):
            return
        try:
            expected = max(expected, reader.next)
            for _ in range(1000):
                items = reader.read(7, final=True)
                if not items:
                    break
                for item in items:
                    if isinstance(item, Hole):
                        assert item.first == expected
                        assert item.end > item.first
                        expected = item.end
                    else:
                        assert item == Frame(expected, payloads[item.number])
                        expected += 1
            else:
                pytest.fail("the reader does not come to an end")
            assert all(payload == b"an intent" for payload in open_intents(path))
        finally:
            reader.close()


def _damage(path: Path, kind: str, where: int, what: bytes) -> None:
    if not path.exists():
        return
    size = path.stat().st_size
    if kind == "delete":
        path.unlink()
    elif kind == "cut":
        os.truncate(path, where % (size + 1))
    elif kind == "duplicate":
        path.with_name(file_name(where)).write_bytes(path.read_bytes())
    else:
        with path.open("r+b") as file:
            file.seek(where % (size + 1))
            file.write(what)


def test_impossible_positions_are_no_journal(pristine: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    """A header whose counters cannot be is JournalCorrupt, rather than a hole of 2**63 events."""
    path = tmp_path / pristine[0].name
    shutil.copytree(pristine[0], path)
    fd = os.open(path / "header", os.O_RDWR)
    header = Header(fd)
    header[Slot.APPENDED] = 1 << 63
    header.close()
    os.close(fd)
    with pytest.raises(JournalCorrupt, match="positions"):
        JournalReader(path)
