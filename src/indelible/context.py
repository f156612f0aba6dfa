"""Who is acting, carried along: from the request to the handler, its threads and its background tasks.

Two context variables and nothing else. ``asyncio.create_task``, ``asyncio.to_thread``, Starlette's background tasks and
the thread pools of the frameworks copy the context by themselves; for a plain thread or executor there is ``carried``.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import Any, Final, ParamSpec, TypeVar, cast

from indelible.taxonomy import check_event_type, check_status

__all__ = ["FIELDS", "Bound", "RequestRecord", "bound", "carried", "current", "current_request", "enrich"]

_log = logging.getLogger("indelible.context")
P = ParamSpec("P")
R = TypeVar("R")

#: What can be bound.
FIELDS: Final = (
    "user_id",
    "on_behalf_of",
    "tenant_id",
    "session_id",
    "correlation_id",
    "ip_address",
    "user_agent",
)
#: What is bound where nobody has bound anything.
NOTHING: Final[Mapping[str, str | None]] = MappingProxyType({})


class RequestRecord:
    """What a request's own code adds to the one event that tells of it.

    One object for each request, shared by its tasks and threads, mutable until the event is written. ``recorded`` tells
    that it has been: the audit log's own API sets it when it has written the request's event itself, and the middleware
    then writes none.
    """

    __slots__ = ("fields", "metadata", "recorded")

    def __init__(self) -> None:
        self.fields: dict[str, object] = {}
        self.metadata: dict[object, object] = {}
        self.recorded = False


#: For the library's own code. The mapping in BOUND is never changed, only replaced.
BOUND: Final[ContextVar[Mapping[str, str | None]]] = ContextVar("indelible_bound", default=NOTHING)
REQUEST: Final[ContextVar[RequestRecord | None]] = ContextVar("indelible_request", default=None)


def current() -> Mapping[str, str | None]:
    """What is bound here: the defaults of every ``log()``. Not to be changed."""
    return BOUND.get()


def current_request() -> RequestRecord | None:
    """The record of the request being served, or None outside one."""
    return REQUEST.get()


class Bound:
    """Fields bound for a ``with`` block or for each call of a decorated function. May be entered repeatedly."""

    __slots__ = ("_fields", "_tokens")

    def __init__(self, fields: Mapping[str, str | None]) -> None:
        self._fields = fields
        self._tokens: list[Token[Mapping[str, str | None]]] = []

    def __enter__(self) -> Bound:
        self._tokens.append(BOUND.set({**BOUND.get(), **self._fields}))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        restore(BOUND, self._tokens.pop())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function or coroutine function. Raises TypeError for a generator: its context changes."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("bound() cannot decorate a generator: use it as a with block inside")
        fields = self._fields
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def waiting(*args: P.args, **kwargs: P.kwargs) -> Any:
                with Bound(fields):
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", waiting)

        @functools.wraps(function)
        def calling(*args: P.args, **kwargs: P.kwargs) -> R:
            with Bound(fields):
                return function(*args, **kwargs)

        return calling


_KEEP: Final = object()


def bound(
    *,
    user_id: object = _KEEP,
    on_behalf_of: object = _KEEP,
    tenant_id: object = _KEEP,
    session_id: object = _KEEP,
    correlation_id: object = _KEEP,
    ip_address: object = _KEEP,
    user_agent: object = _KEEP,
) -> Bound:
    """Bind these fields as the defaults of every ``log()`` in a ``with`` block or a decorated function.

    Values are kept as text; None takes a binding away; what is not named stays as it is around. ::

        with bound(user_id=user.id, correlation_id=job.correlation_id):
            await run(job)
    """
    given = {
        "user_id": user_id,
        "on_behalf_of": on_behalf_of,
        "tenant_id": tenant_id,
        "session_id": session_id,
        "correlation_id": correlation_id,
        "ip_address": ip_address,
        "user_agent": user_agent,
    }
    return Bound({name: None if value is None else str(value) for name, value in given.items() if value is not _KEEP})


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """The function, to be called in another thread with what is bound *here and now*, the request's record included.

    ``threading.Thread(target=carried(work))``, ``executor.submit(carried(work), argument)``. It may run in many threads
    at once. Other context variables stay those of the thread.
    """
    bound_here, request_here = BOUND.get(), REQUEST.get()

    @functools.wraps(function)
    def calling(*args: P.args, **kwargs: P.kwargs) -> R:
        before, request_before = BOUND.set(bound_here), REQUEST.set(request_here)
        try:
            return function(*args, **kwargs)
        finally:
            restore(REQUEST, request_before)
            restore(BOUND, before)

    return calling


def enrich(
    *,
    user_id: object = None,
    event_type: str | None = None,
    action: str | None = None,
    status: str | None = None,
    resource_type: str | None = None,
    resource_id: object = None,
    old_value: object = None,
    new_value: object = None,
    metadata: Mapping[Any, object] | None = None,
    error: object = None,
) -> None:
    """Add to the event of the request being served. Never raises.

    ``metadata`` is merged with what is there; every other field replaces what the middleware would have found, and None
    leaves it alone. Values are read when the request ends. A value outside the vocabulary is ignored with a warning;
    outside a request nothing happens.
    """
    record = REQUEST.get()
    if record is None or record.recorded:
        _log.debug("enrich() without effect: %s", "no request" if record is None else "its event is already written")
        return
    given = {
        "user_id": user_id,
        "action": action,
        "resource_type": resource_type,
        "resource_id": resource_id,
        "old_value": old_value,
        "new_value": new_value,
        "error": error,
    }
    fields = record.fields
    for name, value in given.items():
        if value is not None:
            fields[name] = value
    try:
        if event_type is not None:
            fields["event_type"] = check_event_type(event_type)
    except Exception:  # noqa: BLE001 - InvalidEvent, or whatever an object that is no text raises
        _log.warning("enrich() ignored an event type that is not registered")
    try:
        if status is not None:
            fields["status"] = check_status(status)
    except Exception:  # noqa: BLE001 - the same
        _log.warning("enrich() ignored an unknown status")
    if metadata is not None:
        _merge(record, metadata)


def _merge(record: RequestRecord, metadata: Mapping[Any, object]) -> None:
    try:
        record.metadata.update(metadata)
    except Exception:  # noqa: BLE001 - a mapping's own code may raise anything, and enrich() never does
        _log.warning("enrich() ignored metadata that is not a mapping")


def restore(variable: ContextVar[Any], token: Token[Any]) -> None:
    """Undo one ``set`` of BOUND or REQUEST. Never raises."""
    try:
        variable.reset(token)
    except ValueError:
        # Left in another context than it was entered in, as generators do: that context has nothing of ours to undo.
        _log.debug("a binding was left in another context than it was made in")
