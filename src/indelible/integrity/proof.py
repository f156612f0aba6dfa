"""Proof files (C2SP tlog-proof): everything that shows, offline, that an entry is in a log.

``docs/formats/proof.md`` is the specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from indelible.errors import ProofInvalid
from indelible.integrity._text import base64, parse_base64, parse_decimal
from indelible.integrity.checkpoint import OpenCheckpoint
from indelible.integrity.merkle import HASH_SIZE, MAX_SIZE, hash_leaf, verify_inclusion
from indelible.integrity.note import MAX_NOTE
from indelible.integrity.policy import Policy

#: Bytes of extra data, and of a proof file, at most.
MAX_EXTRA: Final = 65_536
MAX_PROOF: Final = MAX_NOTE + 2 * MAX_EXTRA
#: An audit path is no longer than the bits of a size.
MAX_HASHES: Final = 63

_HEADER: Final = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class TlogProof:
    """An entry's place in a log, the audit path from there to the root, and the signed checkpoint with that root.

    ``extra`` is opaque and *not* authenticated. ``checkpoint`` is kept byte for byte.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.index <= MAX_SIZE or len(self.hashes) > MAX_HASHES or len(self.extra) > MAX_EXTRA:
            raise ProofInvalid("the proof's index, audit path or extra data is out of bounds")
        if any(len(value) != HASH_SIZE for value in self.hashes):
            raise ProofInvalid(f"a hash of the proof is not {HASH_SIZE} bytes")

    def encode(self) -> bytes:
        """The bytes of the ``.tlog-proof`` file."""
        lines = [_HEADER]
        if self.extra:
            lines.append(f"extra {base64(self.extra)}")
        lines += [f"index {self.index}", *map(base64, self.hashes), "", ""]
        return "\n".join(lines).encode() + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """Read a proof file; nothing is verified yet. Raises ProofInvalid unless spelled as ``encode`` would."""
        if len(data) > MAX_PROOF:
            raise ProofInvalid(f"the proof is longer than {MAX_PROOF:,} bytes")
        head, blank, checkpoint = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise ProofInvalid("the proof is not ASCII") from error
        if not blank or lines.pop(0) != _HEADER:
            raise ProofInvalid(f"this is no proof: it does not begin with {_HEADER}")
        extra: bytes | None = b""
        if lines and lines[0].startswith("extra "):
            extra = parse_base64(lines.pop(0).removeprefix("extra ")) or None
        index = parse_decimal(lines.pop(0).removeprefix("index ")) if lines and lines[0].startswith("index ") else None
        if extra is None or index is None:
            raise ProofInvalid("the proof's index is missing or no decimal number, or its extra data no base64")
        hashes = [parse_base64(line) for line in lines]
        if None in hashes:
            raise ProofInvalid("a hash of the proof is no base64")
        return cls(index, tuple(value for value in hashes if value is not None), checkpoint, extra)

    def verify(self, entry: bytes, policy: Policy) -> OpenCheckpoint:
        """Verify that ``entry`` (leaf bytes) is in the log, by a policy the caller trusts; return the checkpoint.

        Raises NoteInvalid (CheckpointInvalid) when the policy does not accept the checkpoint, ProofInvalid when the
        audit path does not lead from the entry to its root.
        """
        opened = policy.open(self.checkpoint)
        tree = opened.checkpoint
        verify_inclusion(self.index, tree.size, hash_leaf(entry), self.hashes, tree.root)
        return opened
