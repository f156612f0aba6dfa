"""Leaf bytes ``indelible-leaf`` v1: the canonical JSON of a row, with a salted digest in place of personal data.

A leaf is a flat JSON object in the form of RFC 8785: no white space, keys sorted, null fields left out, values only
strings and integers of at most 53 bits. The erasable groups ``actor`` and ``details`` are in it as digests of
disclosures (RFC 9901 §4.2), so that erasing a group changes no leaf. ``docs/formats/leaf.md`` is the specification.

A group of a row is in one of three states, and only these: *absent* (no field, no salt, no digest), *open* (a field
and the salt) and *erased* (only the digest). Anything else is refused: a row that had both fields and a digest could
say one thing and prove another.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain, count, repeat
from operator import attrgetter
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from indelible.errors import LeafInvalid
from indelible.events import ACTOR, DETAILS, AuditEvent, EncodedEvents, StoredEvent, encode_event, times
from indelible.integrity.merkle import HASH_SIZE
from indelible.native import native

Group = Literal["actor", "details"]
#: The erasable groups and their fields.
GROUPS: Final[Mapping[Group, tuple[str, ...]]] = {"actor": ACTOR, "details": DETAILS}

#: Bytes of a leaf at most: entry bundles carry its length as a uint16.
MAX_LEAF: Final = 65_535
#: Characters of a disclosure at most: three JSON columns of 64 KiB, with room for escapes.
MAX_DISCLOSURE: Final = 4 * 1024 * 1024
#: Bytes of a group's salt.
SALT_SIZE: Final = 16
#: Integers beyond this are not the same number to every JSON reader (RFC 8785 §3.2.2.3).
MAX_INTEGER: Final = 2**53 - 1

_VERSION: Final = 1
_NOTHING: Final = b"{}"
#: Bytes of a disclosure's JSON with one field that is empty: `["<22>","actor",{"error":""}]`, or more.
_LEAST: Final = len('["","actor",{"error":""}]') + 22
_encode: Final = msgspec.json.Encoder().encode
_encode_lines: Final = msgspec.json.Encoder().encode_lines
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode
_decode_leaf: Final = msgspec.json.Decoder(dict[str, str | int]).decode
_decode_disclosure: Final = msgspec.json.Decoder(tuple[str, Literal["actor", "details"], dict[str, str]]).decode

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DIGEST: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_SHAPES: Final = {
    "recorded_at": _TIME,
    "timestamp": _TIME,
    "id": _UUID,
    "writer_id": _UUID,
    "actor": _DIGEST,
    "details": _DIGEST,
}


# The fields stand in alphabetical order: the encoder writes them in the order of definition, and sorting costs more.
class _Leaf(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    action: str
    actor: str | None = None
    details: str | None = None
    duration_us: int | None = None
    event_type: str
    id: UUID
    recorded_at: str
    request_method: str | None = None
    resource_type: str | None = None
    response_status: int | None = None
    source: str | None = None
    status: str
    tenant_id: str | None = None
    timestamp: str
    v: int
    writer_id: UUID
    writer_seq: int


class _Actor(msgspec.Struct, omit_defaults=True, gc=False):
    ip_address: str | None = None
    on_behalf_of: str | None = None
    session_id: str | None = None
    user_agent: str | None = None
    user_id: str | None = None


class _Details(msgspec.Struct, omit_defaults=True, gc=False):
    correlation_id: str | None = None
    error: str | None = None
    metadata: str | None = None
    new_value: str | None = None
    old_value: str | None = None
    request_path: str | None = None
    resource_id: str | None = None


# The same for many rows at once: every field is passed by its place, and UUIDs may be text.
class _RowLeaf(msgspec.Struct, omit_defaults=True, gc=False):
    action: str | None = None
    actor: str | None = None
    details: str | None = None
    duration_us: int | None = None
    event_type: str | None = None
    id: UUID | str | None = None
    recorded_at: str | None = None
    request_method: str | None = None
    resource_type: str | None = None
    response_status: int | None = None
    source: str | None = None
    status: str | None = None
    tenant_id: str | None = None
    timestamp: str | None = None
    v: int | None = None
    writer_id: UUID | str | None = None
    writer_seq: int | None = None


# What a disclosure holds, written as the JSON array that it is.
class _Opened(msgspec.Struct, array_like=True, gc=False):
    salt: str
    group: str
    fields: Any


#: The columns of a stored row as ``hash_columns`` takes them: times in Unix µs, UUIDs as their text, all else as it is.
ROW: Final = (
    *_Actor.__struct_fields__,
    *_Details.__struct_fields__,
    *(name for name in _RowLeaf.__struct_fields__ if name not in {"actor", "details", "v"}),
    *("actor_salt", "details_salt", "actor_digest", "details_digest", "leaf_hash", "seq"),
)
#: Some rows, column by column in the order of ``ROW``.
Columns = Sequence[Sequence[Any]]

_DETAILS_AT: Final = len(ACTOR)
_CLEAR_AT: Final = len(ACTOR) + len(DETAILS)
#: The columns of an event before it is sealed, in the same order.
_UNSEALED: Final = tuple(name for name in ROW[:-6] if name in AuditEvent.__struct_fields__)
_unsealed: Final = attrgetter(*_UNSEALED)


@dataclass(frozen=True)
class Sealed:
    """Some of a writer's events, ``first``, ``first + 1``, ... in its ``writer_seq``, and what seals them.

    ``salts`` are 32 bytes an event, the actor's half before that of the details. ``payloads`` are the events encoded
    where the compiled part has sealed them, and can go on with them; else None.
    """

    events: Sequence[AuditEvent]
    payloads: tuple[bytes, ...] | None
    writer_id: UUID
    first: int
    recorded_at: int
    salts: bytes
    leaf_hashes: list[bytes]

    @cached_property
    def fields(self) -> Mapping[str, Sequence[Any]]:
        """The events, field by field."""
        columns = list(zip(*map(_unsealed, self.events), strict=True)) or repeat(())
        return dict(zip(_UNSEALED, columns, strict=False))

    @property
    def actor_salts(self) -> list[bytes | None]:
        """The salt of each event's group ``actor``; None where the group is absent."""
        return self._salts(ACTOR, 0)

    @property
    def details_salts(self) -> list[bytes | None]:
        """The same of ``details``."""
        return self._salts(DETAILS, SALT_SIZE)

    def _salts(self, names: Sequence[str], at: int) -> list[bytes | None]:
        nothing = (None,) * len(names)
        groups = zip(*map(self.fields.__getitem__, names), strict=True)
        return [
            None if group == nothing else self.salts[place : place + SALT_SIZE]
            for place, group in zip(count(at, 2 * SALT_SIZE), groups, strict=False)
        ]

    def part(self, start: int, end: int) -> Sealed:
        """The rows ``start`` up to ``end`` of it."""
        return Sealed(
            self.events[start:end],
            self.payloads and self.payloads[start:end],
            self.writer_id,
            self.first + start,
            self.recorded_at,
            self.salts[2 * SALT_SIZE * start : 2 * SALT_SIZE * end],
            self.leaf_hashes[start:end],
        )


def seal(events: Sequence[AuditEvent], *, writer_id: UUID, first: int, recorded_at: int, salts: bytes) -> Sealed:
    """Commit to a batch of one writer's events, numbered ``first``, ``first + 1``, ... in its ``writer_seq``.

    ``recorded_at`` is Unix time in µs; ``salts`` are 32 fresh random bytes an event. Raises LeafInvalid, with the
    index of the event in the batch, for one that cannot be a leaf; ValueError for the wrong number of salts.
    """
    if len(salts) != 2 * SALT_SIZE * len(events):
        raise ValueError(f"{len(salts)} bytes of salt for {len(events)} events, not {2 * SALT_SIZE} each")
    if native is not None and (payloads := _encoded(events)) is not None:
        hashes = native.seal(payloads, writer_id.bytes, first, recorded_at, salts)
        if hashes is not None:
            return Sealed(events, payloads, writer_id, first, recorded_at, salts, hashes)
    try:
        return _seal(events, writer_id, first, recorded_at, salts)
    except (LeafInvalid, UnicodeEncodeError):
        # Once more, one by one, to name the one.
        for at, event in enumerate(events):
            try:
                _seal([event], writer_id, first + at, recorded_at, bytes(2 * SALT_SIZE))
            except UnicodeEncodeError as error:
                raise LeafInvalid("a text is not valid Unicode", index=at) from error
            except LeafInvalid as error:
                error.index = at
                raise
        raise


def _encoded(events: Sequence[AuditEvent]) -> tuple[bytes, ...] | None:
    """The events as the compiled part takes them; None for what Python has to look at."""
    if isinstance(events, EncodedEvents):
        return tuple(events.payloads)
    try:
        return tuple(map(encode_event, events))
    except (UnicodeEncodeError, OverflowError):
        return None


def _seal(events: Sequence[AuditEvent], writer_id: UUID, first: int, recorded_at: int, salts: bytes) -> Sealed:
    events = list(events)
    if not events:
        return Sealed(events, None, writer_id, first, recorded_at, salts, [])
    columns = list(zip(*map(_unsealed, events), strict=True))
    halves = [salts[at : at + SALT_SIZE] for at in range(0, len(salts), SALT_SIZE)]
    actor = _digests("actor", map(_Actor, *columns[:_DETAILS_AT]), halves[::2])
    details = _digests("details", map(_Details, *columns[_DETAILS_AT:_CLEAR_AT]), halves[1::2])
    action, duration_us, event_type, id_, method, kind, response, *rest = columns[_CLEAR_AT:]
    source, status, tenant_id, timestamp = rest
    last = first + len(events) - 1
    if not all(map(_bounded, chain(filter(None, duration_us), filter(None, response), (last,)))):
        raise LeafInvalid("a number is beyond 53 bits")
    recorded, writer, numbers = repeat(_time(recorded_at)), repeat(writer_id), range(first, last + 1)
    entries = _entries(
        *(action, actor, details, duration_us, event_type, id_, recorded, method, kind, response),
        *(source, status, tenant_id, _times(timestamp), repeat(_VERSION), writer, numbers),
    )
    if (longest := max(map(len, entries)) - 1) > MAX_LEAF:
        raise LeafInvalid(f"the leaf would be {longest:,} bytes, more than {MAX_LEAF:,}")
    hashes = [sha256(entry).digest() for entry in entries]
    sealed = Sealed(events, None, writer_id, first, recorded_at, salts, hashes)
    sealed.__dict__["fields"] = dict(zip(_UNSEALED, columns, strict=True))  # they are there already
    return sealed


def leaf_bytes(row: StoredEvent) -> bytes:
    """The leaf bytes of a stored row, rebuilt from its columns.

    Raises LeafInvalid when the row cannot have been sealed: a group in none of its three states, a salt or digest of
    the wrong length, a time outside the years 1 to 9999, a number beyond 53 bits, or more than 65,535 bytes.
    """
    try:
        actor = _commitment("actor", _actor(row), row.actor_salt, row.actor_digest)
        details = _commitment("details", _details(row), row.details_salt, row.details_digest)
        return _leaf(row, actor, details, _time(row.recorded_at), row.writer_id, row.writer_seq)
    except UnicodeEncodeError as error:
        raise LeafInvalid("a text is not valid Unicode") from error


def hash_columns(columns: Columns) -> list[bytes]:
    """The leaf hashes of stored rows, recomputed from their columns; the same as ``hash_leaf(leaf_bytes(row))``.

    For verifying millions: each step is taken for all rows before the next one, so that the loops run in C. Some hundred
    rows at a time fit the processor's caches. What ``leaf_bytes`` refuses is refused here too, or gives a hash that no
    sealed row has. That text is text and not bytes is the caller's to check. Raises LeafInvalid, TypeError, ValueError.
    """
    try:
        return _hash_columns(columns)
    except UnicodeEncodeError as error:
        raise LeafInvalid("a text is not valid Unicode") from error


def _hash_columns(columns: Columns) -> list[bytes]:
    *fields, actor_salts, details_salts, actor_digests, details_digests, _, _ = columns
    actor = _commitments("actor", list(map(_Actor, *fields[:_DETAILS_AT])), actor_salts, actor_digests)
    opened = list(map(_Details, *fields[_DETAILS_AT:_CLEAR_AT]))
    details = _commitments("details", opened, details_salts, details_digests)
    action, duration_us, event_type, id_, recorded_at, method, kind, response, *rest = fields[_CLEAR_AT:]
    source, status, tenant_id, timestamp, writer_id, writer_seq = rest
    entries = _entries(
        *(action, actor, details, duration_us, event_type, id_, _times(recorded_at), method, kind, response),
        *(source, status, tenant_id, _times(timestamp), repeat(_VERSION), writer_id, writer_seq),
    )
    return [sha256(entry).digest() for entry in entries]


def disclosure(row: StoredEvent, group: Group) -> str | None:
    """The disclosure of one group of a row, or None when the group is absent or erased. Raises as ``leaf_bytes``."""
    actor = group == "actor"
    salt, digest = (row.actor_salt, row.actor_digest) if actor else (row.details_salt, row.details_digest)
    try:
        fields = _actor(row) if actor else _details(row)
    except UnicodeEncodeError as error:
        raise LeafInvalid("a text is not valid Unicode") from error
    if _commitment(group, fields, salt, digest) is None or salt is None:
        return None
    return _disclosure(salt, group.encode(), fields).decode()


def disclosure_digest(text: str) -> bytes:
    """The 32-byte digest of a disclosure: what an erasure leaves in ``actor_digest`` and ``details_digest``."""
    return sha256(text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Disclosure:
    """A parsed disclosure: the group it opens, its salt and the group's fields."""

    salt: bytes
    group: Group
    fields: Mapping[str, str]


def parse_disclosure(text: str) -> Disclosure:
    """Read a disclosure. Raises LeafInvalid for anything but the one form that ``disclosure`` gives."""
    if len(text) > MAX_DISCLOSURE:
        raise LeafInvalid(f"the disclosure is longer than {MAX_DISCLOSURE} characters")
    try:
        salt_text, group, fields = _decode_disclosure(_unbase64url(text))
        salt = _unbase64url(salt_text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LeafInvalid(f"the disclosure is not one: {error}") from error
    if len(salt) != SALT_SIZE or not fields or not fields.keys() <= set(GROUPS[group]):
        raise LeafInvalid(f"the disclosure's salt or fields are not those of a group {group}")
    if _disclosure(salt, group.encode(), _encode_sorted(fields)) != text.encode():
        raise LeafInvalid("the disclosure is not in its canonical form")
    return Disclosure(salt, group, fields)


def parse_leaf(data: bytes) -> dict[str, str | int]:
    """Read leaf bytes. Raises LeafInvalid for anything that is not the canonical form of a v1 leaf.

    Fields that this version does not know are let through: a column added later is still a v1 leaf.
    """
    if len(data) > MAX_LEAF:
        raise LeafInvalid(f"the leaf is longer than {MAX_LEAF:,} bytes")
    try:
        fields = _decode_leaf(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LeafInvalid(f"the leaf is not a flat JSON object: {error}") from error
    if _encode_sorted(fields) != data or not all(map(_NAME.fullmatch, fields)):
        raise LeafInvalid("the leaf is not in its canonical form")
    try:
        known = msgspec.convert(fields, _Leaf)
    except msgspec.ValidationError as error:
        raise LeafInvalid(
            f"the leaf lacks a field that every event has, or has one of the wrong type: {error}"
        ) from error
    if known.v != _VERSION:
        raise LeafInvalid(f"the leaf is of version {known.v}, not {_VERSION}")
    for name, value in fields.items():
        if isinstance(value, int):
            if not _bounded(value):
                raise LeafInvalid(f"the leaf's {name} is beyond 53 bits")
        elif name in _SHAPES and not _SHAPES[name].fullmatch(value):
            raise LeafInvalid(f"the leaf's {name} is not of its form")
    return fields


def open_leaf(data: bytes, disclosures: Iterable[str] = ()) -> dict[str, str | int]:
    """The fields of a leaf, with the groups that the disclosures open in place of their digests.

    A group without a disclosure (absent, erased or withheld) keeps its digest, or its absence. Raises LeafInvalid for
    a disclosure that the leaf does not commit to, and as ``parse_leaf`` and ``parse_disclosure`` do.
    """
    fields = parse_leaf(data)
    for text in disclosures:
        opened = parse_disclosure(text)
        if fields.pop(opened.group, None) != _digest(text.encode()):
            raise LeafInvalid(f"the leaf does not commit to this disclosure of {opened.group}")
        fields |= opened.fields
    return fields


def _actor(event: AuditEvent) -> bytes:
    return _encode(_Actor(event.ip_address, event.on_behalf_of, event.session_id, event.user_agent, event.user_id))


def _details(event: AuditEvent) -> bytes:
    return _encode(
        _Details(
            event.correlation_id,
            event.error,
            event.metadata,
            event.new_value,
            event.old_value,
            event.request_path,
            event.resource_id,
        )
    )


def _disclosure(salt: bytes, group: bytes, fields: bytes) -> bytes:
    return _base64url(b'["%b","%b",%b]' % (_base64url(salt), group, fields))


def _digest(text: bytes) -> str:
    return _base64url(sha256(text).digest()).decode()


def _commitment(group: Group, fields: bytes, salt: bytes | None, digest: bytes | None) -> str | None:
    """The digest that stands in the leaf for a stored group, None where the group is absent."""
    if digest is not None:
        if salt is not None or fields != _NOTHING:
            raise LeafInvalid(f"group {group} has a digest, as if erased, beside a salt or fields")
        if len(digest) != HASH_SIZE:
            raise LeafInvalid(f"the digest of group {group} is not {HASH_SIZE} bytes")
        return _base64url(digest).decode()
    if fields == _NOTHING:
        if salt is not None:
            raise LeafInvalid(f"group {group} has a salt but no field")
        return None
    if salt is None or len(salt) != SALT_SIZE:
        raise LeafInvalid(f"group {group} has fields but no salt of {SALT_SIZE} bytes")
    return _digest(_disclosure(salt, group.encode(), fields))


def _commitments(
    group: Group, fields: Sequence[_Actor | _Details], salts: Sequence[Any], digests: Sequence[Any]
) -> Sequence[str | None]:
    """``_commitment`` of one group of many rows."""
    if all(salts) and digests.count(None) == len(digests) and None not in (found := _digests(group, fields, salts)):
        return found
    found = [None] * len(fields)
    still_open = [at for at, salt in enumerate(salts) if salt and digests[at] is None]
    texts = _digests(group, [fields[at] for at in still_open], [salts[at] for at in still_open])
    for at, text in zip(still_open, texts, strict=True):
        if text is None:
            raise LeafInvalid(f"group {group} has a salt but no field")
        found[at] = text
    for at in {*range(len(fields))}.difference(still_open):
        found[at] = _commitment(group, _encode(fields[at]), salts[at], digests[at])
    return found


def _digests(group: Group, fields: Iterable[_Actor | _Details], salts: Sequence[bytes]) -> list[str | None]:
    """The digests of the disclosures with these fields and salts; None where there is no field."""
    if not {*map(len, salts)} <= {SALT_SIZE}:
        raise LeafInvalid(f"a salt of group {group} is not {SALT_SIZE} bytes")
    texts = map(_Opened, _base64url_lines(salts).decode().split("\n"), repeat(group), fields)
    arrays = _encode_lines(list(texts)).split(b"\n")[:-1]
    disclosures = _base64url_lines(arrays).split(b"\n")
    hashes = [sha256(text).digest() for text in disclosures[:-1]]
    digests: list[str | None] = [*_base64url_lines(hashes).decode().split("\n")[:-1]]
    if min(map(len, arrays), default=_LEAST) < _LEAST:
        for at, array in enumerate(arrays):
            if len(array) < _LEAST:
                digests[at] = None
    return digests


def _entries(*columns: Iterable[Any]) -> list[bytes]:
    """The leaf bytes of rows whose columns are those of _RowLeaf, each behind the byte that ``hash_leaf`` puts there."""
    # JSON has no line feed of its own.
    return (b"\0" + _encode_lines(list(map(_RowLeaf, *columns)))).replace(b"\n", b"\n\0").split(b"\n")[:-1]


def _leaf(
    event: AuditEvent, actor: str | None, details: str | None, recorded_at: str, writer_id: UUID, writer_seq: int
) -> bytes:
    duration, status = event.duration_us, event.response_status
    if not (_bounded(duration or 0) and _bounded(status or 0) and _bounded(writer_seq)):
        raise LeafInvalid("a number is beyond 53 bits")
    leaf = _encode(
        _Leaf(
            action=event.action,
            actor=actor,
            details=details,
            duration_us=duration,
            event_type=event.event_type,
            id=event.id,
            recorded_at=recorded_at,
            request_method=event.request_method,
            resource_type=event.resource_type,
            response_status=status,
            source=event.source,
            status=event.status,
            tenant_id=event.tenant_id,
            timestamp=_time(event.timestamp),
            v=_VERSION,
            writer_id=writer_id,
            writer_seq=writer_seq,
        )
    )
    if len(leaf) > MAX_LEAF:
        raise LeafInvalid(f"the leaf would be {len(leaf):,} bytes, more than {MAX_LEAF:,}")
    return leaf


def _bounded(value: int) -> bool:
    return -MAX_INTEGER <= value <= MAX_INTEGER


def _time(us: int) -> str:
    return _times((us,))[0]


def _times(values: Sequence[int]) -> list[str]:
    try:
        return times(values)
    except OverflowError as error:
        raise LeafInvalid("a time is outside the years 1 to 9999") from error


def _base64url(data: bytes) -> bytes:
    # Two replacements find nothing to do in most JSON, and then cost less than a translation table.
    return b2a_base64(data, newline=False).rstrip(b"=").replace(b"+", b"-").replace(b"/", b"_")


def _base64url_lines(items: Iterable[bytes]) -> bytes:
    """``_base64url`` of each, with a line feed behind it."""
    return b"".join(map(b2a_base64, items)).replace(b"=", b"").replace(b"+", b"-").replace(b"/", b"_")


def _unbase64url(text: str) -> bytes:
    try:
        raw = text.encode("ascii").replace(b"-", b"+").replace(b"_", b"/")
        return a2b_base64(raw + b"=" * (-len(raw) % 4), strict_mode=True)
    except (Base64Error, UnicodeEncodeError) as error:
        raise LeafInvalid("the disclosure is not base64url") from error
