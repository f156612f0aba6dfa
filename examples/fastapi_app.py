"""An audited FastAPI application: ADMIN_TOKEN=letmein uvicorn examples.fastapi_app:app"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request

from indelible import enrich, get_audit_service
from indelible.capture.asgi import AuditMiddleware
from indelible.web.api import audit_router


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await get_audit_service().start()
    yield
    await get_audit_service().stop()


def require_admin(request: Request) -> None:
    expected = f"Bearer {os.environ['ADMIN_TOKEN']}"
    if not secrets.compare_digest(request.headers.get("Authorization", "").encode(), expected.encode()):
        raise HTTPException(403)


app = FastAPI(lifespan=lifespan)
app.add_middleware(AuditMiddleware)
app.include_router(audit_router(require_admin=require_admin))


@app.put("/api/invoices/{invoice_id}")
async def pay(invoice_id: int) -> dict[str, int]:
    enrich(action="pay", old_value={"paid": False}, new_value={"paid": True})
    return {"id": invoice_id}
