"""Integrity: what is signed, where that went, how the log grew, and a verification that anybody may start here."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from indelible import trust
from indelible.errors import IndelibleError
from indelible.integrity.edge import EDGE_UNIT
from indelible.integrity.verify import KINDS
from indelible.queries import Filter
from indelible.service import AuditService
from indelible.verification import Outcome, Progress, Request, state, verify_apart
from indelible.web.dashboard.site import HEADERS, fragment, render
from indelible.web.dashboard.standing import Signed, Standing, signed, standing
from indelible.web.reading import Reading

log: Final = logging.getLogger("indelible.web")
#: Checkpoints listed.
LISTED: Final = 12
#: One verification at a time in each process.
_running: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Told:
    standing: Standing
    checkpoints: Sequence[Signed | None]
    growth: Sequence[tuple[int, int]]
    verified: tuple[float, int] | None


async def page(reading: Reading) -> Response:
    """The page; nothing is verified until somebody asks for it."""
    told = await reading.ask(_load, reading.service)
    reading.record("audit.read", "integrity", filters={}, rows=0)
    return _page(reading, told, {"report": None, "fault": None})


async def verify(reading: Reading) -> Response:
    """Verify what is new and a part of what is old.

    Answers with lines of JSON where they are asked for: how far it is, and in the end the findings as HTML; otherwise
    with the page that has them.
    """
    reading.record("audit.read", "verify", filters={}, rows=0)
    if "application/x-ndjson" in reading.request.headers.get("accept", ""):
        headers = {**HEADERS, "X-Accel-Buffering": "no"}
        return StreamingResponse(_lines(reading), media_type="application/x-ndjson", headers=headers)
    *_, last = await run_in_threadpool(lambda: [*_run(reading)])
    assert not isinstance(last, Progress), "a run ends with its outcome"
    return _page(reading, await reading.ask(_load, reading.service), _shown(last))


def _page(reading: Reading, told: _Told, shown: Mapping[str, object]) -> Response:
    return render(
        reading.request,
        "integrity.html",
        here="integrity",
        standing=told.standing,
        checkpoints=told.checkpoints,
        growth=told.growth,
        verified=told.verified,
        kinds=KINDS,
        report=shown["report"],
        fault=shown["fault"],
    )


def _lines(reading: Reading) -> Iterator[bytes]:
    for told in _run(reading):
        if isinstance(told, Progress):
            yield msgspec.json.encode({"done": told.done, "total": told.total}) + b"\n"
        else:
            yield msgspec.json.encode({"html": fragment(reading.request, "report.html", **_shown(told))}) + b"\n"


def _shown(told: Outcome | IndelibleError) -> dict[str, object]:
    report, fault = (told.report, None) if isinstance(told, Outcome) else (None, told)
    return {"report": report, "fault": fault, "kinds": KINDS}


def _run(reading: Reading) -> Iterator[Progress | Outcome | IndelibleError]:
    # Taken here, where it is given back: an answer that nobody waits for is never begun.
    if not _running.acquire(blocking=False):
        yield IndelibleError("another verification is running", hint="wait until it has finished")
        return
    try:
        yield from _verified(reading.service)
    except IndelibleError as error:
        log.warning("the log could not be verified: %s", error)
        yield error
    finally:
        _running.release()


def _verified(service: AuditService) -> Iterator[Progress | Outcome]:
    settings, store = service.settings, service.store
    own, registered = trust.own_keys(settings), trust.registered_keys(store)
    logs, witnesses = trust.by_kind([*own, *registered, *trust.witness_keys(settings)])
    outside, unreachable = trust.outside(settings, logs)
    file = state.state_file(settings.data_dir, store.url)
    request = Request(
        url=settings.database_url,
        now=time.time(),
        logs=logs,
        witnesses=witnesses,
        registered=tuple({*logs, *registered, *own}),
        outside=outside,
        unreachable=unreachable,
        schema=store.check(),
        since=state.load(file),
    )
    for told in verify_apart(request):
        if isinstance(told, Outcome) and told.report.verdict != "tampered":
            state.save(file, told.state)
        yield told


def _load(service: AuditService) -> _Told:
    store = service.store
    stats = store.stats(Filter(), top=1)
    size, growth = 0, []
    for start, count in stats.events_over_time:
        size += count
        growth.append((start + stats.bucket, size))
    checkpoints = [signed(stored) for stored in store.newest_checkpoints(LISTED)]
    return _Told(standing(service), checkpoints, growth, _last_run(service))


def _last_run(service: AuditService) -> tuple[float, int] | None:
    """When a run that found nothing wrong left its notes here (Unix seconds), and how many rows they are about."""
    file = state.state_file(service.settings.data_dir, service.store.url)
    try:
        known = state.load(file)
        return None if known is None else (file.stat().st_mtime, len(known.known.nodes) * EDGE_UNIT)
    except (IndelibleError, OSError):
        return None
