"""From what a caller gives to the event that is kept: defaults, redaction, bounds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypedDict
from uuid import UUID

import msgspec
import uuid_utils

from indelible import context
from indelible.errors import InvalidEvent
from indelible.events import JSON_FIELDS, LIMITS, MAX_INTEGER, AuditEvent, encode_event, encode_fields, micros
from indelible.redaction import Redactor, clean_text

_INTEGERS: Final = frozenset(("response_status", "duration_us"))
#: Given as something else than what is kept.
_LOOKED_AT: Final = frozenset(("id", "timestamp", "error", *JSON_FIELDS))
#: The texts lie behind the head of a payload's map, and before time and id, which may have zero bytes in them.
_HEAD: Final = 3
_TAIL: Final = 1 - len(encode_fields({"timestamp": 1 << 62, "id": bytes(16)}))
_convert: Final = msgspec.convert
_uuid7: Final = uuid_utils.uuid7
_bound: Final = context.BOUND.get


class EventFields(TypedDict, total=False):
    """What an event can be made of. ``event_type`` and ``action`` are needed, everything else is optional.

    Values that are not text become text; ``old_value``, ``new_value`` and ``metadata`` take anything that looks like
    JSON. Secrets are redacted and oversized values cut, with a marker, before anything is written anywhere.
    """

    event_type: str
    action: str
    status: str
    timestamp: datetime | None
    tenant_id: object
    resource_type: str | None
    request_method: str | None
    response_status: int | None
    duration_us: int | None
    source: str | None
    user_id: object
    on_behalf_of: object
    ip_address: str | None
    user_agent: str | None
    session_id: object
    correlation_id: str | None
    resource_id: object
    request_path: str | None
    old_value: object
    new_value: object
    metadata: object
    error: str | None


class Intake:
    """Makes events. ``source`` is the service's name, stored where the caller gives none."""

    def __init__(self, redactor: Redactor, source: str | None) -> None:
        self._redactor = redactor
        self._source = source

    def take(self, fields: EventFields, event_id: UUID | None = None, *, own: bool = False) -> tuple[AuditEvent, bytes]:
        """The event as it will be kept, with an id and the time, and its bytes for the journal.

        It is made of ``fields``, which are used up, else of what ``bound(...)`` gave, else of defaults. ``own`` marks what
        the log says about itself: that is nobody's doing, whatever request happens to be served.

        Raises TypeError for a name that is no field, and where ``event_type`` or ``action`` is missing.
        """
        given: Any = fields
        if not own and (bound := _bound()):
            for name, value in bound.items():
                if given.get(name) is None:
                    given[name] = value
        at = None if given.keys().isdisjoint(_LOOKED_AT) else self._look_at(given)
        if "status" not in given:
            given["status"] = "success"
        if self._source is not None and given.get("source") is None:
            given["source"] = self._source
        given["timestamp"] = time.time_ns() // 1000 if at is None else at
        given["id"] = _uuid7().bytes if event_id is None else event_id.bytes
        try:
            # Almost every event is as it has to be, and one pass in C says so.
            event: AuditEvent = _convert(given, AuditEvent)
            payload = encode_fields(given)
        except (msgspec.ValidationError, UnicodeEncodeError, TypeError):
            pass
        else:
            # A zero byte is a NUL in a text, or part of a number: that is looked at in vain.
            if payload.find(0, _HEAD, _TAIL) < 0:
                return event, payload
        event = _convert(_cleaned(given), AuditEvent)
        return event, encode_event(event)

    def _look_at(self, given: dict[str, Any]) -> int | None:
        """Turn the values that are no plain texts into what is kept of them; the time, if one is given."""
        at = None
        path = given.get("request_path")
        for name in _LOOKED_AT.intersection(given):
            value = given[name]
            if name in JSON_FIELDS:
                given[name] = self._redactor.json_text(value, path=path)
            elif name == "id":
                raise _unexpected(name)
            elif value is None:
                continue
            elif name == "error":
                # It may hold a secret by its form.
                given[name] = self._redactor.text(value, LIMITS[name])
            else:
                at = _time(value)
        return at


def _cleaned(given: Mapping[str, Any]) -> dict[str, Any]:
    """Every value in the form and within the bounds of AuditEvent."""
    cleaned: dict[str, Any] = {"status": "success"}
    for name, value in given.items():
        if value is None:
            continue
        if name in _LOOKED_AT:
            cleaned[name] = value
        elif name in LIMITS:
            cleaned[name] = clean_text(value, LIMITS[name])
        elif name in _INTEGERS:
            cleaned[name] = _integer(name, value)
        else:
            raise _unexpected(name)
    if "event_type" not in cleaned or "action" not in cleaned:
        raise TypeError("an event needs event_type and action")
    return cleaned


def _unexpected(name: str) -> TypeError:
    return TypeError(f"log() got an unexpected keyword argument {name!r}")


def _time(value: object) -> int:
    if not isinstance(value, datetime):
        raise InvalidEvent(f"timestamp is a datetime, not {type(value).__name__}")
    return micros(value)


def _integer(name: str, value: Any) -> int:
    try:
        return max(-MAX_INTEGER, min(MAX_INTEGER, int(value)))
    except (TypeError, ValueError, OverflowError):
        raise InvalidEvent(f"{name} is a whole number, not {type(value).__name__}") from None
