"""The query API: ``app.include_router(audit_router(require_admin=...))``. Reading the log is itself logged."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response
from fastapi.responses import StreamingResponse

from indelible import rendering, runtime
from indelible.ports import Page
from indelible.queries import (
    COUNT_CAP,
    Count,
    Filter,
    Query,
    encode_cursor,
    filter_as_params,
    parse_filter,
    parse_query,
)
from indelible.service import AuditService
from indelible.web.exporting import WISHES, Wish, exported, parse_wish
from indelible.web.health import health_router
from indelible.web.openapi import (
    COMPRESS,
    DATES,
    EXPORTED,
    FILTERS,
    FORMAT,
    PAGING,
    PROBLEMS,
    LogEntry,
    LogPage,
    LogStats,
    Problem,
)
from indelible.web.proofs import add_proofs
from indelible.web.reading import SEARCH_BUDGET, Reading, started

_NO_STORE: Final = {"Cache-Control": "no-store"}


def audit_router(
    *,
    require_admin: Callable[..., Any],
    prefix: str = "/api/audit",
    service: AuditService | Callable[[], AuditService] | None = None,
) -> APIRouter:
    """The routes ``/logs``, ``/logs/{log_id}``, ``/stats``, ``/export``, ``/health`` and those of proofs below ``prefix``.

    ``require_admin`` is a FastAPI dependency that raises 401 or 403 for everybody who may not read the log; what it
    returns (something with an ``id``, a mapping with ``id`` or ``sub``, or the id) names the reader. ``service``, or a
    function that gives it when it is needed, defaults to the process's own. Each answer is recorded as one
    ``audit.read`` or ``audit.exported`` event first; if that is not accepted, or the store cannot answer, the request
    gets 503.
    """
    of = runtime.getter(service)
    timer = Depends(started)
    admin = Depends(require_admin)

    def asking(request: Request, begun: int = timer, principal: Any = admin) -> Reading:
        return Reading(request, of(), principal, begun)

    # The timer stands before the host's dependency, which may take a while; FastAPI solves each of them once.
    router = APIRouter(prefix=prefix, tags=["audit"], dependencies=[timer, admin], responses=PROBLEMS)
    reading: Any = Depends(asking)

    @router.get("/logs", response_model=LogPage, openapi_extra=_parameters(*FILTERS, *PAGING))
    async def list_audit_logs(reading: Reading = reading) -> Response:
        """List events, newest first unless sorted otherwise. Conditions on different fields must all hold."""
        return await _list(reading)

    @router.get(
        "/logs/{log_id}", response_model=LogEntry, responses={404: {"model": Problem, "description": "No such event."}}
    )
    async def get_audit_log(
        log_id: Annotated[UUID, Path(description="The event's id.")], reading: Reading = reading
    ) -> Response:
        """One event."""
        return await _get(reading, log_id)

    @router.get("/stats", response_model=LogStats, openapi_extra=_parameters(*DATES))
    async def get_audit_stats(reading: Reading = reading) -> Response:
        """What happened, counted: by type, outcome, user, address and time."""
        return await _stats(reading)

    @router.get(
        "/export",
        response_class=StreamingResponse,
        responses=EXPORTED,
        openapi_extra=_parameters(*FILTERS, FORMAT, COMPRESS),
    )
    async def export_audit_logs(reading: Reading = reading) -> Response:
        """Every event that matches and was stored when the request came, oldest first, as a file."""
        return await _export(reading)

    add_proofs(router, reading)
    whole = APIRouter()
    whole.include_router(router)
    whole.include_router(health_router(require_admin=require_admin, prefix=prefix, service=service))
    return whole


async def _list(reading: Reading) -> Response:
    query = reading.parsed(parse_query)
    store = reading.store
    page = await reading.ask(store.page, query, budget=SEARCH_BUDGET if query.filter.searches else None)
    if not query.filter.searches:
        total = await reading.ask(store.count, query.filter, cap=COUNT_CAP)
    else:
        # Counting a search would cost as much as the longest one: what has been seen must do.
        total = _seen(query, page)
    reading.record("audit.read", "read", filters=_asked(query), rows=len(page.rows))
    cursor = page.next_cursor
    return _json(
        {
            "logs": [rendering.as_json(row) for row in page.rows],
            "total": total.value,
            "total_is_exact": total.exact,
            "page": query.page,
            "page_size": query.page_size,
            "total_pages": -(-total.value // query.page_size),
            "next_cursor": cursor and encode_cursor(cursor, sort_by=query.sort_by, descending=query.descending),
            "complete": page.complete,
        }
    )


async def _get(reading: Reading, log_id: UUID) -> Response:
    reading.parsed(functools.partial(parse_filter, allowed=()))
    event = await reading.ask(reading.store.get, log_id)
    if event is None:
        raise HTTPException(404, "no such event", headers=_NO_STORE)
    reading.record("audit.read", "read", filters={}, rows=1, resource_id=log_id)
    return _json(rendering.as_json(event))


async def _stats(reading: Reading) -> Response:
    wanted = reading.parsed(functools.partial(parse_filter, allowed=("start_date", "end_date")))
    stats = await reading.ask(reading.store.stats, wanted)
    reading.record("audit.read", "read", filters=filter_as_params(wanted), rows=stats.total_events)
    return _json(rendering.stats_as_json(stats))


async def _export(reading: Reading) -> Response:
    wanted, wish = reading.parsed(_parse_export)
    return await exported(reading, wanted, wish)


def _parse_export(params: list[tuple[str, str]]) -> tuple[Filter, Wish]:
    return parse_filter([pair for pair in params if pair[0] not in WISHES]), parse_wish(params)


def _seen(query: Query, page: Page) -> Count:
    before = (query.page - 1) * query.page_size if page.rows and query.cursor is None else 0
    exact = page.complete and page.next_cursor is None and query.cursor is None and (query.page == 1 or before > 0)
    return Count(before + len(page.rows) + (page.next_cursor is not None), exact)


def _asked(query: Query) -> dict[str, object]:
    """The filters, and what else was not left at its default."""
    asked: dict[str, object] = dict(filter_as_params(query.filter))
    default = Query()
    if query.page != default.page:
        asked["page"] = query.page
    if query.page_size != default.page_size:
        asked["page_size"] = query.page_size
    if (query.sort_by, query.descending) != (default.sort_by, default.descending):
        asked |= {"sort_by": query.sort_by, "sort_order": "desc" if query.descending else "asc"}
    if query.cursor is not None:
        asked["after_seq"] = query.cursor.seq
    return asked


def _parameters(*parameters: dict[str, Any]) -> dict[str, Any]:
    return {"parameters": list(parameters)}


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json", headers=_NO_STORE)
