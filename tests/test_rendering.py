"""Stored events as JSON values, JSON lines and CSV rows."""

from __future__ import annotations

import csv
import io
import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.events import StoredEvent
from indelible.rendering import FIELDS, as_json, csv_header, csv_line, csv_row, json_line, neutral

UNIVERSE = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


def stored(**fields: object) -> StoredEvent:
    base: dict[str, object] = {
        "id": UUID(int=1),
        "timestamp": 0,
        "event_type": "login",
        "action": "login",
        "status": "success",
        "seq": 7,
        "recorded_at": 1_700_000_000_123_456,
        "writer_id": UUID(int=2),
        "writer_seq": 9,
    }
    return StoredEvent(**{**base, **fields})  # type: ignore[arg-type]


def test_every_column_but_the_salts_is_shown() -> None:
    """A salt would let a reader confirm guesses about an erased value, so it is in no rendering; all else is."""
    everything = set(StoredEvent.__struct_fields__)
    assert set(FIELDS) == everything - {"actor_salt", "details_salt"}
    assert tuple(as_json(stored())) == csv_header() == FIELDS


def test_json_values_have_their_documented_forms() -> None:
    """Times are RFC 3339, JSON columns are values, hashes are base64, digests base64url without padding."""
    event = stored(
        old_value='{"role":"user"}', metadata="[1e2]", leaf_hash=b"\xff" * 32, actor_digest=b"\xff" * 32, duration_us=5
    )
    seen = as_json(event)
    assert seen["timestamp"] == "1970-01-01T00:00:00.000000Z"
    assert seen["recorded_at"] == "2023-11-14T22:13:20.123456Z"
    assert (seen["id"], seen["seq"], seen["duration_us"]) == (str(UUID(int=1)), 7, 5)
    assert (seen["old_value"], seen["metadata"], seen["new_value"]) == ({"role": "user"}, [100.0], None)
    assert seen["leaf_hash"] == "/" * 42 + "8="
    assert seen["actor_digest"] == "_" * 42 + "8"


@pytest.mark.parametrize("text", ["{", "NaN", '"\\ud800"', "1" * 5000, "[" * 100_000, "[" * 500 + "]" * 500])
def test_a_forged_json_column_stays_text(text: str) -> None:
    """What is not JSON, or nests deeper than any encoder takes, is shown as the text it is and never raises."""
    event = stored(metadata=text)
    assert as_json(event)["metadata"] == text
    assert json.loads(json_line(event))["metadata"] == text


def test_many_brackets_side_by_side_are_not_deep() -> None:
    """Width is no reason to show a value as text, and brackets inside strings do not count."""
    value = {"a": [[]] * 300, "b": "[" * 300}
    assert as_json(stored(metadata=json.dumps(value)))["metadata"] == value


def test_a_time_no_calendar_has_is_shown_as_its_number() -> None:
    """A forged row with a time beyond the year 9999 is shown, not a crash."""
    assert as_json(stored(timestamp=10**18))["timestamp"] == f"{10**18} µs"


@given(UNIVERSE)
def test_a_json_line_is_one_line_with_the_same_value(text: str) -> None:
    """Whatever the value, a record is one line and reads back as the value that was stored."""
    line = json_line(stored(user_agent=text, new_value=json.dumps(text)))
    assert line.endswith("\n")
    assert line.count("\n") == 1
    back = json.loads(line)
    assert back["user_agent"] == back["new_value"] == text


@given(UNIVERSE)
def test_a_csv_row_reads_back_after_taking_the_apostrophe_away(text: str) -> None:
    """Every text survives CSV; one leading apostrophe is the only change a reader has to undo."""
    event = stored(user_agent=text)
    line = csv_line(csv_row(event))
    [cells] = csv.reader(io.StringIO(line, newline=""))
    cell = dict(zip(csv_header(), cells, strict=True))["user_agent"]
    assert (cell.removeprefix("'")) == text


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r\n=1", "\n", "＝1", "\ufeff=1", "\u200b@x", "'quoted", "\x00=1"],
)
def test_cells_a_spreadsheet_would_run_are_neutralised(text: str) -> None:
    """Formula starters get an apostrophe before them, also behind white space and invisible characters."""
    assert neutral(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "alice", "a=b", "10.0.0.1", '{"a":-1}', "/api/nodes?x=@1"])
def test_harmless_cells_stay_as_they_are(text: str) -> None:
    """Nothing is changed without need."""
    assert neutral(text) == text


def test_numbers_and_times_are_not_touched() -> None:
    """The log's own numbers and times cannot be formulas."""
    row = dict(zip(csv_header(), csv_row(stored(response_status=200)), strict=True))
    assert (row["seq"], row["response_status"], row["timestamp"]) == ("7", "200", "1970-01-01T00:00:00.000000Z")
    assert row["user_id"] == ""
