"""Proof files: one spelling, and nothing in them that can be changed unnoticed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.errors import NoteInvalid, ProofInvalid
from indelible.integrity.checkpoint import Checkpoint, sign_checkpoint
from indelible.integrity.merkle import NodeReader, hash_leaf, inclusion_proof, root_hash
from indelible.integrity.note import Ed25519Signer
from indelible.integrity.policy import Policy
from indelible.integrity.proof import MAX_EXTRA, MAX_HASHES, MAX_PROOF, TlogProof

LOG = Ed25519Signer("log.example", b"\1" * 32)
POLICY = Policy((LOG.key,))
ENTRIES = [b"entry %d" % i for i in range(13)]
HASHES = [hash_leaf(entry) for entry in ENTRIES]
Prove = Callable[[int], TlogProof]


@pytest.fixture(scope="module")
def prove(read_nodes: Callable[[Sequence[bytes]], NodeReader]) -> Prove:
    """The proof file of one entry in the log of thirteen."""
    checkpoint = sign_checkpoint(Checkpoint("log.example", len(ENTRIES), root_hash(HASHES)), LOG)
    node = read_nodes(HASHES)
    return lambda index: TlogProof(index, tuple(inclusion_proof(index, len(ENTRIES), node)), checkpoint)


def test_every_entry_can_be_proved(prove: Prove) -> None:
    """Each proof holds for its own entry and for no other."""
    for index, other in itertools.product(range(len(ENTRIES)), repeat=2):
        proof = TlogProof.parse(prove(index).encode())
        if index == other:
            assert proof.verify(ENTRIES[other], POLICY).checkpoint.size == len(ENTRIES)
        else:
            with pytest.raises(ProofInvalid):
                proof.verify(ENTRIES[other], POLICY)


def test_a_proof_needs_a_trusted_log(prove: Prove) -> None:
    """The checkpoint in the file is believed only by policy."""
    stranger = Policy((Ed25519Signer("log.example", b"\2" * 32).key,))
    with pytest.raises(NoteInvalid):
        prove(3).verify(ENTRIES[3], stranger)


def test_any_changed_byte_is_refused(prove: Prove) -> None:
    """Header, index, audit path, blank lines and checkpoint: no byte can be another, and none can be missing."""
    data = prove(4).encode()
    for at, byte in enumerate(data):
        for change in (1, 2, 4, 16, 32, 128, byte ^ 10):
            if change:
                with pytest.raises((ProofInvalid, NoteInvalid)):
                    verify(data[:at] + bytes((byte ^ change,)) + data[at + 1 :], ENTRIES[4])
        with pytest.raises((ProofInvalid, NoteInvalid)):
            verify(data[:at] + data[at + 1 :], ENTRIES[4])


def verify(data: bytes, entry: bytes) -> None:
    TlogProof.parse(data).verify(entry, POLICY)


hashes = st.binary(min_size=32, max_size=32)


@given(st.integers(0, 2**63 - 1), st.lists(hashes, max_size=MAX_HASHES), st.binary(), st.binary(max_size=40))
def test_proof_files_round_trip(index: int, path: list[bytes], checkpoint: bytes, extra: bytes) -> None:
    """What is written is what is read; the checkpoint is kept byte for byte."""
    proof = TlogProof(index, tuple(path), checkpoint, extra)
    assert TlogProof.parse(proof.encode()) == proof


HEADER = "c2sp.org/tlog-proof@v1"
HASH = "A" * 43 + "="


@pytest.mark.parametrize(
    "head",
    [
        "",
        HEADER,
        "c2sp.org/tlog-proof@v2\nindex 0",
        f"{HEADER} \nindex 0",
        f"{HEADER}\r\nindex 0",
        f"{HEADER}\n{HASH}",
        f"{HEADER}\nindex",
        f"{HEADER}\nindex ",
        f"{HEADER}\nindex -1",
        f"{HEADER}\nindex 00",
        f"{HEADER}\nindex x",
        f"{HEADER}\nindex  1",
        f"{HEADER}\nindex 9223372036854775808",
        f"{HEADER}\nIndex 1",
        f"{HEADER}\nindex 1\nextra AAAA",
        f"{HEADER}\nextra \nindex 1",
        f"{HEADER}\nextra AAA\nindex 1",
        f"{HEADER}\nextra AAAA\nextra AAAA\nindex 1",
        f"{HEADER}\nextra AAAA",
        f"{HEADER}\nindex 1\n{HASH[:-1]}",
        f"{HEADER}\nindex 1\nAAAA",
        f"{HEADER}\nindex 1\n{'A' * 42}B=",
        f"{HEADER}\nindex 1\n{HASH} ",
        f"{HEADER}\nindex 1" + f"\n{HASH}" * (MAX_HASHES + 1),
        f"{HEADER}\nindex 1\né",
    ],
)
def test_malformed_files_are_refused(head: str) -> None:
    """Other headers, missing, negative or loose indexes, bad base64, hashes that are not 32 bytes."""
    with pytest.raises(ProofInvalid):
        TlogProof.parse(f"{head}\n\ncheckpoint".encode())
    with pytest.raises(ProofInvalid):
        TlogProof.parse(f"{HEADER}\nindex 1\n".encode())


def test_bounds() -> None:
    """Nothing is parsed, and nothing made, beyond them."""
    with pytest.raises(ProofInvalid, match="longer"):
        TlogProof.parse(bytes(MAX_PROOF + 1))
    with pytest.raises(ProofInvalid):
        TlogProof(-1, (), b"")
    with pytest.raises(ProofInvalid):
        TlogProof(0, (bytes(31),), b"")
    with pytest.raises(ProofInvalid):
        TlogProof(0, (), b"", bytes(MAX_EXTRA + 1))
