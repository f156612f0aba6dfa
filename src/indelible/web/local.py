"""The dashboard for one person at this machine, where no host serves it: ``indelible dashboard``."""

from __future__ import annotations

import hmac
import secrets
import socket
from typing import Final

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from indelible.service import AuditService
from indelible.web.dashboard import audit_dashboard

#: Under other names the pages are not served: a page elsewhere must not reach them by a name it points at this machine.
_HOSTS: Final = ("127.0.0.1", "localhost")
_HINT: Final = "open the link that indelible dashboard printed, once; start it again for another"


def local_dashboard(service: AuditService, *, token: str, reader: str, cookie: str = "indelible") -> FastAPI:
    """An application with the dashboard at ``/audit/`` for whoever has ``token``, and for nobody else.

    ``/enter?token=...`` takes the token once, in exchange for a session cookie of the name ``cookie``. Everything read is
    recorded as read by ``reader``. It must listen on a loopback address only.
    """
    session = secrets.token_urlsafe(32)
    unused = [token]

    async def admitted(request: Request) -> str:
        if not _same(request.cookies.get(cookie, ""), session):
            raise HTTPException(403, _HINT)
        return reader

    app = FastAPI(title="Indelible", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(_HOSTS), www_redirect=False)
    app.include_router(audit_dashboard(require_admin=admitted, service=service))

    @app.get("/")
    async def root() -> Response:
        return RedirectResponse("audit/", 307)

    @app.get("/enter")
    async def enter(token: str = "") -> Response:
        if not unused or not _same(token, unused[0]):
            return PlainTextResponse(f"{_HINT}\n", 403)
        unused.clear()
        response = RedirectResponse("audit/", 303)
        # Not strict: a terminal in a browser is another site, and its link must lead in.
        response.set_cookie(cookie, session, httponly=True, samesite="lax")
        return response

    return app


class Server(uvicorn.Server):
    """Serves the dashboard until it is interrupted."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End. Live pages keep their connections open for as long as they can, so nothing is waited for."""
        for connection in list(self.server_state.connections):
            connection.transport.close()
        await super().shutdown(sockets)


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())
