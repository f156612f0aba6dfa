"""Questions as people type them: ``user:alice status:denied since:2h "free text"``.

A search is words between blanks. A word ``key:value`` is a condition; a repeated key means any of its values. Every other
word is text to look for, and several are one text with single blanks between them. Quotation marks hold together what has
blanks in it, after a colon too (``user:"Alice Smith"``), and make text of what looks like a condition; in them a backslash
keeps a quotation mark or another backslash.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from indelible.errors import InvalidQuery
from indelible.events import rfc3339
from indelible.queries.moments import DAY, within_years
from indelible.queries.params import FILTERS, REPEATABLE, filter_as_params, parse_filter
from indelible.queries.values import Filter
from indelible.taxonomy import STATUSES, event_types

#: Keys of a search → filters. The filters' own names are taken too; ``resource`` is a type, a type/id or an /id.
KEYS: Final[Mapping[str, str]] = {
    "user": "user_id",
    "status": "status",
    "type": "event_type",
    "resource": "resource_type",
    "ip": "ip_address",
    "action": "action",
    "correlation": "correlation_id",
    "since": "start_date",
    "until": "end_date",
}
_NAMES: Final = {**{name: name for name in FILTERS if name != "q"}, **KEYS}
_UNITS: Final = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": DAY, "w": 7 * DAY}
_AGO: Final = re.compile(r"([0-9]{1,6})([smhdw])")
_WORD: Final = re.compile(r'(?:([A-Za-z_]+):)?("(?:[^"\\]|\\.)*("?)|\S*)', re.DOTALL)
_PLAIN: Final = re.compile(r'[^\s"]\S*')
_PLAIN_TEXT: Final = re.compile(r'(?![A-Za-z_]+:)[^\s"]\S*(?: (?![A-Za-z_]+:)[^\s"]\S*)*')
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Completion:
    """What the last word of a search could become: put one of ``words`` in its place, which begins at ``start``."""

    start: int
    words: tuple[str, ...]


def parse_search(text: str, *, now: int) -> Filter:
    """The filter that a search means; ``now`` (Unix µs) is what ``since:2h`` and ``until:30m`` count back from.

    Raises InvalidQuery, with the word in its message and ``search`` as its parameter, for a key that is not known, a key
    without a value or given twice where one value is all there can be, a value that its filter does not take, quotation
    marks left open, and a ``since`` after the ``until``.
    """
    pairs: list[tuple[str, str]] = []
    texts: list[str] = []
    seen: set[str] = set()
    for word in _words(text):
        if not word.closed:
            raise _refused(word, "a quotation mark is not closed")
        if word.key is None:
            texts.append(word.value)
            continue
        for name, value in _conditions(word, now):
            if name in seen and name not in REPEATABLE:
                raise _refused(word, "there is another condition on the same field", hint="leave one of them out")
            seen.add(name)
            pairs.append((name, value))
            try:
                parse_filter([(name, value)])
            except InvalidQuery as error:
                raise _refused(word, error.message, hint=error.hint) from None
    if q := " ".join(texts):
        pairs.append(("q", q))
    try:
        return parse_filter(pairs)
    except InvalidQuery as error:
        message = error.message.replace("start_date", "since").replace("end_date", "until")
        raise InvalidQuery(message.replace("q is", "the text is"), parameter="search", hint=error.hint) from None


def filter_as_search(filter: Filter) -> str:
    """The search that means ``filter``; ``parse_search`` reads it back to an equal one."""
    params = filter_as_params(filter)
    params.pop("q", None)
    kind, thing = params.pop("resource_type", None), params.pop("resource_id", None)
    words: list[str] = []
    for key, name in KEYS.items():
        if key == "resource":
            words += _resource(filter.resource_type, filter.resource_id) if kind or thing else []
        elif name in ("start_date", "end_date"):
            if (at := filter.start if key == "since" else filter.end) is not None:
                words.append(f"{key}:{_when(within_years(at), last=key == 'until')}")
        elif name in params:
            values = params[name]
            words += [f"{key}:{_quoted(value)}" for value in ([values] if isinstance(values, str) else values)]
    if filter.q:
        words.append(filter.q if _PLAIN_TEXT.fullmatch(filter.q) else _in_quotes(filter.q))
    return " ".join(words)


def complete(text: str, known: Mapping[str, Iterable[str]] | None = None) -> Completion:
    """How the last word of ``text`` could go on: keys, statuses, event types, spans of time, what begins the same.

    ``known`` adds values, in the order in which they are to be offered, to keys: those of the facets, say.
    """
    words = list(_words(text))
    if not words or words[-1].end < len(text):
        return Completion(len(text), tuple(f"{key}:" for key in KEYS))
    last = words[-1]
    if last.key is None:
        begun = last.value.lower()
        return Completion(last.start, tuple(f"{key}:" for key in KEYS if key.startswith(begun)))
    key = last.key.lower()
    values: dict[str, None] = dict.fromkeys((known or {}).get(key, ()))
    values |= dict.fromkeys(
        {
            "status": STATUSES,
            "type": sorted(event_types()),
            "since": ("15m", "1h", "24h", "7d", "30d"),
        }.get(key, ())
    )
    begun = last.value.lower()
    fitting = (value for value in values if value.lower().startswith(begun) and value != last.value)
    return Completion(last.start, tuple(f"{key}:{_quoted(value)}" for value in fitting))


class _Word(NamedTuple):
    """``key`` is None for text; ``closed`` is false when a quotation mark is missing."""

    start: int
    end: int
    raw: str
    key: str | None
    value: str
    closed: bool


def _words(text: str) -> Iterator[_Word]:
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _WORD.match(text, at)
        assert match is not None, "the expression matches every text"
        key, value, mark = match.groups()
        closed = True
        if value.startswith('"'):
            closed = bool(mark) and (match.end() == len(text) or text[match.end()].isspace())
            value = _ESCAPED.sub(r"\1", value[1:-1] if mark else value[1:])
        yield _Word(at, match.end(), match[0], key, value, closed)
        at = match.end()


def _conditions(word: _Word, now: int) -> list[tuple[str, str]]:
    key = (word.key or "").lower()
    if key not in _NAMES:
        close = difflib.get_close_matches(key[:64], KEYS, 1)
        hint = f"did you mean {close[0]}:? " if close else f"keys are {', '.join(KEYS)}; "
        raise _refused(
            word, f"unknown key {key[:64]!r}", hint=f'{hint}to search for the text, put it in "quotation marks"'
        )
    if not word.value:
        raise _refused(word, "nothing comes after the colon")
    if key == "resource":
        kind, slash, thing = word.value.partition("/")
        if slash and not thing:
            raise _refused(word, "nothing comes after the slash")
        return [pair for pair in (("resource_type", kind), ("resource_id", thing)) if pair[1]]
    name = _NAMES[key]
    if name in ("start_date", "end_date") and (ago := _AGO.fullmatch(word.value)):
        return [(name, rfc3339(within_years(now - int(ago[1]) * _UNITS[ago[2]])))]
    return [(name, word.value)]


def _refused(word: _Word, why: str, *, hint: str = "") -> InvalidQuery:
    return InvalidQuery(f"{word.raw[:80]}: {why}", parameter="search", hint=hint)


def _resource(kind: str | None, thing: str | None) -> list[str]:
    if kind and "/" in kind:
        return [f"resource_type:{_quoted(kind)}", *([f"resource_id:{_quoted(thing)}"] if thing else [])]
    return [f"resource:{_quoted((kind or '') + (f'/{thing}' if thing else ''))}"]


def _when(us: int, *, last: bool) -> str:
    """A time as short as it can be written: a date where it is the first, or with ``last`` the last, moment of a day."""
    text = rfc3339(us)
    if (us + last) % DAY == 0:
        return text[:10]
    return text.replace(".000000Z", "Z")


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else _in_quotes(value)


def _in_quotes(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
