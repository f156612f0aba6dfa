"""Any Python value → plain JSON values without secrets.

What becomes of each type is the table of ``docs/reference/values.md``. Nothing here trusts an object's own code: what
it raises makes the value a marker. The walk is bounded in depth and in the number of values it visits.
"""

from __future__ import annotations

import dataclasses
import operator
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from itertools import islice
from pathlib import PurePath
from typing import Any, Final, SupportsIndex, cast
from uuid import UUID

import msgspec
import uuid_utils

from indelible.events import JSON_LIMIT, micros, rfc3339
from indelible.redaction.keys import CLEAR, MASK, KeyRules
from indelible.redaction.text import MARKER, PLACEHOLDER, clean, cut, scrub

MAX_DEPTH: Final = 64
#: No JSON text of JSON_LIMIT bytes holds more values than this.
MAX_VALUES: Final = JSON_LIMIT // 2
MAX_KEY: Final = 256
_CYCLE = "[cycle]"
_DEEP = "[deeper than 64 levels]"
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
#: A record that tells a name and, beside it, that name's value: ``{"name": "password", "value": "..."}``.
_NAMING = ("name", "key", "field", "header")
_TOLD = frozenset(("value", "values", "old", "new", "old_value", "new_value", "from", "to", "before", "after"))


def type_name(value: object) -> str:
    """``[object: module.Class]``: all that is told of a value whose own text could hold anything."""
    kind = type(value)
    try:
        name = f"{kind.__module__}.{kind.__qualname__}"
    except Exception:  # noqa: BLE001 - a metaclass may answer with anything
        name = "unknown"
    return f"[object: {cut(clean(name.removeprefix('builtins.')), 128)}]"


def scalar(value: object) -> str | int | float | bool | None:
    """The JSON form of a value that is no container; objects of unknown types become their type's name.

    May raise whatever the value's own code raises.
    """
    for kinds, form in _FORMS:
        if isinstance(value, kinds):
            result = form(value)
            return result if isinstance(result, str | int | float) or result is None else type_name(value)
    return (
        _integer(operator.index(cast("SupportsIndex", value)))
        if hasattr(type(value), "__index__")
        else type_name(value)
    )


def _integer(value: int) -> int | str:
    if _INT_MIN <= value <= _INT_MAX:
        return value
    # Python refuses to print more than 4,300 digits, to keep hostile input from costing quadratic time.
    return str(value) if value.bit_length() <= 4096 else f"[integer: {value.bit_length()} bits]"


def _real(value: float) -> float | str:
    if value - value == 0.0:
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _datetime(value: datetime) -> str:
    try:
        return rfc3339(micros(value))
    except OverflowError:
        return value.isoformat()  # the last hours of year 9999, or the first of year 1, in a zone away from UTC


def _bytes(value: bytes | bytearray | memoryview) -> str:
    return f"[bytes: {value.nbytes if isinstance(value, memoryview) else len(value)}]"


#: In this order: an Enum may be a str or an int, bool is an int, datetime is a date. The methods are taken from the
#: base types because a subclass may have replaced them.
_FORMS: Final[tuple[tuple[Any, Callable[[Any], object]], ...]] = (
    (Enum, lambda value: scalar(value.value)),
    (type(None), lambda value: None),
    (str, str.__str__),
    (bool, bool),
    (int, lambda value: _integer(int.__pos__(value))),
    (float, lambda value: _real(float.__pos__(value))),
    (Decimal, Decimal.__str__),
    (datetime, _datetime),
    ((date, time), lambda value: value.isoformat()),
    (timedelta, msgspec.to_builtins),
    ((bytes, bytearray, memoryview), _bytes),
    ((UUID, uuid_utils.UUID, Fraction, PurePath), str),
    ((IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface), str),
    (type, type_name),
)


def _fields(value: object) -> Iterable[str] | None:
    """The field names of a record: dataclass, msgspec, pydantic, attrs or named tuple; None for anything else."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    for attribute in ("__struct_fields__", "__pydantic_fields__", "_fields" if isinstance(value, tuple) else ""):
        if attribute and (names := getattr(kind, attribute, None)) is not None:
            return [str(name) for name in names]
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else [str(item.name) for item in attributes]


class Walk:
    """One pass over one value. ``over`` tells that something was left out because there was too much of it.

    ``thorough`` also looks into texts and replaces what cannot be stored; without it the texts are taken as they are,
    which is right for almost every value, and the caller looks at the encoded whole instead.
    """

    __slots__ = ("_left", "_open", "_room", "_rules", "_thorough", "over")

    def __init__(self, rules: Callable[[str], int], thorough: KeyRules | None) -> None:
        self._rules = rules
        self._thorough = thorough
        self._left = MAX_VALUES
        self._room = 2 * JSON_LIMIT  # characters of text looked at in all
        self._open: set[int] = set()
        self.over = False

    def value(self, value: object, depth: int = 1) -> object:
        """The JSON form of one value. Raises only RecursionError and MemoryError."""
        kind = type(value)
        if kind is str:
            return self._text(value)  # type: ignore[arg-type]
        if value is None or kind is bool:
            return value
        if kind is int:
            return value if _INT_MIN <= value <= _INT_MAX else _integer(value)  # type: ignore[operator, arg-type]
        if kind is float:
            return _real(value)  # type: ignore[arg-type]
        try:
            if kind is dict:
                return self._inside(value, depth, self._mapping, value)
            return self._other(value, depth)
        except (RecursionError, MemoryError):
            raise
        except Exception:  # noqa: BLE001 - the value's own code may raise anything; it must not reach the caller
            return type_name(value)

    def _text(self, text: str) -> str:
        self._room -= len(text)
        if self._room < 0:
            self.over = True
            text = text[: self._room] or MARKER
            self._room = 0
        return text if self._thorough is None else scrub(clean(text), self._thorough)

    def _other(self, value: object, depth: int) -> object:
        if isinstance(value, Mapping):
            return self._inside(value, depth, self._mapping, value)
        if not isinstance(value, Enum) and (names := _fields(value)) is not None:
            return self._inside(value, depth, self._mapping, _Record(value, names))
        if isinstance(value, list | tuple | deque):
            return self._inside(value, depth, self._items, value)
        if isinstance(value, set | frozenset):
            return self._inside(value, depth, self._set, value)
        plain = scalar(value)
        return self._text(plain) if type(plain) is str else plain

    def _inside(self, value: object, depth: int, form: Callable[[Any, int], object], content: object) -> object:
        if id(value) in self._open:
            return _CYCLE
        if depth > MAX_DEPTH:
            return _DEEP
        self._open.add(id(value))
        try:
            return form(content, depth + 1)
        finally:
            self._open.discard(id(value))

    def _taken(self, items: Iterable[Any]) -> list[Any]:
        # A copy in one step: another thread may be changing the container.
        taken = list(islice(items, self._left + 1))
        if len(taken) > self._left:
            self.over = True
            taken.pop()
        self._left -= len(taken)
        return taken

    def _mapping(self, value: Mapping[object, object], depth: int) -> dict[str, object]:
        out: dict[str, object] = {}
        items = self._taken(dict.items(value) if isinstance(value, dict) else value.items())
        told = self._tells(value)
        numbers: dict[str, int] = {}
        for raw, item in items:
            key = raw if type(raw) is str else self._key(raw)
            if len(key) > MAX_KEY:
                self._room -= len(key)
                if self._room < 0:
                    self.over = True
                    break
            verdict = self._rules(key)
            if len(key) > MAX_KEY or self._thorough is not None:
                key = cut(clean(key), MAX_KEY)
            if key in out:
                key = _free(key, out, numbers)
            if (verdict != CLEAR or (told and key in _TOLD)) and self._hides(item, verdict or MASK):
                out[key] = PLACEHOLDER
            else:
                out[key] = self.value(item, depth)
        return out

    def _tells(self, value: Mapping[object, object]) -> bool:
        if type(value) is not dict:
            return False
        for name in _NAMING:
            if name in value:
                told = value[name]
                if type(told) is str and self._rules(told) != CLEAR:
                    return True
        return False

    def _hides(self, item: object, verdict: int) -> bool:
        if item is None or type(item) is bool:
            return False  # "no password" and "password changed: yes" give nothing away
        return verdict == MASK or not isinstance(item, Mapping | list | tuple | set | frozenset)

    def _items(self, value: Iterable[object], depth: int) -> list[object]:
        iterate = list.__iter__ if isinstance(value, list) else iter
        return [self._pair(item, depth) for item in self._taken(iterate(value))]  # type: ignore[arg-type]

    def _pair(self, item: object, depth: int) -> object:
        # Header lists are pairs: [("cookie", "...")]
        if type(item) in (tuple, list) and len(item) == 2 and type(item[0]) in (str, bytes):  # type: ignore[arg-type, index]
            name = self._key(item[0])  # type: ignore[index]
            if self._rules(name) == MASK:
                return [cut(clean(name), MAX_KEY), PLACEHOLDER]
        return self.value(item, depth)

    def _set(self, value: Iterable[object], depth: int) -> list[object]:
        return sorted((self.value(item, depth) for item in self._taken(value)), key=_order)

    def _key(self, raw: object) -> str:
        if isinstance(raw, bytes):
            return raw[: MAX_KEY + 1].decode("latin-1")
        try:
            plain = scalar(raw)
        except Exception:  # noqa: BLE001 - the key's own code may raise anything
            return type_name(raw)
        return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()


class _Record:
    """A record seen as a mapping; fields that cannot be read are told by the record's type."""

    __slots__ = ("_names", "_value")

    def __init__(self, value: object, names: Iterable[str]) -> None:
        self._value = value
        self._names = names

    def items(self) -> Iterable[tuple[str, object]]:
        for name in self._names:
            try:
                yield name, getattr(self._value, name)
            except Exception:  # noqa: BLE001 - a property may raise anything; the other fields still count
                yield name, type_name(self._value)


def _free(key: str, taken: Mapping[str, object], numbers: dict[str, int]) -> str:
    # The numbers given so far are remembered: keys made to collide must not cost quadratic time.
    number = numbers.get(key, 2)
    while f"{key}#{number}" in taken:
        number += 1
    numbers[key] = number + 1
    return f"{key}#{number}"


def _order(value: object) -> tuple[str, bytes]:
    try:
        return type(value).__name__, msgspec.json.encode(value)
    except UnicodeEncodeError:  # a lone surrogate: the thorough pass will replace it
        return type(value).__name__, b""


def shorten(tree: object, limit: int) -> object:
    """The tree with every text cut to ``limit`` characters; depth was bounded by Walk."""
    if type(tree) is str:
        return cut(tree, limit)
    if type(tree) is dict:
        return {key: shorten(item, limit) for key, item in tree.items()}
    if type(tree) is list:
        return [shorten(item, limit) for item in tree]
    return tree
