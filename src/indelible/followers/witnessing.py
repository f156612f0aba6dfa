"""The publisher's side of a witness (C2SP tlog-witness)."""

from __future__ import annotations

from collections.abc import Sequence

from indelible.errors import AnchorFailed, ConfigurationError, IntegrityError
from indelible.followers.anchors import ProofMaker, Published
from indelible.followers.http import Answer, host_of, post
from indelible.integrity._text import parse_decimal
from indelible.integrity.note import COSIGNATURE, Note, Signature, VerifierKey
from indelible.integrity.witnessing import ADD_CHECKPOINT, SIZE_TYPE, AddCheckpoint, parse_signatures

_OK, _CONFLICT = 200, 409


class WitnessClient:
    """Asks one witness for its cosignature, and learns from it which size it has seen.

    ``vkey`` is the witness's key, of type 04; ``url`` what stands before ``/add-checkpoint``. Raises
    ConfigurationError for others.
    """

    def __init__(self, vkey: str, url: str, *, timeout: float = 10.0) -> None:
        try:
            self._key = VerifierKey.parse(vkey)
        except IntegrityError as error:
            raise ConfigurationError(f"a witness's key cannot be read: {error.message}") from None
        if self._key.kind != COSIGNATURE:
            raise ConfigurationError(f"the key of {self._key.name} is not a witness's", hint="it has to be of type 04")
        self.name = f"witness {self._key.name} at {host_of(url)}"
        self._url = url.rstrip("/") + ADD_CHECKPOINT
        self._timeout = timeout
        self._seen: tuple[str, int] = ("", 0)

    def cosign(self, published: Published, proof: ProofMaker) -> Sequence[Signature]:
        """See anchors.Cosigner. A witness that has seen more of the log than there is, is AnchorFailed."""
        origin, size = self._seen
        old = size if origin == published.origin and size <= published.size else 0
        answer = self._ask(published, old, proof)
        if answer.status == _CONFLICT:
            # Somebody else, or this host before a restart, has shown it another size: it says which.
            old = self._conflicting(published, answer, old)
            answer = self._ask(published, old, proof)
            if answer.status == _CONFLICT:
                # The size it said, and still a conflict: it has another root for it.
                self._conflicting(published, answer, old)
        if answer.status != _OK:
            raise AnchorFailed(f"{self.name} answered with {answer.status}", hint=_HINTS.get(answer.status, ""))
        text = Note.parse(published.note).text
        try:
            note = parse_signatures(text, answer.body)
            note.verify([self._key])
        except IntegrityError as error:
            raise AnchorFailed(f"the answer of {self.name} is no cosignature: {error.message}") from error
        self._seen = (published.origin, published.size)
        mine = (self._key.name, self._key.key_id)
        return [signature for signature in note.signatures if (signature.name, signature.key_id) == mine]

    def _ask(self, published: Published, old: int, proof: ProofMaker) -> Answer:
        try:
            hashes = tuple(proof(old)) if 0 < old < published.size else ()
        except IntegrityError as error:
            raise AnchorFailed(f"there is no proof from size {old:,} for {self.name}: {error.message}") from error
        body = AddCheckpoint(old, hashes, published.note).encode()
        return post(self._url, body, "text/plain; charset=utf-8", timeout=self._timeout)

    def _conflicting(self, published: Published, answer: Answer, asked: int) -> int:
        size = parse_decimal(answer.body.decode("ascii", "replace").removesuffix("\n"))
        if answer.content_type != SIZE_TYPE or size is None:
            raise AnchorFailed(f"{self.name} answered with 409 and no size")
        if size > published.size or size == asked:
            raise AnchorFailed(
                f"{self.name} has seen size {size:,} of this log, which does not lead to size {published.size:,} here",
                hint="was the log put back or forked? Keep what the witness has, and run: indelible verify",
            )
        return size


_HINTS = {
    403: "the witness does not have this log's key: give it the vkey that `indelible key show` prints",
    404: "the witness does not know this log: give it the vkey that `indelible key show` prints",
    422: "the witness has seen another tree: keep what it has, and run: indelible verify",
}
