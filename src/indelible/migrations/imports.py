"""A row of somebody else's audit table as an event: pure, so that a second run makes the same events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

import msgspec

from indelible.events import JSON_FIELDS, AuditEvent, micros
from indelible.redaction import LIMITS, Redactor, clean_text
from indelible.taxonomy import STATUSES, is_event_type_name

#: ``AuditEvent.source`` of every imported event.
SOURCE: Final = "import"
#: Under this name the ids and the writer of an import are derived, the same in every run.
NAMESPACE: Final = UUID("5f3c6d0a-6f0e-5b0f-9a51-1de11b1e0001")

#: Field → the names under which audit tables keep it; the first that a table has is taken.
ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "timestamp": ("timestamp", "created_at", "occurred_at", "event_time", "logged_at"),
    "event_type": ("event_type", "type", "event"),
    "action": ("action", "operation"),
    "status": ("status", "outcome", "result"),
    "tenant_id": ("tenant_id",),
    "resource_type": ("resource_type", "entity_type", "target_type", "table_name"),
    "request_method": ("request_method", "method", "http_method"),
    "user_id": ("user_id", "actor_id", "username"),
    "on_behalf_of": ("on_behalf_of",),
    "ip_address": ("ip_address", "ip", "client_ip", "remote_addr"),
    "user_agent": ("user_agent",),
    "session_id": ("session_id",),
    "correlation_id": ("correlation_id", "request_id", "trace_id"),
    "resource_id": ("resource_id", "entity_id", "target_id"),
    "request_path": ("request_path", "path", "endpoint"),
    "error": ("error", "error_message"),
    "old_value": ("old_value", "old_values", "old_data"),
    "new_value": ("new_value", "new_values", "new_data"),
    "metadata": ("metadata", "event_metadata", "meta", "extra", "details"),
    "response_status": ("response_status", "status_code"),
    "duration_us": ("duration_us",),
}
_NUMBERS: Final = ("response_status", "duration_us")
#: Fields taken over as text, cleaned and bounded; the others are read by functions of their own.
_TEXTS: Final = tuple(
    f for f in ALIASES if f not in {"timestamp", "event_type", "action", "status", *JSON_FIELDS, *_NUMBERS}
)
_OUTCOMES: Final = {
    "ok": "success",
    "succeeded": "success",
    "successful": "success",
    "true": "success",
    "forbidden": "denied",
    "unauthorized": "denied",
    "blocked": "denied",
    "rejected": "denied",
}
_TIME_RANGE: Final = (-62_135_596_800_000_000, 253_402_300_799_999_999)


def columns_of(names: frozenset[str]) -> dict[str, str]:
    """Which of a table's columns is which field."""
    return {field: next(a for a in aliases if a in names) for field, aliases in ALIASES.items() if names & {*aliases}}


def event_of(row: Mapping[Any, Any], *, key: str, keeps_id: bool, adopted_at: int, redactor: Redactor) -> AuditEvent:
    """The event that a row records.

    ``key`` is the row's place among all; from it the id is derived unless ``keeps_id`` and the row has a UUID.
    ``adopted_at`` (Unix µs) stands in for a time that cannot be read. Whatever has no field of its own, or had to be
    changed to fit one, is in ``metadata`` under the column's name; the same goes for a word that is not ours.
    """
    columns = columns_of(frozenset(row))
    given = {field: row[column] for field, column in columns.items() if row[column] is not None}
    extra = _metadata(given.get("metadata"))
    extra |= {name: _nested(row[name]) for name in row if name not in columns.values() and row[name] is not None}
    identity = _uuid(row.get("id")) if keeps_id else None
    if identity is not None:
        extra.pop("id", None)

    read: dict[str, Any] = {
        "timestamp": _time(given.get("timestamp")),
        "event_type": _event_type(given.get("event_type")),
        "status": _status(given.get("status")),
        **{field: _whole(given[field]) for field in _NUMBERS if field in given},
    }
    # A time that was understood is the same time in another form; a word or a number has to be the same.
    same = {"timestamp"} if read["timestamp"] is not None else set()
    extra |= {
        f"original_{field}": given[field]
        for field, value in read.items()
        if field in given and field not in same and str(given[field]) != str(value)
    }
    if read["timestamp"] is None:
        read["timestamp"] = adopted_at
    return AuditEvent(
        id=identity or uuid5(NAMESPACE, key),
        action=clean_text(given.get("action") or read["event_type"], LIMITS["action"]),
        source=SOURCE,
        old_value=redactor.json_text(_nested(given.get("old_value"))),
        new_value=redactor.json_text(_nested(given.get("new_value"))),
        metadata=redactor.json_text(extra or None),
        **read,
        **_texts(given, redactor),
    )


def _texts(given: Mapping[str, Any], redactor: Redactor) -> dict[str, Any]:
    texts = {field: clean_text(given[field], LIMITS[field]) for field in _TEXTS if field in given}
    if "ip_address" in texts:
        # PostgreSQL writes an inet as text with its mask.
        texts["ip_address"] = texts["ip_address"].removesuffix("/32").removesuffix("/128")
    if "request_path" in texts:
        path, _, query = str(given["request_path"]).partition("?")
        texts["request_path"] = clean_text(redactor.target(path, query), LIMITS["request_path"])
    return texts


def _metadata(value: Any) -> dict[str, Any]:
    nested = _nested(value)
    if isinstance(nested, dict):
        return dict(nested)
    return {} if nested is None else {"metadata": nested}


def _nested(value: Any) -> Any:
    """JSON that stands in a text column, as the value it describes; any other value as it is."""
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return value
    return value


def _uuid(value: Any) -> UUID | None:
    try:
        return value if isinstance(value, UUID) else UUID(str(value))
    except ValueError:
        return None


def _time(value: Any) -> int | None:
    """Unix µs of a datetime, an ISO text (without a zone: UTC) or a Unix time in s, ms or µs, by its size."""
    us: int | None = None
    if isinstance(value, datetime):
        us = micros(value)
    elif isinstance(value, str):
        try:
            us = micros(datetime.fromisoformat(value))
        except (ValueError, OverflowError):
            us = None
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63:
        scale = 1_000_000 if abs(value) < 10**11 else 1_000 if abs(value) < 10**14 else 1
        us = round(value * scale)
    return us if us is not None and _TIME_RANGE[0] <= us <= _TIME_RANGE[1] else None


def _event_type(value: Any) -> str:
    """The name itself if it can be one; otherwise its words in lower case; ``imported`` if there are none."""
    name = str(value) if value is not None else ""
    if is_event_type_name(name):
        return name
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not words or words[0].isdigit() or name.startswith("audit"):
        words = f"imported_{words}"
    return words[:64].rstrip("_")


def _status(value: Any) -> str:
    """Ours, or what an HTTP status or a usual word means, or ``failure``: what cannot be read must not look well."""
    word = str(value).strip().lower()
    if word in STATUSES:
        return word
    if word.isdigit() and len(word) == 3:
        return "success" if word < "400" else "denied" if word in {"401", "403"} else "failure"
    return _OUTCOMES.get(word, "failure")


def _whole(value: Any) -> int | None:
    try:
        number = int(str(value))
    except ValueError:
        return None
    return number if abs(number) < 2**53 else None
