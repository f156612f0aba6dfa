"""What the tests of the integrity package share: rows to seal, a tree to read nodes from, and the vectors of the docs."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from indelible.events import AuditEvent, StoredEvent
from indelible.integrity.leaf import seal
from indelible.integrity.merkle import CompactRange, NodeReader

_ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```json (?P<name>[a-z-]+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
#: Text as it may arrive in a row: all of Unicode but surrogates, leaning to what JSON encoders disagree about.
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    st.sampled_from('"\\/\b\f\n\r\t\x00\x1f\x7f\x80\xa0<>&\u2028\u2029\ufeff\ufffd\U0001f600\U0010ffff'), max_size=8
)
_numbers = st.integers(-(2**53) + 1, 2**53 - 1)
# From year 1 to the end of year 9999, in µs.
_times = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)


@st.composite
def _events(draw: st.DrawFn) -> AuditEvent:
    optional = st.none() | _texts
    texts = {
        name: draw(optional)
        for name in AuditEvent.__struct_fields__
        if name not in ("id", "timestamp", "event_type", "action", "status", "response_status", "duration_us")
    }
    return AuditEvent(
        id=draw(st.uuids()),
        timestamp=draw(_times),
        event_type=draw(_texts),
        action=draw(_texts),
        status=draw(_texts),
        response_status=draw(st.none() | _numbers),
        duration_us=draw(st.none() | _numbers),
        **texts,
    )


@pytest.fixture(scope="session")
def events() -> st.SearchStrategy[AuditEvent]:
    """Any event that can be sealed, with hostile texts and numbers."""
    return _events()


@pytest.fixture(scope="session")
def store() -> Callable[..., list[StoredEvent]]:
    """Seals a batch and gives back the rows that a store would hold."""

    def store(batch: Sequence[AuditEvent], *, first: int = 0, salts: bytes | None = None) -> list[StoredEvent]:
        writer, at = uuid.UUID(int=7), 1_760_000_000_000_001
        salts = os.urandom(32 * len(batch)) if salts is None else salts
        sealed = seal(batch, writer_id=writer, first=first, recorded_at=at, salts=salts)
        return [
            StoredEvent(
                **{name: getattr(event, name) for name in AuditEvent.__struct_fields__},
                seq=first + i,
                recorded_at=at,
                writer_id=writer,
                writer_seq=first + i,
                leaf_hash=sealed.leaf_hashes[i],
                actor_salt=sealed.actor_salts[i],
                details_salt=sealed.details_salts[i],
            )
            for i, event in enumerate(batch)
        ]

    return store


@pytest.fixture(scope="session")
def read_nodes() -> Callable[[Sequence[bytes]], NodeReader]:
    """A reader of the complete nodes of the tree over these leaf hashes."""

    def read_nodes(leaf_hashes: Sequence[bytes]) -> NodeReader:
        _, levels = CompactRange().extend(leaf_hashes)
        return lambda level, index: levels[level][index]

    return read_nodes


@pytest.fixture(scope="session")
def doc_vectors() -> Callable[[str], dict[str, Any]]:
    """The named JSON blocks of one page of ``docs/formats``."""

    def doc_vectors(page: str) -> dict[str, Any]:
        text = (_ROOT / "docs" / "formats" / f"{page}.md").read_text()
        return {block["name"]: json.loads(block["body"]) for block in _BLOCK.finditer(text)}

    return doc_vectors


@pytest.fixture(scope="session")
def published_vectors() -> Path:
    """The folder with transparency-dev's vectors. In CI it must be there; elsewhere its absence skips, and says so."""
    folder = Path(os.environ.get("TLOG_VECTORS") or _ROOT.parent / "shared" / "vectors" / "merkle")
    if not folder.is_dir():
        reason = f"NOT RUN: the published Merkle vectors are not in {folder}; name their folder in TLOG_VECTORS"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
