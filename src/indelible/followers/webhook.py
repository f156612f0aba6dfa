"""A webhook as a place for checkpoints: whatever somebody else's service does with what it is sent."""

from __future__ import annotations

from indelible.errors import AnchorFailed
from indelible.followers.anchors import Published
from indelible.followers.http import host_of, post

#: What a checkpoint is sent as.
NOTE_TYPE = "text/plain; charset=utf-8"


class Webhook:
    """POSTs each checkpoint, the signed note as the body. Any answer from 200 to 299 means that it was taken."""

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        self.name = f"webhook {host_of(url)}"
        self._url = url
        self._timeout = timeout

    def put(self, published: Published) -> None:
        """See anchors.Anchor."""
        answer = post(self._url, published.note, NOTE_TYPE, timeout=self._timeout)
        if not 200 <= answer.status < 300:
            raise AnchorFailed(f"{self.name} answered with {answer.status}")
