"""One event: every field, what it changed, what stands around it, and the proof that it is in the log."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from fastapi import HTTPException, Response

from indelible import proving
from indelible.bundles import bundle
from indelible.errors import IndelibleError, TreeDamaged
from indelible.events import StoredEvent
from indelible.integrity.merkle import Step, hash_leaf, inclusion_steps
from indelible.ports import Store
from indelible.proving import Evidence
from indelible.queries import EARLIEST, LATEST, Cursor, Filter, Query
from indelible.settings import Settings
from indelible.taxonomy import event_types
from indelible.trust import newest_of, policy_for
from indelible.web.dashboard.asking import explore
from indelible.web.dashboard.differences import differences, pretty
from indelible.web.dashboard.site import link, render
from indelible.web.dashboard.standing import Signed, signed
from indelible.web.reading import Reading

#: Events shown of the same request, and on either side of this one in its actor's and its resource's time.
TOGETHER: Final = 20
AROUND: Final = 4


@dataclass(frozen=True, slots=True)
class Proved:
    """The way from the event to the newest checkpoint's root, recomputed. ``fault`` says why there is none.

    ``pending``: nothing is wrong, the next checkpoint will cover it.
    """

    checkpoint: Signed | None
    evidence: Evidence | None = None
    leaf: bytes = b""
    steps: Sequence[Step] = ()
    fault: str = ""
    pending: bool = False


@dataclass(frozen=True, slots=True)
class Around:
    """What else happened, oldest first, this event among it."""

    heading: str
    rows: Sequence[StoredEvent]
    href: str


@dataclass(frozen=True, slots=True)
class _Told:
    event: StoredEvent
    proved: Proved
    around: Sequence[Around]


async def page(reading: Reading, log_id: UUID) -> Response:
    """The page of one event; 404 where there is none."""
    told = await reading.ask(_load, reading.store, log_id)
    if told is None:
        raise HTTPException(404, f"there is no event {log_id}")
    row = told.event
    shown = {row.seq, *(each.seq for group in told.around for each in group.rows)}
    reading.record("audit.read", "read", filters={}, rows=len(shown), resource_id=log_id)
    lines, all_lines = differences(row.old_value, row.new_value)
    return render(
        reading.request,
        "event.html",
        here="explorer",
        event=row,
        meaning=event_types().get(row.event_type, ""),
        lines=lines,
        all_lines=all_lines,
        metadata=None if row.metadata is None else pretty(row.metadata),
        proved=told.proved,
        around=told.around,
        actor=row.user_id and link("subject", user=row.user_id),
        resource=row.resource_type and link("subject", type=row.resource_type, id=row.resource_id),
        address=row.ip_address and explore(Filter(ip_address=(row.ip_address,))),
        kind=explore(Filter(event_type=(row.event_type,))),
    )


async def evidence(reading: Reading, log_id: UUID) -> Response:
    """Everything that a stranger needs to check this event, as a zip file; 404 while no checkpoint covers it."""
    settings = reading.service.settings
    try:
        found = await reading.ask(_bundle, settings, reading.store, log_id)
    except IndelibleError as error:
        raise HTTPException(404, str(error)) from None
    if found is None:
        raise HTTPException(404, f"there is no event {log_id}, or no checkpoint that covers it yet")
    reading.record("audit.read", "prove", filters={}, rows=1, resource_id=log_id)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in found.items():
            file.writestr(f"evidence-{log_id}/{name}", data)
    headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="evidence-{log_id}.zip"'}
    return Response(packed.getvalue(), media_type="application/zip", headers=headers)


def _bundle(settings: Settings, store: Store, log_id: UUID) -> Mapping[str, bytes] | None:
    row, newest = store.get(log_id), newest_of(store)
    if row is None or newest.size <= row.seq:
        return None
    return bundle(log_id, proving.prove(store, row, newest), policy_for(settings, store, newest))


def _load(store: Store, log_id: UUID) -> _Told | None:
    row = store.get(log_id)
    return None if row is None else _Told(row, _proved(store, row), [*_around(store, row)])


def _proved(store: Store, row: StoredEvent) -> Proved:
    newest = store.newest_checkpoint()
    if newest is None:
        return Proved(None, fault="no checkpoint has been published: the log has no signing key, or has just begun")
    checkpoint = signed(newest)
    if checkpoint is None:
        return Proved(None, fault="the newest checkpoint cannot be read")
    if checkpoint.size <= row.seq:
        return Proved(checkpoint, pending=True)
    try:
        found = proving.prove(store, row, newest)
    except TreeDamaged as error:
        return Proved(checkpoint, fault=error.message)
    leaf = hash_leaf(found.entry)
    steps = [*inclusion_steps(row.seq, checkpoint.size, leaf, found.proof.hashes)]
    return Proved(checkpoint, found, leaf, steps)


def _around(store: Store, row: StoredEvent) -> Iterator[Around]:
    if row.correlation_id is not None:
        wanted = Filter(correlation_id=row.correlation_id)
        rows = store.page(Query(filter=wanted, descending=False, page_size=TOGETHER)).rows
        if len(rows) > 1:
            yield Around("In the same request", rows, explore(wanted))
    if not EARLIEST <= row.timestamp <= LATEST:
        return  # a forged row has no neighbours in time
    if row.user_id is not None:
        wanted = Filter(user_id=(row.user_id,))
        yield Around("By the same user", _neighbours(store, row, wanted), link("subject", user=row.user_id))
    if row.resource_type is not None and row.resource_id is not None:
        wanted = Filter(resource_type=row.resource_type, resource_id=row.resource_id)
        href = link("subject", type=row.resource_type, id=row.resource_id)
        yield Around("To the same resource", _neighbours(store, row, wanted), href)


def _neighbours(store: Store, row: StoredEvent, wanted: Filter) -> list[StoredEvent]:
    place = Cursor(row.timestamp, row.seq)
    before, after = (
        store.page(Query(filter=wanted, descending=back, page_size=AROUND, cursor=place)).rows for back in (True, False)
    )
    return [*reversed(before), row, *after]
