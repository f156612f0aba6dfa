"""The publisher: what it signs, what it refuses to sign, and who may."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indelible.errors import StoreUnavailable
from indelible.followers.keyring import Keyring
from indelible.followers.publisher import Publisher
from indelible.integrity.checkpoint import Checkpoint
from indelible.integrity.merkle import consistency_proof, perfect_root, verify_consistency
from indelible.integrity.note import Ed25519Signer, Note
from indelible.keys import generate, next_origin
from indelible.ports import StoredCheckpoint

ORIGIN = "audit.example.com/prod"


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="indelible.publisher")


def _said(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


def _signers(note: bytes) -> set[bytes]:
    return {signature.key_id for signature in Note.parse(note).signatures}


def _put_back(path: Path, backup: Path) -> None:
    for extra in ("", "-wal", "-shm"):
        Path(f"{path}{extra}").unlink(missing_ok=True)
    path.write_bytes(backup.read_bytes())


def _back_up(path: Path, backup: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(backup)) as target:
        source.backup(target)


def test_the_first_checkpoint_contains_the_event_that_names_its_key(either: Any) -> None:
    """The key is made, registered as audit.key, and signs once that event is sealed; an empty log has no checkpoint."""
    publisher = either.publisher()
    either.step(publisher)
    assert either.sizes() == []
    either.append(3)
    either.holding_back = True
    assert either.step(publisher) < 1.0
    assert either.sizes() == []
    either.holding_back = False
    publisher.close()
    publisher = either.publisher()
    either.step(publisher)
    assert either.sizes() == []
    either.step(publisher)
    (only,) = either.published()
    assert either.check(only.note).origin == ORIGIN
    assert only.size == 4
    assert only.published_at == int(either.clock() * 1_000_000)
    assert publisher.cursor == 4
    assert either.keys.last_signed() == Checkpoint.parse(Note.parse(only.note).text)


def test_at_most_one_checkpoint_an_interval_and_one_at_the_end(bench: Any) -> None:
    """Nothing new, or too soon: nothing is published. Closing publishes what is there."""
    publisher = bench.publisher()
    bench.append()
    bench.step(publisher)
    bench.step(publisher)
    assert bench.sizes() == [2]
    bench.step(publisher)
    bench.append()
    assert bench.step(publisher, later=1.0) == 4.0
    assert bench.sizes() == [2]
    bench.step(publisher, closing=True, later=0.0)
    assert bench.sizes() == [2, 3]
    bench.append()
    bench.clock.time -= 1_000
    bench.step(publisher, later=0.0)
    assert bench.sizes() == [2, 3, 4], "a clock that goes back does not stop it"
    assert bench.tally.counter("checkpoints_published") == 3
    assert bench.tally.counter("checkpoint_failures") == 0


_APPEND = """
import sys, uuid
from indelible.events import AuditEvent
from indelible.runtime import open_store
from indelible.settings import load
store = open_store(load(database_url=sys.argv[1], segment_rows=65536))
store.open()
writer = uuid.uuid4()
for first in range(0, 400, 8):
    events = [AuditEvent(id=uuid.uuid4(), timestamp=0, event_type="login", action="x", status="success") for _ in range(8)]
    store.append(writer, first, events)
store.close()
"""


def test_every_checkpoint_is_consistent_with_the_next(either: Any) -> None:
    """Two other processes append all the while; each published tree is a prefix of the one after it."""
    publisher = either.publisher()
    either.append()
    url = either.store._address.render_as_string(hide_password=False)
    url = url.replace("+psycopg", "")
    writers = [subprocess.Popen([sys.executable, "-c", _APPEND, url]) for _ in range(2)]
    while any(writer.poll() is None for writer in writers):
        either.step(publisher)
    assert [writer.returncode for writer in writers] == [0, 0]
    either.step(publisher, closing=True)
    published = [either.check(each.note) for each in either.published()]
    assert published[-1].size == 802
    assert len(published) >= 3
    leaves = [leaf for leaf in either.store.leaf_hashes(0, 802) if leaf]

    def node(level: int, index: int) -> bytes:
        return perfect_root(leaves[index << level : (index + 1) << level])

    for before, after in itertools.pairwise(published):
        proof = consistency_proof(before.size, after.size, node)
        verify_consistency(before.size, after.size, proof, before.root, after.root)


def test_a_restored_backup_is_refused_until_a_new_epoch_begins(
    bench: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Shorter, grown past the old size, or empty: nothing is signed, and it is said once, with what to do."""
    path, backup = bench.store._path, tmp_path / "backup.db"
    publisher = bench.publisher()
    bench.append(2)
    bench.step(publisher)
    bench.step(publisher)
    _back_up(path, backup)
    kept = bench.written
    bench.append(4)
    bench.step(publisher)
    assert bench.sizes() == [3, 7]
    publisher.close()
    bench.store.close()

    _put_back(path, backup)
    bench.written = kept
    bench.store.open()
    publisher = bench.publisher()
    bench.step(publisher)
    bench.step(publisher)
    assert bench.sizes() == [3]
    assert _said(caplog, "the log has 3 events, but 7 were signed") == 1
    assert _said(caplog, "indelible key new-epoch --reason") == 1
    assert bench.tally.counter("checkpoint_failures") == 2
    # Other events in the place of those that were lost, and more of them.
    bench.append(10)
    bench.step(publisher)
    assert bench.sizes() == [3]
    assert _said(caplog, "are not those that were signed") == 1
    assert bench.publisher().step(bench.host) == 5.0, "a second publisher does not go on where the first refuses"
    assert bench.sizes() == [3]

    signer = generate(next_origin(ORIGIN))
    bench.append(event_type="audit.key", action="new-epoch", resource_id=str(signer.key))
    bench.keys.begin_epoch(signer)
    bench.step(publisher)
    assert bench.sizes() == [3, 14]
    assert bench.check(bench.published()[-1].note).origin == f"{ORIGIN}/epoch-2"
    assert _said(caplog, "published again") == 1
    bench.append()
    bench.step(publisher)
    assert bench.sizes() == [3, 14, 15]
    assert bench.keys.last_signed().origin == f"{ORIGIN}/epoch-2"
    assert len(list(bench.keys.path.glob("ended-*.last-signed"))) == 1, "what the old epoch signed is kept"


def test_an_emptied_log_is_refused(make_bench: Callable[[str], Any], tmp_path: Path, caplog: Any) -> None:
    """The database's file was deleted: the new log is no continuation."""
    bench = make_bench(f"sqlite:///{tmp_path / 'one.db'}")
    publisher = bench.publisher()
    bench.append()
    bench.step(publisher)
    bench.step(publisher)
    fresh = make_bench(f"sqlite:///{tmp_path / 'two.db'}")
    publisher = fresh.publisher()
    fresh.step(publisher)
    assert _said(caplog, "the log has 0 events, but 2 were signed") == 1


def test_a_log_cut_below_its_own_checkpoints_is_refused(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The host's memory is gone, too; the table still says what was signed."""
    publisher = bench.publisher()
    bench.append(5)
    bench.step(publisher)
    bench.step(publisher)
    publisher.close()
    (bench.keys.path / "last-signed").unlink()
    with contextlib.closing(sqlite3.connect(bench.store._path)) as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("DELETE FROM audit_logs_0 WHERE seq >= 5")
        raw.execute("DELETE FROM audit_heads WHERE size > 5")
        raw.commit()
    publisher = bench.publisher()
    bench.step(publisher)
    assert _said(caplog, "the log has 5 events, but 6 were signed") == 1


def test_damaged_rows_are_not_signed(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Leaf hashes that do not lead to the newest head's root."""
    publisher = bench.publisher()
    bench.append(5)
    with contextlib.closing(sqlite3.connect(bench.store._path)) as raw:
        raw.execute("DROP TRIGGER audit_guard_update_0")
        raw.execute("UPDATE audit_logs_0 SET leaf_hash = zeroblob(32) WHERE seq = 2")
        raw.commit()
    bench.step(publisher)
    assert bench.sizes() == []
    assert _said(caplog, "the stored tree is damaged") == 1


def test_a_host_without_a_key_says_so_once_and_leaves_the_lease(either: Any, caplog: Any) -> None:
    """It stores and seals; the host that has the key publishes."""
    without = either.publisher(creates=False)
    either.append()
    either.step(without)
    either.step(without)
    assert _said(caplog, "this host has no signing key") == 1
    assert either.keys.load() is None
    with_key = either.publisher(keyring=Keyring(either.keys, given=[generate(ORIGIN)]))
    either.step(with_key)
    either.step(with_key)
    assert either.sizes() == [2]


def test_a_key_that_the_log_does_not_know_does_not_sign(bench: Any, tmp_path: Path, caplog: Any) -> None:
    """Neither a stranger's key of the same name nor a new one beside existing checkpoints: an epoch has to be declared."""
    bench.append()
    publisher = bench.publisher()
    bench.step(publisher)
    bench.step(publisher)
    publisher.close()
    stranger = bench.publisher(keyring=Keyring(bench.keys, given=[generate(ORIGIN)]))
    bench.append()
    bench.step(stranger)
    bench.step(stranger)
    assert bench.sizes() == [2]
    assert _said(caplog, "not publishing: the newest checkpoint is signed by") == 1
    bench.step(publisher)
    assert bench.sizes() == [2, 3], "the lease was given back"
    publisher.close()
    (bench.keys.path / "signing.skey").unlink()
    lost = bench.publisher()
    bench.append()
    bench.step(lost)
    assert bench.keys.load() is None, "no key is made for a log that has been published"
    assert _said(caplog, "this host has no signing key") == 1


def test_rotation_overlaps(bench: Any) -> None:
    """The old key signs the event about the new one, then both sign, then the new one alone; the old is deleted."""
    publisher = bench.publisher()
    bench.append()
    bench.step(publisher)
    bench.step(publisher)
    old = bench.vkey
    bench.keys.rotate(generate(ORIGIN), until=int(bench.clock.time) + 60)
    new = bench.vkey
    bench.step(publisher)
    assert bench.store.head().size == 3, "nobody had recorded the rotation: the publisher does"
    bench.step(publisher)
    bench.append()
    bench.step(publisher)
    bench.append()
    bench.step(publisher, later=60)
    bench.append()
    bench.step(publisher)
    ids = [_signers(each.note) for each in bench.published()]
    assert ids == [
        {old.key_id},
        {new.key_id, old.key_id},
        {new.key_id, old.key_id},
        {new.key_id, old.key_id},
        {new.key_id},
    ]
    bench.check(bench.published()[1].note, old)
    bench.check(bench.published()[1].note, new)
    assert not list(bench.keys.path.glob("retiring-*"))


def test_rotation_of_keys_from_elsewhere(bench: Any) -> None:
    """Keys of the environment or of a KMS: the host lists both during the overlap."""
    old, new = generate(ORIGIN), generate(ORIGIN)
    bench.append()

    def publish(*signers: Ed25519Signer) -> None:
        publisher = bench.publisher(keyring=Keyring(bench.keys, given=signers))
        bench.step(publisher)
        bench.step(publisher)
        publisher.close()

    publish(old)
    publish(new, old)
    bench.append()
    publish(new)
    ids = [_signers(each.note) for each in bench.published()]
    assert ids == [{old.key.key_id}, {new.key.key_id, old.key.key_id}, {new.key.key_id}]


def test_one_publisher_per_log(either: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The second waits, and takes over when the first lets go."""
    either.append()
    first, second = either.publisher(), either.publisher()
    either.step(first)
    either.step(second)
    either.step(second)
    assert _said(caplog, "another process publishes") == 1
    either.step(first)
    either.append()
    first.close()
    either.step(second)
    assert either.sizes() == [2, 3]


class _Fault:
    """A lease whose next insert fails, before or after it was done."""

    def __init__(self, lease: Any, *, done: bool) -> None:
        self._lease = lease
        self._done = done

    def newest(self) -> StoredCheckpoint | None:
        return self._lease.newest()  # type: ignore[no-any-return]

    def insert(self, checkpoint: StoredCheckpoint) -> None:
        if self._done:
            self._lease.insert(checkpoint)
        raise StoreUnavailable("the plug was pulled")

    def close(self) -> None:
        self._lease.close()

    def abandon(self) -> None:
        self._lease.abandon()


@pytest.mark.parametrize("done", [False, True])
def test_a_failed_insert_is_made_up_for(bench: Any, anchor: Any, done: bool, caplog: Any) -> None:
    """Failed and not done, failed but done: one row of this size, the same signature, and the anchors get it."""
    publisher = bench.publisher(anchors=[anchor])
    bench.append()
    bench.step(publisher)
    publisher._lease = _Fault(publisher._lease, done=done)
    bench.step(publisher)
    assert bench.keys.last_signed().size == 2
    assert bench.sizes() == ([2] if done else [])
    assert anchor.taken == []
    bench.step(publisher)
    assert bench.sizes() == [2]
    assert [each.note for each in anchor.taken] == [bench.published()[0].note]
    bench.check(anchor.taken[0].note)
    assert _said(caplog, "the plug was pulled") == 1


def test_a_store_that_is_away_is_waited_for(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Said once, and once more when it is back."""
    publisher = bench.publisher()
    bench.append()
    bench.step(publisher)
    bench.step(publisher)
    bench.store.close()
    bench.step(publisher)
    bench.step(publisher)
    assert _said(caplog, "trying again") == 1
    bench.store.open()
    bench.append()
    bench.step(publisher)
    assert bench.sizes() == [2, 3]
    assert _said(caplog, "published again") == 1


def test_a_key_of_another_origin_than_the_setting_is_refused(bench: Any, caplog: Any) -> None:
    """The origin is fixed: a changed setting is an error, not a second log. A later epoch of it is fine."""
    bench.append()
    bench.keys.create(generate("audit.example.com/prod/epoch-3"))
    publisher = bench.publisher(origin="audit.example.com/test")
    bench.step(publisher)
    assert _said(caplog, "the origin is set to audit.example.com/test") == 1
    publisher = bench.publisher(origin=ORIGIN)
    bench.step(publisher)
    bench.step(publisher)
    assert bench.sizes() == [2]


@pytest.fixture
def child() -> Callable[[Callable[[], None]], int]:
    """A function that runs something in a forked child and returns its exit code."""

    def run(body: Callable[[], None]) -> int:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                signal.alarm(20)
                body()
                code = 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return run


def test_a_forked_child_does_not_end_the_parents_lease(either: Any, child: Callable[..., int]) -> None:
    """The child lets go of what it inherited; the parent is the publisher still."""
    publisher: Publisher = either.publisher()
    either.append()
    either.step(publisher)
    assert child(publisher.abandon) == 0
    other = either.publisher()
    either.step(other)
    assert either.sizes() == []
    either.step(publisher)
    assert either.sizes() == [2]
