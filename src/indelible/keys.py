"""The signing keys of a log, and the memory of what they signed: files outside the database, mode 0600.

``<data_dir>/keys/`` holds

* ``signing.skey``: the key that signs now, as C2SP tools write it (``PRIVATE+KEY+<name>+<key ID>+<base64>``);
* ``retiring-<Unix time>.skey``: its predecessor, which signs along until then;
* ``ended-*``: what an epoch that is over has left; nothing reads it;
* ``last-signed``: the body of the newest checkpoint that was signed here, written before the signature leaves.

A key's name is the log's origin, so whoever has the key knows the origin.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import uuid4

from indelible.errors import ConfigurationError, IntegrityError, KeyUnavailable
from indelible.integrity.checkpoint import Checkpoint
from indelible.integrity.note import COSIGNATURE, ED25519, Ed25519Signer, Signer

_SIGNING: Final = "signing.skey"
_RETIRING: Final = re.compile(r"retiring-([0-9]{1,12})\.skey")
_LAST: Final = "last-signed"
_EPOCH: Final = re.compile(r"(?P<base>.+)/epoch-(?P<number>[1-9][0-9]{0,5})")
_SEED: Final = 32


def default_origin() -> str:
    """``indelible.local/<log id>``, with a random id: unique, and nobody's domain."""
    return f"indelible.local/{uuid4().hex}"


def next_origin(origin: str) -> str:
    """The origin of the epoch after this one: ``<origin>/epoch-2``, then ``/epoch-3``, ..."""
    match = _EPOCH.fullmatch(origin)
    return f"{origin}/epoch-2" if match is None else f"{match['base']}/epoch-{int(match['number']) + 1}"


def belongs_to(origin: str, configured: str) -> bool:
    """Whether ``origin`` is the configured one, or a later epoch of it."""
    match = _EPOCH.fullmatch(origin)
    return configured in {origin, "" if match is None else match["base"]}


def generate(origin: str) -> Ed25519Signer:
    """A new key of this name, from the operating system's random source. Raises NoteInvalid for an impossible name."""
    return Ed25519Signer(origin, os.urandom(_SEED))


def witness_key(path: Path, name: str) -> Ed25519Signer:
    """The witness's key in this file, mode 0600; made under this name where there is none.

    Raises KeyUnavailable for a file that cannot be used, ConfigurationError for the key of something else.
    """
    directory = KeyDirectory(path.parent)
    signer = directory.read(path)
    if signer is None:
        signer = Ed25519Signer(name, os.urandom(_SEED), kind=COSIGNATURE)
        directory.write(path, signer)
    if signer.key.kind != COSIGNATURE or signer.key.name != name:
        raise ConfigurationError(
            f"{path} holds the key of {signer.key.name}, type {signer.key.kind:02x}",
            hint="give the witness its own name, or another file",
        )
    return signer


def parse_keys(text: str) -> tuple[Ed25519Signer, ...]:
    """Private keys separated by white space, the one that signs first, then its predecessor during a rotation.

    Raises ConfigurationError, which never quotes them.
    """
    try:
        signers = tuple(Ed25519Signer.parse(word) for word in text.split())
    except IntegrityError as error:
        raise ConfigurationError(f"a signing key cannot be read: {error.message}", hint=error.hint) from None
    check_signers(signers)
    return signers


def check_signers(signers: Sequence[Signer]) -> None:
    """Raise ConfigurationError unless the keys are of one log, and for signing checkpoints."""
    if any(signer.key.kind != ED25519 for signer in signers):
        raise ConfigurationError("a witness's key does not sign checkpoints", hint="make one: indelible key new")
    if len({signer.key.name for signer in signers}) > 1:
        raise ConfigurationError("the signing keys are of different logs", hint="their names have to be the one origin")


@dataclass(frozen=True, slots=True)
class Retiring:
    """A predecessor of the signing key, which signs along until a Unix time."""

    signer: Ed25519Signer
    until: int
    path: Path


@dataclass(frozen=True, slots=True)
class Ring:
    """The keys in a directory."""

    signing: Ed25519Signer
    retiring: tuple[Retiring, ...] = ()


class KeyDirectory:
    """``<data_dir>/keys``. Every change is one rename: a crash leaves the old state or the new one.

    All methods raise KeyUnavailable when the directory or a file cannot be used, or is open to other users.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Ring | None:
        """The keys, or None where there are none."""
        with self._using():
            signing = self._read(self.path / _SIGNING)
            if signing is None:
                return None
            retiring: list[Retiring] = []
            for path in sorted(self.path.iterdir()):
                match = _RETIRING.fullmatch(path.name)
                signer = self._read(path) if match is not None else None
                # The same key under both names: a rotation was interrupted, and is as good as not begun.
                if match is not None and signer is not None and signer.key != signing.key:
                    retiring.append(Retiring(signer, int(match[1]), path))
        check_signers([signing, *(old.signer for old in retiring)])
        return Ring(signing, tuple(retiring))

    def create(self, signer: Ed25519Signer) -> None:
        """Keep a first key. Raises ConfigurationError if there is one."""
        self.write(self.path / _SIGNING, signer)

    def read(self, path: Path) -> Ed25519Signer | None:
        """The key in a file of this directory, or None where there is no such file."""
        with self._using():
            return self._read(path)

    def write(self, path: Path, signer: Ed25519Signer) -> None:
        """Keep a key in a new file of this directory. Raises ConfigurationError if the file is there."""
        with self._using(), self._written(signer.encode() + "\n") as new:
            try:
                # A link, unlike a rename, does not replace what another process has just made.
                os.link(new, path)
            except FileExistsError:
                raise ConfigurationError(
                    f"there is a key in {path}", hint="to replace a signing key: indelible key rotate"
                ) from None

    def rotate(self, signer: Ed25519Signer, *, until: int) -> None:
        """Make ``signer`` the signing key; its predecessor signs along until ``until`` (Unix seconds)."""
        with self._using(), self._written(signer.encode() + "\n") as new:
            with contextlib.suppress(FileExistsError):
                os.link(self.path / _SIGNING, self.path / f"retiring-{until}.skey")
            # Crash here ⇒ the old key has two names and signs as before; rotate again.
            new.replace(self.path / _SIGNING)

    def drop(self, retiring: Retiring) -> None:
        """Delete a key that has signed for the last time."""
        with self._using():
            retiring.path.unlink(missing_ok=True)
            self._sync()

    def begin_epoch(self, signer: Ed25519Signer) -> None:
        """Make ``signer`` the signing key of a new origin. The keys of the old one are kept aside, and sign no more."""
        with self._using(), self._written(signer.encode() + "\n") as new:
            old = self.load()
            for retiring in () if old is None else old.retiring:
                retiring.path.replace(self.path / f"ended-{retiring.signer.key.key_id.hex()}.skey")
            if old is not None:
                with contextlib.suppress(FileExistsError):
                    os.link(self.path / _SIGNING, self.path / f"ended-{old.signing.key.key_id.hex()}.skey")
            # Crash here ⇒ the old epoch goes on, and is refused as before; begin the new one again.
            new.replace(self.path / _SIGNING)

    def last_signed(self) -> Checkpoint | None:
        """The newest checkpoint that was signed here, or None."""
        with self._using():
            try:
                text = (self.path / _LAST).read_text()
            except FileNotFoundError:
                return None
            try:
                return Checkpoint.parse(text)
            except IntegrityError as error:
                raise KeyUnavailable(f"{self.path / _LAST} is damaged: {error.message}", hint=_DAMAGED) from error

    def remember(self, checkpoint: Checkpoint) -> None:
        """Note what is about to be signed. It is on the disk when this returns. What another epoch left is kept aside."""
        before = self.last_signed()
        with self._using(), self._written(checkpoint.text) as new:
            if before is not None and before.origin != checkpoint.origin:
                with contextlib.suppress(FileExistsError):
                    aside = sha256(before.origin.encode()).hexdigest()[:8]
                    os.link(self.path / _LAST, self.path / f"ended-{aside}.last-signed")
            new.replace(self.path / _LAST)

    @contextlib.contextmanager
    def _written(self, text: str) -> Iterator[Path]:
        """A new file with this text, synced; what the block renames or links is synced, the rest removed."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self.path / f".new-{os.getpid()}-{uuid4().hex}"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            yield new
            self._sync()
        finally:
            new.unlink(missing_ok=True)

    def _sync(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise KeyUnavailable(f"the keys in {self.path} cannot be used: {error.strerror}") from error

    def _read(self, path: Path) -> Ed25519Signer | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            mode = os.fstat(fd).st_mode & 0o777
            if mode & 0o077:
                raise KeyUnavailable(f"{path} is open to other users (mode {mode:03o})", hint=f"chmod 600 {path}")
            data = file.read(4096)
        try:
            return Ed25519Signer.parse(data.decode().strip())
        except (IntegrityError, UnicodeError) as error:
            raise KeyUnavailable(f"{path} holds no signing key", hint="restore it from its backup") from error


_DAMAGED: Final = "compare with a checkpoint from outside before you delete it: it guards against a log put back"
