"""The application that these tests serve and kill: ``tests.reliability.host:app``.

Settings come from the environment, as in production. ``RELIABILITY_SEGMENT_ROWS`` makes segments so small that a test
fills several; ``RELIABILITY_CRASH`` names a commit point to die at (see ``crashes``); ``RELIABILITY_REFUSE`` makes the
middleware refuse what it cannot audit; ``RELIABILITY_METRICS`` is a directory where each process that ends in order leaves
its metrics.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from indelible import AuditService, get_audit_service, log_audit_event, runtime
from indelible.capture.asgi import AuditMiddleware
from indelible.metrics import Histogram
from indelible.ports import Store
from indelible.settings import load
from tests.reliability import crashes


def open_store(url: str, segment_rows: int) -> Store:
    """The store of ``url``, with segments as small as tests want them. Not opened."""
    from indelible.migrations import upgrade_engine
    from indelible.stores.postgres import PostgresStore
    from indelible.stores.sqlite import SqliteStore

    kind = SqliteStore if url.startswith("sqlite") else PostgresStore
    return kind(url, segment_rows=segment_rows, prepare=upgrade_engine)


def _service() -> AuditService:
    settings = load()
    return AuditService(open_store(settings.database_url, int(os.environ["RELIABILITY_SEGMENT_ROWS"])), settings)


crashes.arm_from_environment()
if "RELIABILITY_SEGMENT_ROWS" in os.environ:
    runtime.swap(_service())


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await get_audit_service().start()
    yield
    await get_audit_service().stop()
    if folder := os.environ.get("RELIABILITY_METRICS"):
        told = {
            name: value for name, value in get_audit_service().metrics().items() if not isinstance(value, Histogram)
        }
        (Path(folder) / f"{os.getpid()}.json").write_text(json.dumps(told))


app = FastAPI(lifespan=lifespan)
app.add_middleware(
    AuditMiddleware,
    excluded_paths=("/pid", "/log", "/health"),
    on_failure="refuse" if os.environ.get("RELIABILITY_REFUSE") else "serve",
)


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


@app.get("/health")
async def health() -> dict[str, object]:
    return {"pid": os.getpid(), "state": get_audit_service().health().state}


@app.post("/things", status_code=201)
async def create() -> dict[str, str]:
    return {"made": "a thing"}


@app.post("/log")
async def log() -> str:
    return str(await log_audit_event(event_type="data_modify", action="update", resource_type="thing"))
