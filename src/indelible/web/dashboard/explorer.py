"""The explorer: a search, what matches, how it divides, and everything of it as a file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Response

from indelible.errors import InvalidQuery
from indelible.ports import Page, Store
from indelible.queries import (
    REPEATABLE,
    Facets,
    Filter,
    Query,
    complete,
    encode_cursor,
    filter_as_params,
)
from indelible.queries.search import KEYS
from indelible.web.dashboard import words
from indelible.web.dashboard.asking import COLUMNS, View, look
from indelible.web.dashboard.site import link, render
from indelible.web.exporting import exported, parse_wish
from indelible.web.reading import SEARCH_BUDGET, Reading

#: Rows on a page.
ROWS: Final = 50
#: How long counting for the facets may take, in seconds: what it has counted by then is shown, and said to be a part.
FACETS_BUDGET: Final = 0.1
#: Values shown of each facet, and offered by the search bar.
VALUES: Final = 8
OFFERED: Final = 50
#: Facets in the order they stand in: field of the filter → heading.
HEADINGS: Final[Mapping[str, str]] = {
    "status": "Outcome",
    "event_type": "Event type",
    "user_id": "User",
    "ip_address": "Address",
    "resource_type": "Resource type",
    "action": "Action",
}
_KEY_OF: Final = {name: key for key, name in KEYS.items()}


@dataclass(frozen=True, slots=True)
class Choice:
    """A value of a facet: how many have it, where a click leads, and whether it is one of the conditions now."""

    value: str
    count: int
    href: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What the store answered. ``facets`` is None where only further rows were asked for."""

    page: Page
    size: int
    facets: Facets | None


async def page(reading: Reading) -> Response:
    """A page of what matches. With a cursor, asked by htmx, the rows alone: they go below those that are there."""
    request = reading.request
    try:
        view = look(request.query_params.multi_items(), words.utc_now())
    except InvalidQuery as error:
        text = request.query_params.get("q", "")
        return render(
            request, "mistake.html", status=422, here="explorer", problem=error, text=text, completions=_words()
        )
    more = view.cursor is not None and "hx-request" in request.headers
    found = await reading.ask(_load, reading.store, view, more=more)
    asked: dict[str, object] = dict(filter_as_params(view.filter))
    if view.cursor is not None:
        asked["after_seq"] = view.cursor.seq
    reading.record("audit.read", "read", filters=asked, rows=len(found.page.rows))
    cursor = found.page.next_cursor
    following = cursor and encode_cursor(cursor, sort_by="timestamp", descending=view.descending)
    listed: dict[str, Any] = {
        "view": view,
        "columns": view.columns,
        "headings": COLUMNS,
        "rows": found.page.rows,
        "complete": found.page.complete,
        "next": following and link("events", **view.params(cursor=following)),
    }
    if found.facets is None:
        return render(request, "rows.html", **listed)
    return render(
        request,
        "explorer.html",
        here="explorer",
        range_q=view.range,
        text=view.text,
        size=found.size,
        facets=[*_facets(view, found.facets)],
        total=found.facets.rows,
        total_is_exact=found.facets.exact,
        conditions=[*_conditions(view)],
        range_href=view.anytime(),
        completions=_words(found.facets),
        problem=None,
        **listed,
    )


async def export(reading: Reading) -> Response:
    """Everything that matches what is shown, as a file."""

    def parse(params: list[tuple[str, str]]) -> Filter:
        return look(params, words.utc_now()).filter

    wanted = reading.parsed(parse)
    return await exported(reading, wanted, reading.parsed(parse_wish))


def _load(store: Store, view: View, *, more: bool) -> Found:
    query = Query(filter=view.filter, descending=view.descending, page_size=ROWS, cursor=view.cursor)
    # Looked at before the page, so that a tail that goes on from there leaves nothing out.
    head = store.head()
    page = store.page(query, budget=SEARCH_BUDGET if view.filter.searches else None)
    return Found(
        page, 0 if head is None else head.size, None if more else store.facets(view.filter, budget=FACETS_BUDGET)
    )


def _facets(view: View, facets: Facets) -> Iterator[tuple[str, str, Sequence[Choice], int]]:
    """Each facet: field, heading, the most frequent values, how many others there are."""
    for field, heading in HEADINGS.items():
        counts = facets.counts[field]
        chosen = getattr(view.filter, field) or ()
        chosen = chosen if isinstance(chosen, tuple) else (chosen,)
        values = [*dict.fromkeys([*chosen, *counts])][: max(VALUES, len(chosen))]
        choices = [Choice(v, counts.get(v, 0), view.toggled(field, v), v in chosen) for v in values]
        yield field, heading, choices, max(0, len(counts) - len(choices))


def _conditions(view: View) -> Iterator[tuple[str, str, str]]:
    """Each condition but the range: its key, its value, and the explorer without it."""
    for field in (*REPEATABLE, "resource_type", "resource_id", "correlation_id", "q"):
        present = getattr(view.filter, field)
        for value in present if isinstance(present, tuple) else [present] if present else []:
            yield _KEY_OF.get(field, "text" if field == "q" else field), value, view.toggled(field, value)


def _words(facets: Facets | None = None) -> list[str]:
    """What the search bar can offer: the keys, and the values that the vocabulary and the facets have for them."""
    counts = {} if facets is None else facets.counts
    known = {key: [*itertools.islice(counts[name], OFFERED)] for key, name in KEYS.items() if name in counts}
    return [word for key in KEYS for word in (f"{key}:", *complete(f"{key}:", known).words)]
