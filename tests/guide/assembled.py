"""An application put together from the guide's own Python blocks; served as ``tests.guide.assembled:app``.

Only what the guide leaves to the host stands here: a logger, ``init_db`` and ``close_db``, the app itself, a user.
"""

from __future__ import annotations

import ast
import inspect
import logging
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI

from backend.server.database import close_db, init_db
from scripts import guide

_BLOCKS = {(block.heading, block.code.splitlines()[0]): block.code for block in guide.blocks(guide.GUIDE.read_text())}
_USER_ID = "5f0c1f5e-6d1c-4b7e-9a43-0f6f5b6a9d10"


def block(step: str, first_line: str) -> str:
    """The code of the block that begins with this line, below the heading that begins with ``step``."""
    (code,) = [code for (heading, line), code in _BLOCKS.items() if heading.startswith(step) and line == first_line]
    return code


def run(code: str, package: str, **names: Any) -> dict[str, Any]:
    """Execute a block as if it stood in a module of ``package``; return its namespace."""
    namespace: dict[str, Any] = {"__name__": f"{package}.main", "__package__": package, **names}
    exec(compile(code, "docs/guide.md", "exec"), namespace)
    return namespace


step_1 = run(block("Step 1", "from .audit_log import AuditLog"), "backend.server.models")
step_4 = run(
    block("Step 4", "from .services.audit_service import get_audit_service"),
    "backend.server",
    asynccontextmanager=asynccontextmanager,
    FastAPI=FastAPI,
    logger=logging.getLogger("guide"),
    init_db=init_db,
    close_db=close_db,
)
app = FastAPI(lifespan=step_4["lifespan"])
step_2 = run(block("Step 2", "from .routes import audit"), "backend.server")
run(block("Step 2", "app.include_router(audit.router)"), "backend.server", app=app, audit=step_2["audit"])
run(block("Step 3", "from .middleware.audit_middleware import AuditMiddleware"), "backend.server", app=app)


@app.put("/api/admin/users/{user_id}")
async def promote(user_id: str) -> None:
    """Run the guide's example of manual logging inside a request."""
    code = block("Manual Logging", "from backend.server.services.audit_service import log_audit_event")
    compiled = compile(code, "docs/guide.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(compiled, {"user": SimpleNamespace(id=_USER_ID)})
    assert inspect.isawaitable(outcome)
    await outcome


@app.get("/health")
@app.get("/api/nodes/{node_id}")
async def read(node_id: int = 0) -> int:
    """Something to read."""
    return node_id
