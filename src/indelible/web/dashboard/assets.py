"""The dashboard's files: read once, named by their contents so that browsers may keep them for good."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from fastapi import HTTPException, Request, Response

from indelible import context

_STATIC: Final = Path(__file__).with_name("static")
_MEDIA: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOR_GOOD: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: its contents, the same compressed, and the digest in its address."""

    body: bytes
    packed: bytes
    digest: str
    media: str


@functools.cache
def assets() -> Mapping[str, Asset]:
    """Every file that is served, by its name."""
    return {path.name: _load(path) for path in _STATIC.rglob("*") if path.suffix in _MEDIA}


def address(name: str) -> str:
    """The address of a file below the dashboard's root. Raises KeyError for a file that is not there."""
    return f"static/{assets()[name].digest}/{name}"


async def serve(request: Request, digest: str, name: str) -> Response:
    """A file. Under the digest of another version it is answered too, but not to be kept: pages outlive deployments."""
    if (own := context.current_request()) is not None:
        own.recorded = True  # nothing of the log is shown
    asset = assets().get(name)
    if asset is None:
        raise HTTPException(404, "no such file")
    headers = {
        "Cache-Control": _FOR_GOOD if digest == asset.digest else "no-cache",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.packed, media_type=asset.media, headers={**headers, "Content-Encoding": "gzip"})
    return Response(asset.body, media_type=asset.media, headers=headers)


def _load(path: Path) -> Asset:
    body = path.read_bytes()
    return Asset(body, gzip.compress(body, 9, mtime=0), sha256(body).hexdigest()[:16], _MEDIA[path.suffix])
