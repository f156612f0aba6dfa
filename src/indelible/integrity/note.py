"""Signed notes and their keys (C2SP signed-note): Ed25519, and timestamped Ed25519 cosignatures.

A note is a text, a blank line and signature lines ``— <key name> <base64(key ID ‖ signature)>``. What is signed is the
text with its final newline. ``docs/formats/note.md`` is the specification.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from indelible.errors import NoteInvalid
from indelible.integrity._text import base64, parse_base64

#: Signature types: Ed25519 over the text, and Ed25519 over a time and the text (C2SP tlog-cosignature).
ED25519: Final = 0x01
COSIGNATURE: Final = 0x04

#: Bytes and signature lines of a note at most. Post-quantum signatures of witnesses unknown to us take 5 kB each.
MAX_NOTE: Final = 1_000_000
MAX_SIGNATURES: Final = 100

_DASH: Final = "— "
_PRIVATE: Final = "PRIVATE+KEY+"
_KEY_SIZE: Final = 32
_SIGNATURE_SIZE: Final = {ED25519: 64, COSIGNATURE: 72}


def check_name(name: str) -> str:
    """The key name itself. Raises NoteInvalid if it is empty or has a space, a plus sign or a control character."""
    if not name or any(c.isspace() or c == "+" or c < " " for c in name):
        raise NoteInvalid(f"{name!r} is not a key name", hint="use a URL without its scheme: audit.example.com/prod")
    _utf8(name)
    return name


def cosignature_message(text: str, time: int) -> bytes:
    """What a cosignature signs: a header, the time (Unix seconds) and the text of the note."""
    if not 0 <= time < 2**63:
        raise NoteInvalid(f"a cosignature cannot carry the time {time}")
    return b"cosignature/v1\ntime %d\n" % time + _utf8(text)


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under a name. ``str(key)`` is its vkey: ``<name>+<key ID, hex>+<base64(type ‖ public key)>``.

    ``kind`` is ED25519 or COSIGNATURE, ``public_key`` the 32 bytes of RFC 8032. Raises NoteInvalid for other values.
    """

    name: str
    kind: int
    public_key: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.kind not in _SIGNATURE_SIZE:
            raise NoteInvalid(f"keys of type 0x{self.kind:02x} are not supported", hint="use Ed25519: type 01 or 04")
        if len(self.public_key) != _KEY_SIZE:
            raise NoteInvalid(f"the public key is not {_KEY_SIZE} bytes")

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read a vkey. Raises NoteInvalid unless it is spelled exactly as ``str`` would."""
        name, key_id, material = _split_key(text)
        key = cls(name, material[0], material[1:])
        if key.key_id.hex() != key_id:
            raise NoteInvalid("the key's ID is not that of its name and its public key")
        return key

    @property
    def key_id(self) -> bytes:
        """Four bytes that, with the name, say which key made a signature."""
        return sha256(b"%b\n%c%b" % (self.name.encode(), self.kind, self.public_key)).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64(bytes((self.kind,)) + self.public_key)}"

    def verify(self, text: str, value: bytes) -> int | None:
        """Raise NoteInvalid unless ``value`` is this key's signature of the text; return a cosignature's time."""
        if len(value) != _SIGNATURE_SIZE[self.kind]:
            raise NoteInvalid(f"the signature of {self.name} is {len(value)} bytes long")
        time, message = None, _utf8(text)
        if self.kind == COSIGNATURE:
            time, value = int.from_bytes(value[:8]), value[8:]
            message = cosignature_message(text, time)
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(value, message)
        except InvalidSignature as error:
            raise NoteInvalid(f"the signature of {self.name} is wrong") from error
        return time


class Signer(Protocol):
    """Holds a private key, or speaks to what holds it."""

    @property
    def key(self) -> VerifierKey:
        """The public half: name, key ID and type."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature (RFC 8032, not prehashed) of these bytes."""
        ...


class Ed25519Signer:
    """A private key in memory. ``seed`` is its 32 secret bytes, from the operating system's random source."""

    __slots__ = ("_private", "key")

    def __init__(self, name: str, seed: bytes, *, kind: int = ED25519) -> None:
        if len(seed) != _KEY_SIZE:
            raise NoteInvalid(f"the private key is not {_KEY_SIZE} bytes")
        self._private: Final = Ed25519PrivateKey.from_private_bytes(seed)
        self.key: Final = VerifierKey(name, kind, self._private.public_key().public_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Ed25519Signer:
        """Read a key as ``encode`` writes it. Raises NoteInvalid, which never quotes the text."""
        if not text.startswith(_PRIVATE):
            raise NoteInvalid("this is not a private key", hint=f"it begins with {_PRIVATE}")
        name, key_id, material = _split_key(text[len(_PRIVATE) :])
        signer = cls(name, material[1:], kind=material[0])
        if signer.key.key_id.hex() != key_id:
            raise NoteInvalid("the key's ID is not that of its name and its public key")
        return signer

    def encode(self) -> str:
        """The secret text ``PRIVATE+KEY+<name>+<key ID, hex>+<base64(type ‖ seed)>``."""
        material = bytes((self.key.kind,)) + self._private.private_bytes_raw()
        return f"{_PRIVATE}{self.key.name}+{self.key.key_id.hex()}+{base64(material)}"

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of these bytes."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"Ed25519Signer({self.key})"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: who claims to have signed, and the signature without the key ID."""

    name: str
    key_id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that holds. ``time`` is that of a cosignature (Unix seconds), None for a plain signature."""

    key: VerifierKey
    time: int | None


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signature lines, none of them verified yet: do not believe the text before ``verify``."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """Read a note. Raises NoteInvalid unless it is spelled exactly as ``encode`` would."""
        if len(data) > MAX_NOTE:
            raise NoteInvalid(f"the note is longer than {MAX_NOTE:,} bytes")
        try:
            whole = data.decode()
        except UnicodeDecodeError as error:
            raise NoteInvalid("the note is not UTF-8") from error
        split = whole.rfind("\n\n") + 1
        if not split or not whole.endswith("\n"):
            raise NoteInvalid("the note has no blank line, or does not end in a newline")
        lines = whole[split + 1 : -1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise NoteInvalid(f"the note has more than {MAX_SIGNATURES} signatures")
        return cls(check_text(whole[:split]), tuple(map(_parse_line, lines)))

    def encode(self) -> bytes:
        """The bytes of the note. Raises NoteInvalid if there is no signature, or the text is none of a note's."""
        if not self.signatures:
            raise NoteInvalid("a note without a signature is none")
        lines = (f"{_DASH}{check_name(s.name)} {base64(s.key_id + s.value)}\n" for s in self.signatures)
        return _utf8(check_text(self.text) + "\n" + "".join(lines))

    def with_signatures(self, more: Iterable[Signature]) -> Note:
        """The note with further signature lines at its end."""
        return Note(self.text, (*self.signatures, *more))

    def verify(self, keys: Iterable[VerifierKey]) -> tuple[Verified, ...]:
        """The signatures by these keys, in the order of the note.

        Signatures by other keys are ignored. Raises NoteInvalid when one by a known key is wrong, when none is by a
        known key, or when two keys share a name and an ID.
        """
        known: dict[tuple[str, bytes], VerifierKey] = {}
        for key in keys:
            if known.setdefault((key.name, key.key_id), key) != key:
                raise NoteInvalid(f"two keys share the name {key.name} and the ID {key.key_id.hex()}")
        verified: list[Verified] = []
        for signature in self.signatures:
            signed_by = known.get((signature.name, signature.key_id))
            if signed_by is not None:
                verified.append(Verified(signed_by, signed_by.verify(self.text, signature.value)))
        if not verified:
            raise NoteInvalid("the note is signed by none of the known keys")
        return tuple(verified)


def sign(text: str, signer: Signer) -> Signature:
    """A plain signature of the text. Raises NoteInvalid for a signer whose key is for cosignatures."""
    if signer.key.kind != ED25519:
        raise NoteInvalid(f"the key {signer.key.name} is not for plain signatures")
    return Signature(signer.key.name, signer.key.key_id, signer.sign(_utf8(check_text(text))))


def cosign(text: str, signer: Signer, *, time: int) -> Signature:
    """A cosignature of the text at ``time`` (Unix seconds). Raises NoteInvalid for a key that is not for them."""
    if signer.key.kind != COSIGNATURE:
        raise NoteInvalid(f"the key {signer.key.name} is not for cosignatures")
    message = cosignature_message(check_text(text), time)
    return Signature(signer.key.name, signer.key.key_id, time.to_bytes(8) + signer.sign(message))


def check_text(text: str) -> str:
    """The text itself. Raises NoteInvalid unless it ends in a newline and has no other control character."""
    if not text.endswith("\n") or any(c < " " and c != "\n" for c in text):
        raise NoteInvalid("a note's text ends in a newline and has no other control characters")
    _utf8(text)
    return text


def _parse_line(line: str) -> Signature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    blob = parse_base64(encoded)
    if not line.startswith(_DASH) or not space or blob is None or len(blob) <= 4:
        raise NoteInvalid("a signature line is not of its form")
    return Signature(check_name(name), blob[:4], blob[4:])


def _split_key(text: str) -> tuple[str, str, bytes]:
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    material = parse_base64(encoded)
    if not material or len(material) != 1 + _KEY_SIZE:
        # Another length is another algorithm, or no key at all; which one must not leak a private key into a log.
        raise NoteInvalid("the key is not of the form <name>+<key ID>+<base64 of a type and 32 bytes>")
    return name, key_id, material


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise NoteInvalid("a text is not valid Unicode") from error
