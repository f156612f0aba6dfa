"""Whose signatures this host believes, and what it can compare its log with: from settings, the log, places outside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from indelible.errors import (
    AnchorFailed,
    ConfigurationError,
    IndelibleError,
    IntegrityError,
    KeyUnavailable,
    StoreUnavailable,
)
from indelible.followers.assembly import bucket
from indelible.integrity.note import COSIGNATURE, ED25519, Note, VerifierKey
from indelible.integrity.policy import NONE, Group, Policy
from indelible.keys import KeyDirectory, parse_keys
from indelible.ports import Store, StoredCheckpoint
from indelible.queries import MAX_PAGE_SIZE, Filter, Query
from indelible.settings import Settings
from indelible.verification import Outside, from_files, from_witness

log: Final = logging.getLogger("indelible.trust")


def registered_keys(store: Store) -> list[VerifierKey]:
    """The signing keys that the log itself registers, in ``audit.key`` events."""
    keys: list[VerifierKey] = []
    page = store.page(Query(filter=Filter(event_type=("audit.key",)), page_size=MAX_PAGE_SIZE))
    for row in page.rows:
        try:
            keys.append(VerifierKey.parse(row.resource_id or ""))
        except IntegrityError:
            # Recorded by hand; a row that was changed is found as such.
            continue
    return list(dict.fromkeys(keys))


def own_keys(settings: Settings, *, tell: Callable[[str], object] = log.warning) -> list[VerifierKey]:
    """The public halves of the signing keys that this host has; none where they cannot be read, which ``tell`` hears."""
    if settings.signing_key is not None:
        return [signer.key for signer in parse_keys(settings.signing_key.get_secret_value())]
    try:
        ring = KeyDirectory(settings.data_dir / "keys").load()
    except KeyUnavailable as error:
        tell(f"without this host's key: {error.message}")
        return []
    return [] if ring is None else [ring.signing.key, *(old.signer.key for old in ring.retiring)]


def witness_keys(settings: Settings) -> list[VerifierKey]:
    """The keys of the settings' witnesses. Raises ConfigurationError."""
    return parse_vkeys([entry.split()[0] for entry in settings.anchor_witnesses if entry], called="anchor_witnesses")


def parse_vkeys(texts: Sequence[str], *, called: str = "--key") -> list[VerifierKey]:
    """Keys as they are written. Raises ConfigurationError, which says what they are ``called``."""
    try:
        return [VerifierKey.parse(text) for text in texts]
    except IntegrityError as error:
        raise ConfigurationError(f"{called}: {error.message}", hint=error.hint) from None


def by_kind(keys: Sequence[VerifierKey]) -> tuple[tuple[VerifierKey, ...], tuple[VerifierKey, ...]]:
    """The keys of logs and those of witnesses, each once."""
    unique = dict.fromkeys(keys)
    return tuple(k for k in unique if k.kind == ED25519), tuple(k for k in unique if k.kind == COSIGNATURE)


def outside(
    settings: Settings, logs: Sequence[VerifierKey], *, files: Sequence[Path] = (), urls: Sequence[str] = ()
) -> tuple[list[Outside], list[str]]:
    """The checkpoints in these files and at these witnesses; where none are named, those of the settings' places.

    And who does not answer, which must not keep tampering from being found. Raises ConfigurationError as ``from_files``
    and ``from_witness`` do.
    """
    found: list[Outside] = []
    unreachable: list[str] = []
    origins = sorted({key.name for key in logs})
    if not files and not urls:
        if settings.anchor_s3_bucket is not None:
            try:
                found += _from_bucket(settings, settings.anchor_s3_bucket, origins)
            except AnchorFailed as error:
                unreachable.append(error.message)
        if settings.anchor_directory is not None and settings.anchor_directory.is_dir():
            paths = [settings.anchor_directory / name for name in origins]
            files = [path for path in paths if path.is_dir()]
        urls = [entry.split()[-1] for entry in settings.anchor_witnesses if entry]
    found += from_files(files)
    for url in urls:
        try:
            found += from_witness(url, origins)
        except StoreUnavailable as error:
            unreachable.append(error.message)
    return found, unreachable


def _from_bucket(settings: Settings, name: str, origins: Sequence[str]) -> Iterator[Outside]:
    place = bucket(settings, name)
    for origin in origins:
        for path, data, at in place.versions(f"{origin}/checkpoints"):
            if not path.endswith(".tsr"):
                yield Outside(f"{place.name}: {path}", data, at)


def newest_of(store: Store) -> StoredCheckpoint:
    """The newest checkpoint. Raises IndelibleError where there is none."""
    newest = store.newest_checkpoint()
    if newest is None:
        raise IndelibleError(
            "no checkpoint has been published",
            hint="a running service with a signing key publishes them: indelible key",
        )
    return newest


def policy_for(
    settings: Settings, store: Store, newest: StoredCheckpoint, *, tell: Callable[[str], object] = log.warning
) -> Policy:
    """The keys that signed and cosigned this checkpoint, of those known here, as a policy that asks for all of them.

    Raises IndelibleError for a checkpoint that cannot be read, or that no known key of the log has signed.
    """
    known = [*own_keys(settings, tell=tell), *registered_keys(store), *witness_keys(settings)]
    by_line = {(key.name, key.key_id): key for key in known}
    try:
        lines = Note.parse(newest.note).signatures
    except IntegrityError as error:
        raise IndelibleError(
            f"the newest checkpoint is damaged: {error.message}", hint="run: indelible verify"
        ) from error
    logs, cosigners = by_kind(
        [by_line[line.name, line.key_id] for line in lines if (line.name, line.key_id) in by_line]
    )
    if not logs:
        raise IndelibleError(
            "the newest checkpoint is signed by no key that is known here", hint="run: indelible verify"
        )
    witnesses = {f"w{at}": key for at, key in enumerate(cosigners, start=1)}
    groups = {"all": Group(len(witnesses), tuple(witnesses))} if witnesses else {}
    return Policy(logs, witnesses, groups, "all" if witnesses else NONE)
