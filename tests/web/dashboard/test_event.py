"""One event's page, its proof and its evidence, and the page of a user or a resource."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import httpx
import pytest

from indelible import rendering
from tests.web.dashboard.conftest import MINUTE, NEW_YEAR, Log
from tests.web.dashboard.reading import Html


async def test_every_field_is_shown(client: httpx.AsyncClient, log: Log) -> None:
    """Nothing that the API shows of an event is missing from its page."""
    event = log.put(
        user_id="alice",
        on_behalf_of="ben",
        tenant_id="acme",
        session_id="s-1",
        ip_address="192.0.2.9",
        user_agent="curl/8",
        resource_type="node",
        resource_id="42",
        request_method="PUT",
        request_path="/api/nodes/42",
        response_status=200,
        duration_us=12_345,
        correlation_id="c-7",
        old_value='{"a": 1}',
        new_value='{"a": 2}',
        metadata='{"reason": "growth"}',
        error="none really",
        source="fog",
    )
    html = Html((await client.get(f"events/{event.id}")).text)
    row = log.store.get(event.id)
    assert row is not None
    assert row.leaf_hash is not None
    shown = {**rendering.as_json(row), "duration_us": "12.3 ms", "old_value": "1", "new_value": "2"}
    shown |= {
        "timestamp": "2024-01-01 00:00:00 UTC",
        "metadata": '"reason": "growth"',
        "leaf_hash": row.leaf_hash.hex(),
    }
    for name in rendering.FIELDS:
        if name not in ("recorded_at", "actor_digest", "details_digest"):
            assert str(shown[name]) in html.text, name


async def test_a_change_is_readable(client: httpx.AsyncClient, log: Log) -> None:
    """Old and new value stand side by side, field by field; what is the same is not marked."""
    event = log.put(
        old_value='{"role": "user", "tags": ["a"], "same": 1}',
        new_value='{"role": "admin", "tags": ["a", "b"], "same": 1}',
    )
    html = Html((await client.get(f"events/{event.id}")).text)
    assert [e.text for e in html.all("del")] == ["user"]
    assert [e.text for e in html.all("ins")] == ["admin", "b"]
    assert [row.text.split()[0] for row in html.all("tr", cls="^(changed|added|removed|same)$")] == [
        "role",
        "tags[1]",
        "tags[0]",
        "same",
    ]


async def test_what_stands_around_it(client: httpx.AsyncClient, log: Log) -> None:
    """The request's other events, and the nearest before and after of its user and its resource."""
    for n in range(12):
        log.put(
            user_id=("alice", "ben")[n % 2], resource_type="node", resource_id=str(n % 3), correlation_id=f"c-{n // 2}"
        )
    html = Html((await client.get(f"events/{uuid.UUID(int=7)}")).text)
    groups = dict(zip([h.text for h in html.all("h2")][-4:-1], html.all("ol", cls="around"), strict=True))
    assert list(groups) == ["In the same request", "By the same user", "To the same resource"]
    lists = [
        [link.get("href")[-2:] for link in Html(f"<body>{part}</body>").all("a", cls="open")] for part in _lists(html)
    ]
    assert lists == [["08"], ["01", "03", "05", "09", "0b"], ["01", "04", "0a"]]
    assert json.loads(log.reads.only().metadata or "")["rows"] == 9


def _lists(html: Html) -> list[str]:
    """The lists of events as HTML again, one after another."""
    found: list[str] = []
    for element in html.elements:
        if element.tag == "ol" and element.get("class") == "around":
            found.append("")
        elif element.tag == "a" and element.get("class") == "open" and found:
            found[-1] += f'<a class="open" href="{element.get("href")}"></a>'
    return found


async def test_the_proof_is_recomputed_step_by_step(client: httpx.AsyncClient, log: Log) -> None:
    """The page's hashes begin with the event's own leaf and end with the signed root, one step a line."""
    for _ in range(5):
        log.put()
    checkpoint = log.publish()
    html = Html((await client.get(f"events/{uuid.UUID(int=3)}")).text)
    assert "is in the log that checkpoint 5 speaks of" in html.text
    hashes = [code.text for code in html.all("code", cls="^hash$")]
    row = log.store.get(uuid.UUID(int=3))
    assert row is not None
    assert row.leaf_hash is not None
    assert json.loads(hashes[0])["id"] == str(row.id)
    assert hashes[1] == row.leaf_hash.hex()
    assert hashes[-2] == hashes[-1] == checkpoint.root.hex()
    assert len(hashes) == 1 + 1 + 3 + 1


async def test_without_a_checkpoint_nothing_is_claimed(client: httpx.AsyncClient, log: Log) -> None:
    """Before the first checkpoint there is no proof, before the next one it is on its way: neither is an alarm."""
    log.put()
    html = Html((await client.get(f"events/{uuid.UUID(int=1)}")).text)
    assert "no checkpoint has been published" in html.text
    assert (await client.get(f"events/{uuid.UUID(int=1)}/evidence.zip")).status_code == 404
    log.publish()
    log.put()
    html = Html((await client.get(f"events/{uuid.UUID(int=2)}")).text)
    assert "Not signed yet" in html.text
    assert not html.all("p", cls="wrong")
    answer = await client.get(f"events/{uuid.UUID(int=2)}/evidence.zip")
    assert answer.status_code == 404
    assert "no checkpoint that covers it yet" in Html(answer.text).text


async def test_a_changed_event_is_not_proved(client: httpx.AsyncClient, log: Log) -> None:
    """A row that was changed in the database is shown with an alarm, and there is no evidence to download."""
    log.put(user_id="alice")
    log.put(user_id="ben")
    log.publish()
    with sqlite3.connect(log.store.url.removeprefix("sqlite:///")) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')
        connection.execute("UPDATE audit_logs_0 SET user_id = 'mallory' WHERE seq = 0")
    connection.close()
    html = Html((await client.get(f"events/{uuid.UUID(int=1)}")).text)
    assert "This event cannot be proved" in html.text
    assert not html.all("a", href="evidence")
    assert (await client.get(f"events/{uuid.UUID(int=1)}/evidence.zip")).status_code == 503


async def test_the_evidence_convinces_a_stranger(client: httpx.AsyncClient, log: Log, tmp_path: Path) -> None:
    """The zip holds what ``indelible prove`` writes; its own verifier says yes, and no once a byte is changed."""
    for n in range(3):
        log.put(user_id=f"u{n}", metadata=json.dumps({"n": n}))
    log.publish()
    log.reads.clear()
    answer = await client.get(f"events/{uuid.UUID(int=2)}/evidence.zip")
    assert answer.headers["content-type"] == "application/zip"
    assert (log.reads.only().event_type, log.reads.only().action) == ("audit.read", "prove")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        file.extractall(tmp_path)
    (folder,) = tmp_path.glob("evidence-*")
    command = [sys.executable, "verify_bundle.py", "."]
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0
    (entry,) = folder.glob("*.entry")
    entry.write_bytes(entry.read_bytes().replace(b"success", b"failure"))
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 1


async def test_a_users_page_has_what_is_by_and_about(client: httpx.AsyncClient, log: Log) -> None:
    """What somebody did and what was done to their record stand in one timeline, each event once."""
    log.put(user_id="alice")
    log.put(user_id="ben", resource_type="user", resource_id="alice")
    log.put(user_id="alice", resource_type="user", resource_id="alice")
    log.put(user_id="ben", resource_type="node", resource_id="alice")
    html = Html((await client.get("subject?user=alice")).text)
    assert [link.get("href")[-1:] for link in html.all("a", cls="^open$")] == ["3", "2", "1"]
    assert json.loads(log.reads.only().metadata or "") == {"filters": {"user": "alice"}, "rows": 3}
    html = Html((await client.get("subject?type=node&id=alice")).text)
    assert [link.get("href")[-1:] for link in html.all("a", cls="^open$")] == ["4"]


async def test_a_timeline_goes_on(client: httpx.AsyncClient, log: Log) -> None:
    """Two interleaved kinds of events come page by page, every one once, in order of time."""
    for n in range(130):
        log.put(**({"user_id": "alice"} if n % 3 else {"resource_type": "user", "resource_id": "alice"}))
    address, seen = "subject?user=alice", []
    while address:
        html = Html((await client.get(address)).text)
        seen += [link.get("href")[-3:] for link in html.all("a", cls="^open$")]
        following = html.all("a", rel="next")
        address = following[0].get("href") if following else ""
        if following:
            part = await client.get(address, headers={"HX-Request": "true"})
            assert part.text.lstrip().startswith("<tr")
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == 130


async def test_usual_hours_are_counted(client: httpx.AsyncClient, log: Log) -> None:
    """The strip counts events by day of the week and hour, in UTC until the browser turns it."""
    for hour in (9, 9, 9, 33):  # Monday at nine, three times, and Tuesday at nine
        log.put(user_id="alice", timestamp=NEW_YEAR + hour * 60 * MINUTE)
    html = Html((await client.get("subject?user=alice")).text)
    counts = [int(cell.get("data-n")) for cell in html.all("td", cls="^h[0-4]$")]
    assert len(counts) == 7 * 24
    assert {at: n for at, n in enumerate(counts) if n} == {9: 3, 33: 1}
    assert [cell.get("class") for cell in html.all("td", cls="^h[1-4]$")] == ["h4", "h2"]


@pytest.mark.parametrize("query", ["", "user=", "user=a&user=b", "id=1", "user=a&type=b", "x=1", "user=a&cursor=zz"])
async def test_a_subject_that_is_none_is_refused(client: httpx.AsyncClient, log: Log, query: str) -> None:
    """An address that names nobody and nothing is 422, and nothing is recorded."""
    assert (await client.get(f"subject?{query}")).status_code == 422
    assert not log.reads
