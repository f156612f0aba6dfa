"""The event, before and after it has a place in the log, and as the bytes that wait for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Final, overload
from uuid import UUID

import msgspec
import msgspec.inspect
from msgspec import Meta

from indelible.errors import RowRefused

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Without a zone, isoformat writes none: half the time.
_NAIVE_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001

#: The largest JSON text of a value, in bytes of UTF-8.
JSON_LIMIT: Final = 65_536
#: The largest integer, either way, that every reader of JSON holds exactly.
MAX_INTEGER: Final = 2**53 - 1

# The longest text of each kind of field, in characters. Indexed fields stay far below the 2,704 bytes that a PostgreSQL
# index row can hold, whatever alphabet they are in.
_Verb = Annotated[str, Meta(max_length=32)]
_Short = Annotated[str, Meta(max_length=64)]
_Word = Annotated[str, Meta(max_length=128)]
_Key = Annotated[str, Meta(max_length=256)]
_Integer = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """One event as it was accepted: redacted, bounded, ready for the journal.

    ``timestamp`` is Unix time in microseconds (UTC). ``old_value``, ``new_value`` and ``metadata`` are JSON *texts*: the
    text that was accepted is the text that is stored, proved and exported. A field without a value is None. The bounds
    are held by whoever converts or decodes to this type, not by its constructor.
    """

    id: UUID
    timestamp: int
    event_type: _Short
    action: _Word
    status: Annotated[str, Meta(max_length=16)]
    tenant_id: _Key | None = None
    resource_type: _Word | None = None
    request_method: _Verb | None = None
    response_status: _Integer | None = None
    duration_us: _Integer | None = None
    source: _Word | None = None
    # group "actor": erasable
    user_id: _Key | None = None
    on_behalf_of: _Key | None = None
    ip_address: _Short | None = None
    user_agent: Annotated[str, Meta(max_length=1024)] | None = None
    session_id: _Key | None = None
    # group "details": erasable
    correlation_id: _Word | None = None
    resource_id: _Key | None = None
    request_path: Annotated[str, Meta(max_length=2048)] | None = None
    old_value: str | None = None
    new_value: str | None = None
    metadata: str | None = None
    error: Annotated[str, Meta(max_length=4096)] | None = None


class StoredEvent(AuditEvent, frozen=True, kw_only=True):
    """An event with its place: ``seq`` is the leaf index, ``writer_seq`` the position in its writer's numbering.

    ``recorded_at`` is Unix time in microseconds, taken by the drainer before it asks for the log's lock. Salts and
    digests are raw bytes (16 and 32); digests are set only by an erasure.
    """

    seq: int
    recorded_at: int
    writer_id: UUID
    writer_seq: int
    leaf_hash: bytes | None = None
    actor_salt: bytes | None = None
    details_salt: bytes | None = None
    actor_digest: bytes | None = None
    details_digest: bytes | None = None


#: The erasable groups and their columns, in column order.
ACTOR: Final = ("user_id", "on_behalf_of", "ip_address", "user_agent", "session_id")
DETAILS: Final = ("correlation_id", "resource_id", "request_path", "old_value", "new_value", "metadata", "error")
#: Columns that hold JSON text.
JSON_FIELDS: Final = ("old_value", "new_value", "metadata")


def _limits() -> dict[str, int]:
    found = {}
    described = msgspec.inspect.type_info(AuditEvent)
    assert isinstance(described, msgspec.inspect.StructType)
    for field in described.fields:
        kinds = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        for kind in kinds:
            if isinstance(kind, msgspec.inspect.StrType):
                found[field.name] = JSON_LIMIT if kind.max_length is None else kind.max_length
    return found


#: The longest text of each field that is text, in characters (JSON fields: bytes).
LIMITS: Final[Mapping[str, int]] = MappingProxyType(_limits())


_encoder: Final = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder: Final = msgspec.msgpack.Decoder(AuditEvent)
#: The journal's payload from an event's fields, its id as 16 bytes. Bound, not wrapped: this is the request path.
encode_fields: Final[Callable[[Mapping[str, object]], bytes]] = _encoder.encode


def encode_event(event: AuditEvent) -> bytes:
    """The same from an event."""
    return _encoder.encode(event)


def decode_event(payload: bytes) -> AuditEvent:
    """The event of a payload. Raises msgspec.MsgspecError for bytes that are none."""
    return _decoder.decode(payload)


class EncodedEvents(Sequence[AuditEvent]):
    """The events of some payloads, each decoded when it is asked for and not kept. RowRefused for what is none.

    Hundreds of them at once would be hundreds of objects for the garbage collector, which then looks through the whole
    heap of the host's process the sooner: some 60 ms in which no request is answered.
    """

    __slots__ = ("payloads",)

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self.payloads = payloads

    def __len__(self) -> int:
        return len(self.payloads)

    @overload
    def __getitem__(self, at: int) -> AuditEvent: ...

    @overload
    def __getitem__(self, at: slice) -> EncodedEvents: ...

    def __getitem__(self, at: int | slice) -> AuditEvent | EncodedEvents:
        if isinstance(at, slice):
            return EncodedEvents(self.payloads[at])
        try:
            return decode_event(self.payloads[at])
        except msgspec.MsgspecError as error:
            raise RowRefused(f"no event: {error}") from error


def micros(moment: datetime) -> int:
    """Unix time in microseconds. A datetime without a zone is taken as UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def moment(us: int) -> datetime:
    """The UTC datetime of a Unix time in microseconds. Raises OverflowError outside the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=us)


def rfc3339(us: int) -> str:
    """RFC 3339 in UTC with exactly six fraction digits and ``Z``, as in leaf bytes, answers and exports.

    Raises OverflowError outside the years 1 to 9999.
    """
    return (_NAIVE_EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds") + "Z"


def times(values: Sequence[int]) -> list[str]:
    """``rfc3339`` of many. Rows come in order of time: each minute is formatted once."""
    if len(_minutes) > _MANY:
        _minutes.clear()
    return [_minutes[us // 60_000_000] % divmod(us % 60_000_000, 1_000_000) for us in values]


class _Minutes(dict[int, str]):
    """The text of a minute, with places for second and fraction; made when it is first asked for."""

    def __missing__(self, minute: int) -> str:
        text = rfc3339(minute * 60_000_000)[:-10] + "%02d.%06dZ"
        self[minute] = text
        return text


_MANY: Final = 10_000
_minutes: Final = _Minutes()
