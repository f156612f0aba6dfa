"""``tail``: the newest events, and those that come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from indelible import queries, rendering
from indelible.cli import options as o
from indelible.cli.output import STYLES, cell, clock, console, note, put_json, resource
from indelible.cli.reading import Reading, reading
from indelible.errors import InvalidQuery, StoreUnavailable
from indelible.events import StoredEvent

if TYPE_CHECKING:
    from indelible.tailing import Tail

EPILOG: Final = o.examples(
    "indelible tail",
    "indelible tail -f 'status:denied ip:10.0.0.0/8'",
    "indelible tail -f --event-type login_failed --json | jq .user_id",
)


def tail(
    ctx: typer.Context,
    search: Annotated[
        str | None,
        typer.Argument(
            metavar="SEARCH",
            help="What to show, in the search language, as 'user:alice since:2h'. Instead of filters.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", metavar="", help="Go on with what is stored from now on, until Ctrl-C.")
    ] = False,
    newest: Annotated[
        int,
        typer.Option(
            "--newest", "-n", metavar="N", min=1, max=queries.MAX_PAGE_SIZE, help="Begin with so many events."
        ),
    ] = 10,
    event_type: o.EventTypes = None,
    user_id: o.UserIds = None,
    status: o.Statuses = None,
    ip_address: o.IpAddresses = None,
    resource_type: o.ResourceType = None,
    resource_id: o.ResourceId = None,
    correlation_id: o.CorrelationId = None,
    start_date: o.StartDate = None,
    end_date: o.EndDate = None,
    action: o.Actions = None,
    q: o.Search = None,
    as_json: o.AsJson = False,
) -> None:
    """Show the newest events that match, oldest first, and with --follow each further one as it is stored.

    The reading is recorded when it begins, again with the events of every further minute, and when it ends.
    """
    from indelible.tailing import Tail

    given = o.asked(ctx.params)
    if search is not None and given:
        raise InvalidQuery(
            "a search and filters exclude each other", parameter="search", hint="write all of it as a search"
        )
    wanted = queries.parse_filter(given) if search is None else queries.parse_search(search, now=time.time_ns() // 1000)
    with reading(ctx.obj, "tail") as log:
        following = Tail(log.store, wanted, partial(_record, log, wanted, follow))
        show: Callable[[Sequence[StoredEvent]], None] = _show_json if as_json else _show
        try:
            show(following.newest(newest))
            if follow:
                _follow(following, show)
        except KeyboardInterrupt:
            if not follow:
                raise
        finally:
            following.close()


def _record(log: Reading, wanted: queries.Filter, follow: bool, rows: int) -> UUID:
    return log.record("audit.read", wanted, rows, follow=follow)


def _follow(following: Tail, show: Callable[[Sequence[StoredEvent]], None]) -> None:
    """Show what comes, for ever."""
    from indelible.tailing import POLL_INTERVAL

    away = False
    while True:
        try:
            rows, away = following.more(), False
        except StoreUnavailable as error:
            if not away:
                note(f"the log cannot be read at the moment, trying again: {error.message}")
            rows, away = (), True
        if rows:
            show(rows)
        else:
            time.sleep(POLL_INTERVAL)


def _show_json(events: Sequence[StoredEvent]) -> None:
    for event in events:
        put_json(rendering.as_json(event))
    sys.stdout.flush()


def _show(events: Sequence[StoredEvent]) -> None:
    """A line for each event. The columns are as wide as what usually stands in them: nobody knows what will come."""
    out = console()
    for event in events:
        line = cell(f"{event.seq:>7}  {clock(event.timestamp)}  {event.event_type:<17}  ")
        line.append_text(cell(f"{event.status:<7}", STYLES.get(event.status, "")))
        line.append_text(
            cell(f"  {event.user_id or '-':<20}  {event.ip_address or '-':<15}  {event.action}  {resource(event)}")
        )
        out.print(line, soft_wrap=True)
    sys.stdout.flush()
