"""Which keys sign: those of the environment or of a KMS if there are any, else those in the data directory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from indelible.errors import ConfigurationError
from indelible.integrity.checkpoint import Checkpoint
from indelible.integrity.note import Signer, VerifierKey
from indelible.keys import KeyDirectory, belongs_to, check_signers, default_origin, generate

log: Final = logging.getLogger("indelible.publisher")


class Keyring:
    """The signing keys of a log's publisher. What they signed is remembered in the directory wherever they are.

    ``given`` are keys from elsewhere; ``origin`` is the configured one; with ``creates`` a first key may be made.
    """

    def __init__(
        self,
        directory: KeyDirectory,
        *,
        given: Sequence[Signer] = (),
        origin: str | None = None,
        creates: bool = False,
    ) -> None:
        check_signers(given)
        self._directory = directory
        self._given = tuple(given)
        self._origin = origin
        self.creates = creates and not given

    def signers(self) -> tuple[Signer, ...]:
        """The key that signs, then those that sign along; empty where there is none.

        Raises KeyUnavailable, and ConfigurationError for a key of another origin than the configured one.
        """
        if self._given:
            return self._checked(self._given)
        ring = self._directory.load()
        return () if ring is None else self._checked((ring.signing, *(old.signer for old in ring.retiring)))

    def create(self) -> Signer:
        """Make the first key and keep it."""
        signer = generate(self._origin or default_origin())
        self._directory.create(signer)
        log.info("made the signing key %s in %s; keep a copy of it", signer.key, self._directory.path)
        return signer

    def retire(self, signed: Callable[[VerifierKey], bool], *, now: float) -> None:
        """Delete the keys whose overlap is over, once their successor has ``signed``."""
        ring = None if self._given else self._directory.load()
        if ring is None or not signed(ring.signing.key):
            return
        for old in ring.retiring:
            if old.until <= now:
                self._directory.drop(old)
                log.info("the key %s has signed for the last time, and is deleted", old.signer.key)

    def last_signed(self, origin: str) -> Checkpoint | None:
        """The newest checkpoint of this origin that was signed here."""
        last = self._directory.last_signed()
        return last if last is not None and last.origin == origin else None

    def remember(self, checkpoint: Checkpoint) -> None:
        """Note what is about to be signed; on the disk when this returns."""
        self._directory.remember(checkpoint)

    def _checked(self, signers: tuple[Signer, ...]) -> tuple[Signer, ...]:
        origin = signers[0].key.name
        if self._origin is not None and not belongs_to(origin, self._origin):
            raise ConfigurationError(
                f"the signing key is of {origin}, the origin is set to {self._origin}",
                hint="an origin is fixed at the first checkpoint: set INDELIBLE_ORIGIN to the key's",
            )
        return signers
