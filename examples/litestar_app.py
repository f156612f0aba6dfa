"""An audited Litestar application: uvicorn examples.litestar_app:app"""

from litestar import Litestar, put

from indelible import enrich, get_audit_service
from indelible.capture.asgi import AuditMiddleware


@put("/api/invoices/{invoice_id:int}")
async def pay(invoice_id: int) -> dict[str, int]:
    enrich(action="pay", old_value={"paid": False}, new_value={"paid": True})
    return {"id": invoice_id}


async def start() -> None:
    await get_audit_service().start()


async def stop() -> None:
    await get_audit_service().stop()


# Around the whole application: Litestar's own middleware does not see requests that match no route.
app = AuditMiddleware(Litestar([pay], on_startup=[start], on_shutdown=[stop]))
