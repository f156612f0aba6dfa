"""The query API as OpenAPI describes it: parameters and answers.

These are descriptions. Parameters are read by ``indelible.queries`` and rows are written by ``indelible.rendering``; the
tests hold both to what is said here.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from indelible.queries import DEFAULT_PAGE_SIZE, MAX_PAGE, MAX_PAGE_SIZE, MAX_SEARCH, MAX_VALUES, SORT_FIELDS
from indelible.taxonomy import GUIDE_EVENT_TYPES, STATUSES

_TEXT: Final = {"type": "string", "minLength": 1}
_DATE: Final = {
    "type": "string",
    "minLength": 1,
    "anyOf": [{"format": "date-time"}, {"format": "date"}],
}


def _parameter(name: str, description: str, schema: dict[str, Any], example: Any = None) -> dict[str, Any]:
    said = {"name": name, "in": "query", "required": False, "description": description, "schema": schema}
    return said if example is None else {**said, "example": example}


def _any_of(name: str, description: str, item: dict[str, Any], example: list[str]) -> dict[str, Any]:
    schema = {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_VALUES}
    return _parameter(name, f"{description} Repeat it to match any of several values.", schema, example)


DATES: Final = (
    _parameter(
        "start_date",
        "Events at this time or later. ISO 8601; without a zone it is UTC; a date alone is its first moment.",
        _DATE,
        "2024-01-01T00:00:00Z",
    ),
    _parameter(
        "end_date",
        "Events at this time or earlier. ISO 8601; without a zone it is UTC; a date alone is its last moment.",
        _DATE,
        "2099-12-31",
    ),
)
FILTERS: Final = (
    _any_of(
        "event_type",
        f"What happened: {', '.join(GUIDE_EVENT_TYPES)}, a type the application registered, or one of the log's own"
        " (audit.*).",
        _TEXT,
        ["login_failed"],
    ),
    _any_of("user_id", "Who did it.", _TEXT, ["6f1c1f0e-3c5e-4a57-9d2b-0d1d3a5b7c9e"]),
    _any_of("status", "How it ended.", {"type": "string", "enum": list(STATUSES)}, ["failure", "denied"]),
    _any_of(
        "ip_address", "From where: an IPv4 or IPv6 address, or a network such as 10.0.0.0/8.", _TEXT, ["192.168.1.100"]
    ),
    _any_of("action", "The action.", _TEXT, ["update"]),
    _parameter("resource_type", "The kind of thing it was done to.", _TEXT, "user"),
    _parameter("resource_id", "The thing it was done to.", _TEXT, "123"),
    _parameter("correlation_id", "The request it belongs to (X-Correlation-ID).", _TEXT, "3f2a9b7c"),
    *DATES,
    _parameter(
        "q",
        "Text to find in request path, resource id or user agent, without regard to ASCII case. Newest events are"
        " searched first, within a time budget; `complete` is false if it ran out.",
        {**_TEXT, "maxLength": MAX_SEARCH},
        "curl",
    ),
)
PAGING: Final = (
    _parameter(
        "page",
        "Which page, from 1. Not together with `cursor`.",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
        1,
    ),
    _parameter(
        "page_size",
        f"Events on a page; {DEFAULT_PAGE_SIZE} unless given.",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": DEFAULT_PAGE_SIZE},
        20,
    ),
    _parameter(
        "cursor",
        "The `next_cursor` of the page before. Unlike page numbers it stays in place while events arrive.",
        _TEXT,
    ),
    _parameter(
        "sort_by",
        "The field to sort by; ties are in the order of `seq`.",
        {"type": "string", "enum": list(SORT_FIELDS), "default": "timestamp"},
    ),
    _parameter("sort_order", "The direction.", {"type": "string", "enum": ["asc", "desc"], "default": "desc"}),
)
FORMAT: Final = _parameter(
    "format",
    "One JSON object a line, or CSV with a header line.",
    {"type": "string", "enum": ["jsonl", "csv"], "default": "jsonl"},
)
COMPRESS: Final = _parameter(
    "compress",
    "Send a file of gzip members or zstd frames; zstd if the server has it.",
    {"type": "string", "enum": ["gzip", "zstd"]},
)


class LogEntry(BaseModel):
    """One event. Times are RFC 3339 in UTC with microseconds; a field without a value is null."""

    seq: Annotated[int, Field(description="The event's place in the log, from 0 without gaps.")]
    id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]
    timestamp: Annotated[str, Field(description="When it happened.")]
    recorded_at: Annotated[str, Field(description="When it was stored.")]
    event_type: str
    action: str
    status: Annotated[str, Field(description="success, failure or denied.")]
    user_id: str | None
    on_behalf_of: str | None
    tenant_id: str | None
    session_id: str | None
    ip_address: str | None
    user_agent: str | None
    resource_type: str | None
    resource_id: str | None
    request_method: str | None
    request_path: str | None
    response_status: int | None
    duration_us: Annotated[int | None, Field(description="Microseconds to the last byte of the response.")]
    correlation_id: str | None
    old_value: Annotated[Any, Field(description="What was there before a change, as JSON.")]
    new_value: Annotated[Any, Field(description="What is there after it, as JSON.")]
    metadata: Annotated[Any, Field(description="Whatever else is known, as JSON.")]
    error: str | None
    source: Annotated[str | None, Field(description="The service that recorded it.")]
    writer_id: Annotated[str, Field(description="The process that recorded it.", json_schema_extra={"format": "uuid"})]
    writer_seq: Annotated[int, Field(description="Its place among that process's events.")]
    leaf_hash: Annotated[str | None, Field(description="Base64 of the Merkle leaf hash.")]
    actor_digest: Annotated[str | None, Field(description="Set when the actor's data was erased.")]
    details_digest: Annotated[str | None, Field(description="Set when the details were erased.")]


class LogPage(BaseModel):
    """One page of events."""

    logs: list[LogEntry]
    total: Annotated[int, Field(description="How many events match; at least so many if total_is_exact is false.")]
    total_is_exact: bool
    page: int
    page_size: int
    total_pages: int
    next_cursor: Annotated[str | None, Field(description="Ask for the next page with it; null on the last one.")]
    complete: Annotated[
        bool, Field(description="False if a search for text or networks ran out of time before the page was full.")
    ]


class UserCount(BaseModel):
    """How many events one user caused."""

    user_id: str
    count: int


class AddressCount(BaseModel):
    """How many events came from one address."""

    ip: str
    count: int


class Bucket(BaseModel):
    """How many events happened from ``start`` up to the next bucket."""

    start: str
    count: int


class TypeCount(BaseModel):
    """How many events were about one type of resource."""

    resource_type: str
    count: int


class Outcomes(BaseModel):
    """How the events ended that happened from ``start`` up to the next bucket."""

    start: str
    outcomes: dict[str, int]


class LogStats(BaseModel):
    """What happened in a time range."""

    total_events: int
    event_type_breakdown: dict[str, int]
    status_breakdown: dict[str, int]
    top_users: list[UserCount]
    top_ips: list[AddressCount]
    top_resource_types: list[TypeCount]
    events_over_time: list[Bucket]
    outcomes_over_time: list[Outcomes]


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


class Mistake(BaseModel):
    """What is wrong with one parameter, as FastAPI says it."""

    type: str
    loc: list[str | int]
    msg: str


class Mistakes(BaseModel):
    """Why a request means nothing."""

    detail: list[Mistake]


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": Problem, "description": "Not signed in."},
    403: {"model": Problem, "description": "Not an admin."},
    422: {"model": Mistakes, "description": "An unknown or wrong parameter; `loc` names it."},
    503: {"model": Problem, "description": "The log cannot be read, or the reading cannot be recorded. Try again."},
}
EXPORTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Every event that matches, oldest first.",
        "content": {
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
            "application/gzip": {"schema": {"type": "string", "format": "binary"}},
            "application/zstd": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    **PROBLEMS,
}
