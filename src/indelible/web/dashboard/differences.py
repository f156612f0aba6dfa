"""What changed between two JSON values, as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

#: Lines of a difference, and characters of a value in one. An event may hold more than a page should.
MAX_LINES: Final = 400
MAX_VALUE: Final = 2_000
_ABSENT: Final = object()
#: Text that is not JSON, or nested deeper than this, is compared as one text.
_MAX_DEPTH: Final = 40

Kind = Literal["same", "added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class Line:
    """One place in the values: its path, what it was and what it is (None where there is nothing)."""

    kind: Kind
    path: str
    old: str | None
    new: str | None


def differences(old: str | None, new: str | None) -> tuple[list[Line], bool]:
    """The lines that lead from one JSON text to the other, what changed first; false when there are more of them."""
    lines = [*_compare("", _value(old), _value(new), 0)]
    lines.sort(key=lambda line: line.kind == "same")
    return lines[:MAX_LINES], len(lines) <= MAX_LINES


def pretty(text: str) -> str:
    """A JSON text indented; any other as it is. Numbers keep their digits."""
    try:
        return msgspec.json.format(text, indent=2)
    except (ValueError, RecursionError):
        return text


def _compare(path: str, old: Any, new: Any, depth: int) -> Iterator[Line]:
    both = (old, new) if old is not _ABSENT and new is not _ABSENT else ()
    given = [value for value in (old, new) if value is not _ABSENT]
    if given and depth < _MAX_DEPTH:
        if all(isinstance(value, dict) for value in given) and any(given):
            keys = dict.fromkeys(key for value in given for key in value)
            for key in keys:
                here = f"{path}.{key}" if path else key
                yield from _compare(here, _item(old, key), _item(new, key), depth + 1)
            return
        if all(isinstance(value, list) for value in given) and any(given):
            for at in range(max(len(value) for value in given)):
                yield from _compare(f"{path}[{at}]", _item(old, at), _item(new, at), depth + 1)
            return
    if not given:
        return
    kind: Kind = "same" if both and old == new and type(old) is type(new) else "changed"
    if not both:
        kind = "added" if old is _ABSENT else "removed"
    yield Line(kind, path, _shown(old), _shown(new))


def _item(value: Any, key: Any) -> Any:
    if value is _ABSENT:
        return _ABSENT
    if isinstance(value, list):
        return value[key] if key < len(value) else _ABSENT
    return value.get(key, _ABSENT)


def _shown(value: Any) -> str | None:
    if value is _ABSENT:
        return None
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"


def _value(text: str | None) -> Any:
    if text is None:
        return _ABSENT
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
