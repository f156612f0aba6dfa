"""Where the next frame goes, in Python and in C: the same bytes, counted once they are whole, and never beside the file."""

from __future__ import annotations

import itertools
import mmap
import sys
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.errors import JournalFull
from indelible.journal import Journal, JournalReader, encode_frame
from indelible.journal.frames import Header, Slot
from indelible.journal.tail import PlainTail, Tail, make_tail
from indelible.native import native

KINDS = ["plain", pytest.param("native", marks=pytest.mark.skipif(native is None, reason="nothing is compiled"))]


def slots() -> memoryview[int]:
    """A header's."""
    return memoryview(bytearray(4096)).cast("Q")


def tail(kind: str, place: Any, generation: int, offset: int, room: int, header: memoryview[int], number: int) -> Tail:
    """One of that kind."""
    if kind == "plain":
        return PlainTail(place, generation, offset, room, header, number)
    made, atomic = make_tail(place, generation, offset, room, header, number)
    assert atomic
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_frames(kind: str) -> None:
    """The bytes of each, one behind the other, and nothing beside them; the header says how many."""

    @given(
        st.lists(st.binary(max_size=700), max_size=8),
        st.integers(0, 2**62),
        st.integers(0, 2**64 - 1),
        st.integers(0, 511).map(lambda n: n * 8),
        st.integers(0, 8192),
    )
    def frames(payloads: list[bytes], number: int, generation: int, offset: int, room: int) -> None:
        header, expected, at, count = slots(), bytearray(b"\xaa" * 8192), offset, number
        with mmap.mmap(-1, 8192) as place:
            place[:] = expected
            made = tail(kind, place, generation, offset, max(room, offset), header, number)
            for payload in payloads:
                frame = encode_frame(payload, count, generation, at)
                if at + len(frame) > max(room, offset):
                    assert made.append(payload) is None
                    continue
                expected[at : at + len(frame)] = frame
                assert made.append(payload) == count
                at, count = at + len(frame), count + 1
                assert header[Slot.APPENDED] == count
            assert (made.offset, made.number) == (at, count)
            assert place[:] == expected
            made.stop()
            assert made.append(b"") is None
            assert (made.offset, made.number) == (at, count)
            assert place[:] == expected
        header.release()

    frames()


@pytest.mark.parametrize("kind", KINDS)
def test_it_lets_go(kind: str) -> None:
    """Map and header can be closed when it is stopped; to stop it twice does nothing."""
    place, header = mmap.mmap(-1, 4096), mmap.mmap(-1, 4096)
    view = memoryview(header).cast("Q")
    made = tail(kind, place, 1, 0, 4096, view, 0)
    assert made.append(b"x") == 0
    made.stop()
    made.stop()
    view.release()
    header.close()
    place.close()
    assert made.append(b"x") is None


@pytest.mark.skipif(native is None, reason="nothing is compiled")
def test_hostile_arguments() -> None:
    """Nothing but an exception comes of them, and nothing is held."""
    place, header = bytearray(4096), slots()
    good: list[Any] = [place, 1, 0, 4096, header[4:5], 0]
    bads: list[Any] = [None, "x", b"x", 1.5, [], bytes(8), -1, 2**64, 2**63 - 1, bytearray(7), 4]
    fine = [(1, -1), (1, 4), (1, 2**64), (1, 2**63 - 1), (3, 4), (5, 4), (5, 2**63 - 1)]
    for at, bad in itertools.product(range(6), bads):
        if (at, bad) not in fine:
            with pytest.raises((TypeError, ValueError, OverflowError, BufferError)):
                native.Tail(*good[:at], bad, *good[at + 1 :])
    for some in (good[:5], [*good, 1], []):
        with pytest.raises(TypeError):
            native.Tail(*some)
    with pytest.raises(TypeError):
        native.Tail(*good, number=1)
    made = native.Tail(*good)
    bads = [None, "x", bytearray(b"x"), memoryview(b"x"), 1]
    for bad in bads:
        with pytest.raises(TypeError):
            made.append(bad)
    assert made.append(bytes(1 << 21)) is None
    with pytest.raises(BufferError):
        place.clear()
    made.__init__(*good)  # once more: what it had is let go
    made.stop()
    empty = native.Tail.__new__(native.Tail)
    assert empty.append(b"x") is None
    empty.stop()
    assert bytes(place) == bytes(4096)
    place.clear()


def test_what_cannot_be_mapped_is_written_in_python(tmp_path: Path) -> None:
    """Its header has no map either."""
    with (tmp_path / "header").open("w+b") as file:
        file.write(bytes(4096))
        file.flush()
        header = Header(file.fileno())
        try:
            made, atomic = make_tail(mmap.mmap(-1, 4096), 1, 0, 4096, header, 0)
            assert (type(made), atomic) == (PlainTail, False)
        finally:
            header.close()


def test_many_threads(tmp_path: Path) -> None:
    """Each payload is there once, under the number that its append told, over many files; nobody meets a half-made one."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    journal = Journal(tmp_path, uuid4(), file_bytes=1 << 16)
    told: list[dict[int, bytes]] = [{} for _ in range(4)]
    failures: list[BaseException] = []

    def work(n: int) -> None:
        try:
            for i in range(3_000):
                payload = b"%d-%d-" % (n, i) + bytes((i * 7) % 90)
                told[n][journal.append(payload)] = payload
                if i % 500 == n:
                    journal.sync()
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not failures
    numbers = {number: payload for some in told for number, payload in some.items()}
    assert sorted(numbers) == [*range(12_000)]
    assert journal.appended == 12_000
    reader = JournalReader(journal.path)
    frames = list(itertools.chain.from_iterable(iter(lambda: reader.read(1_000, final=False), [])))
    assert {frame.number: frame.payload for frame in frames} == numbers  # type: ignore[union-attr]
    reader.close()
    journal.close()


def test_a_journal_that_is_full_takes_what_still_fits(tmp_path: Path) -> None:
    """The file that could not be followed by another goes on; what is too long for it is refused again and again."""
    journal = Journal(tmp_path, uuid4(), file_bytes=4096, quota=8192)
    while True:
        try:
            journal.append(bytes(900))
        except JournalFull:
            break
    count = journal.appended
    with pytest.raises(JournalFull):
        journal.append(bytes(900))
    assert journal.append(b"small") == count
    assert journal.append(b"small") == count + 1
    with pytest.raises(JournalFull):
        journal.append(bytes(900))
    assert journal.appended == count + 2
    reader = JournalReader(journal.path)
    assert [frame.payload for frame in reader.read(100, final=False)][-2:] == [b"small"] * 2  # type: ignore[union-attr]
    reader.close()
    journal.close()
