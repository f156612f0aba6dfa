"""The dashboard's routes. Each page somebody opens is one ``audit.read`` event, recorded before it is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from indelible import runtime
from indelible.errors import ConfigurationError
from indelible.service import AuditService
from indelible.web.dashboard import assets, event, explorer, integrity, live, overview, subject
from indelible.web.dashboard.site import PageRoute, check_same_origin
from indelible.web.reading import Reading, started


def audit_dashboard(  # noqa: C901 - one nested function for each page
    *,
    require_admin: Callable[..., Any],
    prefix: str = "/audit",
    service: AuditService | Callable[[], AuditService] | None = None,
    sign_out: str | None = None,
) -> APIRouter:
    """The pages for people who read the log, below ``prefix``: overview, explorer, one event, one subject, integrity.

    ``require_admin`` is a FastAPI dependency that raises for everybody who may not read the log, as for
    ``audit_router``; for browsers, one that lets a session cookie count and sends who is signed out to sign in
    (``HTTPException(303, headers={"Location": ...})``). ``service``, or a function that gives it when it is needed,
    defaults to the process's own. ``sign_out`` is the address, from the dashboard's root, to which the button *Sign out*
    posts, for example ``../logout``; without it there is no button.

    Raises ConfigurationError for a prefix that is not of the form ``/audit``.
    """
    if not prefix.startswith("/") or prefix.endswith("/"):
        raise ConfigurationError(f"{prefix!r} is no place for the dashboard", hint="it is of the form /audit")
    of = runtime.getter(service)
    timer, admin = Depends(started), Depends(require_admin)

    async def furnish(request: Request) -> None:
        request.scope["indelible.dashboard"] = {"sign_out": sign_out}

    def asking(request: Request, begun: int = timer, principal: Any = admin) -> Reading:
        return Reading(request, of(), principal, begun)

    # Before the host's dependency: whoever may not read the log must be able to sign out all the same.
    furnished = Depends(furnish)
    pages = APIRouter(prefix=prefix, include_in_schema=False, route_class=PageRoute, dependencies=[furnished])
    reading: Any = Depends(asking)

    @pages.get("")
    async def root(request: Request) -> Response:
        # Relative, so that it holds behind a proxy that has another prefix or another scheme.
        return RedirectResponse(f"{request.url.path.rpartition('/')[2]}/", 307)

    @pages.get("/")
    async def get_overview(reading: Reading = reading) -> Response:
        return await overview.page(reading)

    @pages.get("/events")
    async def get_events(reading: Reading = reading) -> Response:
        return await explorer.page(reading)

    @pages.get("/events/export")
    async def get_export(reading: Reading = reading) -> Response:
        return await explorer.export(reading)

    @pages.get("/events/tail")
    async def get_tail(reading: Reading = reading) -> Response:
        return await live.page(reading)

    @pages.get("/events/{log_id}")
    async def get_event(log_id: UUID, reading: Reading = reading) -> Response:
        return await event.page(reading, log_id)

    @pages.get("/events/{log_id}/evidence.zip")
    async def get_evidence(log_id: UUID, reading: Reading = reading) -> Response:
        return await event.evidence(reading, log_id)

    @pages.get("/subject")
    async def get_subject(reading: Reading = reading) -> Response:
        return await subject.page(reading)

    @pages.get("/integrity")
    async def get_integrity(reading: Reading = reading) -> Response:
        return await integrity.page(reading)

    @pages.post("/integrity/verify", dependencies=[Depends(check_same_origin)])
    async def post_verify(reading: Reading = reading) -> Response:
        return await integrity.verify(reading)

    @pages.get("/static/{digest}/{name}")
    async def get_asset(request: Request, digest: str, name: str) -> Response:
        return await assets.serve(request, digest, name)

    return pages
