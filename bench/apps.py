"""One small application in each of its dresses: ``uvicorn bench.apps:create --factory``, told by the environment which."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from indelible import configure
from indelible.capture.asgi import AuditMiddleware
from indelible.service import AuditService

WAY: Final = "BENCH_WAY"
THREADS: Final = "BENCH_THREADS"
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


class Forgetful:
    """Takes events like a service and keeps none: what is left is the middleware's own cost."""

    def __init__(self, service: AuditService) -> None:
        self.settings = service.settings

    def record(self, **_: object) -> None:
        """Forget one."""


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


def _base_http(app: FastAPI) -> None:
    async def dispatch(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)


def _name_threads() -> None:
    """Leave a note which thread is which, for whoever reads their CPU times."""
    names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    Path(os.environ[THREADS]).write_text(json.dumps(names))


def _indelible(app: FastAPI) -> None:
    service = configure()

    async def start() -> None:
        await service.start()
        _name_threads()

    app.state.start, app.state.stop = [start], [service.stop]
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
    "middleware alone": _capture,
    "indelible": _indelible,
    "bh-fastapi-audit": _bh_fastapi_audit,
    "auditlog-fastapi": _auditlog_fastapi,
}
