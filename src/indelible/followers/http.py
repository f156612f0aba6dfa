"""One POST request, bounded in time and size. Redirects are not followed: a checkpoint goes where it was sent."""

from __future__ import annotations

from dataclasses import dataclass
from http.client import HTTPException
from typing import IO, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from indelible.errors import AnchorFailed, ConfigurationError

#: Bytes of an answer at most; cosignatures and time stamps are a few thousand.
MAX_ANSWER: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    content_type: str
    body: bytes


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


_open: Final = build_opener(_NoRedirects).open


def host_of(url: str) -> str:
    """The host and port of an address, for messages: paths and passwords may be secrets.

    Raises ConfigurationError for anything but an ``http`` or ``https`` address.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError("an address of a place for checkpoints is not http:// or https://")
    return parts.netloc.rpartition("@")[2]


def post(url: str, body: bytes, content_type: str, *, timeout: float) -> Answer:
    """Send ``body``; return the answer of any status. ``timeout`` in seconds. Raises AnchorFailed if there is none."""
    host = host_of(url)
    headers = {"Content-Type": content_type, "User-Agent": "indelible"}
    request = Request(url, data=body, headers=headers, method="POST")  # noqa: S310  # host_of has looked at the scheme
    try:
        with _open(request, timeout=timeout) as response:
            return _answer(response.status, response)
    except HTTPError as error:
        with error:
            return _answer(error.code, error)
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise AnchorFailed(f"no answer from {host}: {type(reason).__name__}: {reason}") from error


def _answer(status: int, response: Any) -> Answer:
    body = response.read(MAX_ANSWER + 1)
    if len(body) > MAX_ANSWER:
        raise AnchorFailed(f"the answer is longer than {MAX_ANSWER:,} bytes")
    return Answer(status, response.headers.get_content_type(), body)
