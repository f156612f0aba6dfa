"""An S3-compatible bucket as a place for checkpoints. With Object Lock nobody can replace or delete them for years."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from indelible.errors import AnchorFailed, ConfigurationError

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError as error:
    raise ConfigurationError("buckets need boto3", hint="pip install 'indelible[s3]'") from error

_NEEDS: Final = (
    "it needs s3:GetObject, s3:PutObject, s3:PutObjectRetention; to verify, s3:GetObjectVersion, s3:ListBucketVersions"
)
#: Checkpoints that are read from a bucket to verify: so many of the last, and so many spread over all.
EACH: Final = 250
_ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound"})


class Bucket:
    """Writes objects under a prefix; those that are kept, with a retention of so many days (0: the bucket's own).

    Credentials and region come from where boto3 looks for them. ``now`` gives the time that retention begins at.
    """

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        endpoint: str | None = None,
        retention_days: int = 3650,
        lock_mode: Literal["COMPLIANCE", "GOVERNANCE"] = "COMPLIANCE",
        timeout: float = 10.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.name = f"bucket {bucket}"
        self._bucket = bucket
        self._prefix = prefix
        self._retention = timedelta(days=retention_days)
        self._lock_mode = lock_mode
        self._now = now
        self._endpoint = endpoint
        # One attempt: the publisher has its own patience, and other places to go to meanwhile.
        self._config = Config(connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1})
        self._made: Any = None

    @property
    def _client(self) -> Any:
        if self._made is None:
            # At first use, in the follower's thread: looking for credentials may ask the network.
            # A session of our own: boto3's default one is the host's, and not made for threads.
            self._made = boto3.session.Session().client("s3", endpoint_url=self._endpoint, config=self._config)
        return self._made

    def write(self, path: str, data: bytes, *, kept: bool) -> None:
        """See anchors.Place. What is kept cannot be overwritten either: another write makes another version beside it."""
        lock: dict[str, Any] = {}
        if kept and self._retention:
            lock = {"ObjectLockMode": self._lock_mode, "ObjectLockRetainUntilDate": self._now() + self._retention}
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + path,
                Body=data,
                ContentType="application/timestamp-reply" if path.endswith(".tsr") else "text/plain; charset=utf-8",
                # Object Lock demands that the upload is protected by a checksum.
                ChecksumAlgorithm="SHA256",
                **lock,
            )
        except (BotoCoreError, ClientError) as error:
            raise self._failed(error) from error

    def read(self, path: str) -> bytes | None:
        """See anchors.Place."""
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path)
            data: bytes = found["Body"].read()
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _ABSENT:
                return None
            raise self._failed(error) from error
        except BotoCoreError as error:
            raise self._failed(error) from error
        return data

    def versions(self, folder: str) -> Iterator[tuple[str, bytes, float]]:
        """What lies in a folder, and what was hidden there behind other versions: (path, data, Unix time).

        Object Lock keeps versions, not names: whoever may write can put another object over a locked one, or a mark that
        it is deleted. All that was done to is read, of the others the last ``EACH`` by name and as many in between.
        Raises AnchorFailed.
        """
        known: dict[str, list[tuple[str, float]]] = {}
        deleted: set[str] = set()
        try:
            pages = self._client.get_paginator("list_object_versions").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/"
            )
            for page in pages:
                for found in page.get("Versions", ()):
                    known.setdefault(found["Key"], []).append((found["VersionId"], found["LastModified"].timestamp()))
                deleted |= {found["Key"] for found in page.get("DeleteMarkers", ())}
            plain = [key for key, versions in known.items() if len(versions) == 1 and key not in deleted]
            left_out = {*plain} - {*plain[-EACH:], *plain[:: -(-len(plain) // EACH) or 1]}
            for key in sorted(known.keys() - left_out):
                for version, time in known[key]:
                    body = self._client.get_object(Bucket=self._bucket, Key=key, VersionId=version)["Body"]
                    yield key.removeprefix(self._prefix), body.read(), time
        except (BotoCoreError, ClientError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> AnchorFailed:
        return AnchorFailed(f"{self.name}: {error}", hint=_NEEDS)
