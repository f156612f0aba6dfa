"""What all pages have in common: templates, headers, error pages, and where a page's links begin."""

from __future__ import annotations

import functools
import http
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import jinja2
from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from indelible import __version__
from indelible.web.dashboard import assets, words

#: Nothing is loaded from elsewhere, nothing inline runs, and no other site may frame a page.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer: then browsers would send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_ID: Final = "{log_id}"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("indelible.web.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=words.visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number,
        "events": words.events,
        "clock": words.clock,
        "exact": words.exact,
        "machine": words.machine,
        "since": words.since,
        "duration": words.duration,
        "size": words.size,
        "share": words.share,
        "percent": words.percent,
    }
    environment.globals |= {"version": __version__}
    return environment


def link(page: str, **params: object) -> str:
    """The address of a page below the dashboard's root; what is None or empty is left out."""
    given = [(name, value) for name, value in params.items() if value not in (None, "", ())]
    return f"{page}?{urlencode(given, doseq=True)}" if given else page


def render(request: Request, template: str, *, status: int = 200, **values: object) -> Response:
    """A page, or a part of one."""
    return HTMLResponse(fragment(request, template, **values), status, headers=HEADERS)


def fragment(request: Request, template: str, **values: object) -> str:
    """The HTML. ``root`` leads from its address to the dashboard's root, so that no link says where that is."""
    root = _root(request.scope["route"].path)
    shared: Mapping[str, Any] = {"range_q": "", **request.scope.get("indelible.dashboard", {"sign_out": None})}
    return (
        _environment()
        .get_template(template)
        .render(
            root=root,
            asset=lambda name: root + assets.address(name),
            link=lambda page, **params: root + link(page, **params),
            now=words.utc_now(),
            **{**shared, **values},
        )
    )


class PageRoute(APIRoute):
    """A page: whatever goes wrong is told as a page too, but for signing in, which is the host's."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's own handler."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await inner(request)
            except RequestValidationError as error:
                detail = "; ".join(str(each["msg"]) for each in error.errors())
                return trouble(request, 422, detail)
            except HTTPException as error:
                if error.status_code < 400 or error.status_code == 401:
                    raise
                return trouble(request, error.status_code, str(error.detail), error.headers)

        return handler


def trouble(request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The page for an answer that is none."""
    title = http.HTTPStatus(status).phrase
    response = render(request, "trouble.html", status=status, code=status, title=title, detail=detail)
    response.headers.update(headers or {})
    return response


def check_same_origin(request: Request) -> None:
    """Refuse what another site's page has sent. Raises HTTPException 403.

    Browsers say so themselves where the connection is trusted (``Sec-Fetch-Site``); elsewhere the page's origin is
    compared with the address it asked for, which a proxy has to pass on (``Host``).
    """
    site = request.headers.get("sec-fetch-site")
    if site == "same-origin":
        return
    origin = request.headers.get("origin")
    if site is None and origin and urlsplit(origin).netloc == request.headers.get("host"):
        return
    raise HTTPException(403, "this was sent by another site's page, or by no page at all")


def _root(path: str) -> str:
    return "./" if _ID not in path else "../" * (path.rpartition(_ID)[2].count("/") + 1)
