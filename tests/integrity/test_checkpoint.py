"""Checkpoints: one spelling of the body, a log that signs as its origin, witnesses that add their time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.errors import CheckpointInvalid, NoteInvalid
from indelible.integrity.checkpoint import (
    Checkpoint,
    add_cosignatures,
    cosign_checkpoint,
    open_checkpoint,
    sign_checkpoint,
)
from indelible.integrity.merkle import EMPTY_ROOT
from indelible.integrity.note import COSIGNATURE, Ed25519Signer, Note, sign

ORIGIN = "audit.example.com/prod"
LOG = Ed25519Signer(ORIGIN, b"\1" * 32)
NEW = Ed25519Signer(ORIGIN, b"\2" * 32)
WITNESS = Ed25519Signer("witness.example/w", b"\3" * 32, kind=COSIGNATURE)
CHECKPOINT = Checkpoint(ORIGIN, 20_852_163, b"\x0a" * 32)
EMPTY = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


def test_the_body() -> None:
    """Origin, size, root: three lines. The empty tree has the root of nothing."""
    assert Checkpoint(ORIGIN, 0, EMPTY_ROOT).text == f"{ORIGIN}\n0\n{EMPTY}\n"
    assert Checkpoint.parse(CHECKPOINT.text) == CHECKPOINT


@given(st.text("abc./é", min_size=1), st.integers(1, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_bodies_round_trip(origin: str, size: int, root: bytes) -> None:
    """What is written is what is read."""
    checkpoint = Checkpoint(origin, size, root)
    assert Checkpoint.parse(checkpoint.text) == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "o\n1\n",
        f"o\n0\n{EMPTY}",
        f"o\n0\n{EMPTY}\n\n",
        f"o\n0\n{EMPTY}\nextension\n",
        f"o\n00\n{EMPTY}\n",
        f"o\n01\n{EMPTY}\n",
        f"o\n+1\n{EMPTY}\n",
        f"o\n-1\n{EMPTY}\n",
        f"o\n1 \n{EMPTY}\n",
        f"o\n\u0661\n{EMPTY}\n",
        f"o\n1_0\n{EMPTY}\n",
        f"o\n9223372036854775808\n{EMPTY}\n",
        f"o\n1\n{EMPTY[:-1]}\n",
        f"o\n1\n{EMPTY[:-2]}V=\n",
        f"o\n1\n{EMPTY[:-4]}\n",
        f"o\n1\n{EMPTY.replace('+', '-')}\n",
        f"o\n0\n{'A' * 43}=\n",
        f"\n1\n{EMPTY}\n",
        f"o p\n1\n{EMPTY}\n",
        f"o+p\n1\n{EMPTY}\n",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    """Extension lines, loose numbers and base64, a wrong root of size 0, origins that cannot be key names."""
    with pytest.raises(NoteInvalid):
        Checkpoint.parse(text)


def test_sizes_and_roots_are_bounded() -> None:
    """A checkpoint that could not be written is not made."""
    for size, root in ((-1, bytes(32)), (2**63, bytes(32)), (1, bytes(31)), (0, bytes(32))):
        with pytest.raises(CheckpointInvalid):
            Checkpoint(ORIGIN, size, root)


def test_a_checkpoint_opens_with_the_logs_key() -> None:
    """The log's signature is required; known witnesses are reported with their time."""
    data = sign_checkpoint(CHECKPOINT, LOG)
    opened = open_checkpoint(data, logs=[LOG.key])
    assert (opened.checkpoint, opened.cosignatures) == (CHECKPOINT, ())
    cosigned = add_cosignatures(data, [cosign_checkpoint(CHECKPOINT, WITNESS, time=7)])
    opened = open_checkpoint(cosigned, logs=[LOG.key], witnesses=[WITNESS.key])
    assert [(c.key, c.time) for c in opened.cosignatures] == [(WITNESS.key, 7)]
    assert cosigned.startswith(data)
    for logs in ([], [NEW.key]):
        with pytest.raises(NoteInvalid):
            open_checkpoint(cosigned, logs=logs, witnesses=[WITNESS.key])


def test_rotation_signs_with_both_keys() -> None:
    """During the overlap, whoever knows one of the two keys believes the checkpoint."""
    data = sign_checkpoint(CHECKPOINT, LOG, NEW)
    for keys in ([LOG.key], [NEW.key], [LOG.key, NEW.key]):
        assert len(open_checkpoint(data, logs=keys).signatures) == len(keys)


def test_a_log_signs_only_as_its_origin() -> None:
    """A trusted log cannot vouch for the checkpoint of another origin."""
    other = Ed25519Signer("other.example", b"\4" * 32)
    with pytest.raises(CheckpointInvalid):
        sign_checkpoint(CHECKPOINT, other)
    with pytest.raises(NoteInvalid):
        sign_checkpoint(CHECKPOINT)
    forged = Note(CHECKPOINT.text, (sign(CHECKPOINT.text, other),)).encode()
    with pytest.raises(CheckpointInvalid, match="not signed by the log"):
        open_checkpoint(forged, logs=[LOG.key, other.key])


def test_the_roles_of_keys_are_kept_apart() -> None:
    """A witness's key cannot stand as a log's, nor a log's as a witness's."""
    data = sign_checkpoint(CHECKPOINT, LOG)
    with pytest.raises(CheckpointInvalid):
        open_checkpoint(data, logs=[LOG.key, WITNESS.key])
    with pytest.raises(CheckpointInvalid):
        open_checkpoint(data, logs=[LOG.key], witnesses=[NEW.key])


def test_a_signed_note_that_is_no_checkpoint_is_refused() -> None:
    """A good signature does not make a text a checkpoint."""
    note = Note(f"{ORIGIN}\nhello\n", (sign(f"{ORIGIN}\nhello\n", LOG),)).encode()
    with pytest.raises(CheckpointInvalid):
        open_checkpoint(note, logs=[LOG.key])


def test_any_changed_byte_of_a_checkpoint_is_refused() -> None:
    """Each byte of body and lines, of the log and of the witness."""
    data = add_cosignatures(
        sign_checkpoint(CHECKPOINT, LOG), [cosign_checkpoint(CHECKPOINT, WITNESS, time=1_760_000_000)]
    )
    whole = open_checkpoint(data, logs=[LOG.key], witnesses=[WITNESS.key])
    for at, byte in enumerate(data):
        for change in (1, 2, 16, 32, 128, byte ^ 10):
            if change:
                bad = data[:at] + bytes((byte ^ change,)) + data[at + 1 :]
                try:
                    # A witness's line that is no longer recognised is a stranger's: it adds nothing.
                    assert open_checkpoint(bad, logs=[LOG.key], witnesses=[WITNESS.key]).cosignatures == ()
                    assert at > data.index(b"\n\xe2\x80\x94 witness")
                except NoteInvalid:
                    pass
    assert len(whole.cosignatures) == 1
