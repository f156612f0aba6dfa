"""How the log is, for whoever watches: one word for everybody, the reasons for admins. Neither is a reading of the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from indelible import context, runtime
from indelible.health import Health
from indelible.service import AuditService
from indelible.web.openapi import PROBLEMS

_NO_STORE: Final = {"Cache-Control": "no-store"}


class LogHealth(BaseModel):
    """One word."""

    status: Literal["ok", "degraded", "failing"] = Field(
        description="`ok`; `degraded`: nothing is lost, but somebody should look; `failing`: events are not kept."
    )


class LogHealthReasons(LogHealth):
    """The word and what is behind it."""

    reasons: list[str] = Field(description="A sentence for each thing that is not as it should be, the worst first.")


def health_router(
    *, require_admin: Callable[..., Any], prefix: str, service: AuditService | Callable[[], AuditService] | None = None
) -> APIRouter:
    """The routes ``/health`` (no sign-in) and ``/health/reasons`` (admins) below ``prefix``; part of ``audit_router``."""
    of = runtime.getter(service)
    router = APIRouter(prefix=prefix, tags=["audit"])
    failing: dict[int | str, dict[str, Any]] = {503: {"model": LogHealth, "description": "Events are not kept."}}

    async def assessed(response: Response) -> Health:
        health = await run_in_threadpool(of().health)
        response.status_code = 503 if health.state == "failing" else 200
        response.headers.update(_NO_STORE)
        return health

    @router.get("/health", response_model=LogHealth, responses=failing)
    async def get_audit_health(response: Response) -> LogHealth:
        """Whether events are kept and reach the store: 200 for `ok` and `degraded`, 503 for `failing`."""
        if (own := context.current_request()) is not None:
            own.recorded = True  # asked every few seconds, and nothing of the log is shown
        return LogHealth(status=(await assessed(response)).state)

    @router.get(
        "/health/reasons",
        response_model=LogHealthReasons,
        responses={**PROBLEMS, **failing},
        dependencies=[Depends(require_admin)],
    )
    async def get_audit_health_reasons(response: Response) -> LogHealthReasons:
        """The same with the reasons."""
        if (own := context.current_request()) is not None:
            own.recorded = True
        health = await assessed(response)
        return LogHealthReasons(status=health.state, reasons=list(health.reasons))

    return router
