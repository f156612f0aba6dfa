"""Exports, column by column: what `rendering` would have written, faster."""

from __future__ import annotations

import gzip
import sys
import uuid
from typing import Any

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from indelible import exports
from indelible.errors import ConfigurationError
from indelible.events import AuditEvent, StoredEvent
from indelible.exports import Columns, compressor, opening, rendered, written
from indelible.rendering import FIELDS, csv_header, csv_line, csv_row, json_line, neutral


def stored(event: AuditEvent, **fields: Any) -> StoredEvent:
    """The event with a place in the log."""
    place: dict[str, Any] = {"seq": 3, "recorded_at": 5, "writer_id": uuid.UUID(int=7), "writer_seq": 9}
    given = {name: getattr(event, name) for name in AuditEvent.__struct_fields__}
    return StoredEvent(**(given | place | {"leaf_hash": bytes(32)} | fields))


def plain(**fields: Any) -> StoredEvent:
    """An event with nothing to say."""
    return stored(AuditEvent(id=uuid.UUID(int=1), timestamp=0, event_type="a", action="b", status="c"), **fields)


def columns_of(*events: Any) -> Columns:
    """The events as a store gives them for an export."""
    return [
        [str(value) if isinstance(value, uuid.UUID) else value for value in (getattr(event, name) for event in events)]
        for name in FIELDS
    ]


def one_by_one(*events: Any) -> tuple[bytes, bytes]:
    """What `rendering` writes: JSON lines, CSV."""
    return "".join(map(json_line, events)).encode(), "".join(csv_line(csv_row(event)) for event in events).encode()


@settings(deadline=None)
@given(st.data())
def test_the_same_bytes_as_one_by_one(hostile_events: st.SearchStrategy[AuditEvent], data: st.DataObject) -> None:
    """Whatever is in the texts and the JSON, erased rows and rows without a leaf hash among them."""
    hashes, digests = st.none() | st.binary(min_size=32, max_size=32), st.none() | st.binary(min_size=32, max_size=32)
    events = [
        stored(event, leaf_hash=data.draw(hashes), actor_digest=data.draw(digests), details_digest=data.draw(digests))
        for event in data.draw(st.lists(hostile_events, min_size=1, max_size=6))
    ]
    assert (rendered("jsonl", columns_of(*events)), rendered("csv", columns_of(*events))) == one_by_one(*events)


@pytest.mark.parametrize(
    "forged",
    [
        {"user_id": b"bytes"},
        {"metadata": b"{}"},
        {"user_id": 5},
        {"duration_us": "=1+1"},
        {"timestamp": 10**18},
        {"timestamp": "yesterday"},
        {"recorded_at": None},
        {"leaf_hash": "text"},
        {"actor_digest": "text"},
        {"seq": 2**63},
        {"user_agent": '"\x1f"\x1e'},
        {"metadata": 5},
        {"metadata": 0.5},
        {"timestamp": 1.5},
        {"recorded_at": 2.0},
    ],
)
def test_forged_rows_are_written_like_any_other(forged: dict[str, Any]) -> None:
    """What no writer would have stored is shown as `rendering` shows it, and so are its neighbours."""
    events = [plain(), plain(**forged), plain(user_id="u")]
    assert (rendered("jsonl", columns_of(*events)), rendered("csv", columns_of(*events))) == one_by_one(*events)


def test_quotes_and_formulas_among_ordinary_cells() -> None:
    """One of them is enough for a whole column to be looked at."""
    events = [plain(user_agent=text, old_value='{"a":"b"}') for text in ("curl", 'a "quoted" agent', "=1+1", "", "x")]
    assert rendered("csv", columns_of(*events)) == one_by_one(*events)[1]


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("\0=+'\t \ufeff@＝\"a\x1f\n"), max_size=5) | st.none(), min_size=1, max_size=8))
def test_cells_looked_through_at_once(texts: list[str | None]) -> None:
    """NULs, which only a forged row has, among what a spreadsheet might run: each cell is what it is by itself."""
    events = [plain(user_id=text) for text in texts]
    assert rendered("csv", columns_of(*events)) == one_by_one(*events)[1]


@given(st.text(st.sampled_from("\0=+-@＝＋－＠'\t\r\n \ufeff\u200b\x1f\x85\u3000a"), max_size=5))
def test_what_is_risky_is_never_missed(text: str) -> None:
    """The pattern that looks through many cells at once finds every cell that is to be marked."""
    assert neutral(text) == text or exports._RISKY.search(f"\0a\0{text}\0b")


@pytest.mark.parametrize("kind", exports.COMPRESSIONS)
def test_compressed_pieces_are_one_file(kind: exports.Compression, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members or frames, each of so many bytes or more, that a reader joins; an empty export is a file as well."""
    monkeypatch.setattr(exports, "PACK", 2_000)
    pack, unpack = compressor(kind), gzip.decompress if kind == "gzip" else zstd.decompress
    slices = [columns_of(plain(seq=n)) for n in range(10)]
    whole = list(written("csv", slices, pack))
    assert 1 < len(whole) < 10
    assert sum(count for count, _ in whole) == 10
    assert unpack(b"".join(data for _, data in whole)) == b"".join(data for _, data in written("csv", slices))
    assert unpack(opening("csv", pack)) == opening("csv") == csv_line(csv_header()).encode()
    assert unpack(opening("jsonl", pack)) == opening("jsonl") == b""


def test_without_the_extra_zstd_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And gzip needs nothing."""
    monkeypatch.setitem(sys.modules, "backports", None)
    with pytest.raises(ConfigurationError, match="zstd needs") as caught:
        compressor("zstd")
    assert caught.value.hint == "pip install 'indelible[zstd]'"
    assert gzip.decompress(compressor("gzip")(b"x")) == b"x"


def test_the_memory_of_json_texts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many different ones come."""
    monkeypatch.setattr(exports, "_KEPT", 4)
    events = [plain(metadata=f"[{n}]") for n in (1, 2, 3, 4, 5, 1, 2)]
    assert rendered("jsonl", columns_of(*events)) == one_by_one(*events)[0]
