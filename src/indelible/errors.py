"""Everything Indelible raises, as one tree.

    IndelibleError
    ├── ConfigurationError        a setting that cannot work
    ├── InvalidEvent              log() was given an event that breaks the vocabulary
    ├── InvalidQuery              a filter, date, cursor or page that means nothing
    ├── NotAccepted               the event is not in the journal; the caller must not believe it is
    │   ├── JournalFull           the byte quota is used up
    │   └── JournalUnavailable    the directory cannot be written, or the journal is closed
    ├── JournalCorrupt            a journal's header is not one
    ├── WaitTimeout               accepted, but not yet durable or stored when the deadline came
    ├── KeyUnavailable            a signing key's file cannot be used, or is open to others
    ├── AnchorFailed              a place outside did not take a checkpoint; it is tried again
    ├── IntegrityError            bytes that do not prove what they claim, or are not in their canonical form
    │   ├── LeafInvalid           a row that cannot be a leaf, or leaf bytes or a disclosure that are not canonical
    │   ├── ProofInvalid          an inclusion or consistency proof, or a proof file, that does not hold
    │   ├── NoteInvalid           a signed note or key that cannot be read, or whose signatures do not hold
    │   │   └── CheckpointInvalid a note that is well signed or well formed, but no checkpoint of the log in question
    │   ├── LogForked             the log is shorter than, or differs from, what was signed; no more is signed
    │   ├── PolicyInvalid         a trust policy that cannot be read
    │   └── TileInvalid           a tile or entry bundle of the wrong length, width or place
    └── StoreError
        ├── StoreUnavailable      try again later: connection, lock, time-out, disk
        ├── SchemaOutOfDate       the tables are missing or old; a command is named
        ├── ForeignTable          a table ``audit_logs`` that is not ours
        ├── RowRefused            the store refuses this row and will refuse it again
        ├── OutOfSequence         the store has forgotten events of this writer that it had taken
        ├── WriterCloned          another process goes on under this writer's id with other events
        ├── TreeDamaged           the log's right edge does not lead to its newest root; it is not grown any more
        └── Protected             somebody tried to change or delete what is append-only

Driver exceptions never leak. Each error may carry a ``hint``: what to do about it.
"""

from __future__ import annotations


class IndelibleError(Exception):
    """Root of the tree. ``hint`` says what to do, in one sentence, or is empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigurationError(IndelibleError):
    """A setting that cannot work, found at start-up."""


class InvalidEvent(IndelibleError, ValueError):
    """``log()`` was called with a word outside the vocabulary: a mistake in the calling code."""


class InvalidQuery(IndelibleError, ValueError):
    """A query that means nothing; ``parameter`` names the culprit."""

    def __init__(self, message: str, *, parameter: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.parameter = parameter


class NotAccepted(IndelibleError):
    """The event is not in the journal."""


class JournalFull(NotAccepted):
    """The journal's byte quota is used up."""


class JournalUnavailable(NotAccepted):
    """The journal cannot be written: directory, permissions, disk, or it is closed."""


class JournalCorrupt(IndelibleError):
    """A journal's header is not one, or of another version."""


class WaitTimeout(IndelibleError):
    """The event is accepted, but what was awaited did not happen before the deadline."""


class KeyUnavailable(IndelibleError):
    """A signing key, or what is kept beside it, cannot be used: file, permissions, contents."""


class AnchorFailed(IndelibleError):
    """A place outside the database did not take a checkpoint, or gave a wrong answer. It is tried again."""


class IntegrityError(IndelibleError):
    """Bytes that do not prove what they claim, or are not in their canonical form."""


class LeafInvalid(IntegrityError, ValueError):
    """A row that cannot be a leaf; leaf bytes or a disclosure that are not canonical.

    ``index`` is the row's place in the batch that was sealed, None when there was no batch.
    """

    def __init__(self, message: str, *, index: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.index = index


class ProofInvalid(IntegrityError, ValueError):
    """An inclusion or consistency proof, or a proof file, that does not hold."""


class NoteInvalid(IntegrityError, ValueError):
    """A signed note or a key that cannot be read, or a note whose signatures do not hold."""


class CheckpointInvalid(NoteInvalid):
    """A note that is no checkpoint, or not one of the log or the witnesses in question."""


class LogForked(IntegrityError):
    """The log is shorter than what was signed of it, or does not contain it: put back, or changed. Nothing is signed."""


class PolicyInvalid(IntegrityError, ValueError):
    """A trust policy that cannot be read."""


class TileInvalid(IntegrityError, ValueError):
    """A tile or an entry bundle of the wrong length, width or place."""


class StoreError(IndelibleError):
    """Something went wrong in the store."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or is busy; trying again later is right."""


class SchemaOutOfDate(StoreError):
    """The tables are missing or of an older version."""


class ForeignTable(StoreError):
    """A table named ``audit_logs`` exists that Indelible did not make."""


class RowRefused(StoreError):
    """The store refuses this row, and would refuse it again."""


class OutOfSequence(StoreError):
    """The store holds fewer of a writer's events than it had confirmed: it was restored, or failed over with a loss."""


class WriterCloned(StoreError):
    """Under this writer's id and number the store holds another event: a data directory or a machine was cloned."""


class TreeDamaged(StoreError):
    """The stored rows and tiles do not lead to the newest head's root: somebody changed them, and nothing is added."""


class Protected(StoreError):
    """An attempt to change or delete what is append-only."""
