"""Signing in and out with a browser, for the pages that people open. Programs use ``/api/auth``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final
from urllib.parse import parse_qsl

import jinja2
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response, status
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError

from indelible import enrich
from indelible.capture.client import TrustedProxies
from indelible.web.dashboard import check_same_origin

from ..returning import arrived_over_tls, safe
from ..schemas import Credentials, Token
from ..security import SESSION_COOKIE, BrowserUser
from ..services.audit_service import get_audit_service
from .auth import sign_in, sign_out

router = APIRouter(include_in_schema=False)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # Not no-referrer: then the form would come with "Origin: null".
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_MAX_FORM: Final = 16_384
_templates: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).resolve().parents[1] / "templates"), autoescape=True
)


async def _form(request: Request) -> dict[str, str]:
    if int(request.headers.get("content-length") or _MAX_FORM + 1) > _MAX_FORM:
        raise HTTPException(status.HTTP_413_CONTENT_TOO_LARGE, "that is more than a name and a password")
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))


Form = Annotated[dict[str, str], Depends(_form)]


@router.get("/login")
def login_page(browser: BrowserUser, wanted: Annotated[str | None, Query(alias="next")] = None) -> Response:
    """The form; whoever is signed in goes on at once."""
    if browser is not None:
        return RedirectResponse(safe(wanted), status.HTTP_303_SEE_OTHER)
    return _page(wanted)


@router.post("/login", dependencies=[Depends(check_same_origin)])
def log_in(request: Request, form: Form) -> Response:
    """Sign the browser in and go on to where it came from. The session lasts as long as an access token."""
    wanted = form.get("next")
    enrich(resource_type="auth")  # as the API's events say, whose path does
    try:
        token = _token(form)
    except HTTPException as refused:
        return _page(wanted, form.get("username", ""), failed=True, code=refused.status_code)
    response = RedirectResponse(safe(wanted), status.HTTP_303_SEE_OTHER)
    response.set_cookie(
        SESSION_COOKIE,
        token.access_token,
        max_age=token.expires_in,
        path=_root(request),
        secure=arrived_over_tls(request, TrustedProxies(get_audit_service().settings.trusted_proxies)),
        httponly=True,
        samesite="lax",
    )
    return response


@router.post("/logout", dependencies=[Depends(check_same_origin)])
def log_out(request: Request, browser: BrowserUser) -> Response:
    """End the session, here and on the server."""
    enrich(resource_type="auth")
    if browser is not None:
        enrich(user_id=browser.id)
        sign_out(browser)
    response = RedirectResponse("login", status.HTTP_303_SEE_OTHER)
    response.delete_cookie(SESSION_COOKIE, path=_root(request), httponly=True, samesite="lax")
    return response


def _token(form: dict[str, str]) -> Token:
    try:
        credentials = Credentials(username=form.get("username", ""), password=form.get("password", ""))
    except ValidationError:
        # What no user can have is simply a wrong name or password.
        credentials = Credentials(username=form.get("username", "")[:256], password="")
    return sign_in(credentials)


def _page(wanted: str | None, username: str = "", *, failed: bool = False, code: int = 200) -> Response:
    page = _templates.get_template("login.html").render(next=safe(wanted), username=username, failed=failed)
    return HTMLResponse(page, code, headers=_HEADERS)


def _root(request: Request) -> str:
    return request.scope.get("app_root_path", request.scope["root_path"]) or "/"
