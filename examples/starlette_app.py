"""An audited Starlette application: uvicorn examples.starlette_app:app"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from indelible import enrich, get_audit_service
from indelible.capture.asgi import AuditMiddleware


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await get_audit_service().start()
    yield
    await get_audit_service().stop()


async def pay(request: Request) -> JSONResponse:
    enrich(action="pay", old_value={"paid": False}, new_value={"paid": True})
    return JSONResponse({"id": request.path_params["invoice_id"]})


routes = [Route("/api/invoices/{invoice_id:int}", pay, methods=["PUT"])]
app = Starlette(routes=routes, middleware=[Middleware(AuditMiddleware)], lifespan=lifespan)
