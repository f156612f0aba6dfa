"""``query``, ``show`` and ``stats``: questions whose answers fit on a screen."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from indelible import queries, rendering
from indelible.cli import options as o
from indelible.cli.output import STYLES, bar, cell, clock, note, print_table, put, put_csv, put_json, resource, visible
from indelible.cli.reading import Reading, reading
from indelible.errors import InvalidQuery
from indelible.events import JSON_FIELDS, StoredEvent

if TYPE_CHECKING:
    from indelible.ports import Page

QUERY_EPILOG: Final = o.examples(
    "indelible query --event-type login_failed --page-size 20",
    "indelible query --user-id 42 --start-date 2024-01-01 --status failure --status denied",
    "indelible query --q /api/nodes --json | jq .user_id",
)
SHOW_EPILOG: Final = o.examples("indelible show 0197a3c2-5d1e-7c4b-9f3a-2b1c0d9e8f70", "indelible show 1234 --json")
STATS_EPILOG: Final = o.examples("indelible stats", "indelible stats --start-date 2024-01-01 --end-date 2024-01-31")


def query(
    ctx: typer.Context,
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
    page: o.PageNumber = None,
    page_size: o.PageSize = None,
    cursor: o.CursorText = None,
    sort_by: o.SortBy = None,
    sort_order: o.SortOrder = None,
    as_json: o.AsJson = False,
    as_csv: o.AsCsv = False,
) -> None:
    """Show the events that match, newest first, a page at a time.

    The filters are those of GET /api/audit/logs. The table is a summary; --json and --csv have every column.
    """
    _one_form(as_json, as_csv)
    asked = queries.parse_query(o.asked(ctx.params))
    with reading(ctx.obj, "query") as log:
        found = log.store.page(asked)
        total = log.store.count(asked.filter, cap=queries.COUNT_CAP)
        log.record("audit.read", asked.filter, len(found.rows))
        if as_json:
            for event in found.rows:
                put_json(rendering.as_json(event))
        elif as_csv:
            for cells in chain((rendering.csv_header(),), map(rendering.csv_row, found.rows)):
                put_csv(cells)
        else:
            _summary(found.rows)
        _footer(asked, found, total)


def show(
    ctx: typer.Context,
    event: Annotated[
        str, typer.Argument(metavar="ID", help="The event's id, or its number (seq).", show_default=False)
    ],
    as_json: o.AsJson = False,
) -> None:
    """Show one event with all its fields."""
    key = _event_key(event)
    with reading(ctx.obj, "show") as log:
        found = _lookup(log, key)
        log.record("audit.read", queries.Filter(), int(found is not None), event=str(key))
        if found is None:
            note(f"error: no event {key} in this log")
            raise typer.Exit(1)
        if as_json:
            put_json(rendering.as_json(found))
        else:
            _sheet(found)


def stats(
    ctx: typer.Context,
    start_date: o.StartDate = None,
    end_date: o.EndDate = None,
    as_json: o.AsJson = False,
) -> None:
    """Count events by type, status, user, address and time."""
    wanted = queries.parse_filter(o.asked(ctx.params), allowed=("start_date", "end_date"))
    with reading(ctx.obj, "stats") as log:
        found = log.store.stats(wanted)
        log.record("audit.read", wanted, found.total_events)
        if as_json:
            put_json(rendering.stats_as_json(found))
        else:
            _stats_tables(found)


def _one_form(as_json: bool, as_csv: bool) -> None:
    if as_json and as_csv:
        raise InvalidQuery("--json and --csv exclude each other", parameter="csv")


def _event_key(text: str) -> UUID | int:
    if re.fullmatch("[0-9]{1,18}", text):
        return int(text)
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter(f"neither an event's id nor its number: {text[:64]!r}", param_hint="ID") from None


def _lookup(log: Reading, key: UUID | int) -> StoredEvent | None:
    if isinstance(key, UUID):
        return log.store.get(key)
    slices = log.store.scan(queries.Filter(), first=key, end=key + 1)
    return next((event for rows in slices for event in rows), None)


def _summary(rows: Sequence[StoredEvent]) -> None:
    print_table(
        ("SEQ", "TIME", "EVENT", "STATUS", "USER", "IP", "ACTION", "RESOURCE"),
        (
            (
                event.seq,
                clock(event.timestamp),
                event.event_type,
                cell(event.status, STYLES.get(event.status, "")),
                event.user_id,
                event.ip_address,
                event.action,
                resource(event),
            )
            for event in rows
        ),
        right=("SEQ",),
    )


def _footer(asked: queries.Query, found: Page, total: queries.Count) -> None:
    note(f"{len(found.rows)} of {total.value:,}{'' if total.exact else ' or more'} matching events")
    if not found.complete:
        note("the search took too long: there may be more; narrow it with further filters")
    if found.next_cursor is not None:
        text = queries.encode_cursor(found.next_cursor, sort_by=asked.sort_by, descending=asked.descending)
        note(f"next page: --cursor {text}")


def _sheet(event: StoredEvent) -> None:
    shown = rendering.as_json(event)
    width = max(map(len, shown))
    for name, value in shown.items():
        if value is None:
            continue
        text = json.dumps(value, indent=2, ensure_ascii=False) if name in JSON_FIELDS else str(value)
        first, *rest = map(visible, text.split("\n") if name in JSON_FIELDS else [text])
        put(f"{name:<{width}}  {first}\n" + "".join(f"{'':<{width}}  {line}\n" for line in rest))


def _stats_tables(found: queries.Stats) -> None:
    def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))

    put(f"{found.total_events:,} events\n")
    for heading, counts in (
        ("EVENT", by_count(found.event_type_breakdown)),
        ("STATUS", by_count(found.status_breakdown)),
        ("USER", found.top_users),
        ("IP", found.top_ips),
        ("RESOURCE", found.top_resource_types),
        ("TIME", [(clock(start)[:19], count) for start, count in found.events_over_time]),
    ):
        if counts:
            put("\n")
            most = max(count for _, count in counts)
            print_table(
                (heading, "COUNT", ""), ((name, count, bar(count, most)) for name, count in counts), right=("COUNT",)
            )
