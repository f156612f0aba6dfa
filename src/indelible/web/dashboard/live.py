"""Live events: what matches a search, sent as it is stored, until the page is closed."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import anyio
from fastapi import HTTPException, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from indelible.errors import StoreUnavailable
from indelible.queries import MAX_SEQ, filter_as_params
from indelible.tailing import POLL_INTERVAL, Tail
from indelible.web.dashboard import words
from indelible.web.dashboard.asking import View, look
from indelible.web.dashboard.site import HEADERS, fragment
from indelible.web.reading import Reading

log: Final = logging.getLogger("indelible.web")
#: Seconds after which an answer ends. The browser asks again by itself, and is asked who it is again; a server that
#: stops waits no longer than this for pages that are left open.
OPEN: Final = 60.0
#: Events a page may be behind. One that is further behind is to load itself again.
BEHIND: Final = 1_000
_DECIMAL: Final = re.compile(r"[0-9]{1,19}")


async def page(reading: Reading) -> Response:
    """Server-sent events, each with rows of the explorer's table, newest first: ``rows``. ``behind``: load again.

    What was sent is recorded as ``indelible.tailing`` has it: at the beginning, every minute, at the end.
    """
    request = reading.request
    view = reading.parsed(lambda params: look([pair for pair in params if pair[0] != "after"], words.utc_now()))
    after = _place(request.headers.get("last-event-id") or request.query_params.get("after", ""))
    asked = filter_as_params(view.filter)
    tail = Tail(reading.store, view.filter, lambda rows: reading.record("audit.read", "tail", filters=asked, rows=rows))
    head = await reading.ask(reading.store.head)
    behind = head is not None and head.size - after > BEHIND
    if not behind:
        tail.start(after)
    return StreamingResponse(
        _sent(reading, tail, view) if not behind else _behind(),
        media_type="text/event-stream",
        headers={**HEADERS, "X-Accel-Buffering": "no"},
    )


async def _behind() -> AsyncIterator[str]:
    yield "event: behind\ndata:\n\n"


async def _sent(reading: Reading, tail: Tail, view: View) -> AsyncIterator[str]:
    until = time.monotonic() + OPEN
    yield "retry: 1000\n\n"
    try:
        while time.monotonic() < until:
            try:
                rows = await run_in_threadpool(tail.more)
            except StoreUnavailable:
                rows = ()
            if rows:
                newest_first = partial(fragment, reading.request, "rows.html", rows=rows[::-1], columns=view.columns)
                lines = (await run_in_threadpool(newest_first, next=None)).splitlines()
                yield f"id: {tail.place}\nevent: rows\n" + "".join(f"data: {line}\n" for line in lines) + "\n"
            else:
                # Nothing to show; whoever asks again goes on from here all the same.
                yield f"id: {tail.place}\n\n"
                await anyio.sleep(POLL_INTERVAL)
    except HTTPException as refused:
        # The reading cannot be recorded, so there is nothing to show any more.
        log.error("live events end: %s", refused.detail)
    finally:
        # Not awaited: whoever has left takes the rest of this with them.
        try:
            tail.close()
        except HTTPException:
            log.error("the end of a reading could not be recorded")


def _place(text: str) -> int:
    """Where the page that asks has got to."""
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_SEQ:
        raise HTTPException(422, "after is the number of an event")
    return int(text)
