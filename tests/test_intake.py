"""From what a caller gives to what is kept: the short way for almost every event and the long one mean the same."""

from __future__ import annotations

import enum
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible import bound
from indelible.errors import InvalidEvent
from indelible.events import JSON_FIELDS, LIMITS, MAX_INTEGER, AuditEvent, decode_event
from indelible.intake import Intake
from indelible.redaction import Redactor, clean_text

INTAKE = Intake(Redactor(), None)
TEXTS = sorted(LIMITS.keys() - {*JSON_FIELDS, "event_type", "action", "status", "error"})


class Kind(enum.StrEnum):
    """A text that is a member of something."""

    SHORT = "short"
    LONG = "long " * 500


class Text(str):
    """A text of a kind of its own."""

    __slots__ = ()


texts = st.one_of(
    st.text(st.characters(exclude_categories=[]), max_size=40),
    st.sampled_from(["", "\x00", "a\x00b", "\ud800", "ümlaut", "x" * 64, "x" * 65, "x" * 256, "ü" * 257, "x" * 5000]),
)
values = st.one_of(
    st.none(),
    texts,
    texts.map(Text),
    st.sampled_from(Kind),
    st.integers(),
    st.booleans(),
    st.uuids(),
    st.binary(max_size=8),
    st.just(object()),
)
whole = st.one_of(st.none(), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))


def take(fields: dict[str, Any]) -> AuditEvent:
    """The event as whoever drains the journal reads it; what ``take`` says it is must be the same."""
    event, payload = INTAKE.take({"event_type": "login", "action": "login", **fields})  # type: ignore[typeddict-item]
    read = decode_event(payload)
    assert event == read
    return read


@given(st.dictionaries(st.sampled_from(TEXTS), values), st.dictionaries(st.sampled_from(["duration_us"]), whole))
def test_every_text_is_what_clean_text_makes_of_it(fields: dict[str, Any], numbers: dict[str, Any]) -> None:
    """Whatever a value is, alone or beside others: plain text within its bounds that every engine can hold, or None."""
    event = take({**fields, **numbers})
    for name in TEXTS:
        kept, value = getattr(event, name), fields.get(name)
        assert kept == (None if value is None else clean_text(value, LIMITS[name]))
        assert kept is None or (type(kept) is str and len(kept) <= LIMITS[name] and "\x00" not in kept)
    number = numbers.get("duration_us")
    wanted = None if number is None else max(-MAX_INTEGER, min(MAX_INTEGER, int(number)))
    assert event.duration_us == wanted
    assert type(event.duration_us) in (int, type(None))


@pytest.mark.parametrize("name", sorted(LIMITS.keys() - {*JSON_FIELDS, "status"}))
def test_a_text_is_cut_only_beyond_its_bound(name: str) -> None:
    """The longest text is kept as it is; one character more and it is cut, with a mark."""
    limit = LIMITS[name]
    assert getattr(take({name: "x" * limit}), name) == "x" * limit
    cut = getattr(take({name: "x" * (limit + 1)}), name)
    assert len(cut) == limit
    assert cut.endswith("more characters]")


@given(st.dictionaries(st.sampled_from(JSON_FIELDS), st.dictionaries(st.text(max_size=5), values, max_size=4)))
def test_values_are_kept_as_redacted_json(fields: dict[str, Any]) -> None:
    """What stands in old_value, new_value and metadata is what the redactor makes of it, whatever stands beside it."""
    event = take({**fields, "user_agent": "a\x00b"})
    for name in JSON_FIELDS:
        assert getattr(event, name) == Redactor().json_text(fields.get(name))


def test_a_response_of_any_length_keeps_its_numbers() -> None:
    """Numbers whose bytes have a zero in them are numbers all the same."""
    for number in (0, 1, 255, 256, 512, 65_536, 1 << 40):
        assert take({"duration_us": number, "response_status": 256}).duration_us == number


def test_status_defaults_to_success_wherever_it_is_none() -> None:
    """Given as None, or not at all, beside plain values or others."""
    for more in ({}, {"user_id": 7}):
        assert take(more).status == take({"status": None, **more}).status == "success"


def test_id_and_time_are_the_logs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A UUIDv7 and the clock's microseconds; a time of the caller's is kept, an id refused."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_123_456_789)
    event = take({})
    assert (type(event.id), event.id.version, event.id.variant) == (uuid.UUID, 7, uuid.RFC_4122)
    assert event.timestamp == 1_700_000_000_123_456
    assert take({"timestamp": datetime(1970, 1, 1, tzinfo=UTC)}).timestamp == 0
    assert take({"timestamp": None}).timestamp == event.timestamp
    with pytest.raises(InvalidEvent, match="timestamp is a datetime"):
        take({"timestamp": 5})
    for name in ("id", "color"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            take({name: None if name == "id" else "red"})
    for name in ("event_type", "action"):
        with pytest.raises(TypeError, match="needs event_type and action"):
            take({name: None})


def test_an_outcome_keeps_the_id_of_its_intent() -> None:
    """The id that is handed in is the event's."""
    given_id = uuid.uuid4()
    event, payload = INTAKE.take({"event_type": "login", "action": "login"}, given_id)
    assert event.id == decode_event(payload).id == given_id


def test_what_is_bound_fills_what_is_not_given() -> None:
    """A value of the call's own wins, None does not; what the log says about itself is nobody's."""
    with bound(user_id="anna", correlation_id="c-1", tenant_id=None):
        event = take({"user_id": None, "correlation_id": "mine"})
        own, _ = INTAKE.take({"event_type": "audit.gap", "action": "gap"}, own=True)
    assert (event.user_id, event.correlation_id, event.tenant_id) == ("anna", "mine", None)
    assert (own.user_id, own.correlation_id) == (None, None)


def test_a_service_name_is_the_source_of_what_has_none() -> None:
    """It stands in every event whose caller names no other source."""
    intake = Intake(Redactor(), "fog")
    for source, kept in ((None, "fog"), ("mine", "mine")):
        event, _ = intake.take({"event_type": "login", "action": "login", "source": source})
        assert event.source == kept
