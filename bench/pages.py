"""How long the dashboard's pages take the server, beside the bare query for a page of events.

python -m bench.pages sqlite:////tmp/million.db [--times 200]

The log is one that `indelible bench load --rows 1000000` has filled. Each figure is one request, journal and middleware
included, without a network; ways alternate, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import httpx
from fastapi import FastAPI

import indelible
from indelible.capture.asgi import AuditMiddleware
from indelible.queries import Filter, Query
from indelible.service import AuditService
from indelible.web.dashboard import audit_dashboard

#: Pages by what they show; ``{user}``, ``{kind}`` and ``{thing}`` are those of some event.
PAGES: Final = {
    "overview": "/audit/",
    "overview, a week": "/audit/?q=since:2025-02-01+until:2025-02-07",
    "explorer": "/audit/events",
    "explorer, a user": "/audit/events?q=user:{user}",
    "explorer, an outcome": "/audit/events?q=status:denied",
    "explorer, three conditions": "/audit/events?q=user:{user}+status:failure+type:login_failed",
    "explorer, a network": "/audit/events?q=ip:10.0.0.0/8",
    "one event, with its proof": "/audit/events/{id}",
    "a user": "/audit/subject?user={user}",
    "a resource": "/audit/subject?type={kind}&id={thing}",
    "integrity": "/audit/integrity",
}


async def _caught_up(service: AuditService) -> None:
    """Return when the rollups are made: until then statistics read rows."""
    slow = 1.0
    while slow > 0.05:
        began = time.perf_counter()
        await asyncio.to_thread(service.store.stats, Filter())
        slow = time.perf_counter() - began
        await asyncio.sleep(0.5)


async def measured(url: str, data: Path, times: int) -> dict[str, list[float]]:
    """The milliseconds of every way, sorted."""
    service = indelible.configure(database_url=url, data_dir=data)
    await service.start()
    try:
        await _caught_up(service)
        row = next(each for each in service.store.page(Query(page_size=1000)).rows if each.user_id and each.resource_id)
        values = {"id": row.id, "user": row.user_id, "kind": row.resource_type, "thing": row.resource_id}
        app = FastAPI()
        app.include_router(audit_dashboard(require_admin=lambda: "the-admin"))
        transport = httpx.ASGITransport(AuditMiddleware(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://bench") as client:

            def page(address: str) -> Callable[[], Awaitable[object]]:
                async def get() -> object:
                    return (await client.get(address)).raise_for_status()

                return get

            async def bare() -> object:
                return await asyncio.to_thread(service.store.page, Query())

            ways = {"bare query": bare} | {name: page(address.format(**values)) for name, address in PAGES.items()}
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(times):
                for name, way in ways.items():
                    began = time.perf_counter()
                    await way()
                    taken[name].append((time.perf_counter() - began) * 1000)
    finally:
        await service.stop()
    return {name: sorted(each) for name, each in taken.items()}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.pages", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("url", help="the log's address")
    parser.add_argument("--times", type=int, default=200, help="requests of each page (default: 200)")
    parser.add_argument("--json", action="store_true", help="figures instead of a table")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        taken = asyncio.run(measured(given.url, Path(data), given.times))
    found = {name: (statistics.median(each), each[int(len(each) * 0.99)]) for name, each in taken.items()}
    if given.json:
        print(json.dumps(found))
        return
    print("| | p50 ms | p99 ms |\n|---|---|---|")
    for name, (half, most) in found.items():
        print(f"| {name} | {half:.1f} | {most:.1f} |")


if __name__ == "__main__":
    main()
