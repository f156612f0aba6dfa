"""Where checkpoints go: places outside the database, each tried until it has the newest checkpoint.

A signature by our own key adds nothing against whoever holds both database and key. A checkpoint that has left for a
place they cannot change does.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from indelible.delivery import Backoff
from indelible.errors import AnchorFailed
from indelible.integrity.note import Note, Signature
from indelible.metrics import Recorder

log: Final = logging.getLogger("indelible.publisher")

#: Seconds between two attempts at a place that fails: half to all of 1, 2, 4, ... up to five minutes.
BACKOFF: Final = Backoff(base=1.0, cap=300.0)

#: Gives the consistency proof from a smaller size to that of the checkpoint.
ProofMaker = Callable[[int], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Published:
    """A signed checkpoint on its way out. ``revision`` counts the cosignatures that came late."""

    origin: str
    size: int
    note: bytes
    revision: int = 0


class Anchor(Protocol):
    """A place outside that takes checkpoints."""

    @property
    def name(self) -> str:
        """What it is called in messages; no secrets."""
        ...

    def put(self, published: Published) -> None:
        """Bring the checkpoint there. MUST be repeatable, MUST be bounded in time. Raises AnchorFailed."""
        ...


class Cosigner(Protocol):
    """A witness: a place outside that answers with a signature of its own."""

    @property
    def name(self) -> str:
        """What it is called in messages; no secrets."""
        ...

    def cosign(self, published: Published, proof: ProofMaker) -> Sequence[Signature]:
        """Its signatures of the checkpoint. ``proof(first)`` proves it to contain a size. Raises AnchorFailed."""
        ...


class Place(Protocol):
    """A place that holds files."""

    @property
    def name(self) -> str:
        """What it is called in messages; no secrets."""
        ...

    def write(self, path: str, data: bytes, *, kept: bool) -> None:
        """Put a file there; one that is ``kept`` is never replaced by other contents. Raises AnchorFailed."""
        ...

    def read(self, path: str) -> bytes | None:
        """A file's contents, or None. Raises AnchorFailed."""
        ...


def checkpoint_path(origin: str, size: int) -> str:
    """``<origin>/checkpoints/<size, 12 digits>``."""
    return f"{origin}/checkpoints/{size:012d}"


class FileAnchor:
    """Writes each checkpoint to a file of its own, and the newest to ``<origin>/checkpoint`` as C2SP tlog-tiles has it."""

    def __init__(self, place: Place) -> None:
        self.name = place.name
        self._place = place

    def put(self, published: Published) -> None:
        """See Anchor. Another checkpoint of the same size in the same place is AnchorFailed: two trees were signed."""
        path = checkpoint_path(published.origin, published.size)
        present = self._place.read(path)
        if present is not None and _text(present) != _text(published.note):
            raise AnchorFailed(
                f"another checkpoint of size {published.size:,} is in {self.name}: the log has been forked",
                hint="keep both files, and find out who signed the other",
            )
        # A file that is there stays as it is, whatever cosignatures came late: a time stamp may be about its bytes.
        if present is None:
            self._place.write(path, published.note, kept=True)
        # Crash here ⇒ the newest is put again at the next start, and found to be there.
        self._place.write(f"{published.origin}/checkpoint", published.note, kept=False)


def _text(note: bytes) -> str:
    try:
        return Note.parse(note).text
    except ValueError as error:
        raise AnchorFailed("a file in the place of a checkpoint is none", hint="was it changed?") from error


class Attempts:
    """When a place outside is asked, and what is said about it: a line when it fails, a line when it is back."""

    def __init__(self, name: str, *, jitter: Callable[[], float] = random.random) -> None:
        self.name = name
        self._jitter = jitter
        self._failures = 0
        self._retry_at = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    def wait(self, now: float) -> float:
        """Seconds until the place may be asked; 0 if it may be now."""
        # A clock that went back must not make the wait longer than it can be.
        return self._retry_at - now if now < self._retry_at <= now + BACKOFF.cap else 0.0

    def failed(self, error: AnchorFailed, now: float, recorder: Recorder) -> None:
        """Count, and wait longer each time."""
        self._failures += 1
        self._retry_at = now + BACKOFF.delay(self._failures, self._jitter())
        recorder.add("anchor_failures")
        if self._failures == 1:
            log.warning("%s does not take checkpoints, trying again: %s", self.name, error)
        else:
            log.debug("%s failed %d times: %s", self.name, self._failures, error)

    def succeeded(self) -> None:
        """The place is there."""
        if self._failures:
            log.info("%s takes checkpoints again after %d failed attempts", self.name, self._failures)
        self._failures, self._retry_at = 0, 0.0
