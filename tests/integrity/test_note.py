"""Signed notes and keys: the published example, one spelling, the rules about known and unknown keys."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from indelible.errors import NoteInvalid
from indelible.integrity.note import (
    COSIGNATURE,
    ED25519,
    MAX_NOTE,
    MAX_SIGNATURES,
    Ed25519Signer,
    Note,
    Signature,
    Verified,
    VerifierKey,
    cosign,
    cosignature_message,
    sign,
)

VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
TEXT = "a text\n"
LOG = Ed25519Signer("log.example/a", b"\1" * 32)
WITNESS = Ed25519Signer("witness.example/w", b"\2" * 32, kind=COSIGNATURE)

names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="+"), min_size=1, max_size=12)
note_texts = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=32) | st.just("\n"), max_size=40).map(
    lambda text: text + "\n"
)
signatures = st.builds(Signature, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80))


def signed(text: str = TEXT) -> Note:
    return Note(text, (sign(text, LOG), cosign(text, WITNESS, time=1_760_000_000)))


def test_the_published_example_verifies() -> None:
    """The key and the note of the specification."""
    key = VerifierKey.parse(VKEY)
    note = Note.parse(EXAMPLE)
    assert note.verify([key]) == (Verified(key, None),)
    assert note.text == "This is an example message.\n"
    assert note.encode() == EXAMPLE
    assert str(key) == VKEY


def test_any_changed_byte_of_a_note_is_refused() -> None:
    """Every other value of every byte of the example, text and signature line alike, fails to verify."""
    key = VerifierKey.parse(VKEY)
    for at, byte in enumerate(EXAMPLE):
        for change in (1, 2, 4, 8, 16, 32, 64, 128, byte ^ 10, byte ^ 32):
            if change:
                bad = EXAMPLE[:at] + bytes((byte ^ change,)) + EXAMPLE[at + 1 :]
                with pytest.raises(NoteInvalid):
                    Note.parse(bad).verify([key])
    for end in range(len(EXAMPLE)):
        with pytest.raises(NoteInvalid):
            Note.parse(EXAMPLE[:end]).verify([key])


@pytest.mark.parametrize("text", [VKEY, str(WITNESS.key)])
def test_any_changed_byte_of_a_vkey_is_refused(text: str) -> None:
    """Name, ID, type and public key bind each other."""
    for at in range(len(text)):
        for change in range(1, 256):
            letter = chr(ord(text[at]) ^ change)
            with pytest.raises(NoteInvalid):
                VerifierKey.parse(text[:at] + letter + text[at + 1 :])


@given(note_texts, st.lists(signatures, min_size=1, max_size=16))
def test_notes_round_trip(text: str, lines: list[Signature]) -> None:
    """What is written is what is read, texts with blank lines and dashes included."""
    note = Note(text, tuple(lines))
    assert Note.parse(note.encode()) == note


@given(names, st.binary(min_size=32, max_size=32), st.sampled_from([ED25519, COSIGNATURE]))
def test_keys_round_trip(name: str, seed: bytes, kind: int) -> None:
    """Public and private keys are read back as they were written."""
    signer = Ed25519Signer(name, seed, kind=kind)
    assert VerifierKey.parse(str(signer.key)) == signer.key
    again = Ed25519Signer.parse(signer.encode())
    assert again.key == signer.key
    assert again.sign(b"x") == signer.sign(b"x")


@given(st.binary(max_size=120) | st.text(max_size=60).map(lambda text: text.encode(errors="replace")))
def test_any_bytes_are_refused_with_a_typed_error(data: bytes) -> None:
    """Hostile input never raises anything else."""
    with pytest.raises(NoteInvalid):
        Note.parse(data)
    with pytest.raises(NoteInvalid):
        VerifierKey.parse(data.decode(errors="surrogateescape"))


def test_unknown_signatures_are_ignored() -> None:
    """Lines by other keys, even of the same name or the same ID, neither help nor harm."""
    stranger = Ed25519Signer(LOG.key.name, b"\3" * 32)
    same_id = Signature("elsewhere.example", LOG.key.key_id, b"junk")
    strange = Signature("pq.example", b"\6\6\6\6", bytes(2428))
    note = signed().with_signatures([sign(TEXT, stranger), same_id, strange])
    assert note.verify([LOG.key]) == (Verified(LOG.key, None),)
    with pytest.raises(NoteInvalid, match="none of the known keys"):
        note.verify([Ed25519Signer("nobody.example", b"\4" * 32).key])
    with pytest.raises(NoteInvalid):
        note.verify([])


def test_one_wrong_signature_by_a_known_key_refuses_the_note() -> None:
    """Even beside right ones, its own included."""
    wrong = Signature(LOG.key.name, LOG.key.key_id, bytes(64))
    for note in (signed().with_signatures([wrong]), Note(TEXT, (wrong, *signed().signatures))):
        with pytest.raises(NoteInvalid, match="wrong"):
            note.verify([LOG.key, WITNESS.key])
        assert note.verify([WITNESS.key])


def test_cosignatures_bind_their_time() -> None:
    """The time stands in front of the signature and under it."""
    note = signed()
    assert note.verify([LOG.key, WITNESS.key]) == (Verified(LOG.key, None), Verified(WITNESS.key, 1_760_000_000))
    line = note.signatures[1]
    later = Signature(line.name, line.key_id, (1_760_000_001).to_bytes(8) + line.value[8:])
    with pytest.raises(NoteInvalid, match="wrong"):
        Note(TEXT, (later,)).verify([WITNESS.key])
    beyond = Signature(line.name, line.key_id, (2**63).to_bytes(8) + line.value[8:])
    with pytest.raises(NoteInvalid, match="time"):
        Note(TEXT, (beyond,)).verify([WITNESS.key])
    with pytest.raises(NoteInvalid, match="bytes long"):
        Note(TEXT, (Signature(line.name, line.key_id, line.value[8:]),)).verify([WITNESS.key])
    assert cosignature_message("x\n", 7) == b"cosignature/v1\ntime 7\nx\n"
    for time in (-1, 2**63):
        with pytest.raises(NoteInvalid):
            cosign(TEXT, WITNESS, time=time)


def test_a_key_signs_only_what_it_is_for() -> None:
    """One type never stands in for the other."""
    with pytest.raises(NoteInvalid):
        sign(TEXT, WITNESS)
    with pytest.raises(NoteInvalid):
        cosign(TEXT, LOG, time=0)


def test_sixteen_signatures_are_taken_and_bounds_kept() -> None:
    """C2SP asks for 16 lines at least; beyond a hundred, or a megabyte, nothing is parsed."""
    others = [sign(TEXT, Ed25519Signer(f"{i}.example", bytes((i,)) * 32)) for i in range(15)]
    assert Note.parse(signed().with_signatures(others).encode()).verify([WITNESS.key])
    many = Note(TEXT, signed().signatures[:1] * (MAX_SIGNATURES + 1)).encode()
    with pytest.raises(NoteInvalid, match="more than"):
        Note.parse(many)
    with pytest.raises(NoteInvalid, match="longer"):
        Note.parse(b"x" * (MAX_NOTE + 1))


@pytest.mark.parametrize(
    "data",
    [
        "text\n",
        "text\n\n",
        "text\n— a AAAAAAA=\n",
        "text\n\n— a AAAAAAA=",
        "text\n\n- a AAAAAAA=\n",
        "text\n\n—a AAAAAAA=\n",
        "text\n\n— a  AAAAAAA=\n",
        "text\n\n— a+b AAAAAAA=\n",
        "text\n\n— a\u00a0b AAAAAAA=\n",
        "text\n\n—  AAAAAAA=\n",
        "text\n\n— a AAAAAAA\n",
        "text\n\n— a AAAAAAB=\n",
        "text\n\n— a AAAA\n",
        "text\n\n— a AAAAAA==\n",
        "text\n\n— a AAAAAAA= \n",
        "text\n\n— a AAAAAAA=\n— a\n",
        "text\r\n\n— a AAAAAAA=\n",
        "te\txt\n\n— a AAAAAAA=\n",
    ],
)
def test_malformed_notes_are_refused(data: str) -> None:
    """Missing parts, other dashes, spaces and plus signs in names, loose base64, control characters."""
    with pytest.raises(NoteInvalid):
        Note.parse(data.encode())


def test_what_cannot_be_written_is_refused() -> None:
    """A note that would not parse again is never made."""
    line = signed().signatures[0]
    for note in (Note("no newline", (line,)), Note("tab\t\n", (line,)), Note(TEXT, ()), Note("\ud800\n", (line,))):
        with pytest.raises(NoteInvalid):
            note.encode()
    with pytest.raises(NoteInvalid):
        Note(TEXT, (Signature("a b", b"1234", b"x"),)).encode()
    for name in ("", "a b", "a+b", "a\n", "\ud800"):
        with pytest.raises(NoteInvalid):
            Ed25519Signer(name, bytes(32))
    with pytest.raises(NoteInvalid):
        Ed25519Signer("a", bytes(31))
    with pytest.raises(NoteInvalid, match="0x06"):
        VerifierKey("a", 6, bytes(32))
    with pytest.raises(NoteInvalid):
        VerifierKey("a", ED25519, bytes(31))


def test_private_keys_do_not_leak() -> None:
    """Neither repr nor the error about a key that cannot be read shows the secret."""
    secret = LOG.encode()
    material = secret.rpartition("+")[2]
    assert material not in repr(LOG)
    for bad in (secret[:-1], secret.removeprefix("PRIVATE+"), secret.replace("log.example", "log.exampie")):
        with pytest.raises(NoteInvalid) as caught:
            Ed25519Signer.parse(bad)
        assert material[:20] not in str(caught.value)


def test_two_keys_of_one_name_and_id_are_ambiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of two colliding keys is meant cannot be told, so nothing is believed; the same key twice is no harm."""
    other = Ed25519Signer(LOG.key.name, b"\5" * 32).key
    assert signed().verify([LOG.key, LOG.key])
    monkeypatch.setattr(VerifierKey, "key_id", b"same")
    with pytest.raises(NoteInvalid, match="share the name"):
        signed().verify([LOG.key, other])


@pytest.fixture
def openssl(tmp_path: Path) -> Callable[[VerifierKey, bytes, bytes], str]:
    """Verifies an Ed25519 signature with the openssl command, and returns what it printed."""

    def openssl(key: VerifierKey, message: bytes, signature: bytes) -> str:
        pem = Ed25519PublicKey.from_public_bytes(key.public_key).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for name, data in (("pub.pem", pem), ("message", message), ("signature", signature)):
            (tmp_path / name).write_bytes(data)
        run = subprocess.run(
            [
                "openssl",
                "pkeyutl",
                "-verify",
                "-pubin",
                "-inkey",
                "pub.pem",
                "-rawin",
                "-in",
                "message",
                "-sigfile",
                "signature",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return run.stdout

    return openssl


def test_openssl_verifies_a_note(openssl: Callable[[VerifierKey, bytes, bytes], str]) -> None:
    """Signature and cosignature are plain Ed25519 to the openssl command; a changed text is not."""
    whole = signed().encode().decode()
    text, _, lines = whole.rpartition("\n\n")
    plain, timed = (base64.b64decode(line.split(" ")[2])[4:] for line in lines.strip("\n").split("\n"))
    message = (text + "\n").encode()
    assert "Verified Successfully" in openssl(LOG.key, message, plain)
    header = b"cosignature/v1\ntime %d\n" % int.from_bytes(timed[:8])
    assert "Verified Successfully" in openssl(WITNESS.key, header + message, timed[8:])
    assert "Verified Successfully" not in openssl(LOG.key, message + b"\n", plain)
