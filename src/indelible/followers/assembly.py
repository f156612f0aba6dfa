"""From settings to the followers: the rollups, and the publisher with its keys, its places outside, its witnesses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indelible.errors import ConfigurationError
from indelible.followers.anchors import Anchor, Cosigner, FileAnchor, Place
from indelible.followers.directory import Directory
from indelible.followers.keyring import Keyring
from indelible.followers.publisher import Publisher
from indelible.followers.rollups import Rollups
from indelible.followers.webhook import Webhook
from indelible.followers.witnessing import WitnessClient
from indelible.integrity.note import Signer
from indelible.keys import KeyDirectory, parse_keys
from indelible.ports import Follower, Store
from indelible.settings import Settings

if TYPE_CHECKING:
    from indelible.followers.bucket import Bucket


def followers(settings: Settings, store: Store, *, signer: Signer | None = None) -> tuple[Follower, ...]:
    """Everything that follows the log, what is quickest done first. Raises ConfigurationError as ``publisher`` does."""
    return Rollups(store), publisher(settings, store, signer=signer)


def publisher(settings: Settings, store: Store, *, signer: Signer | None = None) -> Publisher:
    """The publisher that the settings describe. ``signer`` takes the place of every other key: a KMS, an HSM.

    Raises ConfigurationError for keys, witnesses and addresses that cannot work, and for an extra that is missing.
    """
    return Publisher(
        store,
        keyring(settings, signer=signer),
        interval=settings.checkpoint_interval,
        anchors=_anchors(settings),
        cosigners=_cosigners(settings),
    )


def keyring(settings: Settings, *, signer: Signer | None = None) -> Keyring:
    """The keys that the settings name. A first key is made by itself only for the embedded default, SQLite."""
    given: tuple[Signer, ...] = () if signer is None else (signer,)
    if not given and settings.signing_key is not None:
        given = parse_keys(settings.signing_key.get_secret_value())
    return Keyring(
        KeyDirectory(settings.data_dir / "keys"),
        given=given,
        origin=settings.origin,
        creates=settings.database_url.startswith("sqlite"),
    )


def _places(settings: Settings) -> list[Place]:
    places: list[Place] = []
    if settings.anchor_directory is not None:
        places.append(Directory(settings.anchor_directory))
    if settings.anchor_s3_bucket is not None:
        places.append(bucket(settings, settings.anchor_s3_bucket))
    return places


def bucket(settings: Settings, name: str) -> Bucket:
    """The bucket of this name, as the settings describe it. Raises ConfigurationError where boto3 is missing."""
    from indelible.followers.bucket import Bucket

    return Bucket(
        name,
        prefix=settings.anchor_s3_prefix,
        endpoint=settings.anchor_s3_endpoint,
        retention_days=settings.anchor_s3_retention_days,
        lock_mode=settings.anchor_s3_lock_mode,
        timeout=settings.anchor_timeout,
    )


def _anchors(settings: Settings) -> list[Anchor]:
    places = _places(settings)
    anchors: list[Anchor] = [FileAnchor(place) for place in places]
    if settings.anchor_webhook_url is not None:
        anchors.append(Webhook(settings.anchor_webhook_url.get_secret_value(), timeout=settings.anchor_timeout))
    if settings.anchor_tsa_url is not None:
        from indelible.followers.timestamping import TimestampAnchor

        anchors.append(
            TimestampAnchor(
                settings.anchor_tsa_url,
                places,
                interval=settings.anchor_tsa_interval,
                timeout=settings.anchor_timeout,
            )
        )
    return anchors


def _cosigners(settings: Settings) -> list[Cosigner]:
    clients: list[Cosigner] = []
    for entry in settings.anchor_witnesses:
        words = entry.split()
        if len(words) != 2:
            raise ConfigurationError(
                "anchor_witnesses: each witness is a vkey, a space and an address",
                hint="as in: witness.example.com+1234abcd+BASE64 https://witness.example.com",
            )
        clients.append(WitnessClient(words[0], words[1], timeout=settings.anchor_timeout))
    return clients
