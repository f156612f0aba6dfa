"""Questions as (name, value) pairs: the parameters of a URL and the options of a command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from indelible.errors import InvalidQuery
from indelible.events import rfc3339
from indelible.queries.addresses import canonical_address, network
from indelible.queries.cursors import decode_cursor
from indelible.queries.moments import parse_moment, within_years
from indelible.queries.values import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, SORT_FIELDS, Filter, Query
from indelible.taxonomy import STATUSES

#: Every filter by its name in a URL; the repeatable ones mean "any of".
REPEATABLE: Final[tuple[str, ...]] = ("event_type", "user_id", "status", "ip_address", "action")
FILTERS: Final[tuple[str, ...]] = (
    *REPEATABLE,
    "resource_type",
    "resource_id",
    "correlation_id",
    "start_date",
    "end_date",
    "q",
)
#: What ``parse_query`` knows: the filters and how to page and sort.
PARAMETERS: Final[tuple[str, ...]] = (*FILTERS, "page", "page_size", "cursor", "sort_by", "sort_order")
#: How often one parameter may be repeated, how long a searched text, a cursor and a page number may be.
MAX_VALUES: Final = 100
MAX_SEARCH: Final = 256
MAX_PAGE: Final = 1_000_000_000


def parse_query(params: Iterable[tuple[str, str]]) -> Query:
    """The page asked for by (name, value) pairs in the order they came, names as in ``PARAMETERS``.

    Raises InvalidQuery, which names the parameter, for anything that could be a mistake: an unknown or empty parameter,
    a repeated one that takes a single value, a bad date, ``start_date`` after ``end_date``, a number out of range, an
    unknown status, sort field or order, a cursor beside a page number, or one that is forged or of another order.
    """
    given = _collect(params, PARAMETERS)
    page = _number(given, "page", 1, MAX_PAGE)
    sort_by = _choice(given, "sort_by", SORT_FIELDS, "timestamp")
    descending = _choice(given, "sort_order", ("desc", "asc"), "desc") == "desc"
    cursor = None
    if "cursor" in given:
        if "page" in given:
            raise InvalidQuery("cursor and page exclude each other", parameter="cursor", hint="leave one of them out")
        cursor = decode_cursor(given["cursor"][0], sort_by=sort_by, descending=descending)
    return Query(
        filter=_filter(given),
        sort_by=sort_by,
        descending=descending,
        page=page,
        page_size=_number(given, "page_size", DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE),
        cursor=cursor,
    )


def parse_filter(params: Iterable[tuple[str, str]], *, allowed: Collection[str] = FILTERS) -> Filter:
    """The filter alone, for exports and statistics; ``allowed`` narrows which of ``FILTERS`` may be given.

    Raises InvalidQuery as ``parse_query`` does.
    """
    return _filter(_collect(params, allowed))


def filter_as_params(filter: Filter) -> dict[str, str | list[str]]:
    """What is set in ``filter``, under the names of a URL: lists for the repeatable ones, times in RFC 3339.

    ``parse_filter`` reads it back to an equal filter.
    """
    params: dict[str, str | list[str]] = {}
    for name in FILTERS:
        if name in ("start_date", "end_date"):
            at = filter.start if name == "start_date" else filter.end
            if at is not None:
                params[name] = rfc3339(within_years(at))
        elif value := getattr(filter, name):
            params[name] = list(value) if name in REPEATABLE else value
    return params


def _collect(params: Iterable[tuple[str, str]], allowed: Collection[str]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for name, value in params:
        if name not in allowed:
            close = difflib.get_close_matches(name[:64], allowed, 1)
            known = "known are " + ", ".join(allowed) if allowed else "leave it out"
            hint = f"did you mean {close[0]}?" if close else known
            raise InvalidQuery(f"unknown parameter {name[:64]!r}", parameter=name[:64], hint=hint)
        if not value:
            raise InvalidQuery(f"{name} is empty", parameter=name, hint="leave it out to ask for any")
        values = given.setdefault(name, [])
        values.append(value)
        if len(values) > (limit := MAX_VALUES if name in REPEATABLE else 1):
            raise InvalidQuery(
                f"{name} is given more than {'once' if limit == 1 else f'{limit} times'}", parameter=name
            )
    return given


def _filter(given: Mapping[str, list[str]]) -> Filter:
    def several(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(given.get(name, ())))

    def one(name: str) -> str | None:
        return given[name][0] if name in given else None

    for status in several("status"):
        _check_choice("status", status, STATUSES)
    start, end, q = one("start_date"), one("end_date"), one("q")
    first = None if start is None else parse_moment(start, parameter="start_date")
    last = None if end is None else parse_moment(end, parameter="end_date", whole_day=True)
    if first is not None and last is not None and first > last:
        raise InvalidQuery("start_date is after end_date", parameter="start_date")
    if q is not None and len(q) > MAX_SEARCH:
        raise InvalidQuery(f"q is longer than {MAX_SEARCH} characters", parameter="q")
    addresses = several("ip_address")
    for address in addresses:
        _check_network(address)
    return Filter(
        event_type=several("event_type"),
        user_id=several("user_id"),
        status=several("status"),
        ip_address=tuple(dict.fromkeys(map(canonical_address, addresses))),
        action=several("action"),
        resource_type=one("resource_type"),
        resource_id=one("resource_id"),
        correlation_id=one("correlation_id"),
        start=first,
        end=last,
        q=q,
    )


def _check_network(text: str) -> None:
    address, slash, _ = text.partition("/")
    # An address before the slash: a network was meant, and what is none would find nothing.
    if slash and network(text) is None and network(f"{address}/0") is not None:
        hint = "write 10.0.0.0/8 or 2001:db8::/32"
        raise InvalidQuery(f"not a network: {text[:64]!r}", parameter="ip_address", hint=hint)


def _number(given: Mapping[str, list[str]], name: str, default: int, greatest: int) -> int:
    if name not in given:
        return default
    text = given[name][0]
    # int() alone would take "１", "1_0" and " 1 " too.
    if not re.fullmatch("[0-9]{1,10}", text) or not 1 <= int(text) <= greatest:
        raise InvalidQuery(f"{name} is not a number from 1 to {greatest}: {text[:64]!r}", parameter=name)
    return int(text)


def _choice(given: Mapping[str, list[str]], name: str, known: Collection[str], default: str) -> str:
    return _check_choice(name, given[name][0], known) if name in given else default


def _check_choice(name: str, value: str, known: Collection[str]) -> str:
    if value not in known:
        raise InvalidQuery(f"unknown {name}: {value[:64]!r}", parameter=name, hint="use one of " + ", ".join(known))
    return value
