"""One request that reads the log: who asks, what for, and the event that must be accepted before it is answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar
from uuid import UUID

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool

from indelible import context
from indelible.errors import InvalidQuery, NotAccepted, StoreError
from indelible.ports import Store
from indelible.redaction import Redactor
from indelible.service import AuditService

log: Final = logging.getLogger("indelible.web")
#: What a 503 tells the caller to wait, in seconds.
RETRY_AFTER: Final = "5"
#: How long a search for text or networks may take, in seconds.
SEARCH_BUDGET: Final = 2.0
_redactor: Final = Redactor()
P = ParamSpec("P")
R = TypeVar("R")


async def started() -> int:
    """``perf_counter_ns`` when a request came. Whoever is turned away then has tried to read the log: its event says so."""
    context.enrich(resource_type="audit_log")
    return time.perf_counter_ns()


@dataclass(frozen=True, slots=True)
class Reading:
    """``principal`` is what the host's ``require_admin`` returned; ``started`` is ``perf_counter_ns`` before it ran."""

    request: Request
    service: AuditService
    principal: object
    started: int

    @property
    def store(self) -> Store:
        """The store to ask; its methods block, so through ``ask``."""
        return self.service.store

    async def ask(self, question: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a method of the store in a worker thread; 503 if the store cannot answer."""
        try:
            return await run_in_threadpool(question, *args, **kwargs)
        except StoreError as error:
            log.warning("the audit log could not be read: %s", error)
            raise _unavailable("the audit log cannot be read at the moment") from None

    def parsed(self, parse: Callable[[list[tuple[str, str]]], R]) -> R:
        """The request's parameters as ``parse`` understands them; 422 in FastAPI's form if it does not."""
        try:
            return parse(self.request.query_params.multi_items())
        except InvalidQuery as error:
            raise RequestValidationError(
                [{"type": "invalid_query", "loc": ("query", error.parameter), "msg": str(error)}]
            ) from None

    def record(
        self, event_type: str, action: str, *, filters: Mapping[str, object], rows: int, resource_id: UUID | None = None
    ) -> UUID:
        """Put the reading itself into the log, the request's one event, and return its id. 503 if it is not accepted.

        Whoever calls this MUST NOT send anything of the log before it has returned.
        """
        request, bound = self.request, context.current()
        own = context.current_request()
        fields: dict[str, Any] = {
            "user_id": _id_of(self.principal),
            "metadata": {**(own.metadata if own else {}), "filters": filters, "rows": rows},
        }
        if "ip_address" not in bound:
            # Served without the middleware: nothing vouches for a forwarded address, so only the peer's counts.
            fields["ip_address"] = request.client.host if request.client else None
            fields["user_agent"] = request.headers.get("user-agent")
        try:
            event_id = self.service.record(
                must=True,
                event_type=event_type,
                action=action,
                resource_type="audit_log",
                resource_id=resource_id,
                request_method=request.method,
                request_path=_redactor.target(request.url.path, request.url.query),
                response_status=200,
                duration_us=(time.perf_counter_ns() - self.started) // 1000,
                **fields,
            )
        except NotAccepted as error:
            log.error("the audit log was not read because the reading could not be recorded: %s", error)
            raise _unavailable("reading the audit log cannot be recorded at the moment") from None
        if own is not None:
            own.recorded = True
        return event_id


def _id_of(principal: object) -> object:
    if isinstance(principal, bool):
        return None  # an answer to the question, not a person
    if isinstance(principal, str | int | UUID):
        return principal
    if isinstance(principal, Mapping):
        return principal.get("id") or principal.get("sub")
    return getattr(principal, "id", None)


def _unavailable(why: str) -> HTTPException:
    return HTTPException(503, why, headers={"Retry-After": RETRY_AFTER, "Cache-Control": "no-store"})
