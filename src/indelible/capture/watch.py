"""One request on its way: what the application receives and sends, seen but not changed."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from indelible.capture.identity import ANONYMOUS, Identity, principal_id
from indelible.context import BOUND, NOTHING, REQUEST, RequestRecord, restore
from indelible.delivery import Repeats
from indelible.native import native

if TYPE_CHECKING:
    from indelible.capture.plans import Plans
    from indelible.service import Intent

_log = logging.getLogger("indelible.capture")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Writes the event of a request; takes the exception that ended it, if one did.
Write = Callable[["Seen", BaseException | None], None]

#: What is done with almost every request, for C: the function that names the actor from an Authorization header, and what
#: it remembers by fingerprint; plans, if any are used; the function that gives the service, the one that it has given, and
#: that one's function which takes the events that plans make.
Usual = tuple[
    Callable[[bytes | None], Identity] | None,
    Mapping[bytes, tuple[Identity, float, float]],
    "Plans | None",
    Callable[[], object],
    object,
    Callable[[bytes], object],
]

HEADER: Final = b"x-correlation-id"
_LENGTH: Final = len(HEADER)
#: What frameworks raise in the application when the client has gone.
_GONE: Final = frozenset(("ClientDisconnect", "ClientDisconnected", "WebSocketDisconnect", "CancelledError"))


class _Request:
    """What is known of a request, and what is done with almost every one of them in C, where that is compiled.

    ``read`` and ``bind`` say that they have not done it: then the Python way is gone. In C the event of a plain answer, one
    for which there is a plan, is handed over without a call of ``finish``.
    """

    # Defaults stand in the class: one request in a thousand has a value of its own for most of them.
    excluded = False
    late = False
    correlation_id = ""
    path = ""
    shown = ""
    user_agent: str | None = None
    ip_address: str | None = None
    identity: Identity = ANONYMOUS
    named: object = None
    status: int | None = None
    close_code: int | None = None
    accepted = False
    complete = False
    disconnected = False
    intent: Intent | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send, write: Write, complaints: Complaints) -> None:
        self._started = time.perf_counter_ns()
        self._write = write
        self._complaints = complaints
        self.scope = scope
        self._receive = receive
        self._send = send
        self.record = RequestRecord()
        self.is_http = scope["type"] == "http"

    def elapsed(self) -> int:
        """How long it has taken until now, in µs."""
        return (time.perf_counter_ns() - self._started) // 1000

    def read(self, excluded: frozenset[str], below: tuple[str, ...], usual: Usual) -> bool:
        """Fill in what the scope tells, if there is nothing unusual about it: addresses, agent, correlation id, actor."""
        return False

    def bind(self) -> tuple[Any, Any] | None:
        """``enter``, where nothing is bound already."""
        return None

    async def receive(self) -> Message:
        """The server's next message; tells when the client has gone."""
        message = await self._receive()
        self._received(message)
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on; the first of an answer gets the correlation id, before the last the event is written."""
        passed = self._note(message)
        try:
            await self._send(passed)
        except OSError:
            self.disconnected = True
            raise

    def leave(self, bound: Any, request: Any) -> None:
        """Undo what ``enter`` has bound."""
        restore(REQUEST, request)
        restore(BOUND, bound)

    if TYPE_CHECKING:

        def _received(self, message: Message) -> None: ...

        def _note(self, message: Message) -> Message: ...


if TYPE_CHECKING or native is None:
    _Known = _Request
else:
    native.prepare(BOUND, REQUEST, NOTHING, RequestRecord, ANONYMOUS, restore)
    # Who is given ``seen.send`` may ask whether it is a coroutine function: asgiref does, and warns.
    native.Way._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)
    native.Way._is_coroutine_mark = getattr(inspect, "_is_coroutine_mark", None)
    _Known = native.Seen


class Seen(_Known):
    """One request on its way: what came in, what has gone out so far."""

    if not TYPE_CHECKING:
        __slots__ = ()

    def enter(self) -> tuple[Any, Any]:
        """Bind what is known for the code inside; returns the tokens that undo it."""
        bound: dict[str, str | None] = {
            "correlation_id": self.correlation_id,
            "ip_address": self.ip_address,
            "user_agent": self.user_agent,
        }
        if around := BOUND.get():
            bound = {**around, **bound}
        user = self.user()
        if user is not None:
            bound["user_id"] = str(user)
        return BOUND.set(bound), REQUEST.set(self.record)

    def _received(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.disconnect":
            # After a complete answer this is how a connection ends.
            self.disconnected = self.disconnected or not self.complete
        elif kind == "websocket.disconnect":
            self.disconnected = True
            if self.close_code is None:
                self.close_code = message.get("code", 1005)

    def _note(self, message: Message) -> Message:
        kind = message["type"]
        if kind == "http.response.body":
            if not message.get("more_body", False) and not self.complete:
                self.complete = True
                self.finish()
        elif kind in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
            return self._with_header(message)
        elif kind == "websocket.accept":
            self.status, self.accepted = 101, True
            return self._with_header(message)
        elif kind == "websocket.close":
            # Closed before it was accepted: the server answers the handshake with 403.
            self.status = self.status or 403
            self.close_code = message.get("code", 1000)
        return message

    def _with_header(self, message: Message) -> Message:
        try:
            headers = list(message.get("headers") or ())
            for name, _ in headers:
                # The length first: names may come in any case.
                if len(name) == _LENGTH and name.lower() == HEADER:
                    return message
            headers.append((HEADER, self.correlation_id.encode("ascii")))
            return {**message, "headers": headers}
        except Exception as error:  # noqa: BLE001 - headers that are none are for the server to refuse
            self._complaints.tell("adding the correlation id", error)
            return message

    def finish(self, error: BaseException | None = None) -> None:
        """Write the event, once. An exception that comes after it (a background task's) is an event of its own."""
        if self.excluded:
            return
        if self.record.recorded and (error is None or not self.complete or self.is_disconnect(error)):
            return
        self.late = self.record.recorded
        self.record.recorded = True
        try:
            self._write(self, error)
        except Exception as failure:  # noqa: BLE001 - a request is never harmed by its audit
            self._complaints.tell("writing an event", failure)

    def is_disconnect(self, error: BaseException) -> bool:
        """Whether this exception only says that the client went away."""
        return self.disconnected and (isinstance(error, OSError) or type(error).__name__ in _GONE)

    def trouble(self, error: BaseException | None, raised: bool) -> str | None:
        """What is told as the event's ``error``."""
        if raised and error is not None:
            return name_of(error)
        if self.disconnected and self.is_http:
            return "client disconnected"
        return "no response" if self.status is None else None

    def query(self) -> str:
        """The query string as it came."""
        query: bytes = self.scope.get("query_string") or b""
        return query.decode("latin-1")

    def metadata(self, *, anonymous: bool) -> Mapping[object, object] | None:
        """What the handler told, and what there is no column for."""
        if not (self.record.metadata or anonymous or self.accepted or self.late):
            return None
        told: dict[object, object] = {}
        if anonymous and self.identity.reason is not None:
            told["auth"] = self.identity.reason
        if self.accepted:
            told["close_code"] = self.close_code
        if self.late:
            told["after_response"] = True
        return {**told, **self.record.metadata} or None

    def user(self) -> object:
        """The verified actor: from the host's hook, the host's principal, a token, in this order."""
        if self.named is not None:
            return self.named
        scope = self.scope
        state = scope.get("state")
        if "user" not in scope and type(state) is dict and "user" not in state:
            return self.identity.user_id
        for principal in (scope.get("user"), state.get("user") if isinstance(state, Mapping) else None):
            if principal is None:
                continue
            try:
                found = principal_id(principal)
            except Exception as error:  # noqa: BLE001 - the host's object may raise anything
                self._complaints.tell("reading the principal", error)
                continue
            if found is not None:
                return found
        return self.identity.user_id


class Complaints:
    """Our own failures, told once a minute for each step, by type and count: what failed may hold content."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[str, Repeats] = {}

    def tell(self, step: str, error: BaseException) -> None:
        """Log that ``step`` failed, unless that was logged within the last minute."""
        silent = self._told.setdefault(step, Repeats()).due(time.monotonic())
        if silent is not None:
            _log.error(
                "audit of a request failed at %s: %s (%d more since the last line)", step, name_of(error), silent
            )


def name_of(error: BaseException) -> str:
    """The qualified name of an exception's type, never its message; a group of one is what it holds."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def shown_path(path: str, raw: bytes | None) -> str:
    """The path as text; percent-encoded, as it came, where it is not printable UTF-8."""
    if path.isprintable() and "\ufffd" not in path:
        return path
    return raw.split(b"?", 1)[0].decode("latin-1") if raw else quote(path, safe="/:@!$&'()*+,;=~", errors="replace")
