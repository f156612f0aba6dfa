"""To the login page and back again, by references that hold under every path prefix and behind every proxy.

Addresses in both directions are relative. The login page is at the application's root, so what it leads back to is a path
below that root, as ``audit/events?q=status%3Adenied``, wherever the root is.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from fastapi import HTTPException, Request, status

from indelible.capture.client import TrustedProxies, parse_address

#: Where a browser goes after signing in unless it came from somewhere.
HOME: Final = "audit/"
#: A path of our own: it begins with a letter of a name, so no scheme, host, other root or step up can be in front. No
#: character is in it that browsers leave out or read as another.
_OURS: Final = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~%/-]*(\?[!$&'()*+,;=:@/?A-Za-z0-9._~%-]*)?")
_QUERY_MARKS: Final = "!$&'()*+,;=:@/?%~"
_MAX_LENGTH: Final = 4096


def safe(target: str | None) -> str:
    """``target`` if it is a path of this application, else ``HOME``: a link to log in must not lead to another site."""
    if target is None or len(target) > _MAX_LENGTH or not _OURS.fullmatch(target):
        return HOME
    # A last segment "..", percent-encoded or not, would only lead up; no page of ours has one.
    path = target.partition("?")[0].lower().replace("%2e", ".")
    return HOME if ".." in path.split("/") else target


def to_the_login_page(request: Request) -> HTTPException:
    """What sends a browser to sign in and then back to the page it asked for."""
    if "hx-request" in request.headers:
        # A script asked for a part of a page. The page loads itself again, and is sent to sign in as a whole.
        return HTTPException(status.HTTP_401_UNAUTHORIZED, "sign in first", headers={"HX-Refresh": "true"})
    root, path = request.scope.get("app_root_path", request.scope["root_path"]), request.scope["path"]
    path = quote(path.removeprefix(root).lstrip("/"))
    query = quote(request.url.query, _QUERY_MARKS)
    wanted = f"{path}?{query}" if query else path
    login = f"{'../' * path.count('/')}login?next={quote(wanted, '')}"
    return HTTPException(status.HTTP_303_SEE_OTHER, "sign in first", headers={"Location": login})


def arrived_over_tls(request: Request, trusted: TrustedProxies) -> bool:
    """Whether the browser's own connection is encrypted: this one, or, if a trusted proxy says so, the one to the proxy."""
    if request.url.scheme == "https":
        return True
    peer = parse_address(request.client.host) if request.client else None
    return peer is not None and trusted.trusts(peer) and request.headers.get("x-forwarded-proto", "").lower() == "https"
