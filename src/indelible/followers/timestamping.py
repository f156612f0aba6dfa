"""RFC 3161 time stamps: somebody else's clock says that a checkpoint was there by then.

The token lies beside the checkpoint it is about, and ``openssl ts -verify`` reads it. The authority's certificate is not
judged here: that is for whoever relies on the token, years later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from indelible.errors import AnchorFailed, ConfigurationError
from indelible.followers.anchors import FileAnchor, Place, Published, checkpoint_path
from indelible.followers.http import host_of, post

try:
    from pyasn1.codec.der import decoder, encoder
    from pyasn1.error import PyAsn1Error
    from pyasn1_modules import rfc3161, rfc5652
except ImportError as error:
    raise ConfigurationError("time stamps need pyasn1-modules", hint="pip install 'indelible[tsa]'") from error

_SHA256: Final = "2.16.840.1.101.3.4.2.1"
#: PKIStatus: granted, and granted with modifications.
_GRANTED: Final = frozenset({0, 1})
_QUERY: Final = "application/timestamp-query"
_REPLY: Final = "application/timestamp-reply"


class TimestampAnchor:
    """Has a checkpoint stamped at most every ``interval`` seconds and keeps the token, ``<size>.tsr``, in each place."""

    def __init__(
        self,
        url: str,
        places: Sequence[Place],
        *,
        interval: float = 3600.0,
        timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"time-stamping authority {host_of(url)}"
        self._url = url
        self._places = tuple(places)
        self._interval = interval
        self._timeout = timeout
        self._clock = clock
        self._stamped_at: float | None = None

    def put(self, published: Published) -> None:
        """See anchors.Anchor. A checkpoint inside the interval is left unstamped: a later one contains it."""
        now = self._clock()
        if self._stamped_at is not None and 0 <= now - self._stamped_at < self._interval:
            return
        path = checkpoint_path(published.origin, published.size)
        tokens: dict[bytes, bytes] = {}
        for place in self._places:
            FileAnchor(place).put(published)
            # The token is about the very bytes that lie there; those of another place may have other cosignatures.
            note = place.read(path) or published.note
            if note not in tokens:
                tokens[note] = self._stamp(note)
            place.write(f"{path}.tsr", tokens[note], kept=True)
        self._stamped_at = now

    def _stamp(self, note: bytes) -> bytes:
        imprint, nonce = sha256(note).digest(), int.from_bytes(os.urandom(8))
        answer = post(self._url, _request(imprint, nonce), _QUERY, timeout=self._timeout)
        if answer.status != 200 or answer.content_type != _REPLY:
            raise AnchorFailed(f"{self.name} answered with {answer.status}, {answer.content_type}")
        try:
            status, stamped = _response(answer.body)
        except PyAsn1Error as error:
            raise AnchorFailed(f"{self.name} answered with something else than a time stamp") from error
        if status not in _GRANTED:
            raise AnchorFailed(f"{self.name} refused: status {status}")
        if stamped != (_SHA256, imprint, nonce):
            raise AnchorFailed(f"{self.name} stamped something else")
        return answer.body


def _request(imprint: bytes, nonce: int) -> bytes:
    """A TimeStampReq (RFC 3161 §2.4.1) that asks for the authority's certificate."""
    request = rfc3161.TimeStampReq()
    request["version"] = 1
    request["messageImprint"]["hashAlgorithm"]["algorithm"] = _SHA256
    request["messageImprint"]["hashedMessage"] = imprint
    request["nonce"] = nonce
    request["certReq"] = True
    encoded: bytes = encoder.encode(request)
    return encoded


def _response(data: bytes) -> tuple[int, tuple[str, bytes, int] | None]:
    """The status of a TimeStampResp (RFC 3161 §2.4.2), and what was stamped: algorithm, imprint, nonce."""
    response, _ = decoder.decode(data, asn1Spec=rfc3161.TimeStampResp())
    status = int(response["status"]["status"])
    if status not in _GRANTED:
        return status, None
    signed, _ = decoder.decode(response["timeStampToken"]["content"], asn1Spec=rfc5652.SignedData())
    content = signed["encapContentInfo"]["eContent"]
    info, _ = decoder.decode(bytes(content), asn1Spec=rfc3161.TSTInfo())
    about = info["messageImprint"]
    nonce = int(info["nonce"]) if info["nonce"].isValue else -1
    return status, (str(about["hashAlgorithm"]["algorithm"]), bytes(about["hashedMessage"]), nonce)
