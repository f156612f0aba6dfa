# The blocks of the integration guide stand here exactly as it prints them, hence:
# fmt: off
# ruff: noqa: E402, I001
# mypy: disable-error-code="no-untyped-def"
"""The Fog Compute API: ``uvicorn backend.server.main:app``."""

import logging
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles

from .database import close_db, init_db
from .logs import mask_access_log
from .problems import unhandled, unprocessable
from .routes import admin, auth, health, jobs, nodes, pages, users
from .routes import audit

logger = logging.getLogger(__name__)

from .services.audit_service import get_audit_service

@asynccontextmanager
async def lifespan(app: FastAPI):
    # Startup
    logger.info("Starting Fog Compute Backend API...")
    await init_db()

    # Start audit service
    audit_service = get_audit_service()
    await audit_service.start()

    # ... other startup code ...

    yield

    # Shutdown
    logger.info("Shutting down Fog Compute Backend API...")

    # Stop audit service (flushes remaining logs)
    await audit_service.stop()

    await close_db()


mask_access_log()
app = FastAPI(title="Fog Compute API", version="1.0.0", lifespan=lifespan)

app.add_exception_handler(RequestValidationError, unprocessable)
app.add_exception_handler(Exception, unhandled)

app.include_router(auth.router)
app.include_router(users.router)
app.include_router(nodes.router)
app.include_router(jobs.router)
app.include_router(admin.router)
app.include_router(health.router)
app.include_router(audit.router)
app.include_router(audit.pages)
app.include_router(pages.router)
app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))

from .middleware.audit_middleware import AuditMiddleware

# After creating app
app.add_middleware(
    AuditMiddleware,
    excluded_paths=['/health', '/metrics', '/docs', '/openapi.json'],
    log_successful_reads=False  # Set True to log all GET requests
)
