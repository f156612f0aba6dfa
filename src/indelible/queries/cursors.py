"""Cursors as text that a client keeps, and whether one names a place in this log."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

import msgspec

from indelible.errors import InvalidQuery
from indelible.queries.values import EARLIEST, LATEST, MAX_SEQ, NULLABLE_SORT_FIELDS, Cursor, storable

_MAX_CURSOR: Final = 16_384


def encode_cursor(cursor: Cursor, *, sort_by: str, descending: bool) -> str:
    """A cursor as URL-safe text that carries the order it belongs to and a checksum."""
    payload = msgspec.json.encode((sort_by, descending, cursor.value, cursor.seq))
    return base64.urlsafe_b64encode(_checksum(payload) + payload).rstrip(b"=").decode()


def decode_cursor(text: str, *, sort_by: str, descending: bool) -> Cursor:
    """The cursor that ``encode_cursor`` wrote for the same order. Raises InvalidQuery for any other text.

    The checksum is no secret: it finds mistakes. Whoever forges it gains nothing but another place in the same pages.
    """
    forged = InvalidQuery("not a cursor of this log", parameter="cursor", hint="use next_cursor as it was answered")
    if len(text) > _MAX_CURSOR:
        raise forged
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        field_, order, value, seq = msgspec.json.decode(raw[6:], type=tuple[str, bool, int | str | None, int])
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise forged from None
    cursor = Cursor(value, seq)
    if _checksum(raw[6:]) != raw[:6] or encode_cursor(cursor, sort_by=field_, descending=order) != text:
        raise forged
    if (field_, order) != (sort_by, descending):
        raise InvalidQuery(
            f"this cursor belongs to another order: {field_} {'desc' if order else 'asc'}",
            parameter="cursor",
            hint="send the sort_by and sort_order it was answered for",
        )
    return check_cursor(cursor, sort_by=sort_by)


def check_cursor(cursor: Cursor, *, sort_by: str) -> Cursor:
    """Return ``cursor`` if a row of that order can be there; raise InvalidQuery otherwise."""
    if not _names_a_place(cursor, sort_by):
        raise InvalidQuery("not a place in this log", parameter="cursor", hint="use next_cursor as it was answered")
    return cursor


def _names_a_place(cursor: Cursor, sort_by: str) -> bool:
    value = cursor.value
    if not 0 <= cursor.seq <= MAX_SEQ:
        return False
    if sort_by == "timestamp":
        return isinstance(value, int) and EARLIEST <= value <= LATEST
    if value is None:
        return sort_by in NULLABLE_SORT_FIELDS
    return isinstance(value, str) and storable(value)


def _checksum(payload: bytes) -> bytes:
    return hashlib.sha256(b"indelible cursor 1\n" + payload).digest()[:6]
