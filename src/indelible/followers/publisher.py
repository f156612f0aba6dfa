"""The publisher: a signed checkpoint at most every few seconds, to the database and to every place outside.

Each publication goes through the same steps; whatever happens between two of them, the next step repeats what is
missing. What is promised: nothing is signed that does not contain everything this host signed before, and the promise
is on the disk before the signature is anywhere else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from indelible.errors import AnchorFailed, IndelibleError, LogForked, NoteInvalid
from indelible.followers.anchors import Anchor, Attempts, Cosigner, Published
from indelible.followers.keyring import Keyring
from indelible.followers.tree import Tree
from indelible.integrity.checkpoint import Checkpoint, add_cosignatures, sign_checkpoint
from indelible.integrity.note import Note, Signer, VerifierKey
from indelible.ports import Head, Host, PublisherLease, Store, StoredCheckpoint
from indelible.queries import Filter, Query

log: Final = logging.getLogger("indelible.publisher")

#: ``audit.key`` events carry the vkey as their resource's id, so that they are found by it.
KEY_EVENT: Final = "audit.key"
KEY_RESOURCE: Final = "signing_key"
NEW_EPOCH: Final = "new-epoch"
#: Seconds between two attempts to become the log's publisher, and between two looks for a key event on its way.
LEASE_RETRY: Final = 5.0
KEY_RETRY: Final = 0.5


class Publisher:
    """``ports.Follower`` that signs. One per log: whoever has the store's lease, until the process ends.

    ``interval`` is the least time between two checkpoints, in seconds. ``clock`` is monotonic, ``now`` Unix time.
    """

    name: Final = "publisher"

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        *,
        interval: float = 5.0,
        anchors: Sequence[Anchor] = (),
        cosigners: Sequence[Cosigner] = (),
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._interval = interval
        self._outlets = [_Outlet(anchor) for anchor in anchors]
        self._cosigners = [_Witness(cosigner) for cosigner in cosigners]
        self._clock = clock
        self._now = now
        self._tree = Tree(store)
        self._lease: PublisherLease | None = None
        self._newest: Published | None = None
        self._asked: set[VerifierKey] = set()
        self._due = 0.0
        self._said = ""

    @property
    def cursor(self) -> int:
        """The size of the newest checkpoint; 0 before the first."""
        return 0 if self._newest is None else self._newest.size

    def step(self, host: Host, *, closing: bool = False) -> float:
        """Publish what is new if the interval has passed, and try the places that do not have it. See ports.Follower."""
        now = self._clock()
        if closing or not 0 < self._due - now <= self._interval:
            self._due = now + self._interval
            try:
                self._publish(host, closing=closing)
            except IndelibleError as error:
                self._complain(error, host)
        waits = [self._due - now]
        if self._newest is not None:
            waits += [witness.catch_up(self, host, now, closing=closing) for witness in self._cosigners]
            waits += [outlet.put(self._newest, host, now, closing=closing) for outlet in self._outlets]
        return max(0.0, min(waits))

    def close(self) -> None:
        """Let somebody else publish."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.close()

    def abandon(self) -> None:
        """Forget the lease in a forked child."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.abandon()

    # --- one publication ----------------------------------------------------------------------------------------------

    def _publish(self, host: Host, *, closing: bool) -> None:
        head = self._store.head()
        # Before the lease: a host without a key must not keep it from one that has it.
        signers = self._keyring.signers()
        if not signers and not self._keyring.creates:
            self._without_key()
            return
        lease = self._leased()
        if lease is None:
            self._say(logging.INFO, "another process publishes this log's checkpoints")
            return
        newest = lease.newest()
        if not signers:
            if newest is not None:
                self._without_key()
                return
            signers = (self._keyring.create(),)
        self._check(signers[0].key.name, newest, head)
        if head is None:
            return
        endorsed = self._endorsed(signers, newest, head, host, closing=closing)
        if endorsed:
            self._sign(lease, endorsed, newest, head, host)

    def _check(self, origin: str, newest: StoredCheckpoint | None, head: Head | None) -> None:
        """Raise LogForked unless the log contains all that was signed of it, here or by whoever published before."""
        if head is not None:
            self._tree.grow(head)
        published = None if newest is None else Checkpoint.parse(Note.parse(newest.note).text)
        for before in (self._keyring.last_signed(origin), published):
            if before is not None and before.origin == origin:
                self._tree.check_contains(before)

    def _sign(
        self, lease: PublisherLease, signers: Sequence[Signer], newest: StoredCheckpoint | None, head: Head, host: Host
    ) -> None:
        origin = signers[0].key.name
        if newest is not None and newest.size == head.size:
            # Nothing new. What was published before this process began may not have reached every place.
            if self._newest is None:
                self._newest = Published(origin, newest.size, newest.note)
            self._going_well()
            return
        if head.root is None:
            raise LogForked("the newest head has no root", hint="run: indelible verify")
        checkpoint = Checkpoint(origin, head.size, head.root)
        note = sign_checkpoint(checkpoint, *signers)
        # Crash before here ⇒ nobody has the signature; the next publisher makes another.
        self._keyring.remember(checkpoint)
        # Crash here ⇒ this size is published at the next start, or a larger one that contains it; never another tree.
        outgoing = self._cosigned(Published(origin, head.size, note), host)
        # Crash here ⇒ a witness has seen a checkpoint that is nowhere else; the next one is consistent with it.
        lease.insert(StoredCheckpoint(head.size, int(self._now() * 1_000_000), outgoing.note))
        # Crash here ⇒ the places outside get it at the next start, which finds it in the table.
        self._newest = outgoing
        host.recorder.add("checkpoints_published")
        self._going_well()
        signed = {signer.key for signer in signers}
        self._keyring.retire(lambda key: key in signed, now=self._now())

    def _cosigned(self, published: Published, host: Host) -> Published:
        now = self._clock()
        for witness in self._cosigners:
            if not witness.attempts.wait(now):
                published = witness.cosign(published, self._tree, host, now)
        return replace(published, revision=0)

    # --- whose key ----------------------------------------------------------------------------------------------------

    def _endorsed(
        self,
        signers: Sequence[Signer],
        newest: StoredCheckpoint | None,
        head: Head,
        host: Host,
        *,
        closing: bool,
    ) -> list[Signer]:
        """The keys that may sign: those that signed the newest checkpoint, and those the log itself names.

        The first publisher registers its key, a rotation registers the next one, and either waits until that event is
        sealed. An origin of another name needs the event that ``indelible key new-epoch`` records.
        """
        continued = [s for s in signers if newest is not None and _signed(newest.note, s.key)]
        if newest is not None and not continued and NEW_EPOCH not in self._registrations(signers[0].key, head):
            self._foreign(newest, signers[0].key)
            return []
        endorsed: list[Signer] = []
        for signer in signers:
            if signer in continued or self._registrations(signer.key, head):
                endorsed.append(signer)
            elif not closing:
                self._register(signer.key, "rotate" if continued else "register", host)
        if not endorsed:
            self._due = min(self._due, self._clock() + KEY_RETRY)
        return endorsed

    def _registrations(self, key: VerifierKey, head: Head) -> set[str]:
        """The actions of the ``audit.key`` events about this key that the tree at ``head`` contains."""
        events = self._store.page(
            Query(filter=Filter(event_type=(KEY_EVENT,), resource_id=str(key)), page_size=100)
        ).rows
        return {event.action for event in events if event.seq < head.size}

    def _register(self, key: VerifierKey, action: str, host: Host) -> None:
        if key in self._asked:
            return
        # Crash here ⇒ the event is not in the log, and is recorded at the next start. Twice does no harm.
        host.record(
            event_type=KEY_EVENT,
            action=action,
            resource_type=KEY_RESOURCE,
            resource_id=str(key),
            metadata={"origin": key.name, "key_id": key.key_id.hex()},
        )
        self._asked.add(key)

    def _foreign(self, newest: StoredCheckpoint, key: VerifierKey) -> None:
        names = ", ".join(f"{s.name} ({s.key_id.hex()})" for s in Note.parse(newest.note).signatures)
        self.close()
        self._say(
            logging.WARNING,
            f"not publishing: the newest checkpoint is signed by {names}, this host's key is {key.name}"
            f" ({key.key_id.hex()}). Use that key, or begin anew: indelible key new-epoch --reason '...'",
        )

    def _without_key(self) -> None:
        self.close()
        self._say(
            logging.WARNING,
            "this host has no signing key: it stores and seals events, and publishes no checkpoints."
            " Make a key (indelible key new) on the host that is to publish",
        )

    # --- how it goes --------------------------------------------------------------------------------------------------

    def _leased(self) -> PublisherLease | None:
        if self._lease is None:
            self._lease = self._store.lease()
        return self._lease

    def _complain(self, error: IndelibleError, host: Host) -> None:
        """Say it once, not every few seconds. A lease that may be lost is given back; a refusal keeps it."""
        host.recorder.add("checkpoint_failures")
        if isinstance(error, LogForked):
            # Kept: another host, which may know less of what was signed, must not go on where this one stops.
            self._say(logging.ERROR, f"not signing: {error}")
            return
        self.close()
        self._say(logging.WARNING, f"no checkpoints are published, trying again: {error}")

    def _going_well(self) -> None:
        if self._said:
            log.info("checkpoints are published again")
        self._said = ""

    def _say(self, level: int, message: str) -> None:
        if message != self._said:
            log.log(level, "%s", message)
            self._said = message


class _Witness:
    """A witness, and how far it has seen."""

    def __init__(self, cosigner: Cosigner) -> None:
        self._cosigner = cosigner
        self.attempts = Attempts(cosigner.name)
        self._seen: tuple[str, int] | None = None

    def cosign(self, published: Published, tree: Tree, host: Host, now: float) -> Published:
        """The checkpoint with this witness's cosignature, or as it was."""
        try:
            signatures = self._cosigner.cosign(published, tree.consistency_proof)
        except AnchorFailed as error:
            self.attempts.failed(error, now, host.recorder)
            return published
        self.attempts.succeeded()
        self._seen = (published.origin, published.size)
        note = add_cosignatures(published.note, signatures)
        return replace(published, note=note, revision=published.revision + 1)

    def catch_up(self, publisher: Publisher, host: Host, now: float, *, closing: bool) -> float:
        """Ask for the newest checkpoint if the witness missed it; return the seconds until it may be asked."""
        newest, tree = publisher._newest, publisher._tree
        if newest is None or self._seen == (newest.origin, newest.size) or tree.size != newest.size:
            return float("inf")
        if wait := self.attempts.wait(now):
            return wait
        if not (closing and self.attempts.failing):
            publisher._newest = self.cosign(newest, tree, host, now)
        return self.attempts.wait(now) or float("inf")


class _Outlet:
    """A place outside, and what it has."""

    def __init__(self, anchor: Anchor) -> None:
        self._anchor = anchor
        self._attempts = Attempts(anchor.name)
        self._has: tuple[str, int, int] | None = None

    def put(self, newest: Published, host: Host, now: float, *, closing: bool) -> float:
        """Bring the newest checkpoint there if it lacks it; return the seconds until it may be asked."""
        wanted = (newest.origin, newest.size, newest.revision)
        if self._has == wanted:
            return float("inf")
        if wait := self._attempts.wait(now):
            return wait
        if closing and self._attempts.failing:
            return float("inf")
        try:
            self._anchor.put(newest)
        except AnchorFailed as error:
            self._attempts.failed(error, now, host.recorder)
            return self._attempts.wait(now)
        # Crash here ⇒ it is brought there once more.
        self._attempts.succeeded()
        self._has = wanted
        return float("inf")


def _signed(note: bytes, key: VerifierKey) -> bool:
    """Whether the note is signed by this key. Other signatures on it, and a note that is none, are no answer."""
    try:
        Note.parse(note).verify([key])
    except NoteInvalid:
        return False
    return True
