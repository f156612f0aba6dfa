"""The journal: what was appended is read back, whatever happened in between."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indelible.errors import JournalCorrupt, JournalFull, JournalUnavailable
from indelible.journal import (
    MAX_PAYLOAD,
    Frame,
    Hole,
    Journal,
    JournalReader,
    decode_frame,
    encode_frame,
    writers,
)
from indelible.journal.frames import file_head

SMALL = 1 << 16


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Journal]]:
    """A factory of journals with small files, closed at the end."""
    made: list[Journal] = []

    def factory(**options: int) -> Journal:
        journal = Journal(tmp_path, uuid4(), **{"file_bytes": SMALL, **options})
        made.append(journal)
        return journal

    yield factory
    for journal in made:
        journal.close()


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Callable[[Journal], JournalReader]]:
    """A factory of readers, closed at the end."""
    made: list[JournalReader] = []

    def factory(journal: Journal) -> JournalReader:
        reader = JournalReader(journal.path)
        made.append(reader)
        return reader

    yield factory
    for reader in made:
        reader.close()


@given(
    payload=st.binary(max_size=2000),
    number=st.integers(0, 2**64 - 1),
    generation=st.integers(0, 2**32),
    offset=st.integers(0, 2**40).map(lambda n: n * 8),
)
def test_frames_round_trip(payload: bytes, number: int, generation: int, offset: int) -> None:
    """A frame decodes to what it was made of, and its size is a multiple of eight."""
    encoded = encode_frame(payload, number, generation, offset)
    assert len(encoded) % 8 == 0
    assert decode_frame(encoded, 0, generation, offset) == (Frame(number, payload), len(encoded))


@given(payload=st.binary(max_size=200), flip=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_changed_bit_is_no_frame(payload: bytes, flip: int, bit: int) -> None:
    """Whatever bit of a frame flips (but for the padding), it is no longer a frame."""
    encoded = bytearray(encode_frame(payload, 7, 3, 64))
    meaningful = 16 + len(payload)
    encoded[flip % meaningful] ^= 1 << bit
    assert decode_frame(bytes(encoded), 0, 3, 64) is None


@given(payload=st.binary(max_size=200), generation=st.integers(0, 2**32 - 1), other=st.integers(0, 2**32 - 1))
def test_a_frame_of_the_former_life_is_no_frame(payload: bytes, generation: int, other: int) -> None:
    """The same bytes at the same place of a file under another generation are refused, and so at another offset."""
    encoded = encode_frame(payload, 7, generation, 64)
    assert (decode_frame(encoded, 0, other, 64) is not None) == (generation == other)
    assert decode_frame(encoded, 0, generation, 72) is None


@given(st.binary(max_size=300))
def test_garbage_is_no_frame_and_no_exception(garbage: bytes) -> None:
    """The reader's parser takes any bytes at all."""
    for at in range(len(garbage)):
        assert decode_frame(garbage, at, 1, at) is None


@pytest.mark.skipif(sys.byteorder != "little", reason="the journal is in the machine's byte order, the vectors are not")
def test_the_vectors_of_the_specification() -> None:
    """docs/formats/journal.md shows the bytes that are written."""
    page = (Path(__file__).parent.parent / "docs/formats/journal.md").read_text()
    for vector in (encode_frame(b"abc", 5, 3, 32), encode_frame(b"", 0, 0, 32), file_head(3, 5)):
        assert f"`{vector.hex()}`" in page


def test_frames_come_back_in_order(make: Callable[..., Journal], read: Callable[[Journal], JournalReader]) -> None:
    """Numbers start at 0 and have no holes; a reader gets every payload once, while the writer goes on."""
    journal = make()
    reader = read(journal)
    assert [journal.append(b"%d" % i) for i in range(3)] == [0, 1, 2]
    assert reader.read(2, final=False) == [Frame(0, b"0"), Frame(1, b"1")]
    journal.append(b"3")
    assert reader.read(10, final=False) == [Frame(2, b"2"), Frame(3, b"3")]
    assert reader.read(10, final=False) == []


def test_files_are_used_again_once_stored(
    make: Callable[..., Journal], read: Callable[[Journal], JournalReader]
) -> None:
    """Ten times the size of a file passes through a handful of files, and nothing is lost or seen twice."""
    journal, payload = make(), os.urandom(1000)
    reader = read(journal)
    seen = 0
    for number in range(700):
        journal.append(payload)
        if number % 20 == 19:
            journal.sync()
            got = reader.read(1000, final=False)
            assert got == [Frame(seen + i, payload) for i in range(len(got))]
            seen += len(got)
            reader.mark_stored(reader.next)
    assert seen == 700
    assert len(list(journal.path.glob("*.frames"))) <= 4


def test_an_unstored_file_is_never_used_again(make: Callable[..., Journal]) -> None:
    """The quota is reached instead: JournalFull, with the journal unchanged, and all of it readable."""
    journal = make(quota=3 * SMALL)
    count = 0
    with pytest.raises(JournalFull, match="not stored yet"):  # noqa: PT012 - until it is full
        while True:
            journal.append(b"x" * 1000)
            count += 1
    assert journal.appended == count
    assert journal.bytes_held() <= 3 * SMALL + 4096
    journal.close()
    reader = JournalReader(journal.path)
    assert [f.number for f in reader.read(10**6, final=True) if isinstance(f, Frame)] == list(range(count))
    reader.mark_stored(count)
    reader.close()


def test_the_journal_goes_on_when_there_is_room_again(
    make: Callable[..., Journal], read: Callable[[Journal], JournalReader]
) -> None:
    """After JournalFull, storing the oldest file's frames is enough to append again, without a hole."""
    journal = make(quota=2 * SMALL)
    with pytest.raises(JournalFull):  # noqa: PT012 - until it is full
        while True:
            journal.append(b"x" * 1000)
    full = journal.appended
    reader = read(journal)
    journal.sync()
    reader.read(full, final=False)
    reader.mark_stored(reader.next)
    assert journal.append(b"again") == full
    assert reader.read(10, final=False) == [Frame(full, b"again")]


def test_an_oversized_payload_is_refused(make: Callable[..., Journal]) -> None:
    """A payload that no file can hold raises JournalUnavailable and takes no number."""
    journal = make()
    with pytest.raises(JournalUnavailable, match="does not fit"):
        journal.append(bytes(SMALL))
    assert journal.append(b"small") == 0
    large = make(file_bytes=4 * MAX_PAYLOAD)
    with pytest.raises(JournalUnavailable, match="does not fit"):
        large.append(bytes(MAX_PAYLOAD + 1))


def test_a_damaged_stretch_is_a_hole(make: Callable[..., Journal], read: Callable[[Journal], JournalReader]) -> None:
    """After a power cut a page in the middle may be zero: the frames on it are reported, those behind it are read."""
    journal = make()
    for i in range(100):
        journal.append(b"%03d" % i * 50)
    journal.close()
    file = journal.path / "00000000.frames"
    content = bytearray(file.read_bytes())
    content[4096:8192] = bytes(4096)
    file.write_bytes(content)
    found = read(journal).read(1000, final=True)
    holes = [item for item in found if isinstance(item, Hole)]
    frames = [item for item in found if isinstance(item, Frame)]
    assert len(holes) == 1
    lost = set(range(holes[0].first, holes[0].end))
    assert lost
    assert {f.number for f in frames} == set(range(100)) - lost
    assert all(f.payload == b"%03d" % f.number * 50 for f in frames)


@pytest.mark.parametrize(("size", "at_once"), [(480, 10), (600, 1), (600, 15), (3_000, 15), (400, 1_000)])
def test_no_more_is_read_than_wanted(
    size: int, at_once: int, make: Callable[..., Journal], read: Callable[[Journal], JournalReader],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of a file with room for much more, page by page where little is wanted, whatever frames are long."""
    journal = make(file_bytes=1 << 22)
    for number in range(600):
        journal.append(number.to_bytes(2) * (size // 2))
    got: list[int] = []
    pread = os.pread

    def counted(fd: int, count: int, at: int) -> bytes:
        content = pread(fd, count, at)
        got.append(len(content))
        return content

    monkeypatch.setattr(os, "pread", counted)
    reader, found = read(journal), list[Any]()
    while some := reader.read(at_once, final=False):
        assert len(some) <= at_once
        found += some
    assert found == [Frame(number, number.to_bytes(2) * (size // 2)) for number in range(600)]
    assert sum(got) < 2 * 600 * (size + 16) + 4096 * (1 + 600 // at_once)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 9, 200, 700, 3_000]), min_size=1, max_size=60),
    start=st.integers(0, 70),
    limits=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    damage=st.lists(st.integers(1, 59), max_size=3),
)
def test_reading_by_pieces_gives_what_reading_at_once_gives(
    sizes: list[int], start: int, limits: list[int], damage: list[int], make: Callable[..., Journal]
) -> None:
    """From any number on, over several files, with holes smaller and larger than the pieces."""
    journal = make()
    for number, size in enumerate(sizes):
        journal.append(number.to_bytes(2) + b"y" * size)
    for number in damage:
        for file in journal.path.glob("*.frames"):
            content = file.read_bytes()
            place = content.find((number.to_bytes(8, sys.byteorder)) + number.to_bytes(2))
            if place > 0:
                file.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    journal.close()
    lost = {number for number in damage if number < len(sizes)}
    reader = JournalReader(journal.path)
    reader.seek(start)
    seen: list[int] = []
    for limit in itertools.cycle(limits):
        some = reader.read(limit, final=True)
        if not some:
            break
        assert len(some) <= limit + 1, "a hole may come beside"
        for item in some:
            numbers = [item.number] if isinstance(item, Frame) else range(item.first, item.end)
            assert isinstance(item, Frame) or lost.issuperset(numbers)
            assert isinstance(item, Hole) or item.payload == item.number.to_bytes(2) + b"y" * sizes[item.number]
            seen += numbers
    reader.close()
    assert seen == list(range(start, len(sizes)))


def test_a_damaged_frame_of_a_living_writer_is_not_searched_for_beyond_what_waits(
    make: Callable[..., Journal], read: Callable[[Journal], JournalReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames behind it are enough: the rest of the file, where nothing is written yet, is left alone."""
    journal = make(file_bytes=1 << 22)
    for number in range(3):
        journal.append(b"%d" % number * 100)
    file = journal.path / "00000000.frames"
    with file.open("r+b") as content:
        content.seek(32 + 16)
        content.write(b"x")
    searched: list[int] = []
    skip = JournalReader._skip_damage

    def counted(self: JournalReader) -> bool:
        searched.append(self._offset)
        return skip(self)

    monkeypatch.setattr(JournalReader, "_skip_damage", counted)
    reader = read(journal)
    assert [type(item) for item in reader.read(3, final=True)] == [Hole, Frame, Frame]
    assert searched == [32]


def test_a_lost_tail_is_a_hole(make: Callable[..., Journal], read: Callable[[Journal], JournalReader]) -> None:
    """Frames that the header announces and no file holds are reported, not forgotten."""
    journal = make()
    for i in range(10):
        journal.append(b"%d" % i)
    journal.close()
    file = journal.path / "00000000.frames"
    content = bytearray(file.read_bytes())
    content[32 + 5 * 24 :] = bytes(len(content) - 32 - 5 * 24)
    file.write_bytes(content)
    assert read(journal).read(100, final=True)[-1] == Hole(5, 10)


def test_a_deleted_file_is_a_hole(make: Callable[..., Journal], read: Callable[[Journal], JournalReader]) -> None:
    """Of three files the middle one is gone: its numbers are one hole, the rest is read."""
    journal = make()
    for _ in range(150):
        journal.append(b"x" * 1000)
    journal.close()
    (journal.path / "00000001.frames").unlink()
    found = read(journal).read(1000, final=True)
    (hole,) = (item for item in found if isinstance(item, Hole))
    assert len(found) - 1 + hole.end - hole.first == 150


def test_sync_notices_a_deleted_file(make: Callable[..., Journal]) -> None:
    """Writing into a file that nobody can find any more must not look like success."""
    journal = make()
    journal.append(b"x")
    (journal.path / "00000000.frames").unlink()
    with pytest.raises(JournalUnavailable, match="removed or cut"):
        journal.sync()
    with pytest.raises(JournalUnavailable):
        journal.close()


def test_an_unwritable_directory_is_a_typed_error(tmp_path: Path) -> None:
    """The error names the directory and the setting."""
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(JournalUnavailable, match="INDELIBLE_DATA_DIR"):
        Journal(blocker, uuid4())


def test_a_header_of_something_else_is_refused(tmp_path: Path) -> None:
    """Short, empty and foreign headers are JournalCorrupt."""
    for name, content in {"short": b"x", "foreign": os.urandom(4096)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "header").write_bytes(content)
        with pytest.raises(JournalCorrupt):
            JournalReader(tmp_path / name)


def test_half_made_journals_are_not_listed(tmp_path: Path) -> None:
    """A journal gets its name only when its header is complete."""
    (tmp_path / ".half.new").mkdir()
    assert writers(tmp_path) == []
    assert writers(tmp_path / "absent") == []


def test_append_after_close_is_refused(make: Callable[..., Journal]) -> None:
    """JournalUnavailable; the positions stay readable."""
    journal = make()
    journal.append(b"x")
    journal.close()
    journal.close()
    with pytest.raises(JournalUnavailable):
        journal.append(b"y")
    assert (journal.appended, journal.synced, journal.stored) == (1, 1, 0)


def test_retire_removes_the_journal(make: Callable[..., Journal]) -> None:
    """Nothing of a drained journal stays behind."""
    journal = make()
    journal.close()
    JournalReader(journal.path).retire()
    assert writers(journal.path.parent) == []


def _append_until_killed(directory: Path, writer_id: UUID, pipe: int) -> None:
    journal = Journal(directory, writer_id, file_bytes=SMALL)
    while True:
        number = journal.append(b"payload " * 12)
        os.write(pipe, number.to_bytes(8, "little"))


def test_kill_9_loses_nothing_accepted(tmp_path: Path) -> None:
    """Whatever a killed process had been told is accepted is in its journal, and its lock is free."""
    read_end, write_end = os.pipe()
    writer_id = uuid4()
    pid = os.fork()
    if pid == 0:
        try:
            _append_until_killed(tmp_path, writer_id, write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    told = os.read(read_end, 8 * 3000)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while more := os.read(read_end, 1 << 16):
        told += more
    os.close(read_end)
    accepted = len(told) // 8
    reader = JournalReader(tmp_path / str(writer_id))
    assert not reader.alive()
    numbers = [f.number for f in reader.read(10**6, final=True) if isinstance(f, Frame)]
    reader.close()
    assert numbers[:accepted] == list(range(accepted))
    assert len(numbers) - accepted <= 1


def test_names_are_synced_with_what_is_behind_them(
    make: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a file must be found under its new name: the directory is synced before its frames count."""
    journal = make()
    journal.sync()
    synced: list[str] = []
    fsync = os.fsync

    def watch(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watch)
    journal.append(b"in the first file")
    journal.sync()
    assert synced == [], "no name has changed"
    while not (journal.path / "00000002.frames").exists():
        journal.append(b"x" * 1000)
    assert journal.sync() == journal.appended
    assert str(journal.path) in synced


class _SlowDisk:
    """Stands in for ``posix_fallocate``: says that a file is being made, and makes it when it may go on."""

    def __init__(self) -> None:
        self.busy, self.may_go_on = threading.Event(), threading.Event()
        self._allocate = os.posix_fallocate

    def __call__(self, fd: int, offset: int, size: int) -> None:
        self.busy.set()
        assert self.may_go_on.wait(60)
        self._allocate(fd, offset, size)


@pytest.fixture
def half_full(make: Callable[..., Journal]) -> Journal:
    """A journal of 40 frames, so that the next sync makes its second file."""
    journal = make()
    for _ in range(40):
        journal.append(b"x" * 1000)
    return journal


@pytest.fixture
def slow_disk(half_full: Journal, monkeypatch: pytest.MonkeyPatch) -> Iterator[_SlowDisk]:
    """The disk under ``half_full``, while a sync makes the second file."""
    disk = _SlowDisk()
    monkeypatch.setattr(os, "posix_fallocate", disk)
    syncing = threading.Thread(target=half_full.sync)
    syncing.start()
    assert disk.busy.wait(60)
    yield disk
    disk.may_go_on.set()
    syncing.join(60)
    assert not syncing.is_alive()


def test_nobody_waits_while_the_next_file_is_made(
    half_full: Journal, slow_disk: _SlowDisk, read: Callable[[Journal], JournalReader]
) -> None:
    """A disk that takes its time to give room for the next file is felt by the sync thread, not by a request."""
    assert half_full.append(b"meanwhile") == 40
    assert half_full.synced == 0, "the sync is at it still"
    slow_disk.may_go_on.set()
    assert half_full.sync() == 41
    assert (half_full.path / "00000001.frames").exists()
    assert read(half_full).read(100, final=False)[40] == Frame(40, b"meanwhile")


def test_who_needs_the_file_that_is_being_made_gets_it(
    half_full: Journal, slow_disk: _SlowDisk, read: Callable[[Journal], JournalReader]
) -> None:
    """It is the next one: no second file with a later number, no frame in an order that nobody could read."""
    appending = threading.Thread(target=lambda: [half_full.append(b"y" * 1000) for _ in range(60)])
    appending.start()
    slow_disk.may_go_on.set()
    appending.join(60)
    frames = read(half_full).read(1000, final=False)
    assert [frame.number for frame in frames if isinstance(frame, Frame)] == list(range(100))


def test_the_first_page_of_a_new_file_is_there_before_it_is_needed(half_full: Journal) -> None:
    """Room that was only promised is given at the first touch, and on a busy disk that takes 20 ms: not in ``append``."""
    half_full.sync()
    with (half_full.path / "00000001.frames").open("rb") as spare:
        assert os.lseek(spare.fileno(), 0, os.SEEK_DATA) == 0


def test_an_error_does_not_gather_tracebacks(make: Callable[..., Journal]) -> None:
    """A journal that refuses for hours raises a new exception each time, with a traceback of its own only."""
    journal = make()
    (journal.path / "00000000.frames").unlink()
    depths = set()
    for _ in range(5):
        with pytest.raises(JournalUnavailable) as caught:
            journal.sync()
        depths.add(len(caught.traceback))
    assert len(depths) <= 2
    with pytest.raises(JournalUnavailable):
        journal.close()


def test_intents_keep_to_the_quota(make: Callable[..., Journal], read: Callable[[Journal], JournalReader]) -> None:
    """With the quota used up no room can be set aside: the intent is refused, until files are stored."""
    journal = make(quota=4 * SMALL)
    with pytest.raises(JournalFull):
        _fill(journal)
    with pytest.raises(JournalFull):
        journal.arm(b"intent")
    journal.sync()
    reader = read(journal)
    reader.read(10**6, final=False)
    reader.mark_stored(reader.next)
    for _ in range(300):
        slot = journal.arm(b"intent")
        journal.append(b"x" * 500, reserved=True)
        journal.strike(slot)
        journal.sync()
        reader.read(10**6, final=False)
        reader.mark_stored(reader.next)
    assert journal.bytes_held() <= 4 * SMALL + 4096


def _fill(journal: Journal) -> None:
    while True:
        journal.append(b"x" * 1000)
