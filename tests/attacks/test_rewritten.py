"""Database and signing key stolen, history rewritten and signed again: what has left the machine tells."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from indelible.cli.app import app
from indelible.errors import AnchorFailed, ConfigurationError, StoreUnavailable
from indelible.events import AuditEvent
from indelible.followers.anchors import FileAnchor, Published
from indelible.followers.bucket import Bucket
from indelible.followers.directory import Directory
from indelible.followers.witnessing import WitnessClient
from indelible.integrity.note import COSIGNATURE, Ed25519Signer
from indelible.verification import Outside, from_files, from_witness
from indelible.witness import Witness, WitnessServer

if TYPE_CHECKING:
    from .conftest import Log
else:
    Log = Any

NOW = 4_000_000_000.0


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Callable[[Log], tuple[WitnessClient, str]]]:
    """A witness that knows the log, on a port of its own; gives the publisher's side of it, and its address."""
    servers: list[WitnessServer] = []

    def serve(log: Log) -> tuple[WitnessClient, str]:
        signer = Ed25519Signer("witness.example.com", bytes(32), kind=COSIGNATURE)
        server = WitnessServer(("127.0.0.1", 0), Witness(tmp_path / "witness.db", signer, [log.signer.key]))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        return WitnessClient(str(signer.key), url), url

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket with Object Lock, on a server of moto's, whose memory outlives it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    served = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    served.start()
    host, port = served.get_host_and_port()
    url = f"http://{host}:{port}"
    name = f"locked-{uuid.uuid4()}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    yield Bucket(name, endpoint=url, retention_days=30)
    served.stop()


def stored(log: Log) -> bytes:
    """The newest checkpoint in the table."""
    found = log.store.newest_checkpoint()
    assert found is not None
    return found.note


def rewrite(log: Log) -> None:
    """The perfect crime: everything in the database agrees afterwards, signatures included."""
    log.without_guards(f"UPDATE {log.table(305)} SET user_id = 'nobody' WHERE seq = 305")
    log.reseal(heads=True, resign=True)
    assert [f.kind for f in log.verify([]).findings] == ["unwitnessed"]


def test_a_directory_of_checkpoints_tells(log: Log, tmp_path: Path) -> None:
    """Those of sizes beyond the change do not fit; the older one does."""
    anchor = FileAnchor(Directory(tmp_path))
    for size, note in log.notes.items():
        anchor.put(Published("audit.example.com/test", size, note))
    assert log.verify(list(from_files([tmp_path]))).verdict == "verified"
    rewrite(log)
    report = log.verify(list(from_files([tmp_path])))
    assert report.verdict == "tampered"
    named = {Path(f.detail.split(" ")[0]).name for f in report.findings if f.kind == "checkpoint"}
    assert named == {"000000000600", "checkpoint"}
    assert report.witnessed == 300


def test_the_witness_tells(log: Log, witness: Callable[[Log], tuple[WitnessClient, str]]) -> None:
    """Its memory is a checkpoint with its own signature; what it has seen cannot be taken back."""
    client, url = witness(log)
    client.cosign(Published("audit.example.com/test", 600, log.notes[600]), lambda first: [])
    assert log.verify(list(from_witness(url, ["audit.example.com/test", "other"]))).verdict == "verified"
    rewrite(log)
    report = log.verify(list(from_witness(url, ["audit.example.com/test"])))
    assert [f.kind for f in report.findings] == ["checkpoint", "unwitnessed"]
    assert report.verdict == "tampered"


def test_a_witness_that_does_not_answer_is_no_verdict(log: Log) -> None:
    """An error of its own, which the command line makes exit code 2."""
    with pytest.raises(StoreUnavailable):
        list(from_witness("http://127.0.0.1:9", ["audit.example.com/test"], timeout=2))
    with pytest.raises(ConfigurationError):
        list(from_witness("file:///etc/passwd", ["audit.example.com/test"]))


def test_a_bucket_tells(log: Log, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Object Lock keeps the checkpoint, even behind another one that the thief of the credentials has put over it.

    The command looks there by itself when the settings name the bucket.
    """
    FileAnchor(bucket).put(Published("audit.example.com/test", 600, log.notes[600]))
    assert log.verify(kept_in(bucket)).verdict == "verified"
    rewrite(log)
    with pytest.raises(AnchorFailed, match="forked"):
        FileAnchor(bucket).put(Published("audit.example.com/test", 600, stored(log)))
    path = "audit.example.com/test/checkpoints/000000000600"
    bucket.write(path, stored(log), kept=True)
    assert bucket.read(path) == stored(log) != log.notes[600]
    report = log.verify(kept_in(bucket))
    assert (report.verdict, {f.kind for f in report.findings}) == ("tampered", {"checkpoint"})
    monkeypatch.setenv("INDELIBLE_ANCHOR_S3_BUCKET", bucket._bucket)
    monkeypatch.setenv("INDELIBLE_ANCHOR_S3_ENDPOINT", str(bucket._endpoint))
    command = ["--database-url", log.url, "verify", "--json", "--key", str(log.signer.key)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["detail"].startswith(f"bucket {bucket._bucket}: {path} gives a root that is not the log's")
    monkeypatch.setenv("INDELIBLE_ANCHOR_S3_BUCKET", "missing")
    assert "unreachable" in CliRunner().invoke(app, command).stdout


def kept_in(bucket: Bucket) -> list[Outside]:
    """Every version of every checkpoint."""
    return [Outside(path, note, at) for path, note, at in bucket.versions("audit.example.com/test/checkpoints")]


def test_history_sealed_again_with_other_keys_is_found(log: Log) -> None:
    """A checkpoint kept outside is compared even when the log does not know its key any more."""
    rewrite(log)
    thief = Ed25519Signer("audit.example.com/test", bytes(32))
    kept = log.outside(600)
    log.signer = thief
    log.reseal(heads=True, resign=True)
    assert "checkpoint" in {f.kind for f in log.verify(kept).findings}


def test_a_checkpoint_by_an_unknown_key_confirms_nothing(log: Log) -> None:
    """It agrees, but anybody could have signed it: incomplete."""
    thief = replace(log, signer=Ed25519Signer("audit.example.com/test", bytes(32)))
    (root,) = log.raw("SELECT root FROM audit_heads WHERE size = 600")[0]
    report = log.verify([Outside("theirs", thief.sign(600, bytes(root)), NOW)])
    assert (report.verdict, {f.kind for f in report.findings}) == ("incomplete", {"checkpoint_unknown", "unwitnessed"})


@pytest.mark.parametrize(
    "damage", [lambda note: b"", lambda note: note.replace(b"600", b"599", 1)], ids=["empty", "edited"]
)
def test_a_damaged_checkpoint_is_refused(log: Log, damage: Callable[[bytes], bytes]) -> None:
    """Neither silently ignored nor a crash."""
    report = log.verify([*log.outside(300), Outside("broken", damage(log.notes[600]), NOW)])
    assert [f.kind for f in report.findings] == ["checkpoint_invalid"]


def test_an_old_checkpoint_can_be_too_old(log: Log) -> None:
    """With --max-age: what happened since could have been undone."""
    assert log.verify(max_age=60).verdict == "verified"
    report = log.verify(max_age=59)
    assert (report.verdict, [f.kind for f in report.findings]) == ("incomplete", ["stale"])


def test_a_cosignature_carries_its_own_time(log: Log, witness: Callable[[Log], tuple[WitnessClient, str]]) -> None:
    """The time that the witness has signed, not that of a file."""
    client, url = witness(log)
    client.cosign(Published("audit.example.com/test", 600, log.notes[600]), lambda first: [])
    key = Ed25519Signer("witness.example.com", bytes(32), kind=COSIGNATURE).key
    outside = list(from_witness(url, ["audit.example.com/test"]))
    report = log.verify(outside, witnesses=(key,), max_age=10)
    assert [f.kind for f in report.findings] == ["stale"]
    assert "of unknown age" not in report.findings[0].detail


def test_what_an_earlier_run_knew_tells(log: Log) -> None:
    """--since-last remembers the roots of full ranges; a log that has become shorter than them is found."""
    from indelible.integrity.verify import Known
    from indelible.verification.state import State

    report = log.verify(since=State(Known(nodes=(bytes(32),))))
    assert "truncated" in {f.kind for f in report.findings}


def test_a_hole_without_a_gap_event_is_a_loss(log: Log, event: Callable[[int], AuditEvent]) -> None:
    """A writer's numbers may skip only what an audit.gap event names; for a minute it may be on its way."""
    writer = uuid.UUID(int=0xD)
    log.store.append(writer, 5, [event(700)], after=0)
    assert {f.kind for f in log.verify().findings} == {"writer_hole"}
    (recorded,) = log.raw("SELECT recorded_at FROM audit_logs_2 WHERE seq = 600")[0]
    soon = log.verify(at=recorded / 1_000_000 + 5)
    assert {f.kind for f in soon.findings} == {"hole_pending"}
    told = f'{{"writer_id":"{writer}","first":0,"end":5,"count":5,"reason":"journal_damaged"}}'
    gap = AuditEvent(
        id=uuid.uuid4(), timestamp=0, event_type="audit.gap", action="gap", status="failure", metadata=told
    )
    log.store.append(uuid.UUID(int=0xE), 0, [gap])
    assert log.verify().verdict == "verified"
