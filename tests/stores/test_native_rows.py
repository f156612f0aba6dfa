"""What is compiled of sealing and storing does what Python does, byte for byte, and survives whatever it is given."""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import struct
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indelible.errors import LeafInvalid, RowRefused
from indelible.events import JSON_FIELDS, LIMITS, MAX_INTEGER, AuditEvent, EncodedEvents, encode_event
from indelible.integrity import leaf
from indelible.integrity.leaf import Sealed, seal
from indelible.journal import frames
from indelible.journal.frames import decode_frame, decode_frames, encode_frame
from indelible.native import native
from indelible.stores import pgtypes, sqlite
from indelible.stores.batch import Part
from indelible.stores.pgconnection import WritingConnection
from indelible.stores.pgcopy import copied
from indelible.stores.postgres import _COPY_TYPES

pytestmark = pytest.mark.skipif(native is None, reason="indelible._native is not compiled")

WRITER = uuid.UUID(int=0xFEDCBA9876543210)
MIN_TIME, MAX_TIME = -62_135_596_800_000_000, 253_402_300_799_999_999
OPTIONAL = [name for name in LIMITS if name not in {"event_type", "action", "status"}]

_hostile = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    | st.sampled_from(
        '"\\/\b\f\n\r\t\x01\x1f\x7f\x80\xa0<&\u07ff\u0800\u2028\ud7ff\ue000\ufeff\uffff\U00010000\U0010ffff'
    ),
    max_size=16,
)
_times = st.integers(MIN_TIME, MAX_TIME) | st.sampled_from([MIN_TIME, MAX_TIME, -1, 0, 951_782_400_000_000])
_numbers = st.none() | st.integers(-MAX_INTEGER, MAX_INTEGER) | st.sampled_from([0, 127, 128, 255, 256, -32, -33, -128])


@st.composite
def _events(draw: st.DrawFn) -> AuditEvent:
    names = draw(st.sets(st.sampled_from(OPTIONAL)))
    return AuditEvent(
        id=draw(st.uuids()),
        timestamp=draw(_times),
        event_type=draw(_hostile),
        action=draw(_hostile),
        status=draw(_hostile),
        response_status=draw(_numbers),
        duration_us=draw(_numbers),
        **{name: draw(_hostile) for name in sorted(names)},
    )


def event(**fields: Any) -> AuditEvent:
    """A small one."""
    return msgspec.structs.replace(
        AuditEvent(id=WRITER, timestamp=0, event_type="login", action="a", status="success"), **fields
    )


def both(events: list[AuditEvent], *, first: int = 0, at: int = 0, salts: bytes | None = None) -> tuple[Sealed, Sealed]:
    """The events sealed by what is compiled, and by Python."""
    salts = os.urandom(32 * len(events)) if salts is None else salts
    made = seal(EncodedEvents([*map(encode_event, events)]), writer_id=WRITER, first=first, recorded_at=at, salts=salts)
    return made, leaf._seal(events, WRITER, first, at, salts)


@given(st.lists(_events(), max_size=5), st.integers(0, 2**53 - 10), _times)
def test_leaves_are_the_same(events: list[AuditEvent], first: int, at: int) -> None:
    """Of any events: their hashes, and which of the salts count."""
    made, expected = both(events, first=first, at=at)
    assert made.payloads is not None
    assert made.leaf_hashes == expected.leaf_hashes
    assert made.actor_salts == expected.actor_salts
    assert made.details_salts == expected.details_salts


@given(st.lists(_events(), min_size=1, max_size=5), st.integers(0, 2**40), st.data())
def test_rows_for_sqlite_are_the_same(events: list[AuditEvent], seq: int, data: st.DataObject) -> None:
    """Every value, of its type; of a part of them too."""
    start = data.draw(st.integers(0, len(events)))
    end = data.draw(st.integers(start, len(events)))
    made, expected = (sqlite._values(Part(seq, sealed.part(start, end))) for sealed in both(events))
    assert made == expected
    assert [*map(type, made)] == [*map(type, expected)]
    assert len(made) == (end - start) * 32


@pytest.fixture(scope="module")
def connection(postgres_server: str) -> Iterator[WritingConnection]:
    """Whatever psycopg needs to make a COPY."""
    with WritingConnection.connect(postgres_server) as connection:
        yield connection


def test_rows_for_postgres_are_the_same(connection: WritingConnection) -> None:
    """Every byte of a COPY."""

    @given(st.lists(_events(), min_size=1, max_size=5), st.integers(0, 2**40))
    def same(events: list[AuditEvent], seq: int) -> None:
        made, expected = both(events)
        part = Part(seq, expected)
        epoch = pgtypes.POSTGRES_EPOCH
        assert native.copied(*compiled(Part(seq, made)), epoch) == copied(
            connection, _COPY_TYPES, part.rows(epoch=epoch, ids=list)
        )

    same()


def compiled(part: Part) -> tuple[Any, ...]:
    """What it hands to the compiled part."""
    given = part.compiled
    assert given is not None
    return given


@pytest.mark.parametrize("name", sorted(LIMITS.keys() - {*JSON_FIELDS}))
@pytest.mark.parametrize("character", ["a", "é", "€", "\U0001f600"])
def test_its_bounds_are_the_events(name: str, character: str) -> None:
    """The longest text of each field is sealed as it is; a longer one is no event."""
    made, expected = both([event(**{name: character * LIMITS[name]})])
    assert made.payloads is not None
    assert made.leaf_hashes == expected.leaf_hashes
    with pytest.raises(RowRefused):
        both([event(**{name: character * (LIMITS[name] + 1)})])


def test_large_values_are_sealed() -> None:
    """64 KiB of JSON three times, every byte of them escaped."""
    made, expected = both([event(**dict.fromkeys(JSON_FIELDS, '"' * 65_536))] * 3)
    assert made.payloads is not None
    assert made.leaf_hashes == expected.leaf_hashes


@pytest.mark.parametrize(
    "odd",
    [
        event(action="a\0b"), event(duration_us=MAX_INTEGER + 1), event(timestamp=MAX_TIME + 1),
        event(timestamp=MIN_TIME - 1),
        event(timestamp=2**63 - 1), event(timestamp=-(2**63)), event(action="a" * 129), event(response_status=2**63),
    ],
)  # fmt: skip
def test_what_is_odd_is_left_to_python(odd: AuditEvent) -> None:
    """Nothing is made of it, nor of the others with it."""
    payloads = tuple(map(encode_event, [event(), odd, event()]))
    assert native.seal(payloads, WRITER.bytes, 0, 0, bytes(96)) is None
    hashes = [bytes(32)] * 3
    assert native.copied(payloads, WRITER.bytes, 0, 0, bytes(96), hashes, 0, 0) is None
    assert native.bound(payloads, WRITER.bytes, 0, 0, bytes(96), hashes, 0, None) is None


def test_a_leaf_that_is_too_long_is_left_to_python() -> None:
    """It does not fit into an entry bundle."""
    fields = {"tenant_id": "\x01" * 256, "resource_type": "\x01" * 128, "source": "\x01" * 128}
    made, expected = both([event(**fields)])  # as long as the bounds of an event let it be
    assert made.leaf_hashes == expected.leaf_hashes
    with pytest.raises(LeafInvalid, match="65,535"):
        seal([event(source="s" * 65_536)], writer_id=WRITER, first=0, recorded_at=0, salts=bytes(32))


@pytest.mark.parametrize(
    ("first", "at"), [(-1, 0), (MAX_INTEGER, 0), (2**64, 0), (0, MAX_TIME + 1), (0, MIN_TIME - 1), (0, 2**70)]
)
def test_numbers_and_times_that_no_leaf_has(first: int, at: int) -> None:
    """Python says what it thinks of them."""
    assert native.seal((encode_event(event()),), WRITER.bytes, first, at, bytes(32)) is None


# --- payloads that are none -------------------------------------------------------------------------------------------

WHOLE = encode_event(
    event(**dict.fromkeys(OPTIONAL, "é"), duration_us=70_000, response_status=-200, timestamp=1_760_000_000_000_000)
)


def told(payload: bytes) -> list[bytes] | None:
    """What Python makes of a payload; None if it is no event."""
    try:
        return leaf._seal(EncodedEvents([payload]), WRITER, 0, 0, bytes(32)).leaf_hashes
    except (RowRefused, LeafInvalid):
        return None


def check(payload: bytes) -> None:
    """Where something is made of it, Python makes the same."""
    made = native.seal((payload,), WRITER.bytes, 0, 0, bytes(32))
    assert made is None or made == told(payload)
    hashes = made or [bytes(32)]
    assert (native.copied((payload,), WRITER.bytes, 0, 0, bytes(32), hashes, 0, 0) is None) == (made is None)
    assert (native.bound((payload,), WRITER.bytes, 0, 0, bytes(32), hashes, 0, None) is None) == (made is None)


@given(st.binary(max_size=64))
def test_any_bytes(payload: bytes) -> None:
    """Whatever stands in a journal."""
    check(payload)


@settings(max_examples=1000)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(0, len(WHOLE)))
def test_an_event_with_a_byte_changed_or_cut(place: int, byte: int, end: int) -> None:
    """Each form of MessagePack stands somewhere for another."""
    check(WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :])
    check(WHOLE[:end])
    check(WHOLE[:place] + bytes([byte]) + WHOLE[place:])


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*AuditEvent.__struct_fields__, "nothing", ""]),
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | _hostile | st.binary(max_size=17)
            | st.just(WRITER.bytes),
        ),
        max_size=12,
    ),
    st.booleans(),
)  # fmt: skip
def test_maps_of_anything(items: list[tuple[str, Any]], whole: bool) -> None:
    """Fields missing, twice, unknown, or of another type."""
    needed = [("id", WRITER.bytes), ("timestamp", 1), ("event_type", "e"), ("action", "a"), ("status", "s")]
    some = items + [item for item in needed if whole]
    encode = msgspec.msgpack.encode
    check(struct.pack(">BH", 0xDE, len(some)) + b"".join(encode(part) for item in some for part in item))


@pytest.mark.parametrize(
    "text",
    [b"\x80", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80",
     b"\xf5\x80\x80\x80", b"\xe2\x82", b"\xc3", b"\xff", b"a\xc3\xa9\xc3", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"],
)  # fmt: skip
@pytest.mark.parametrize("before", range(0, 17, 4))
def test_text_that_is_none(text: bytes, before: int) -> None:
    """Only what Python takes for UTF-8, wherever it stands."""
    text = b"x" * before + text
    payload = encode_event(event(action="#" * len(text))).replace(b"#" * len(text), text)
    check(payload)
    try:
        text.decode()
    except UnicodeDecodeError:
        assert native.seal((payload,), WRITER.bytes, 0, 0, bytes(32)) is None
    else:
        assert native.seal((payload,), WRITER.bytes, 0, 0, bytes(32)) == told(payload)


# --- arguments ----------------------------------------------------------------------------------------------------------

GOOD: tuple[Any, ...] = ((WHOLE,), WRITER.bytes, 0, 0, bytes(32), [bytes(32)], 0)
BAD = [None, 1.5, "x", b"x", [WHOLE], ("x",), (None,), [b"x"], [], [bytes(32)] * 2, object()]


@pytest.mark.parametrize("place", range(8))
def test_hostile_arguments(place: int) -> None:
    """Nothing but an exception comes of them."""
    for bad in BAD:
        for function, last in ((native.seal, ()), (native.copied, (0,)), (native.bound, (None,))):
            arguments = [*(GOOD[:5] if function is native.seal else GOOD), *last]
            if place >= len(arguments) or (function is native.bound and place == 7):
                continue
            arguments[place] = bad
            with pytest.raises((TypeError, ValueError)):
                function(*arguments)
    for function, count in itertools.product((native.seal, native.copied, native.bound, native.read_frames), range(10)):
        if count != {native.seal: 5, native.read_frames: 6}.get(function, 8):
            with pytest.raises(TypeError):
                function(*[None] * count)
    for seq in (-1, 2**53):
        with pytest.raises(ValueError, match="out of range"):
            native.copied(*GOOD[:6], seq, 0)
        with pytest.raises(ValueError, match="out of range"):
            native.bound(*GOOD[:6], seq, None)
    with pytest.raises(ValueError, match="out of range"):
        native.copied(*GOOD, 2**62)


def test_nothing_is_kept() -> None:
    """Neither references nor memory, of what is made and of what is refused."""
    payloads, refused = (WHOLE,) * 10, (WHOLE[:-1],) * 10
    shared: tuple[Any, ...] = (WRITER.bytes, 0, 0, os.urandom(320))
    hashes = native.seal(payloads, *shared)

    def once() -> None:
        for some in (payloads, refused):
            native.seal(some, *shared)
            native.copied(some, *shared, hashes, 0, 0)
            native.bound(some, *shared, hashes, 0, sqlite._NULL)

    once()
    gc.collect()
    before = [sys.getrefcount(each) for each in (WHOLE, hashes, hashes[0], shared[3], sqlite._NULL, None)]
    blocks = sys.getallocatedblocks()
    for _ in range(2_000):
        once()
    gc.collect()
    after = [sys.getrefcount(each) for each in (WHOLE, hashes, hashes[0], shared[3], sqlite._NULL, None)]
    assert all(abs(now - then) < 50 for now, then in zip(after, before, strict=True))
    assert sys.getallocatedblocks() - blocks < 500


def test_others_run_meanwhile() -> None:
    """Sealing lets go of the interpreter: threads do it side by side, each with its own."""
    batches = [[event(action=f"{n}-{i}", metadata="{}") for i in range(500)] for n in range(4)]
    expected = [leaf._seal(batch, WRITER, 0, 0, bytes(32 * 500)).leaf_hashes for batch in batches]
    made: list[list[list[bytes]]] = [[] for _ in batches]

    def work(n: int) -> None:
        payloads = tuple(map(encode_event, batches[n]))
        for _ in range(20):
            made[n].append(native.seal(payloads, WRITER.bytes, 0, 0, bytes(32 * 500)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [[hashes] * 20 for hashes in expected]


# --- SHA-256, and frames ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("portable", [False, True])
def test_sha256_is_hashlibs(portable: bool) -> None:
    """Of every length round the blocks, with the processor's instructions and without."""
    data = os.urandom(100_000)
    for size in (*range(300), 4_095, 4_096, 65_536, 100_000):
        assert native.sha256(data[:size], portable) == hashlib.sha256(data[:size]).digest()
    for bad in (("x", True), (b"x",), (b"x", 1), (None, False)):
        with pytest.raises(TypeError):
            native.sha256(*bad)


@settings(max_examples=500)
@given(st.binary(max_size=40), st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 2**40), st.data())
def test_frames_are_read_alike(payload: bytes, number: int, generation: int, offset: int, data: st.DataObject) -> None:
    """Whole, changed, cut, at another place or of another file."""
    frame = encode_frame(payload, number, generation, offset)
    place = data.draw(st.integers(0, len(frame) - 1))
    buffers = [
        frame, frame[:place], frame + b"more", bytes(8) + frame,
        frame[:place] + bytes([data.draw(st.integers(0, 255))]) + frame[place + 1 :],
    ]  # fmt: skip
    for buffer, at, where in itertools.product(buffers, (0, 8, len(frame), -1), (offset, offset + 8)):
        with pytest.MonkeyPatch.context() as patch:
            made = decode_frame(buffer, max(at, 0), generation, where)
            patch.setattr(frames, "native", None)
            assert made == decode_frame(buffer, max(at, 0), generation, where)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.binary(max_size=40), st.sampled_from([1, 1, 1, 1, 2, 0, -1])), max_size=6), st.data())
def test_runs_of_frames_are_read_alike(made: list[tuple[bytes, int]], data: st.DataObject) -> None:
    """As far as their numbers are in a row and below the end, in a buffer that is whole, cut or changed."""
    buffer, number, offset = b"", data.draw(st.sampled_from([0, 5, 2**64 - 4, 2**64 - 1])), 64
    for payload, step in made:
        buffer += encode_frame(payload, number % 2**64, 3, offset + len(buffer))
        number += step
    place = data.draw(st.integers(0, len(buffer)))
    for content in (buffer, buffer[:place], buffer[:place] + b"\1" + buffer[place + 1 :], buffer + bytes(16)):
        for end in {0, 1, 7, 2**64 - 2, data.draw(st.integers(0, 12))}:
            with pytest.MonkeyPatch.context() as patch:
                run, size = decode_frames(content, 0, 3, offset, end)
                patch.setattr(frames, "native", None)
                assert (run, size) == decode_frames(content, 0, 3, offset, end)
            assert [frame.payload for frame in run] == [payload for payload, _ in made[: len(run)]] or content != buffer
            assert all(frame.number < end for frame in run[1:])


def test_whatever_frames_are_asked_for() -> None:
    """Numbers that are none, or out of range, and a Frame that cannot be made, are exceptions and no crash."""
    frame = encode_frame(b"x", 1, 1, 0)
    for place, bad in itertools.product(range(1, 6), (None, "x", -1, 1.5, 2**64)):
        arguments: list[Any] = [frames.Frame, frame, 0, 1, 0, 2]
        arguments[place] = bad
        if (place, bad) == (2, -1):
            assert native.read_frames(*arguments) == ([], 0)
            continue
        with pytest.raises((TypeError, OverflowError)):
            native.read_frames(*arguments)
    for maker in (None, int, lambda *_: 1 / 0):
        with pytest.raises((TypeError, ZeroDivisionError)):
            native.read_frames(maker, frame, 0, 1, 0, 2)


def test_the_longest_frame_is_read() -> None:
    """And none that is longer, whatever its checksum says."""
    longest = encode_frame(bytes(frames.MAX_PAYLOAD), 1, 1, 0)
    assert decode_frame(longest, 0, 1, 0) is not None
    assert decode_frame(encode_frame(bytes(frames.MAX_PAYLOAD + 1), 1, 1, 0), 0, 1, 0) is None
