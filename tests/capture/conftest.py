"""What the middleware's tests share: an event list behind the real service, and ASGI spoken by hand."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from indelible.testing import CapturedEvents, capture_events

Message = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]
SECRET = "a-secret-of-thirty-two-characters"


@pytest.fixture
def events() -> Iterator[CapturedEvents]:
    """The events recorded during the test."""
    with capture_events(
        jwt_secret=SECRET, trusted_proxies=("10.0.0.0/8", "2001:db8:f::/48"), service_name="tests", jwt_algorithms=()
    ) as captured:
        yield captured


@dataclass
class Talk:
    """One request spoken by hand: what the application sent, what it raised."""

    sent: list[Message] = field(default_factory=list)
    error: BaseException | None = None
    scope: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int | None:
        return next((m["status"] for m in self.sent if m["type"] == "http.response.start"), None)

    def header(self, name: str) -> list[str]:
        start = next(m for m in self.sent if "headers" in m)
        return [value.decode("latin-1") for key, value in start["headers"] if key.decode().lower() == name]


@pytest.fixture
def talk() -> Callable[..., Awaitable[Talk]]:
    """``await talk(app, method, path, ...)``: one request to ``app``, by the letter of ASGI."""

    async def say(
        app: App,
        method: str = "GET",
        path: str = "/api/nodes/42",
        *,
        headers: list[tuple[bytes, bytes]] | None = None,
        incoming: list[Message] | None = None,
        send: Callable[[Message], Awaitable[None]] | None = None,
        **more: Any,
    ) -> Talk:
        got = Talk()
        waiting = list(
            incoming if incoming is not None else [{"type": "http.request", "body": b"", "more_body": False}]
        )
        got.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode("utf-8", "replace"), "root_path": "", "query_string": b"",
            "headers": headers or [], "client": ("192.0.2.7", 50000), "server": ("testserver", 80), "state": {}, **more,
        }  # fmt: skip

        async def receive() -> Message:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def keep(message: Message) -> None:
            got.sent.append(message)
            if send is not None:
                await send(message)

        try:
            await app(got.scope, receive, keep)
        except BaseException as error:  # noqa: BLE001 - kept for the test to look at
            got.error = error
        return got

    return say


@pytest.fixture
def answer() -> Callable[..., App]:
    """``answer(200)``: an ASGI application that always gives this answer, after awaiting ``then`` if there is one."""

    def make(status: int = 200, *, inside: Callable[[Any], Any] | None = None) -> App:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if inside is not None:
                inside(scope)
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"ok"})

        return app

    return make


@pytest.fixture
def told() -> Callable[[Any], Any]:
    """The ``metadata`` of an event, read back."""
    return lambda event: None if event.metadata is None else json.loads(event.metadata)
