"""What a page is asked for, as its address says it: the search, the columns, the order, the place in the list."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from indelible.errors import InvalidQuery
from indelible.queries import REPEATABLE, Cursor, Filter, decode_cursor, filter_as_search, parse_search
from indelible.web.dashboard.site import link

#: The columns of a list of events, in the order they stand in: key → heading.
COLUMNS: Final[dict[str, str]] = {
    "time": "Time",
    "status": "Outcome",
    "event": "Event",
    "user": "User",
    "resource": "Resource",
    "address": "Address",
    "request": "Request",
    "response": "Code",
    "duration": "Took",
    "action": "Action",
    "agent": "Client",
    "correlation": "Correlation",
    "source": "Source",
    "error": "Error",
    "position": "Position",
}
SHOWN: Final = ("time", "status", "event", "user", "resource", "address", "request")
#: Longer searches are refused before anybody looks at them.
MAX_TEXT: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A list of events as somebody looks at it. Its address says all of it, so that a link shows another the same.

    ``range`` is the search's range of time alone, as a search: what links carry from page to page.
    """

    text: str = ""
    filter: Filter = field(default_factory=Filter)
    range: str = ""
    columns: tuple[str, ...] = SHOWN
    descending: bool = True
    cursor: Cursor | None = None

    def params(self, **changes: object) -> dict[str, object]:
        """The parameters of its address; the defaults are left out, and the place in the list."""
        given: dict[str, object] = {
            "q": self.text,
            "columns": None if self.columns == SHOWN else ",".join(self.columns),
            "order": None if self.descending else "asc",
        }
        return given | changes

    def anytime(self) -> str:
        """The explorer with the same conditions at any time."""
        return link("events", **self.params(q=filter_as_search(replace(self.filter, start=None, end=None))))

    def toggled(self, name: str, value: str) -> str:
        """The explorer with one condition more, or with it taken away where it is one of them."""
        present = getattr(self.filter, name)
        if value != present and value not in (present or ()):
            # Added to what was typed, which may hold a span that counts back from now.
            added = narrowed(Filter(), name, (value,) if name in REPEATABLE else value)
            return link("events", **self.params(q=f"{self.text} {filter_as_search(added)}".strip()))
        rest = tuple(each for each in present if each != value) if name in REPEATABLE else None
        return link("events", **self.params(q=filter_as_search(narrowed(self.filter, name, rest))))


def look(params: list[tuple[str, str]], now: int) -> View:
    """The view that these parameters describe. Raises InvalidQuery, which names the parameter."""
    given: dict[str, list[str]] = {}
    for name, value in params:
        if name not in ("q", "columns", "order", "cursor", "format"):
            raise InvalidQuery(f"unknown parameter {name[:64]!r}", parameter=name[:64])
        given.setdefault(name, []).append(value)
    order = _only(given, "order") or "desc"
    if order not in ("asc", "desc"):
        raise InvalidQuery("order is asc or desc", parameter="order")
    text = _only(given, "q").strip()
    if len(text) > MAX_TEXT:
        raise InvalidQuery(f"the search is longer than {MAX_TEXT} characters", parameter="q")
    cursor = _only(given, "cursor")
    wanted = parse_search(text, now=now)
    return View(
        text=text,
        filter=wanted,
        range=_range(text, wanted, now),
        columns=_columns(given.get("columns", [])),
        descending=order == "desc",
        cursor=decode_cursor(cursor, sort_by="timestamp", descending=order == "desc") if cursor else None,
    )


def narrowed(filter: Filter, name: str, value: object) -> Filter:
    """The conditions with another value for one of them."""
    changes: dict[str, Any] = {name: value}
    return replace(filter, **changes)


def explore(filter: Filter) -> str:
    """The explorer's address for these conditions."""
    return link("events", q=filter_as_search(filter))


def range_of(filter: Filter) -> Filter:
    """Its range of time alone: what the overview can answer."""
    return Filter(start=filter.start, end=filter.end)


def _range(text: str, filter: Filter, now: int) -> str:
    """The words of a search that say its range, as they were typed where that is possible."""
    words = " ".join(word for word in text.split() if word.lower().startswith(("since:", "until:")))
    try:
        if parse_search(words, now=now) == range_of(filter):
            return words
    except InvalidQuery:
        pass  # half of a value in quotation marks
    return filter_as_search(range_of(filter))


def _only(given: dict[str, list[str]], name: str) -> str:
    values = given.get(name, [""])
    if len(values) > 1:
        raise InvalidQuery(f"{name} is given more than once", parameter=name)
    return values[0]


def _columns(given: list[str]) -> tuple[str, ...]:
    wanted = {key for text in given for key in text.split(",") if key}
    for key in wanted:
        if key not in COLUMNS:
            raise InvalidQuery(f"there is no column {key[:64]!r}", parameter="columns")
    return tuple(key for key in COLUMNS if key in wanted) or SHOWN
