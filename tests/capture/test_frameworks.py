"""The middleware in the frameworks it is for, spoken to over HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request
from litestar import Litestar, get
from litestar import post as litestar_post
from litestar.params import FromPath
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from indelible import runtime
from indelible.capture.asgi import AuditMiddleware
from indelible.context import carried, current, enrich
from indelible.testing import CapturedEvents


def client(app: Any, **more: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=("192.0.2.7", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://test", **more)


def audited(app: Any, **more: Any) -> Any:
    """As the guide adds it."""
    app.add_middleware(
        AuditMiddleware,
        excluded_paths=["/health", "/metrics", "/docs", "/openapi.json"],
        log_successful_reads=False,
        **more,
    )
    return app


async def test_fastapi_templates(events: CapturedEvents) -> None:
    """Routers included in routers, mounted applications with parameters: the resource is that of the whole template."""
    app, inner, nodes = FastAPI(), FastAPI(), APIRouter()

    @nodes.patch("/{node_id}")
    def change(node_id: int) -> int:
        return node_id

    @nodes.post("/")
    def make() -> int:
        return 1

    @nodes.post("/{node_id}/restart")
    def restart(node_id: int) -> int:
        return node_id

    api = APIRouter(prefix="/api")
    api.include_router(nodes, prefix="/nodes")
    app.include_router(api)
    inner.include_router(nodes, prefix="/devices")
    app.mount("/tenants/{tenant}", inner)
    async with client(audited(app)) as http:
        await http.patch("/api/nodes/42")
        await http.post("/api/nodes/")
        await http.post("/api/nodes/42/restart")
        await http.patch("/tenants/acme/devices/7")
        await http.patch("/api/nodes/none")
        await http.delete("/api/nodes/42")
        await http.get("/nowhere/42")
        await http.get("/tenants/acme/nowhere/42")
    assert [(e.request_path, e.response_status, e.resource_type, e.resource_id) for e in events] == [
        ("/api/nodes/42", 200, "node", "42"),
        ("/api/nodes/", 200, "node", None),
        ("/api/nodes/42/restart", 200, "node", "42"),
        ("/tenants/acme/devices/7", 200, "device", "7"),
        ("/api/nodes/none", 422, "node", "none"),
        ("/api/nodes/42", 405, "node", "42"),
        ("/nowhere/42", 404, None, None),
        ("/tenants/acme/nowhere/42", 404, None, None),
    ]


async def test_fastapi_enrichment_from_threads_dependencies_and_tasks(events: CapturedEvents) -> None:
    """``enrich`` and what is bound reach handlers in the thread pool, dependencies, tasks and background tasks."""
    app = FastAPI()
    seen: dict[str, Any] = {}

    def note(place: str) -> None:
        seen[place] = current().get("correlation_id")

    def user(request: Request) -> None:
        request.state.user = {"id": "u-1"}
        note("dependency")

    @app.post("/sync", dependencies=[Depends(user)])
    def sync_handler(tasks: BackgroundTasks) -> None:
        enrich(metadata={"from": "pool"})
        note("pool")
        tasks.add_task(note, "background")
        thread = threading.Thread(target=carried(note), args=("thread",))
        thread.start()
        thread.join()

    @app.post("/async")
    async def async_handler() -> None:
        async def work() -> None:
            enrich(metadata={"from": "task"})
            note("task")

        await asyncio.create_task(work())
        await asyncio.to_thread(note, "to_thread")

    headers = {"x-correlation-id": "c-1"}
    async with client(audited(app), headers=headers) as http:
        await http.post("/sync")
        await http.post("/async")
    assert seen == dict.fromkeys(("dependency", "pool", "background", "thread", "task", "to_thread"), "c-1")
    assert [(e.user_id, e.metadata) for e in events] == [("u-1", '{"from":"pool"}'), (None, '{"from":"task"}')]


async def test_fastapi_errors(events: CapturedEvents) -> None:
    """HTTP errors keep their status; an exception is 500, and the host's handler can add the correlation id to it."""
    app = FastAPI()

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return PlainTextResponse("sorry", 500, {"X-Correlation-ID": request.state.correlation_id})

    @app.get("/boom")
    async def boom() -> None:
        raise LookupError("canary")

    @app.get("/denied")
    async def denied() -> None:
        raise HTTPException(403)

    async with client(audited(app)) as http:
        answer = await http.get("/boom")
        refused = await http.get("/denied")
    assert [(e.event_type, e.status, e.response_status, e.error) for e in events] == [
        ("api_request_error", "failure", 500, "LookupError"),
        ("permission_denied", "denied", 403, None),
    ]
    assert [answer.headers["x-correlation-id"], refused.headers["x-correlation-id"]] == [
        e.correlation_id for e in events
    ]


async def test_fastapi_streams_are_passed_on_part_by_part(events: CapturedEvents) -> None:
    """A stream's parts go out as they come; its event follows the last."""
    app = FastAPI()

    @app.get("/export")
    async def export() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for n in range(3):
                assert not events
                yield b"%d" % n

        return StreamingResponse(parts())

    async with client(AuditMiddleware(app, log_successful_reads=True)) as http:
        assert (await http.get("/export")).content == b"012"
    assert events.only().event_type == "data_access"


def test_fastapi_websocket(events: CapturedEvents) -> None:
    """A WebSocket that the client leaves is one successful event with its template's words."""
    app = FastAPI()

    @app.websocket("/rooms/{room}")
    async def room(socket: WebSocket, room: str) -> None:
        await socket.accept()
        enrich(user_id="u")
        await socket.send_text(room)
        await socket.receive_text()

    with (  # noqa: PT012
        pytest.raises(WebSocketDisconnect),  # what the handler does not catch comes out of the application
        TestClient(audited(app)).websocket_connect("/rooms/blue") as socket,
    ):
        assert socket.receive_text() == "blue"
        sent: list[tuple[bytes, bytes]] = list(socket.extra_headers or ())
        assert b"x-correlation-id" in dict(sent)
    event = events.only()
    assert (event.event_type, event.response_status, event.resource_type, event.resource_id, event.user_id) == (
        "api_request", 101, "room", "blue", "u",
    )  # fmt: skip


class Backend(AuthenticationBackend):
    """Believes a header, as no real one should."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.headers.get("x-user")
        return (AuthCredentials(), SimpleUser(name)) if name else None


class Polling(BaseHTTPMiddleware):
    """The base class that reads ahead: it polls ``receive`` while the answer is on its way."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response


@pytest.mark.parametrize("auth_outside", [False, True])
async def test_starlette(events: CapturedEvents, auth_outside: bool) -> None:
    """``scope["user"]`` of Starlette's authentication counts, inside or outside; other middleware changes nothing."""

    async def item(request: Request) -> Response:
        enrich(metadata={"bound": current().get("user_id")})
        return PlainTextResponse("ok")

    auth, audit = Middleware(AuthenticationMiddleware, backend=Backend()), Middleware(AuditMiddleware)
    app = Starlette(
        routes=[Mount("/api", routes=[Route("/items/{item_id:int}", item, methods=["POST"])])],
        middleware=[auth, audit] if auth_outside else [audit, Middleware(Polling), auth],
    )
    async with client(app) as http:
        await http.post("/api/items/5", headers={"x-user": "ada"})
        await http.post("/api/items/5")
    assert [(e.user_id, e.resource_type, e.resource_id, e.error) for e in events] == [
        ("ada", "item", "5", None),
        (None, "item", "5", None),
    ]
    if auth_outside:
        assert events[0].metadata == '{"bound":"ada"}'


async def test_litestar(events: CapturedEvents) -> None:
    """Litestar tells its template in its own way; it may be wrapped or take the middleware in its list."""

    @litestar_post("/api/nodes/{node_id:int}")
    async def change(node_id: FromPath[int]) -> int:
        enrich(new_value={"n": node_id})
        return node_id

    @get("/api/nodes")
    async def nodes() -> int:
        return 1

    for app in (
        AuditMiddleware(Litestar([change, nodes])),
        Litestar([change, nodes], middleware=[AuditMiddleware]),  # type: ignore[list-item]  # Litestar's types differ by name only
    ):
        async with client(app) as http:
            answer = await http.post("/api/nodes/42", headers={"x-correlation-id": "c-1"})
            await http.get("/api/nodes")
        event = events.pop()
        assert answer.headers["x-correlation-id"] == event.correlation_id == "c-1"
        assert (event.event_type, event.resource_type, event.resource_id, event.new_value) == (
            "data_create", "node", "42", '{"n":42}',
        )  # fmt: skip
        assert not events


async def test_django(events: CapturedEvents) -> None:
    """Django's ASGI application leaves no template: the URL names the resource; handlers in its threads can enrich."""
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def node(request: HttpRequest, node_id: int) -> HttpResponse:
        enrich(user_id="u-1", metadata={"c": current().get("correlation_id")})
        return HttpResponse("ok", status=201)

    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x" * 50, USE_TZ=True, LOGGING_CONFIG=None
        )
        django.setup()
    from django.test import override_settings

    class Urls:
        urlpatterns = [path("api/nodes/<int:node_id>", node)]  # noqa: RUF012

    with override_settings(ROOT_URLCONF=Urls):
        app = get_asgi_application()
        async with client(AuditMiddleware(app)) as http:
            answer = await http.post("/api/nodes/42", headers={"x-correlation-id": "c-1"})
            missing = await http.post("/api/none/42")
    assert (answer.status_code, missing.status_code) == (201, 404)
    assert [(e.user_id, e.resource_type, e.resource_id, e.metadata) for e in events] == [
        ("u-1", "node", "42", '{"c":"c-1"}'),
        (None, None, None, None),
    ]


async def test_other_requests_know_nothing_of_each_other(events: CapturedEvents) -> None:
    """Fifty requests at once: each handler sees its own correlation id, each event its own enrichment."""
    app = FastAPI()
    arrived, gate = [], asyncio.Event()

    @app.post("/jobs/{n}")
    async def job(n: int) -> None:
        arrived.append(n)
        if len(arrived) == 50:
            gate.set()
        await gate.wait()
        enrich(metadata={"n": n, "c": current().get("correlation_id")})

    async with client(audited(app)) as http:
        await asyncio.gather(*(http.post(f"/jobs/{n}", headers={"x-correlation-id": f"c-{n}"}) for n in range(50)))
    assert {(e.resource_id, e.correlation_id, e.metadata) for e in events} == {
        (str(n), f"c-{n}", f'{{"n":{n},"c":"c-{n}"}}') for n in range(50)
    }


async def test_the_singleton_is_looked_up_for_each_request(events: CapturedEvents) -> None:
    """An application built before the service was configured, or reconfigured, records to the present one."""
    app = audited(FastAPI())
    async with client(app) as http:
        await http.post("/a")
        from indelible.testing import capture_events

        with capture_events() as others:
            await http.post("/b")
        await http.post("/c")
    assert [e.request_path for e in events] == ["/a", "/c"]
    assert others.only().request_path == "/b"
    assert runtime.get_audit_service() is not None
