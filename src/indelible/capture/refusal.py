"""``on_failure="refuse"``: which requests may not be served unaudited, and how they are turned away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, Literal

from indelible.errors import ConfigurationError
from indelible.taxonomy import LOGGABLE

Choice = Literal["serve", "refuse"]
#: One choice for all requests, or choices by path (``/api/admin``: it and what lies below) and event type; ``*`` is the
#: rest, by default ``serve``. The longest path wins, and a path wins over an event type. The event type is the one that
#: the request will have if it succeeds: more is not known before the application runs.
OnFailure = Choice | Mapping[str, Choice]

#: Seconds after which a client that was turned away may try again.
RETRY_AFTER: Final = 1
_BODY: Final = b'{"detail":"This request cannot be audited at the moment, so it was not carried out."}'
_CHOICES: Final = ("serve", "refuse")
#: What a request turns out to be only when it was carried out.
_AFTERWARDS: Final = frozenset(("login_failed", "permission_denied", "api_request_error"))


class RefusalPolicy:
    """Decides, before the application runs, whether a request needs its intent on disk first."""

    def __init__(self, on_failure: OnFailure) -> None:
        """Raises ConfigurationError for a choice, path or event type that there is not."""
        given = {"*": on_failure} if isinstance(on_failure, str) else dict(on_failure)
        for key, choice in given.items():
            if choice not in _CHOICES:
                raise ConfigurationError(f"on_failure cannot be {choice!r}", hint="use serve or refuse")
            if key == "*" or key.startswith("/"):
                continue
            if key not in LOGGABLE:
                raise ConfigurationError(f"on_failure names neither a path nor an event type: {key!r}")
            if key in _AFTERWARDS:
                raise ConfigurationError(
                    f"on_failure cannot choose by {key!r}: that is not known before the request is carried out",
                    hint="name its path, or the event type of its success",
                )
        paths = [("/" + key.strip("/"), choice == "refuse") for key, choice in given.items() if key.startswith("/")]
        self._paths = sorted(paths, key=lambda item: -len(item[0]))
        self._types = {key: choice == "refuse" for key, choice in given.items() if not key.startswith(("/", "*"))}
        self._rest = given.get("*", "serve") == "refuse"
        #: Whether any request at all may be refused.
        self.active = "refuse" in given.values()

    def refuses(self, path: str, event_type: Callable[[], str]) -> bool:
        """Whether a request for ``path`` must not be served unaudited; ``event_type`` is asked only if it matters."""
        for prefix, choice in self._paths:
            if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
                return choice
        if self._types:
            return self._types.get(event_type(), self._rest)
        return self._rest


async def turn_away(
    scope: MutableMapping[str, Any], send: Callable[[MutableMapping[str, Any]], Awaitable[None]]
) -> None:
    """Answer 503 with Retry-After, or close a WebSocket with 1013 (try again later). The application never runs."""
    start: dict[str, Any] = {
        "status": 503,
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(_BODY)).encode()),
            (b"retry-after", str(RETRY_AFTER).encode()),
            (b"cache-control", b"no-store"),
        ],
    }
    if scope["type"] == "http":
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": _BODY})
    elif "websocket.http.response" in (scope.get("extensions") or {}):
        await send({"type": "websocket.http.response.start", **start})
        await send({"type": "websocket.http.response.body", "body": _BODY})
    else:
        await send({"type": "websocket.close", "code": 1013, "reason": "cannot be audited at the moment"})
