"""What may be stored: secrets masked, values made plain, texts bounded. Runs before the journal.

Pure: values in, values out; no clock, no I/O. Nothing here raises: a value that cannot be read becomes a marker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from indelible.events import JSON_LIMIT, LIMITS
from indelible.redaction.keys import CLEAR, MASK, KeyRules
from indelible.redaction.text import MARKER, PLACEHOLDER, clean, cut, scrub, scrub_query, suspicious
from indelible.redaction.values import Walk, scalar, shorten, type_name

__all__ = ["JSON_LIMIT", "LIMITS", "PLACEHOLDER", "Redactor", "clean_text"]

#: When a value is too large, its texts are first cut to this many characters; often that is enough.
_SHORT_TEXT: Final = 1024
_LONGEST_TARGET: Final = LIMITS["request_path"]
_UNREADABLE: Final = '"[unreadable]"'
_NO_PATHS: Final[Mapping[str, Iterable[str]]] = {}


def clean_text(value: object, limit: int) -> str:
    """Any object as text that every engine can hold, at most ``limit`` characters. Never raises.

    NUL and lone surrogates become U+FFFD; a cut is marked with the number of characters left out. Numbers, dates, UUIDs
    and enums are written as in JSON values; an object with a ``__str__`` of its own gives that; any other object gives
    its type's name, because a ``repr`` may hold secrets.
    """
    if type(value) is str:
        if len(value) <= limit and value.isascii() and "\x00" not in value:
            return value  # almost every text there is
        text = value
    else:
        try:
            text = _as_text(value)
        except Exception:  # noqa: BLE001 - the object's own code may raise anything
            text = type_name(value)
    # A very long text is cut first, so that cleaning it costs no more than what is kept.
    return clean(text) if len(text) <= limit else clean(cut(text, limit))


def _as_text(value: object) -> str:
    plain = scalar(value)
    if plain is None:
        return ""
    if type(plain) is not str:
        return str(plain).lower() if type(plain) is bool else str(plain)
    if plain.startswith("[object: ") and _has_own_text(type(value)):
        return str.__str__(str(value))
    return plain


def _has_own_text(kind: type) -> bool:
    record = hasattr(kind, "__pydantic_fields__") or issubclass(kind, BaseException | Mapping | type)
    return not record and not hasattr(kind, "__iter__") and getattr(kind, "__str__", None) is not object.__str__


class Redactor:
    """Masks secrets by the names they stand under and by their form, and makes values plain JSON.

    ``extra_keys`` are further secret names, in any spelling, matched as whole words (``maiden_name`` also masks
    ``mothersMaidenName``). ``path_rules`` gives further names for requests to a path and what lies below it, for
    example ``{"/api/patients": ["diagnosis"]}``; the name ``*`` masks every value there. Threads may share one.
    """

    __slots__ = ("_harmless", "_paths", "_rules")

    def __init__(self, *, extra_keys: Iterable[str] = (), path_rules: Mapping[str, Iterable[str]] = _NO_PATHS) -> None:
        extra = tuple(extra_keys)
        self._rules = KeyRules(extra)
        self._harmless: set[str] = set()  # names of path parameters that were seen to be no secret's
        self._paths = tuple(
            (prefix.rstrip("/"), "*" in names, KeyRules((*extra, *names)))
            for prefix, names in ((prefix, tuple(names)) for prefix, names in path_rules.items())
        )

    def json_text(self, value: object, *, path: str | None = None) -> str | None:
        """The value as compact JSON text without secrets, at most 64 KiB of UTF-8; None for None. Never raises.

        ``path`` is the request's path, for ``path_rules``. Keys keep their order. What does not fit is left out, and a
        member ``[truncated]`` says how much.
        """
        if value is None:
            return None
        try:
            rules = self._verdicts(path)
            return self._encode(value, rules)
        except Exception:  # noqa: BLE001 - recursion or memory at its end; an audit value never fails its caller
            return _UNREADABLE

    def text(self, value: object, limit: int) -> str:
        """``clean_text``, with secrets that show by their form or stand beside their name masked. Never raises."""
        # Cut twice: before, so that a huge text costs little; after, because masking may have made it longer.
        return cut(scrub(clean_text(value, 4 * limit), self._rules), limit)

    def path_secrets(self, parameters: Mapping[str, object]) -> tuple[str, ...]:
        """The values of those path parameters whose names are secret, such as ``/reset/{token}``."""
        if self._harmless.issuperset(parameters):
            return ()
        secret = {name for name in parameters if self._rules.in_path(name)}
        self._harmless.update(parameters.keys() - secret)  # the host's own names: there are never many
        return tuple(str(value) for name, value in parameters.items() if name in secret and value)

    def target(self, path: str, query: str = "") -> str:
        """A request's path and query string, secret parameters masked, bounded as ``request_path``. Never raises."""
        if not query and len(path) <= _LONGEST_TARGET and path.isascii() and not suspicious(path):
            return path  # almost every path there is
        shown = clean_text(path, 4 * _LONGEST_TARGET)
        if suspicious(shown):
            shown = scrub(shown, self._rules)
        if query:
            shown = f"{shown}?{scrub_query(clean_text(query, 4 * _LONGEST_TARGET), self._rules)}"
        return cut(shown, _LONGEST_TARGET)

    def _verdicts(self, path: str | None) -> Callable[[str], int]:
        if path is None or not self._paths:
            return self._rules.verdict
        found = [
            (everything, rules)
            for prefix, everything, rules in self._paths
            if path == prefix or path.startswith((f"{prefix}/", f"{prefix}?"))
        ]
        if any(everything for everything, _ in found):
            return lambda name: MASK
        if not found:
            return self._rules.verdict
        return lambda name: max((rules.verdict(name) for _, rules in found), default=CLEAR)

    def _encode(self, value: object, rules: Callable[[str], int]) -> str:
        walk = Walk(rules, None)
        tree = walk.value(value)
        try:
            text = msgspec.json.encode(tree).decode()
        except UnicodeEncodeError:  # a lone surrogate somewhere
            text = ""
        if not text or suspicious(text):
            walk = Walk(rules, self._rules)
            tree = walk.value(value)
            text = msgspec.json.encode(tree).decode()
        if not walk.over and (len(text) * 4 <= JSON_LIMIT or len(text.encode()) <= JSON_LIMIT):
            return text
        return _bounded(tree)


def _bounded(tree: object) -> str:
    """What fits of a tree that does not: its texts shortened, then its members in order as long as there is room."""
    short = shorten(tree, _SHORT_TEXT)
    kept: dict[str, object] = {}
    items: list[object] = []
    room = JSON_LIMIT - 256
    left_out = 0
    members: Iterable[tuple[str | None, object]] = (
        short.items()
        if isinstance(short, dict)
        else ((None, item) for item in short)
        if isinstance(short, list)
        else ()
    )
    for key, item in members:
        size = len(msgspec.json.encode(item)) + (len(msgspec.json.encode(key)) + 2 if key is not None else 1)
        if size > room:
            left_out += 1
            continue
        room -= size
        if key is None:
            items.append(item)
        else:
            kept[key] = item
    if not isinstance(short, dict):
        kept["kept"] = items if isinstance(short, list) else short
    kept[MARKER] = {"limit": JSON_LIMIT, "left_out": left_out}
    return msgspec.json.encode(kept).decode()
