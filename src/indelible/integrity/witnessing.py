"""What a log says to a witness (C2SP tlog-witness): ``add-checkpoint``, its body and its answers.

old <size>
<consistency proof from that size, base64, one hash a line>

<signed checkpoint>
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from indelible.errors import NoteInvalid, ProofInvalid
from indelible.integrity._text import base64, parse_base64, parse_decimal
from indelible.integrity.merkle import HASH_SIZE, MAX_SIZE
from indelible.integrity.note import MAX_NOTE, Note, Signature

#: Where a witness takes checkpoints, under its own prefix.
ADD_CHECKPOINT: Final = "/add-checkpoint"
#: The type of the answer that says which size the witness has (status 409).
SIZE_TYPE: Final = "text/x.tlog.size"
#: Hashes of a consistency proof, and bytes of a request, at most.
MAX_HASHES: Final = 63
MAX_REQUEST: Final = MAX_NOTE + 8192

_OLD: Final = "old "


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request: the size the witness is thought to have, the proof from there, the signed checkpoint."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.old <= MAX_SIZE or len(self.proof) > MAX_HASHES:
            raise ProofInvalid("the old size or the consistency proof is out of bounds")
        if any(len(value) != HASH_SIZE for value in self.proof):
            raise ProofInvalid(f"a hash of the proof is not {HASH_SIZE} bytes")

    def encode(self) -> bytes:
        """The body of the request."""
        lines = [f"{_OLD}{self.old}", *map(base64, self.proof), "", ""]
        return "\n".join(lines).encode() + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> AddCheckpoint:
        """Read a body; nothing is verified yet. Raises ProofInvalid unless spelled as ``encode`` would."""
        if len(data) > MAX_REQUEST:
            raise ProofInvalid(f"the request is longer than {MAX_REQUEST:,} bytes")
        head, blank, checkpoint = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise ProofInvalid("the request is not ASCII before its checkpoint") from error
        first = lines.pop(0)
        old = parse_decimal(first.removeprefix(_OLD)) if first.startswith(_OLD) else None
        if not blank or old is None:
            raise ProofInvalid("the request does not begin with the old size")
        hashes = [parse_base64(line) for line in lines]
        if None in hashes:
            raise ProofInvalid("a hash of the proof is no base64")
        return cls(old, tuple(value for value in hashes if value is not None), checkpoint)


def encode_signatures(text: str, signatures: tuple[Signature, ...]) -> bytes:
    """The answer to a request that was granted: the signature lines alone."""
    return Note(text, signatures).encode()[len(text.encode()) + 1 :]


def parse_signatures(text: str, data: bytes) -> Note:
    """The answer as a note over the text that was sent. Raises NoteInvalid; the signatures are not verified yet."""
    note = Note.parse(text.encode() + b"\n" + data)
    if note.text != text:
        raise NoteInvalid("the answer holds more than signature lines")
    return note
