"""Events and statistics as other programs see them: JSON values, JSON lines, CSV rows. Pure; the API and the CLI share it.

Every column is shown but the salts: whoever knows a salt could confirm a guess about an erased value.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

import msgspec

from indelible.events import JSON_FIELDS, StoredEvent, rfc3339
from indelible.queries import Stats

#: What is shown, in this order, under the columns' own names.
FIELDS: Final[tuple[str, ...]] = (
    "seq",
    "id",
    "timestamp",
    "recorded_at",
    "event_type",
    "action",
    "status",
    "user_id",
    "on_behalf_of",
    "tenant_id",
    "session_id",
    "ip_address",
    "user_agent",
    "resource_type",
    "resource_id",
    "request_method",
    "request_path",
    "response_status",
    "duration_us",
    "correlation_id",
    "old_value",
    "new_value",
    "metadata",
    "error",
    "source",
    "writer_id",
    "writer_seq",
    "leaf_hash",
    "actor_digest",
    "details_digest",
)
_TIMES: Final = frozenset({"timestamp", "recorded_at"})
_JSON: Final = frozenset(JSON_FIELDS)
_DIGESTS: Final = frozenset({"actor_digest", "details_digest"})
#: Blanks that a spreadsheet may skip, and formula starters (ASCII and full-width), each as part of a character class.
_BLANKS: Final = r"\s\x01-\x1f\u200b-\u200f\u2060\ufeff"
_STARTERS: Final = r"=+\-@＝＋－＠"
#: A formula, whatever blanks stand before it; a line break or tab first; and our own mark, so that removing one leading
#: apostrophe always gives the text back.
_RISKY: Final = re.compile(rf"[\0{_BLANKS}]*[{_STARTERS}]|[\t\r\n']")
#: What such a text begins with, or what comes behind the NULs that it begins with, and some harmless texts as well.
RISKY_FIRST: Final = rf"[{_BLANKS}{_STARTERS}']"
_MAX_DEPTH: Final = 128
_TOKENS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_encoder: Final = msgspec.json.Encoder()


def as_json(event: StoredEvent) -> dict[str, Any]:
    """``event`` as values that any JSON encoder takes; every name of FIELDS is there, None where there is no value.

    Times are RFC 3339 in UTC with six fraction digits. The JSON columns are parsed; text that is not JSON (a forged
    row) stays text. ``leaf_hash`` is base64 as in proof files, the digests are base64url without padding as in leaf
    bytes. Identifiers are lower-case UUID text.
    """
    return {name: _json_value(name, getattr(event, name)) for name in FIELDS}


def json_line(event: StoredEvent) -> str:
    """``as_json`` on one line without white space, newline at the end: one record of a JSONL export."""
    return _encoder.encode(as_json(event)).decode() + "\n"


def csv_header() -> tuple[str, ...]:
    """The names of the columns of ``csv_row``."""
    return FIELDS


def csv_row(event: StoredEvent) -> list[str]:
    """``event`` as cells in the order of FIELDS. No value is an empty cell; the JSON columns are their stored text.

    A text that a spreadsheet might run as a formula gets an apostrophe before it (see ``neutral``).
    """
    return [_csv_value(name, getattr(event, name)) for name in FIELDS]


def csv_line(cells: Iterable[str]) -> str:
    """One CSV record with its CRLF (RFC 4180), every cell in quotes."""
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow(cells)
    return out.getvalue()


def neutral(text: str) -> str:
    """``text`` as a cell no spreadsheet runs: an apostrophe before what starts, or could be read to start, a formula.

    A text with an apostrophe of its own at the start gets one more, so that taking one away undoes this exactly.
    """
    return f"'{text}" if _RISKY.match(text) else text


def time_text(us: int) -> str:
    """``events.rfc3339``; what is no time of the years 1 to 9999, as only a forged row has it, is shown as it is."""
    try:
        return rfc3339(us)
    except (OverflowError, TypeError):
        return f"{us} µs"


def parsed(text: Any) -> Any:
    """The value of a JSON column; text that is not JSON, or nests too deep for the next encoder, stays text."""
    if not isinstance(text, str):
        return text
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
    return value if _shallow(text) else text


def base64url(digest: bytes) -> str:
    """As in leaf bytes: without padding."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def stats_as_json(stats: Stats) -> dict[str, Any]:
    """``stats`` as values that any JSON encoder takes: what the API and ``indelible stats --json`` answer."""
    return {
        "total_events": stats.total_events,
        "event_type_breakdown": dict(stats.event_type_breakdown),
        "status_breakdown": dict(stats.status_breakdown),
        "top_users": [{"user_id": user, "count": count} for user, count in stats.top_users],
        "top_ips": [{"ip": address, "count": count} for address, count in stats.top_ips],
        "top_resource_types": [{"resource_type": kind, "count": count} for kind, count in stats.top_resource_types],
        "events_over_time": [{"start": time_text(start), "count": count} for start, count in stats.events_over_time],
        "outcomes_over_time": [
            {"start": time_text(start), "outcomes": dict(outcomes)} for start, outcomes in stats.outcomes_over_time
        ],
    }


def _json_value(name: str, value: Any) -> Any:
    if name in _JSON:
        value = parsed(value)
    # Bytes in place of a text, as a forged row may have them, are base64 to every JSON encoder of ours.
    if isinstance(value, (bytes, UUID)) or (name in _TIMES and value is not None):
        return _text(name, value)
    return value


def _csv_value(name: str, value: Any) -> str:
    if value is None:
        return ""
    text = _text(name, value)
    return neutral(text) if isinstance(value, str) else text


def _text(name: str, value: Any) -> str:
    if name in _TIMES:
        return time_text(value)
    if isinstance(value, bytes):
        return base64url(value) if name in _DIGESTS else base64.b64encode(value).decode()
    return str(value)


def _shallow(text: str) -> bool:
    # Capture cuts nesting at 64, but a forged row may nest as deep as this process can parse and no deeper than the
    # next encoder refuses. The number of brackets bounds the depth, so that ordinary values are not measured.
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return True
    depth = deepest = 0
    for token in _TOKENS.finditer(text):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest <= _MAX_DEPTH
