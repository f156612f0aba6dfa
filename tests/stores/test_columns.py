"""Exports read another way than pages do: the same bytes, whatever is stored, and forged rows do not stop them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indelible import exporting
from indelible.events import AuditEvent
from indelible.exporting import Export, Pieces, pieces
from indelible.exports import Format, rendered
from indelible.queries import Filter
from indelible.rendering import FIELDS, csv_line, csv_row, json_line
from indelible.stores.base import SegmentedStore

FORMS: tuple[Format, ...] = ("jsonl", "csv")
Event = Callable[..., AuditEvent]


def whole(found: Pieces) -> list[tuple[int, bytes]]:
    """The pieces, kept: each is valid until the next."""
    return [(events, bytes(data)) for events, data in found]


@settings(deadline=None, max_examples=60, suppress_health_check=[*HealthCheck])
@given(st.data())
def test_an_export_is_what_the_api_shows(
    store: SegmentedStore, hostile_events: st.SearchStrategy[AuditEvent], data: st.DataObject
) -> None:
    """Byte for byte what rendering the events one by one gives, on both engines."""
    events = data.draw(st.lists(hostile_events, min_size=1, max_size=5))
    end = store.append(uuid.uuid4(), 0, events)
    first = end - len(events)
    stored = [row for rows in store.scan(Filter(), first=first, end=end) for row in rows]
    assert len(stored) == len(events)
    parts = list(store.columns(Filter(), first=first, end=end))
    assert b"".join(rendered("jsonl", part) for part in parts) == "".join(map(json_line, stored)).encode()
    assert b"".join(rendered("csv", part) for part in parts) == "".join(csv_line(csv_row(r)) for r in stored).encode()


@pytest.mark.parametrize("form", FORMS)
def test_several_processes_write_the_same_file(
    store: SegmentedStore, engine_url: str, event: Event, form: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed or not, all of it or what matches; in order, and each piece with its number of events."""
    store.append(uuid.uuid4(), 0, [event(user_id=f"u{n % 3}", metadata=f'{{"n":{n}}}') for n in range(1100)])
    for wanted, rows in ((Filter(), 1100), (Filter(user_id=("u1",)), 367), (Filter(user_id=("nobody",)), 0)):
        asked = Export(wanted, 1100, rows, form)
        alone = whole(pieces(engine_url, asked))
        assert sum(count for count, _ in alone) == rows
        file = b"".join(data for _, data in alone)
        assert file.count(b"\n") == rows + (form == "csv")
        with monkeypatch.context() as patch:
            patch.setattr(exporting, "PARALLEL", 1)
            patch.setattr(exporting, "TASK_EVENTS", 100)
            together = whole(pieces(engine_url, asked, workers=2))
            assert sum(count for count, _ in together) == rows
            assert b"".join(data for _, data in together) == file
            if not rows:
                continue
            assert len(together) > rows // 100, "an opening, and a piece for each task"
            packed = whole(pieces(engine_url, Export(wanted, 1100, rows, form, "gzip"), workers=2))
            assert gzip.decompress(b"".join(data for _, data in packed)) == file


def test_forged_rows_are_exported_as_they_are(
    store: SegmentedStore, event: Event, raw: Callable[..., list[Any]], is_sqlite: bool
) -> None:
    """Impossible times on both engines; on SQLite what no column should hold: an export is not held up by them."""
    store.append(uuid.uuid4(), 0, [event(user_id=f"u{n}") for n in range(6)])
    if is_sqlite:
        for (name,) in raw("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%update%'"):
            raw(f"DROP TRIGGER {name}")
        raw("UPDATE audit_logs_0 SET timestamp = ? WHERE seq = 1", [2**62])
        raw("UPDATE audit_logs_0 SET id = '{odd}', user_agent = CAST(x'41ff42' AS TEXT) WHERE seq = 2")
        raw("UPDATE audit_logs_0 SET metadata = '{', leaf_hash = NULL WHERE seq = 3")
    else:
        raw("ALTER TABLE audit_logs DISABLE TRIGGER audit_guard_update")
        raw("UPDATE audit_logs SET timestamp = 'infinity' WHERE seq = 1")
        raw("UPDATE audit_logs SET recorded_at = '4000-01-01 BC' WHERE seq = 2")
        raw("UPDATE audit_logs SET leaf_hash = NULL WHERE seq = 3")
    (part,) = store.columns(Filter())
    lines = [json.loads(line) for line in rendered("jsonl", part).decode().splitlines()]
    table = list(csv.reader(io.StringIO(rendered("csv", part).decode(), newline="")))
    assert [line["user_id"] for line in lines] == [f"u{n}" for n in range(6)]
    assert [row[FIELDS.index("user_id")] for row in table] == [f"u{n}" for n in range(6)]
    assert lines[1]["timestamp"].endswith(" µs")
    assert lines[3]["leaf_hash"] is None
    assert table[3][FIELDS.index("leaf_hash")] == ""
    if is_sqlite:
        assert (lines[2]["id"], lines[2]["user_agent"], lines[3]["metadata"]) == ("{odd}", "A\ufffdB", "{")
