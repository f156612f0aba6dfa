"""Checkpoints (C2SP tlog-checkpoint): the signed statement "this log has this many leaves and this root".

``docs/formats/checkpoint.md`` is the specification. A checkpoint is believed when a key of the log signed it; it binds
the log's owner only once it has left the owner's machines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from indelible.errors import CheckpointInvalid
from indelible.integrity import note
from indelible.integrity._text import base64, parse_base64, parse_decimal
from indelible.integrity.merkle import EMPTY_ROOT, HASH_SIZE, MAX_SIZE
from indelible.integrity.note import COSIGNATURE, ED25519, Note, Signature, Signer, Verified, VerifierKey

_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log: its origin (a URL without scheme), the number of its leaves, its root hash (32 bytes).

    Raises CheckpointInvalid for an impossible size or root, NoteInvalid for an origin that cannot be a key name.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        note.check_name(self.origin)
        if not 0 <= self.size <= MAX_SIZE:
            raise CheckpointInvalid(f"{self.size} is no size of a tree")
        if len(self.root) != HASH_SIZE or (self.size == 0 and self.root != EMPTY_ROOT):
            raise CheckpointInvalid(f"the root of size {self.size} is not one")

    @property
    def text(self) -> str:
        """The body: origin, size and root, each on a line."""
        return f"{self.origin}\n{self.size}\n{base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read a body. Raises CheckpointInvalid for anything but exactly these three lines (no extension lines)."""
        lines = text.split("\n")
        if len(lines) != _LINES + 1 or lines[-1]:
            raise CheckpointInvalid("a checkpoint's body is three lines: origin, size and root")
        size, root = parse_decimal(lines[1]), parse_base64(lines[2])
        if size is None or root is None:
            raise CheckpointInvalid("the checkpoint's size is no decimal number, or its root no base64")
        return cls(lines[0], size, root)


@dataclass(frozen=True, slots=True)
class OpenCheckpoint:
    """A checkpoint whose signatures hold: those of the log (at least one), and those of known witnesses."""

    checkpoint: Checkpoint
    signatures: tuple[Verified, ...]
    cosignatures: tuple[Verified, ...]


def sign_checkpoint(checkpoint: Checkpoint, *signers: Signer) -> bytes:
    """The signed note, one line a signer: two during a rotation of keys.

    Raises CheckpointInvalid when a signer's name is not the log's origin, NoteInvalid when there is no signer.
    """
    if any(signer.key.name != checkpoint.origin for signer in signers):
        raise CheckpointInvalid(f"a log signs as its origin, here {checkpoint.origin}")
    text = checkpoint.text
    return Note(text, tuple(note.sign(text, signer) for signer in signers)).encode()


def open_checkpoint(
    data: bytes, *, logs: Iterable[VerifierKey], witnesses: Iterable[VerifierKey] = ()
) -> OpenCheckpoint:
    """Verify a signed checkpoint against the keys of logs and witnesses that the caller trusts.

    Raises NoteInvalid when a signature by one of them is wrong or none is by any of them, CheckpointInvalid when the
    note is no checkpoint, or not signed by a log's key of the name that is its origin.
    """
    logs, witnesses = tuple(logs), tuple(witnesses)
    if any(key.kind != ED25519 for key in logs) or any(key.kind != COSIGNATURE for key in witnesses):
        raise CheckpointInvalid("a log's key is of type 01, a witness's of type 04")
    signed = Note.parse(data)
    verified = signed.verify((*logs, *witnesses))
    checkpoint = Checkpoint.parse(signed.text)
    signatures = tuple(v for v in verified if v.key.kind == ED25519 and v.key.name == checkpoint.origin)
    if not signatures:
        raise CheckpointInvalid(f"the checkpoint is not signed by the log {checkpoint.origin}")
    return OpenCheckpoint(checkpoint, signatures, tuple(v for v in verified if v.key.kind == COSIGNATURE))


def cosign_checkpoint(checkpoint: Checkpoint, signer: Signer, *, time: int) -> Signature:
    """A witness's statement that this is the largest consistent checkpoint it has seen at ``time`` (Unix seconds)."""
    return note.cosign(checkpoint.text, signer, time=time)


def add_cosignatures(data: bytes, signatures: Iterable[Signature]) -> bytes:
    """A signed checkpoint with the signature lines of witnesses added. Nothing is verified here."""
    return Note.parse(data).with_signatures(signatures).encode()
