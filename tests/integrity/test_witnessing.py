"""The add-checkpoint request and its answer: every value has one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.errors import NoteInvalid, ProofInvalid
from indelible.integrity.merkle import MAX_SIZE
from indelible.integrity.note import Signature
from indelible.integrity.witnessing import (
    MAX_REQUEST,
    AddCheckpoint,
    encode_signatures,
    parse_signatures,
)

HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple)


@given(old=st.integers(0, MAX_SIZE), proof=HASHES, checkpoint=st.binary(max_size=200))
def test_a_request_comes_back(old: int, proof: tuple[bytes, ...], checkpoint: bytes) -> None:
    """Whatever the checkpoint's bytes are, they are kept."""
    request = AddCheckpoint(old, proof, checkpoint)
    assert AddCheckpoint.parse(request.encode()) == request


@given(st.binary(max_size=300))
def test_nothing_else_is_read(data: bytes) -> None:
    """Any bytes: refused, or exactly what ``encode`` gives."""
    for body in (data, b"old 3\n" + data):
        try:
            request = AddCheckpoint.parse(body)
        except ProofInvalid:
            continue
        assert request.encode() == body


@pytest.mark.parametrize(
    "body",
    [
        b"old 1\nAAAA\n\nx",
        b"old 1\n" + 64 * (b"A" * 43 + b"=\n") + b"\nx",
        b"old 9223372036854775808\n\nx",
        b"old 01\n\nx",
        b"old 1 \n\nx",
        b"Old 1\n\nx",
        b"old 1\n",
        b"old 1\r\n\r\nx",
        "old １\n\nx".encode(),
        b"x" * (MAX_REQUEST + 1),
    ],
)
def test_other_spellings_are_refused(body: bytes) -> None:
    """Wrong hashes, too many of them, numbers of another form, no blank line, too long."""
    with pytest.raises(ProofInvalid):
        AddCheckpoint.parse(body)


def test_values_out_of_bounds_are_refused() -> None:
    """They cannot be built either."""
    for old, proof in ((-1, ()), (MAX_SIZE + 1, ()), (1, (b"short",)), (1, (bytes(32),) * 64)):
        with pytest.raises(ProofInvalid):
            AddCheckpoint(old, proof, b"")


def test_an_answer_is_signature_lines() -> None:
    """They come back as a note over the text that was sent; anything else is refused."""
    text = "log.example.com\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    signatures = (Signature("w.example.com", b"abcd", bytes(72)), Signature("x.example.com", b"abce", bytes(72)))
    answer = encode_signatures(text, signatures)
    assert answer.count(b"\n") == 2
    assert parse_signatures(text, answer).signatures == signatures
    for other in (b"", b"\n", answer[:-1], b"\n" + answer, answer + b"x\n", b"x" + answer):
        with pytest.raises(NoteInvalid):
            parse_signatures(text, other)
