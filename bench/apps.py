"""One small application in each of its dresses: ``uvicorn bench.apps:create --factory``, told by the environment which."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import jwt
import msgspec
import uuid_utils
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from indelible import configure
from indelible.capture.asgi import AuditMiddleware
from indelible.events import AuditEvent, encode_event
from indelible.service import AuditService

#: The dress that does no more than any audit log has to.
LEAST: Final = "least capture"
#: One that captures nothing: an event that is ready, through our journal and drainer into the database.
READY: Final = "a ready event, delivered"
WAY: Final = "BENCH_WAY"
THREADS: Final = "BENCH_THREADS"
#: Where an event's id goes.
_MARK: Final = b"sixteen of these"
SECRET: Final = "a secret of at least thirty-two bytes for HS256"


class Change(BaseModel):
    """What is asked of a node."""

    region: str
    replicas: int


class Node(Change):
    """What is answered."""

    node_id: int


class Nothing:
    """The least that a middleware can be: what any of them costs."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand everything on."""
        await self.app(scope, receive, send)


class Captured(msgspec.Struct, gc=False):
    """What the least capture keeps of a request, under the names of AuditEvent."""

    id: bytes
    timestamp: int
    user_id: str | None
    ip_address: str
    user_agent: str
    correlation_id: str
    request_method: str
    request_path: str
    response_status: int
    duration_us: int
    event_type: str = "data_modify"
    action: str = "update"
    status: str = "success"


class LeastCapture:
    """What every audit log has to do at its least: who, what, when, its bytes; the correlation id in the answer.

    No rules, no redaction, no limits, no failures: tokens are never verified again, and the bytes are kept in memory for
    a while and then forgotten.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.users: dict[bytes, str] = {}
        self.kept: deque[bytes] = deque(maxlen=1_000)
        self.encode = msgspec.msgpack.Encoder().encode

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Capture one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter_ns()
        headers = dict(scope["headers"])
        known = headers.get(b"x-correlation-id")
        correlation = str(uuid_utils.uuid4()) if known is None else known.decode("latin-1")
        token = headers.get(b"authorization", b"")
        user = self.users.get(token)
        if user is None:
            user = self.users[token] = jwt.decode(token[7:], SECRET, ["HS256"])["sub"] if token else "nobody"

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                scope["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-correlation-id", correlation.encode("latin-1"))]
            elif not message.get("more_body"):
                now = time.time_ns() // 1000
                took = (time.perf_counter_ns() - started) // 1000
                agent = headers.get(b"user-agent", b"").decode("latin-1")
                who = (user, scope["client"][0], agent, correlation)
                what = (scope["method"], scope["path"], scope["status"], took)
                self.kept.append(self.encode(Captured(uuid_utils.uuid7().bytes, now, *who, *what)))
            await send(message)

        await self.app(scope, receive, sending)


class ReadyEvent:
    """What delivery alone costs: after each answer an event that was made beforehand, all but its id.

    It is accepted by our journal, synced, and by our drainer sealed and stored, as every event is.
    """

    def __init__(self, app: Any, service: AuditService) -> None:
        self.app = app
        self.service = service
        self.ids = itertools.count(1)
        self.before, self.behind = encode_event(
            AuditEvent(
                id=UUID(bytes=_MARK),
                timestamp=time.time_ns() // 1000,
                event_type="data_modify",
                action="update",
                status="success",
                resource_type="nodes",
                request_method="PUT",
                response_status=200,
                duration_us=500,
                source="bench",
                user_id="user-1",
                ip_address="127.0.0.1",
                user_agent="bench",
                correlation_id=str(uuid_utils.uuid7()),
                resource_id="1",
                request_path="/api/nodes/1",
            )
        ).split(_MARK)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Deliver one event."""
        await self.app(scope, receive, send)
        if scope["type"] == "http":
            self.service.accept(self.before + next(self.ids).to_bytes(16) + self.behind)


class Forgetful:
    """Takes events like a service and keeps none: what is left is the middleware's own cost."""

    def __init__(self, service: AuditService) -> None:
        self.settings = service.settings

    def offer(self, event: object) -> None:
        """Forget one."""

    accept = offer


def create() -> FastAPI:
    """The application in the dress that the environment names."""
    wear = _DRESSES[os.environ[WAY]]
    app = FastAPI(lifespan=_lifespan)

    @app.put("/api/nodes/{node_id}")
    async def change(node_id: int, body: Change) -> Node:
        """Something an audit log is for."""
        return Node(node_id=node_id, **body.model_dump())

    app.state.stop = []
    wear(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    for start in getattr(app.state, "start", ()):
        await start()
    yield
    for stop in app.state.stop:
        await stop()


def _bare(app: FastAPI) -> None:
    """No middleware."""


def _asgi(app: FastAPI) -> None:
    app.add_middleware(Nothing)


def _least_capture(app: FastAPI) -> None:
    app.add_middleware(LeastCapture)


def _ready(app: FastAPI) -> None:
    app.add_middleware(ReadyEvent, service=_serviced(app))


def _serviced(app: FastAPI) -> AuditService:
    service = configure()

    async def start() -> None:
        await service.start()
        _name_threads()

    app.state.start, app.state.stop = [start], [service.stop]
    return service


def _base_http(app: FastAPI) -> None:
    async def dispatch(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)


def _name_threads() -> None:
    """Leave a note which thread is which, for whoever reads their CPU times."""
    names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    Path(os.environ[THREADS]).write_text(json.dumps(names))


def _indelible(app: FastAPI) -> None:
    _serviced(app)
    app.add_middleware(AuditMiddleware)


def _capture(app: FastAPI) -> None:
    app.add_middleware(AuditMiddleware, service=Forgetful(configure()))


def _bh_fastapi_audit(app: FastAPI) -> None:
    """As its README has it for production: queued emission, its SQLAlchemy sink, client addresses on."""
    from bh_fastapi_audit import AuditConfig
    from bh_fastapi_audit import AuditMiddleware as Theirs
    from bh_fastapi_audit.sinks import SQLAlchemySink

    sink = SQLAlchemySink(os.environ["BENCH_URL"])
    config = AuditConfig(service_name="fog-compute", service_environment="bench", include_client_ip=True)
    app.add_middleware(Theirs, sink=sink, config=config)


def _auditlog_fastapi(app: FastAPI) -> None:
    """As its README has it, with the SQLAlchemy storage that both engines have."""
    from auditlog_fastapi import AuditConfig
    from auditlog_fastapi import AuditMiddleware as Theirs
    from auditlog_fastapi.config import configure as configure_theirs

    storage = configure_theirs(AuditConfig(orm="sqlalchemy", dsn=os.environ["BENCH_URL"]))
    app.state.start, app.state.stop = [storage.startup], [storage.shutdown]
    app.add_middleware(Theirs)


_DRESSES: Final[dict[str, Callable[[FastAPI], None]]] = {
    "bare": _bare,
    "ASGI": _asgi,
    "BaseHTTPMiddleware": _base_http,
    LEAST: _least_capture,
    READY: _ready,
    "middleware alone": _capture,
    "indelible": _indelible,
    "bh-fastapi-audit": _bh_fastapi_audit,
    "auditlog-fastapi": _auditlog_fastapi,
}
