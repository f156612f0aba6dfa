"""How the log stands: what is sealed, signed and anchored, what waits, what is missing. Overview and integrity show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from indelible.directory import oldest_waiting
from indelible.errors import IntegrityError
from indelible.health import Health
from indelible.integrity.checkpoint import Checkpoint
from indelible.integrity.note import Note
from indelible.ports import StoredCheckpoint
from indelible.queries import Filter
from indelible.service import AuditService
from indelible.settings import Settings

#: Gaps are counted up to here.
_GAPS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint as a page shows it: who signed it, and who besides. Signatures are named here, not verified."""

    size: int
    published_at: int
    origin: str
    root: bytes
    signers: tuple[str, ...]
    witnesses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """``size`` rows are sealed; ``checkpoint`` is the newest, None where none was published or it cannot be read.

    ``waiting`` events are accepted and not yet stored. ``gaps`` counts ``audit.gap`` events, ``gaps_exact`` says whether
    these are all.
    """

    size: int
    checkpoint: Signed | None
    damaged: bool
    anchors: tuple[str, ...]
    waiting: int
    gaps: int
    gaps_exact: bool
    health: Health

    @property
    def unsigned(self) -> int:
        """Rows that no checkpoint covers yet."""
        return self.size - (0 if self.checkpoint is None else min(self.checkpoint.size, self.size))


def standing(service: AuditService) -> Standing:
    """Look. Raises StoreUnavailable."""
    store = service.store
    head, newest = store.head(), store.newest_checkpoint()
    checkpoint = None if newest is None else signed(newest)
    gaps = store.count(Filter(event_type=("audit.gap",)), cap=_GAPS)
    return Standing(
        size=0 if head is None else head.size,
        checkpoint=checkpoint,
        damaged=newest is not None and checkpoint is None,
        anchors=anchors(service.settings),
        waiting=oldest_waiting(service.settings.data_dir).events,
        gaps=gaps.value,
        gaps_exact=gaps.exact,
        health=service.health(),
    )


def signed(stored: StoredCheckpoint) -> Signed | None:
    """What a stored checkpoint says of itself, or None where it says nothing that can be read."""
    try:
        note = Note.parse(stored.note)
        checkpoint = Checkpoint.parse(note.text)
    except IntegrityError:
        return None
    own = tuple(line.name for line in note.signatures if line.name == checkpoint.origin)
    others = tuple(line.name for line in note.signatures if line.name != checkpoint.origin)
    return Signed(checkpoint.size, stored.published_at, checkpoint.origin, checkpoint.root, own, others)


def anchors(settings: Settings) -> tuple[str, ...]:
    """The places outside that get every checkpoint, named without what is secret in their addresses."""
    named = []
    if settings.anchor_directory is not None:
        named.append(f"the directory {settings.anchor_directory}")
    if settings.anchor_s3_bucket is not None:
        lock = settings.anchor_s3_lock_mode.lower() if settings.anchor_s3_retention_days else "the bucket's own"
        named.append(f"the bucket {settings.anchor_s3_bucket}, Object Lock: {lock}")
    if settings.anchor_webhook_url is not None:
        named.append("a webhook")
    named += [f"the witness {entry.split('+')[0]}" for entry in settings.anchor_witnesses]
    if settings.anchor_tsa_url is not None:
        named.append("a time-stamping authority")
    return tuple(named)
