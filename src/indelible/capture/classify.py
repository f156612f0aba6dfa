"""What kind of event a request is: the table of the guide, first match wins."""

from __future__ import annotations

from typing import Final

import msgspec

_ACTIONS: Final = {
    "GET": "read",
    "HEAD": "read",
    "POST": "create",
    "PUT": "update",
    "PATCH": "update",
    "DELETE": "delete",
    "OPTIONS": "options",
    "WEBSOCKET": "connect",
}
_DATA: Final = {
    "GET": "data_access",
    "HEAD": "data_access",
    "POST": "data_create",
    "PUT": "data_modify",
    "PATCH": "data_modify",
    "DELETE": "data_delete",
}
_NAMED_ACTIONS: Final = {"login": "login", "login_failed": "login", "logout": "logout", "user_created": "register"}
_READS: Final = frozenset(("GET", "HEAD", "OPTIONS"))


class Exchange(msgspec.Struct, frozen=True):
    """A request and its answer, as far as the kind of event depends on them.

    ``method`` is upper case, ``WEBSOCKET`` for one; ``status`` the HTTP status, None if no answer was begun; ``raised``
    tells that an exception came out of the application.
    """

    method: str
    path: str
    status: int | None
    raised: bool = False

    @property
    def outcome(self) -> str:
        """Below 400 ``success``, 401 and 403 ``denied``, otherwise ``failure``."""
        if self.raised or self.status is None:
            return "failure"
        if self.status < 400:
            return "success"
        return "denied" if self.status in (401, 403) else "failure"


class Rules:
    """The table. ``login``, ``logout`` and ``registration`` are the ends of the host's paths, ``admin`` path segments.

    An instance with other paths may be given as the middleware's ``classify``. A log-in or registration is a request
    that can change something: the form that GET fetches is none.
    """

    __slots__ = ("_accounts", "_admin", "_login", "_logout", "_registration")

    def __init__(
        self,
        *,
        login: tuple[str, ...] = ("/login",),
        logout: tuple[str, ...] = ("/logout",),
        registration: tuple[str, ...] = ("/register",),
        admin: frozenset[str] = frozenset(("admin",)),
    ) -> None:
        self._login = login
        self._logout = logout
        self._registration = registration
        self._accounts = login + logout + registration
        self._admin = admin

    def __call__(self, exchange: Exchange) -> tuple[str, str]:
        """The event type and the outcome."""
        outcome = exchange.outcome
        if exchange.raised:
            return "api_request_error", outcome
        path = exchange.path.rstrip("/")
        if path.endswith(self._accounts) and (found := self._account(exchange, path)):
            return found
        if exchange.status == 403:
            return "permission_denied", outcome
        lowered = path.lower()
        for word in self._admin:
            if word in lowered and word in lowered.split("/"):
                return "admin_action", outcome
        return _DATA.get(exchange.method, "api_request"), outcome

    def _account(self, exchange: Exchange, path: str) -> tuple[str, str] | None:
        """What was done with an account or a session, if anything was."""
        outcome, writes = exchange.outcome, exchange.method not in _READS
        if writes and path.endswith(self._login):
            if outcome == "success":
                return "login", outcome
            return "login_failed", "denied" if exchange.status == 403 else "failure"
        if exchange.status == 403:
            return None
        if path.endswith(self._logout) and exchange.method not in ("HEAD", "OPTIONS"):
            return "logout", outcome
        if writes and outcome == "success" and path.endswith(self._registration):
            return "user_created", outcome
        return None


def action(event_type: str, method: str) -> str:
    """One word for what was done: ``login``, ``logout``, ``register``, or the verb of the method.

    ``read``, ``create``, ``update``, ``delete``, ``options``, ``connect`` (WebSocket); other methods in lower case.
    """
    named = _NAMED_ACTIONS.get(event_type)
    return named or _ACTIONS.get(method) or method.lower()
