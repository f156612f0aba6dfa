"""A bucket with Object Lock, on a server of moto's in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from indelible.errors import AnchorFailed
from indelible.followers import bucket as module
from indelible.followers.anchors import FileAnchor, Published
from indelible.followers.bucket import Bucket
from indelible.integrity.checkpoint import Checkpoint, sign_checkpoint
from indelible.keys import generate

ORIGIN = "audit.example.com/prod"
SIGNER = generate(ORIGIN)
NOW = datetime.now(UTC).replace(microsecond=0)


def _published(size: int, fill: int = 1) -> Published:
    return Published(ORIGIN, size, sign_checkpoint(Checkpoint(ORIGIN, size, bytes([fill]) * 32), SIGNER))


@dataclass
class Service:
    """The server's address, and a client of its administrator's."""

    url: str
    client: Any


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The server, on a free port of the loopback interface."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    served = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    served.start()
    host, port = served.get_host_and_port()
    yield f"http://{host}:{port}"
    served.stop()


@pytest.fixture
def service(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """With two empty buckets, one with Object Lock."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3", endpoint_url=server)
    boto3.client("s3", endpoint_url=server)
    client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    client.create_bucket(Bucket="plain")
    yield Service(server, client)
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST")).close()


def _keys(service: Service, bucket: str) -> list[str]:
    return [each["Key"] for each in service.client.list_objects_v2(Bucket=bucket).get("Contents", ())]


def test_each_checkpoint_is_locked_for_years(service: Service) -> None:
    """Neither deleted nor replaced, even by whoever has the bucket's credentials; the newest is not locked."""
    bucket = Bucket("locked", prefix="logs/", endpoint=service.url, retention_days=30, now=lambda: NOW)
    anchor = FileAnchor(bucket)
    for size in (3, 12, 12):
        anchor.put(_published(size))
    first = f"logs/{ORIGIN}/checkpoints/000000000003"
    assert _keys(service, "locked") == [
        f"logs/{ORIGIN}/checkpoint", first, f"logs/{ORIGIN}/checkpoints/000000000012",
    ]  # fmt: skip
    found = service.client.get_object(Bucket="locked", Key=first)
    assert found["Body"].read() == _published(3).note
    assert found["ObjectLockMode"] == "COMPLIANCE"
    assert found["ObjectLockRetainUntilDate"] == NOW + timedelta(days=30)
    with pytest.raises(ClientError, match="AccessDenied"):
        service.client.delete_object(Bucket="locked", Key=first, VersionId=found["VersionId"])
    newest = service.client.get_object(Bucket="locked", Key=f"logs/{ORIGIN}/checkpoint")
    assert newest["Body"].read() == _published(12).note
    assert "ObjectLockMode" not in newest


def test_a_forked_log_is_found_in_the_bucket(service: Service) -> None:
    """Database and key stolen, history rewritten and signed anew: the other checkpoint is there, and stays."""
    anchor = FileAnchor(Bucket("locked", endpoint=service.url, lock_mode="GOVERNANCE"))
    anchor.put(_published(3))
    with pytest.raises(AnchorFailed, match="forked"):
        anchor.put(_published(3, fill=2))
    found = service.client.get_object(Bucket="locked", Key=f"{ORIGIN}/checkpoints/000000000003")
    assert found["Body"].read() == _published(3).note
    assert found["ObjectLockMode"] == "GOVERNANCE"


def test_a_bucket_without_object_lock(service: Service) -> None:
    """With a retention it is refused, rather than believed; with 0 days the bucket's own rules hold."""
    with pytest.raises(AnchorFailed, match="bucket plain"):
        FileAnchor(Bucket("plain", endpoint=service.url)).put(_published(3))
    FileAnchor(Bucket("plain", endpoint=service.url, retention_days=0)).put(_published(3))
    assert len(_keys(service, "plain")) == 2


def test_a_bucket_that_is_not_there_is_a_failure(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bucket, nobody listening, no credentials."""
    with pytest.raises(AnchorFailed, match="NoSuchBucket"):
        Bucket("missing", endpoint=service.url).write("x", b"", kept=True)
    with pytest.raises(AnchorFailed, match="NoSuchBucket"):
        Bucket("missing", endpoint=service.url).read("x")
    with pytest.raises(AnchorFailed):
        Bucket("locked", endpoint="http://127.0.0.1:1", timeout=1.0).read("x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(AnchorFailed, match="credentials"):
        Bucket("locked", endpoint=service.url).write("x", b"", kept=True)


def test_of_very_many_checkpoints_some_are_looked_at(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones and some spread over the others; and every version of one that was written over or deleted."""
    monkeypatch.setattr(module, "EACH", 2)
    bucket = Bucket("locked", prefix="logs/", endpoint=service.url, lock_mode="GOVERNANCE")
    for name in range(9):
        bucket.write(f"o/checkpoints/{name}", b"%d" % name, kept=True)
    bucket.write("o/checkpoints/3", b"other", kept=True)
    service.client.delete_object(Bucket="locked", Key="logs/o/checkpoints/6")
    bucket.write("o2/checkpoints/1", b"another log's", kept=True)
    found = list(bucket.versions("o/checkpoints"))
    assert sorted((path, data) for path, data, _ in found) == [
        ("o/checkpoints/0", b"0"),
        ("o/checkpoints/3", b"3"),
        ("o/checkpoints/3", b"other"),
        ("o/checkpoints/5", b"5"),
        ("o/checkpoints/6", b"6"),
        ("o/checkpoints/7", b"7"),
        ("o/checkpoints/8", b"8"),
    ]
    assert all(abs(time - datetime.now(UTC).timestamp()) < 3600 for _, _, time in found)
    with pytest.raises(AnchorFailed, match="missing"):
        list(Bucket("missing", endpoint=service.url).versions("o/checkpoints"))
