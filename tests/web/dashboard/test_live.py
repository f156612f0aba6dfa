"""Live events: what is stored from now on, recorded as it is read."""

from __future__ import annotations

import json

import httpx
import pytest
from fastapi import HTTPException

from indelible.web.dashboard import live
from indelible.web.reading import Reading
from tests.web.dashboard.conftest import Log
from tests.web.dashboard.reading import Html


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream ends after the look that has shown what is there."""
    monkeypatch.setattr(live, "POLL_INTERVAL", 0.0)
    monkeypatch.setattr(live, "OPEN", 0.2)


def rows_of(text: str) -> list[str]:
    """The positions of the rows in a stream, in the order in which they came."""
    data = "\n".join(line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
    return [row.get("id") for row in Html(f"<body><table>{data}</table></body>").all("tr")]


async def test_what_comes_is_sent_as_rows(client: httpx.AsyncClient, log: Log) -> None:
    """From the place the page has got to, matching events come as the rows of the table, with where to go on."""
    for n in range(4):
        log.put(user_id=("alice", "ben")[n % 2])
    answer = await client.get("events/tail?q=user:alice&after=1")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert rows_of(answer.text) == ["e-2"]
    assert "id: 4\n" in answer.text
    again = await client.get("events/tail?q=user:alice&after=1", headers={"Last-Event-ID": "4"})
    assert rows_of(again.text) == []


async def test_reading_live_is_recorded(client: httpx.AsyncClient, log: Log) -> None:
    """An audit.read when it is switched on, and one at the end that says how many events were sent."""
    log.put(user_id="alice")
    await client.get("events/tail?q=user:alice&after=0")
    assert [(event.event_type, event.action) for event in log.reads] == [("audit.read", "tail")] * 2
    told = [json.loads(event.metadata or "") for event in log.reads]
    assert [each["rows"] for each in told] == [0, 1]
    assert told[0]["filters"] == {"user_id": ["alice"]}


async def test_a_page_that_is_far_behind_loads_again(
    client: httpx.AsyncClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever left the page open for long is not sent thousands of rows; nothing was read, so nothing is recorded."""
    monkeypatch.setattr(live, "BEHIND", 2)
    for _ in range(4):
        log.put()
    answer = await client.get("events/tail?after=1")
    assert answer.text == "event: behind\ndata:\n\n"
    assert not log.reads


@pytest.mark.parametrize(
    "query", ["", "after=x", "after=-1", "after=99999999999999999999", "after=1&q=usr:a", "after=1&x=2"]
)
async def test_a_place_that_is_none_is_refused(client: httpx.AsyncClient, log: Log, query: str) -> None:
    """An address that means nothing is 422, and nothing is recorded."""
    assert (await client.get(f"events/tail?{query}")).status_code == 422
    assert not log.reads


async def test_it_is_for_admins(client: httpx.AsyncClient, log: Log) -> None:
    """Others get no stream."""
    answer = await client.get("events/tail?after=0", headers={"Authorization": "somebody"})
    assert answer.status_code == 403


async def test_what_cannot_be_recorded_is_not_sent(
    client: httpx.AsyncClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the journal stops taking events, the stream ends before the rows it could not record."""
    log.put(user_id="alice")
    record, calls = Reading.record, 0

    def once(self: object, *given: object, **rest: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise HTTPException(503, "no journal")
        return record(self, *given, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Reading, "record", once)
    monkeypatch.setattr("indelible.tailing.RECORD_INTERVAL", 0.0)
    answer = await client.get("events/tail?after=0")
    assert answer.status_code == 200
    assert rows_of(answer.text) == []


async def test_a_store_that_is_away_ends_nothing(
    client: httpx.AsyncClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database does not answer the stream waits, and goes on when it does."""
    from indelible.errors import StoreUnavailable

    log.put(user_id="alice")
    scan, away = log.store.scan, [True]

    def failing(*given: object, **rest: object) -> object:
        if away:
            away.pop()
            raise StoreUnavailable("away")
        return scan(*given, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(log.store, "scan", failing)
    assert rows_of((await client.get("events/tail?after=0")).text) == ["e-0"]
