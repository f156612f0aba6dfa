"""The site that the browser tests look at: the reference host with something in its log."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from backend.demo import traffic
from backend.demo.__main__ import environment, prepare, settled
from backend.demo.serving import Server
from indelible import synthetic
from indelible.events import StoredEvent
from indelible.queries import Filter
from indelible.runtime import open_store
from indelible.settings import Settings, load

#: Events of the week before the test, stored before the host starts.
PAST = 3_000
WEEK = 7 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class Site:
    """A running host. ``session`` is the cookie of the admin's session; ``bob`` is somebody who is no admin."""

    url: str
    settings: Settings
    session: str
    username: str = traffic.ADMIN
    password: str = traffic.password_of(traffic.ADMIN)
    bob: str = "ben"
    bob_password: str = traffic.password_of("ben")

    def stored(self, wanted: Filter, until: Callable[[list[StoredEvent]], bool] = bool) -> list[StoredEvent]:
        """The stored events that match, oldest first, once they satisfy ``until``: by default, once there are some."""
        store = open_store(self.settings)
        store.open()
        try:
            deadline = time.monotonic() + 30
            while True:
                rows = [row for slice_ in store.scan(wanted) for row in slice_]
                if until(rows):
                    return rows
                assert time.monotonic() < deadline, f"still {len(rows)} events"
        finally:
            store.close()


@contextmanager
def serve(state: Path, **more: str) -> Iterator[Site]:
    """The host, its state below ``state``, with ``more`` in its environment."""
    env = environment(state / "host") | {"INDELIBLE_FLUSH_INTERVAL": "0.1"} | more
    prepare(state / "host", env)
    settings = load(database_url=env["INDELIBLE_DATABASE_URL"], data_dir=env["INDELIBLE_DATA_DIR"])
    _fill(settings)
    with Server("backend.server.main:app", env=env, log=state / "server.log") as server:
        session = asyncio.run(_play(server.url))
        yield Site(server.url, settings, session)


def _fill(settings: Settings) -> None:
    begin, step = time.time_ns() // 1000 - WEEK, WEEK // PAST
    events = [*itertools.islice(synthetic.events(7, begin=begin, step=step), PAST)]
    store = open_store(settings)
    store.open()
    store.append(uuid.uuid4(), 0, events)
    store.close()


async def _play(url: str) -> str:
    async with httpx.AsyncClient(base_url=url, timeout=30.0) as client:
        outcome = await traffic.play(traffic.script(calls=120), client)
        assert not outcome.surprises, outcome.surprises
        client.headers["Authorization"] = f"Bearer {outcome.saved[f'token:{traffic.ADMIN}']}"
        await settled(client)
        return outcome.saved[f"token:{traffic.ADMIN}"]
