"""``export-tiles``: the whole log as static files that other implementations read (C2SP tlog-tiles)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from uuid import uuid4

import typer

from indelible.cli import options as o
from indelible.cli.log import settings_for
from indelible.cli.output import note, progress
from indelible.cli.reading import reading
from indelible.errors import IndelibleError, IntegrityError, LogForked, TreeDamaged
from indelible.queries import Filter

if TYPE_CHECKING:
    from indelible.integrity.checkpoint import Checkpoint
    from indelible.ports import Store

EPILOG: Final = o.examples("indelible export-tiles /srv/audit-log", "python3 verify_bundle.py /srv/audit-log")
#: Rows read at a time: 64 bundles.
_SLICE: Final = 64 * 256


def export_tiles(
    ctx: typer.Context,
    out: Annotated[
        Path, typer.Argument(metavar="DIR", file_okay=False, help="Where to write; made if it is not there.")
    ],
) -> None:
    """Write the log up to its newest checkpoint as C2SP tlog-tiles: what any such client or verifier reads.

    DIR gets checkpoint, tile/ and policy. A second run adds what is new; full tiles never change. The entries hold the
    clear fields and digests of the others, never personal data. That it was exported is recorded first.
    """
    from indelible.proving import opened, tile_reader
    from indelible.trust import newest_of, policy_for

    settings = settings_for(ctx.obj)
    with reading(ctx.obj, "export-tiles") as log:
        newest = newest_of(log.store)
        try:
            checkpoint = opened(newest)
        except IntegrityError as error:
            raise TreeDamaged(f"the newest checkpoint is damaged: {error.message}", hint=_HINT) from error
        policy = policy_for(settings, log.store, newest, tell=note)
        since = _before(out, checkpoint, log.store)
        log.record("audit.exported", Filter(), checkpoint.size - since, format="tlog-tiles", end=checkpoint.size)
        try:
            with progress("exporting", checkpoint.size - since) as advance:
                _write_entries(log.store, out, since, checkpoint.size, advance)
            _write_tiles(out, since, checkpoint.size, tile_reader(log.store))
            _put(out / "policy", policy.encode())
            # Everything it speaks of is on the disk before the checkpoint is.
            os.sync()
            # Crash before here ⇒ the old checkpoint stands, and the next run writes the same again.
            _put(out / "checkpoint", newest.note)
        except OSError as error:
            raise IndelibleError(f"cannot write {out}: {error.strerror}", hint="choose another directory") from error
    note(f"{checkpoint.size - since:,} entries added, {checkpoint.size:,} in all, in {out}")


def _before(out: Path, checkpoint: Checkpoint, store: Store) -> int:
    """The size that an earlier run has written. Raises LogForked when that was another log, or this one before a change."""
    from indelible.integrity.checkpoint import Checkpoint
    from indelible.integrity.merkle import CompactRange
    from indelible.integrity.note import Note
    from indelible.integrity.tiles import node_reader
    from indelible.proving import tile_reader

    try:
        data = (out / "checkpoint").read_bytes()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise IndelibleError(f"cannot read {out}: {error.strerror}") from error
    try:
        before = Checkpoint.parse(Note.parse(data).text)
        if before.size <= checkpoint.size:
            node = node_reader(checkpoint.size, tile_reader(store))
            if CompactRange.read(before.size, node).root == before.root:
                return before.size
    except IntegrityError as error:
        raise LogForked(f"the checkpoint in {out} cannot be continued: {error.message}", hint=_HINT) from error
    raise LogForked(f"{out} holds another log, or rows that this one does not have any more", hint=_HINT)


def _write_entries(store: Store, out: Path, since: int, size: int, advance: Callable[[int], object]) -> None:
    """Bundles of entries, and the tiles of their hashes."""
    from indelible.integrity.leaf import leaf_bytes
    from indelible.integrity.merkle import hash_leaf
    from indelible.integrity.tiles import TILE_WIDTH, bundles, encode_bundle

    done = since - since % TILE_WIDTH
    for first in range(done, size, _SLICE):
        end = min(first + _SLICE, size)
        rows = [row for part in store.scan(Filter(), first=first, end=end) for row in part]
        try:
            entries = [leaf_bytes(row) for row in rows]
        except IntegrityError as error:
            raise TreeDamaged(f"a row from {first} on cannot have been sealed: {error.message}", hint=_HINT) from error
        hashes = [hash_leaf(entry) for entry in entries]
        if hashes != [row.leaf_hash for row in rows] or [row.seq for row in rows] != list(range(first, end)):
            raise TreeDamaged(f"rows {first} to {end - 1} are not those that were sealed", hint=_HINT)
        for bundle in bundles(end, since=max(first, since)):
            at = bundle.index * TILE_WIDTH - first
            # The partial bundle that ends a slice is none of the log's unless the slice is the last.
            if bundle.width == TILE_WIDTH or end == size:
                _put(out / bundle.bundle_path, encode_bundle(entries[at : at + bundle.width]))
                _put(out / bundle.path, b"".join(hashes[at : at + bundle.width]))
        advance(end - max(first, since))


def _write_tiles(out: Path, since: int, size: int, read: Callable[..., bytes]) -> None:
    from indelible.integrity.tiles import tiles

    for tile in tiles(size, since=since):
        if tile.level:
            _put(out / tile.path, read(tile))


def _put(path: Path, data: bytes) -> None:
    """Write a file by renaming it into place; readers see a whole one or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        new.write_bytes(data)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


_HINT: Final = "rows, tiles or heads were changed beside the service, or this is another log; run: indelible verify"
