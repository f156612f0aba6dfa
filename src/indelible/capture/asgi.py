"""The middleware: one event for each request and each WebSocket, written by pure ASGI.

How a request goes by. What is known before the application runs (correlation id, client, token) is bound for its
handlers, threads and background tasks. ``send`` and ``receive`` are watched, never changed, but for one header. The
event is written just before the last byte is handed to the server: a client that has the whole answer can rely on the
event being accepted. What the application raises is recorded and raised again, untouched.

Every step of our own is guarded: a failure is one log line a minute, without content, and the request goes on as if the
middleware were not there.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from urllib.parse import quote

from indelible.capture.classify import Exchange, Rules, action
from indelible.capture.client import TrustedProxies, correlation_id
from indelible.capture.identity import Identity, TokenVerifier, principal_id
from indelible.capture.plans import Plans, learn
from indelible.capture.refusal import OnFailure, RefusalPolicy, turn_away
from indelible.capture.resources import resource
from indelible.capture.watch import HEADER, Complaints, Receive, Scope, Seen, Send, Usual, shown_path
from indelible.errors import ConfigurationError
from indelible.redaction import PLACEHOLDER, Redactor
from indelible.runtime import get_audit_service
from indelible.taxonomy import check_event_type

if TYPE_CHECKING:
    from indelible.service import AuditService, EventFields, Intent
    from indelible.settings import Settings

__all__ = ["AuditMiddleware"]

_log = logging.getLogger("indelible.capture")

#: Any ASGI 3 application; loose, because each framework has its own names for scope, receive and send.
App = Callable[..., Awaitable[Any]]
#: The hook that names the actor: takes the scope, returns an id, or None to leave it to the other ways.
Identify = Callable[[Scope], object]
#: The hook that names the event: takes the Exchange, returns an event type, an event type and a status, or None.
Classify = Callable[[Exchange], "tuple[str, str] | str | None"]

_MARK: Final = "indelible.request"
_RULES: Final = Rules()


class Recorder(Protocol):
    """What the middleware needs of an AuditService."""

    @property
    def settings(self) -> Settings:
        """Keys, proxies, names to redact."""
        ...

    @property
    def offer(self) -> Callable[[EventFields], object]:
        """Takes one event: a mapping, which is used up."""
        ...

    @property
    def accept(self) -> Callable[[bytes], object]:
        """Takes one event in the journal's form."""
        ...


class AuditMiddleware:
    """Records every request and WebSocket of the application it wraps, in any ASGI framework.

    ``service``: where events go, or a function that gives it; default: the singleton, looked up at each request.
    ``excluded_paths``: paths that are not recorded, with all that lies below them (``/`` means itself only).
    ``log_successful_reads``: False leaves out successful ``data_access`` and successful OPTIONS, nothing else.
    ``identify(scope)``: the host's own way to name the actor, plain or ``async``; runs before the application and must
    have verified what it returns. ``classify(exchange)``: the host's own event types; None falls back to the table.

    ``on_failure``: ``"refuse"`` answers 503 *before* the application runs when the request cannot be audited, at the cost
    of an fdatasync for each request; or a mapping of paths and event types to ``serve`` and ``refuse``. By default every
    request is served, whatever becomes of its event.

    Raises ConfigurationError for any other ``on_failure``, and for a single text as ``excluded_paths``.

    Keys, proxies and names come from the service's settings. Without a key no token is believed.
    """

    def __init__(
        self,
        app: App,
        *,
        service: Recorder | Callable[[], Recorder] | None = None,
        excluded_paths: Iterable[str] = ("/health", "/metrics", "/docs", "/openapi.json"),
        log_successful_reads: bool = False,
        identify: Identify | None = None,
        classify: Classify | None = None,
        on_failure: OnFailure = "serve",
    ) -> None:
        self.app = app
        self._service: Callable[[], Recorder] = (
            get_audit_service if service is None else service if callable(service) else (lambda: service)
        )
        if isinstance(excluded_paths, str):
            # Each of its letters would be a path, and what lies below it unrecorded.
            raise ConfigurationError("excluded_paths is one text", hint='write excluded_paths=["/health"]')
        excluded = ["/" + path.strip("/") for path in excluded_paths]
        self._excluded = frozenset(excluded)
        self._excluded_below = tuple(path + "/" for path in excluded if path != "/")
        self._successful_reads = log_successful_reads
        self._identify = identify
        self._classify = classify
        self._refusal = RefusalPolicy(on_failure)
        self._setup: _Setup | None = None
        self._complaints = Complaints()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3.0. Raises what the application raises, and nothing of its own."""
        if scope["type"] not in ("http", "websocket") or _MARK in scope:
            await self.app(scope, receive, send)
            return
        try:
            seen = self._open(scope, receive, send)
            if self._identify is not None:
                await self._ask_host(seen)
            bound, request = seen.bind() or seen.enter()
        except Exception as error:  # noqa: BLE001 - a request is never harmed by its audit
            self._complaints.tell("opening a request", error)
            if self._refusal.refuses(scope["path"], lambda: ""):
                await turn_away(scope, send)
            else:
                await self.app(scope, receive, send)
            return
        try:
            if self._refusal.active and not seen.excluded and not await self._may_run(seen):
                seen.excluded = True  # what was refused because it cannot be recorded is not recorded
                await turn_away(scope, seen.send)
            else:
                await self.app(scope, seen.receive, seen.send)
        except BaseException as error:
            seen.finish(error)
            raise
        else:
            if not seen.complete:  # else it is written
                seen.finish()
        finally:
            seen.leave(bound, request)
            if seen.intent is not None:
                self._settle(seen.intent)

    async def _may_run(self, seen: Seen) -> bool:
        """Whether the application may run: yes, or the request's intent is on disk."""
        method = seen.scope["method"] if seen.is_http else "WEBSOCKET"
        event_type, _ = self._kind(Exchange(method, seen.path, 200, raised=False))
        if not self._refusal.refuses(seen.path, lambda: event_type):
            return True
        try:
            setup = self._current_setup()
            seen.intent = await cast("AuditService", setup.service).intend(
                event_type=event_type,
                action=action(event_type, method),
                user_id=seen.user(),
                ip_address=seen.ip_address,
                user_agent=seen.user_agent,
                correlation_id=seen.correlation_id,
                request_method=method,
                request_path=setup.redactor.target(seen.shown, seen.query()),
            )
        except Exception as error:  # noqa: BLE001 - whatever it was: not audited, so not served
            self._complaints.tell("writing an intent; the request is refused", error)
            return False
        return True

    def _settle(self, intent: Intent) -> None:
        """Strike out an intent that was not turned into an event: the audit API's own, or a successful read."""
        cast("AuditService", self._current_setup().service).withdraw(intent)

    def _open(self, scope: Scope, receive: Receive, send: Send) -> Seen:
        seen = Seen(scope, receive, send, self._write, self._complaints)
        scope[_MARK] = seen.record
        try:
            setup = self._current_setup()
            if seen.read(self._excluded, self._excluded_below, setup.usual):
                if setup.proxies is not None:
                    self._look_behind(setup.proxies, seen)
                return seen
        except Exception:  # noqa: BLE001, S110 - told below, where it happens again
            pass
        # Reversed, so that of several headers of one name the first counts, as it does for the frameworks.
        headers: dict[bytes, bytes] = dict(reversed(list(scope["headers"])))
        seen.correlation_id = correlation_id(headers.get(HEADER))
        state = scope.get("state")
        if state is None:
            scope["state"] = {"correlation_id": seen.correlation_id}
        elif type(state) is dict or isinstance(state, MutableMapping):
            state["correlation_id"] = seen.correlation_id
        path = scope["path"]
        seen.shown = shown_path(path, scope.get("raw_path"))
        root = scope.get("root_path") or ""
        seen.path = path[len(root) :] if root and path.startswith(f"{root.rstrip('/')}/") else path
        seen.excluded = self._is_excluded(path) or (path is not seen.path and self._is_excluded(seen.path))
        agent = headers.get(b"user-agent")
        seen.user_agent = None if agent is None else agent.decode("latin-1")
        client = scope.get("client")
        seen.ip_address = str(client[0]) if client and client[0] else None
        try:
            setup = self._current_setup()
            if setup.proxies is not None:
                self._look_behind(setup.proxies, seen)
            if setup.identify is not None:
                seen.identity = setup.identify(headers.get(b"authorization"))
        except Exception as error:  # noqa: BLE001 - a wrong setting or an unreadable header must not cost the event
            self._complaints.tell("finding the client", error)
        return seen

    def _look_behind(self, proxies: TrustedProxies, seen: Seen) -> None:
        if seen.ip_address is not None:
            forwarded = [value for name, value in seen.scope["headers"] if name == b"x-forwarded-for"]
            seen.ip_address = proxies.client(seen.ip_address, forwarded)

    async def _ask_host(self, seen: Seen) -> None:
        assert self._identify is not None
        try:
            named = self._identify(seen.scope)
            seen.named = principal_id(await named if inspect.isawaitable(named) else named)
        except Exception as error:  # noqa: BLE001 - the host's hook may raise anything
            self._complaints.tell("identify", error)

    def _is_excluded(self, path: str) -> bool:
        return path in self._excluded or path.startswith(self._excluded_below)

    def _current_setup(self) -> _Setup:
        service = self._service()
        setup = self._setup
        if setup is None or setup.service is not service:
            setup = self._setup = _Setup(self._service, service, by_plan=self._classify is None)
        return setup

    def _kind(self, exchange: Exchange) -> tuple[str, str]:
        if self._classify is not None:
            try:
                answer = self._classify(exchange)
                if isinstance(answer, str):
                    return check_event_type(answer), exchange.outcome
                if answer is not None:
                    return check_event_type(answer[0]), answer[1]
            except Exception as error:  # noqa: BLE001 - the host's hook may raise anything
                self._complaints.tell("classify", error)
        return _RULES(exchange)

    def _write(self, seen: Seen, error: BaseException | None) -> None:
        self._compose(self._current_setup(), seen, error)

    def _compose(self, setup: _Setup, seen: Seen, error: BaseException | None) -> None:
        method = seen.scope["method"] if seen.is_http else "WEBSOCKET"
        raised = error is not None and not seen.is_disconnect(error)
        status = 500 if raised and seen.status is None else seen.status
        exchange = Exchange(method, seen.path, status, raised)
        event_type, outcome = self._kind(exchange)
        given = seen.record.fields
        if given and not raised:
            # Whatever the handler thought it was doing, a request that ended in an exception is recorded as that.
            event_type = str(given.get("event_type", event_type))
            outcome = str(given.get("status", outcome))
        told = seen.trouble(error, raised)
        if not self._successful_reads and outcome == "success" and told is None and _is_read(event_type, method):
            if self._classify is None and not given:
                setup.learn(seen, None)
            return
        kind, identifier = resource(seen.scope, seen.path, status)
        if event_type == "user_created":
            kind, identifier = "user", given.get("user_id")
        shown = seen.shown
        for secret in setup.redactor.path_secrets(seen.scope.get("path_params") or {}):
            shown = shown.replace(secret, PLACEHOLDER).replace(quote(secret), PLACEHOLDER)
            identifier = PLACEHOLDER if str(identifier) == secret else identifier
        user = seen.user()
        # In the order of AuditEvent: then each name is found at once.
        fields: EventFields = {
            "event_type": event_type,
            "action": action(event_type, method),
            "status": outcome,
            "resource_type": kind,
            "request_method": method,
            "response_status": status,
            "duration_us": seen.elapsed(),
            "user_id": user,
            "ip_address": seen.ip_address,
            "user_agent": seen.user_agent,
            "correlation_id": seen.correlation_id,
            "resource_id": identifier,
            "request_path": setup.redactor.target(shown, seen.query()),
        }
        if told is not None:
            fields["error"] = told
        metadata = seen.metadata(anonymous=user is None and "user_id" not in given)
        if metadata is not None:
            fields["metadata"] = metadata
        if given:
            fields |= cast("EventFields", {**given, "event_type": event_type, "status": outcome})
        if seen.intent is None:
            if self._classify is None and told is None and not given:
                setup.learn(seen, fields)
            setup.service.offer(fields)
            return
        intent, seen.intent = seen.intent, None
        cast("AuditService", setup.service).fulfil(intent, **fields)


def _is_read(event_type: str, method: str) -> bool:
    return event_type == "data_access" or (event_type == "api_request" and method == "OPTIONS")


class _Setup:
    """What the settings of one service mean for the middleware."""

    __slots__ = ("identify", "plans", "proxies", "redactor", "service", "usual")

    def __init__(self, current: Callable[[], Recorder], service: Recorder, *, by_plan: bool) -> None:
        self.service = service
        settings = service.settings
        self.proxies = TrustedProxies(settings.trusted_proxies) or None
        self.redactor = Redactor(extra_keys=settings.redact_keys, path_rules=settings.redact_paths)
        self.plans: Plans = {}
        self.identify: Callable[[bytes | None], Identity] | None = None
        remembered: Mapping[bytes, tuple[Identity, float, float]] = {}
        try:
            verifier = TokenVerifier(settings)
            self.identify, remembered = verifier.identify, verifier.remembered
        except ConfigurationError as error:
            # Requests are still recorded, their actors by the host's own word only.
            _log.error("no token is believed: %s", error)
        plans = self.plans if by_plan else None
        self.usual: Usual = (self.identify, remembered, plans, current, service, service.accept)

    def learn(self, seen: Seen, fields: EventFields | None) -> None:
        """Keep what was made of a request for all like it."""
        learn(self.plans, seen, self.redactor, self.service.settings.service_name, fields)
