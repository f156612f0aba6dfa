"""The integrity page, and a verification that is started there."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import httpx
import pytest

from indelible.errors import SchemaOutOfDate, StoreUnavailable
from indelible.verification import verify_apart
from indelible.web.dashboard import integrity
from tests.web.dashboard.conftest import ORIGIN, Log
from tests.web.dashboard.reading import Html

OURS = {"Sec-Fetch-Site": "same-origin"}
LINES = {**OURS, "Accept": "application/x-ndjson"}
THREATS = Path(__file__).parents[3] / "docs" / "explanation" / "threats.md"


async def verified(client: httpx.AsyncClient) -> tuple[list[dict[str, int]], Html]:
    """The steps of a verification, and its findings."""
    answer = await client.post("integrity/verify", headers=LINES)
    assert answer.headers["content-type"] == "application/x-ndjson"
    *steps, last = [json.loads(line) for line in answer.text.splitlines()]
    return steps, Html(f"<body>{last['html']}</body>")


async def test_what_is_signed_and_where_it_went(client: httpx.AsyncClient, log: Log) -> None:
    """The newest checkpoints, largest first, with their origin; that nothing leaves this machine is said plainly."""
    log.put()
    log.publish()
    log.put()
    newest = log.publish()
    html = Html((await client.get("integrity")).text)
    listed = [item.text for item in html.all("li") if re.search("[0-9a-f]{64}", item.text)]
    assert [item.split()[0] for item in listed] == ["2", "1"]
    assert newest.root.hex() in listed[0]
    assert ORIGIN in html.text
    assert "No checkpoint leaves this machine" in html.text


async def test_the_honest_sentence_is_that_of_the_threat_table(client: httpx.AsyncClient, log: Log) -> None:
    """What the page says about what is not covered stands word for word in the explanation."""
    html = Html((await client.get("integrity")).text)
    said = html.one("section", cls="limits").text
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(THREATS.read_text().split()))
    for sentence in (
        "The log does not prevent what the owner of a machine can do to it. It makes sure that it shows.",
        "whether a checkpoint has left the machines that the attacker owns",
        "A signature by our own key adds nothing against whoever holds both the database and the key.",
    ):
        assert sentence in said
        assert sentence in plain


async def test_a_log_that_agrees_with_itself_is_incomplete(client: httpx.AsyncClient, log: Log) -> None:
    """Without a checkpoint from outside the answer never is "verified"; the steps say how far it is; it is recorded."""
    for _ in range(10):
        log.put()
    log.publish()
    steps, html = await verified(client)
    assert steps[-1] == {"done": 10, "total": 10}
    assert "agrees with itself, and that is all that can be said" in html.text
    assert "10 of 10 events were read" in html.text
    event = log.reads.only()
    assert (event.event_type, event.action) == ("audit.read", "verify")


async def test_a_checkpoint_from_outside_verifies(client: httpx.AsyncClient, log: Log, tmp_path: Path) -> None:
    """With the checkpoint that an anchor keeps, the answer is "verified", and the next run needs to read less."""
    log.put()
    log.publish()
    anchor = tmp_path / "anchor" / ORIGIN
    anchor.mkdir(parents=True)
    newest = log.store.newest_checkpoint()
    assert newest is not None
    (anchor / "checkpoint").write_bytes(newest.note)
    log.service.settings = log.service.settings.model_copy(update={"anchor_directory": tmp_path / "anchor"})
    _, html = await verified(client)
    assert "Verified. A checkpoint from outside confirms the first 1 of 1 events" in html.text
    page = Html((await client.get("integrity")).text)
    assert "The last run that found nothing wrong ended" in page.text
    assert "goes to the directory" in page.text


async def test_tampering_is_named(client: httpx.AsyncClient, log: Log) -> None:
    """A changed row is found and named, with an alarm; and the state of that run is not kept."""
    for _ in range(3):
        log.put(user_id="alice")
    log.publish()
    with sqlite3.connect(log.store.url.removeprefix("sqlite:///")) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')
        connection.execute("UPDATE audit_logs_0 SET user_id = '<b>mallory</b>' WHERE seq = 1")
    connection.close()
    _, html = await verified(client)
    assert "Tampered with" in html.text
    assert html.all("p", cls="wrong")[0].get("role") == "alert"
    rows = [row.text for row in html.all("tr")]
    assert any(row.startswith("row_changed 1 ") for row in rows)
    assert any(row.startswith("guard") for row in rows)
    assert "The last run" not in Html((await client.get("integrity")).text).text


async def test_without_script_the_page_has_the_findings(client: httpx.AsyncClient, log: Log) -> None:
    """A browser that runs no script gets the whole page, its findings in it."""
    log.put()
    answer = await client.post("integrity/verify", headers=OURS)
    html = Html(answer.text)
    assert html.one("h1").text == "Integrity"
    assert "1 of 1 events were read" in html.text


async def test_a_log_that_cannot_be_verified_is_told(
    client: httpx.AsyncClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the database goes away meanwhile, the last line says so, and the next run may begin."""

    def fail(request: object) -> None:
        raise StoreUnavailable("the database is away", hint="start it")

    monkeypatch.setattr(integrity, "verify_apart", fail)
    for _ in range(2):
        _, html = await verified(client)
        assert "could not be verified: the database is away" in html.text


async def test_one_at_a_time(client: httpx.AsyncClient, log: Log) -> None:
    """A second run beside the first is refused in words."""
    integrity._running.acquire()
    try:
        _, html = await verified(client)
    finally:
        integrity._running.release()
    assert "another verification is running" in html.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://host"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://host.evil.example"},
    ],
)
async def test_another_sites_page_starts_nothing(client: httpx.AsyncClient, log: Log, headers: dict[str, str]) -> None:
    """What does not come from a page of this very origin is refused, and nothing is recorded or run."""
    answer = await client.post("integrity/verify", headers=headers)
    assert answer.status_code == 403
    assert not log.reads


async def test_a_browser_without_fetch_metadata_is_known_by_its_origin(client: httpx.AsyncClient, log: Log) -> None:
    """Over plain HTTP browsers do not send Sec-Fetch-Site: then the page's origin is the address it asked for."""
    assert (await client.post("integrity/verify", headers={"Origin": "http://host"})).status_code == 200
    assert log.reads


async def test_verifying_needs_an_admin(client: httpx.AsyncClient, log: Log) -> None:
    """Others are refused."""
    answer = await client.post("integrity/verify", headers={**OURS, "Authorization": "somebody"})
    assert answer.status_code == 403
    assert not log.reads


def test_a_run_apart_ends_with_its_reader(log: Log) -> None:
    """Closing a verification that runs in its own process ends that process."""
    import multiprocessing
    import time

    from indelible.verification import Request

    log.put()
    run = verify_apart(Request(url=log.store.url, now=time.time()))
    next(run)
    run.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_what_a_run_apart_raises_is_raised_here() -> None:
    """An error of the other process arrives as itself."""
    import time

    from indelible.verification import Request

    with pytest.raises(SchemaOutOfDate):
        list(verify_apart(Request(url="sqlite:////nowhere/at/all.db", now=time.time())))
