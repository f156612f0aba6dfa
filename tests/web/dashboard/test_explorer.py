"""The explorer and the overview: the address is the view, and each number leads to its events."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re

import httpx
import pytest

from indelible.queries import Filter, parse_search
from tests.web.dashboard.conftest import MINUTE, NEW_YEAR, Log
from tests.web.dashboard.reading import Html


def ids(html: Html) -> list[str]:
    """The events listed, by the last digits of their ids."""
    return [link.get("href")[-3:] for link in html.all("a", cls="^open$")]


@pytest.fixture
def mixed(log: Log) -> Log:
    """Events of three users, three outcomes, two kinds of resource."""
    for n in range(12):
        log.put(
            user_id=("alice", "ben", "Chloe Smith")[n % 3],
            status=("success", "failure", "denied", "success")[n % 4],
            event_type=("login", "data_modify")[n % 2],
            ip_address=f"10.0.0.{n % 2}",
            resource_type=("node", "job")[n % 2],
            resource_id=str(n),
        )
    return log


async def test_a_search_shows_what_matches_newest_first(client: httpx.AsyncClient, mixed: Log) -> None:
    """The rows are those of the search, the newest first, with their number."""
    html = Html((await client.get("events", params={"q": "user:alice status:success"})).text)
    assert ids(html) == ["004", "001"]
    wanted = parse_search("user:alice status:success", now=0)
    assert len(ids(html)) == mixed.store.count(wanted, cap=None).value
    assert html.one("p", cls="total").text.startswith(str(len(ids(html))))
    filters = json.loads(mixed.reads.only().metadata or "")["filters"]
    assert filters == {"user_id": ["alice"], "status": ["success"]}


async def test_a_search_that_means_nothing_is_explained(client: httpx.AsyncClient, mixed: Log) -> None:
    """An unknown key is 422 with what it could have been; no row is shown and no reading recorded."""
    answer = await client.get("events", params={"q": "usr:alice"})
    assert answer.status_code == 422
    html = Html(answer.text)
    assert "did you mean user:" in html.one("div", id="problem").text
    assert html.one("input", id="^q$").get("aria-invalid") == "true"
    assert not ids(html)
    assert not mixed.reads


@pytest.mark.parametrize(
    "query",
    ["columns=nothing", "order=up", "page=2", "cursor=abc", "q=" + "x" * 5000, "q=a&q=b", "order=asc&order=desc"],
)
async def test_an_address_that_means_nothing_is_refused(client: httpx.AsyncClient, mixed: Log, query: str) -> None:
    """Any other mistake in the address is 422 too."""
    answer = await client.get(f"events?{query}")
    assert answer.status_code == 422
    assert not mixed.reads


@pytest.mark.parametrize("order", ["", "&order=asc"])
async def test_pages_follow_each_other(client: httpx.AsyncClient, log: Log, order: str) -> None:
    """Following the link to more gives every event once, in order; with htmx it is the rows alone."""
    for _ in range(120):
        log.put(user_id="alice")
    address, seen = f"events?q=user:alice{order}", []
    while address:
        html = Html((await client.get(address)).text)
        seen += ids(html)
        following = html.all("a", rel="next")
        address = following[0].get("href") if following else ""
        if following:
            part = await client.get(address, headers={"HX-Request": "true"})
            assert part.text.lstrip().startswith("<tr")
            assert ids(Html("<body>" + part.text + "</body>"))[0] not in seen
    assert len(seen) == len(set(seen)) == 120
    assert seen == sorted(seen, reverse=not order)


async def test_columns_are_chosen_in_the_address(client: httpx.AsyncClient, mixed: Log) -> None:
    """Columns come as a list or as the form's boxes, stand in their own order, and stay with every link."""
    for query in ("columns=duration,time,user", "columns=user&columns=time&columns=duration"):
        html = Html((await client.get(f"events?{query}")).text)
        assert [head.text for head in html.all("th") if head.text] == ["Time", "User", "Took", "Open"]
        assert all("columns=time%2Cuser%2Cduration" in link.get("href") for link in html.all("a", href=r"q=status"))
        boxes = html.all("input", type="checkbox")
        assert {box.get("value") for box in boxes if "checked" in box.attributes} == {"time", "user", "duration"}
        assert len(ids(html)) == 12


async def test_facets_count_and_lead_on(client: httpx.AsyncClient, mixed: Log) -> None:
    """Each value of a facet has its number of events, adds its condition, and takes it away again."""
    html = Html((await client.get("events?q=status:success")).text)
    chloe = next(link for link in html.all("a", href="events") if link.text.startswith("Chloe Smith"))
    wanted = Filter(status=("success",), user_id=("Chloe Smith",))
    assert chloe.text == f"Chloe Smith {mixed.store.count(wanted, cap=None).value}"
    narrowed = Html((await client.get(chloe.get("href"))).text)
    assert narrowed.one("input", id="^q$").get("value") == 'status:success user:"Chloe Smith"'
    chosen = next(link for link in narrowed.all("a", **{"aria-current": "true"}) if "Chloe" in link.text)
    back = Html((await client.get(chosen.get("href"))).text)
    assert back.one("input", id="^q$").get("value") == "status:success"


async def test_a_span_stays_as_it_was_typed(client: httpx.AsyncClient, mixed: Log) -> None:
    """``since:2h`` is not turned into a time by narrowing down, and goes along to the overview."""
    html = Html((await client.get("events?q=since:90000d")).text)
    assert all("q=since%3A90000d+" in link.get("href") for link in html.all("a", href="status%3Adenied"))
    assert html.all("a", href=r"^\./\?q=since%3A90000d$")
    assert html.one("a", title="Take the range away").get("href") == "./events"


async def test_the_bar_offers_what_is_there(client: httpx.AsyncClient, mixed: Log) -> None:
    """Completions are whole words of the language: keys, the vocabulary, and the values that the facets found."""
    html = Html((await client.get("events")).text)
    offered = {option.get("value") for option in html.all("option")}
    assert {"user:", 'user:"Chloe Smith"', "status:denied", "type:login_failed", "ip:10.0.0.1", "since:24h"} <= offered
    for word in offered:
        assert word.endswith(":") or parse_search(word, now=NEW_YEAR)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
async def test_an_export_is_what_is_shown(client: httpx.AsyncClient, mixed: Log, form: str) -> None:
    """The links in the menu give the events of the search, every field, as one audit.exported."""
    html = Html((await client.get("events?q=user:alice&columns=user")).text)
    mixed.reads.clear()
    (link,) = html.all("a", href=f"export.*format={form}")
    answer = await client.get(link.get("href"))
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(answer.text)))
    else:
        rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["id"][-3:] for row in rows] == sorted(ids(html))
    assert "leaf_hash" in rows[0]
    event = mixed.reads.only()
    assert (event.event_type, event.action) == ("audit.exported", "export")
    assert json.loads(event.metadata or "") == {"filters": {"user_id": ["alice"], "format": form}, "rows": 4}


async def test_an_export_of_nonsense_is_refused(client: httpx.AsyncClient, mixed: Log) -> None:
    """A format or a search that is none gives 422 and no event."""
    for query in ("format=xml", "format=csv&q=usr:a", "format=csv&format=jsonl"):
        assert (await client.get(f"events/export?{query}")).status_code == 422
    assert not mixed.reads


async def test_the_overview_counts(client: httpx.AsyncClient, mixed: Log) -> None:
    """Totals, outcomes and the busiest are those of the log, and each leads to exactly its events."""
    html = Html((await client.get("")).text)
    tiles = {link.text.split()[0]: link for link in html.all("a", cls="tile")}
    for name, wanted in (
        ("Events", Filter()),
        ("Succeeded", Filter(status=("success",))),
        ("Failed", Filter(status=("failure",))),
        ("Denied", Filter(status=("denied",))),
    ):
        count = mixed.store.count(wanted, cap=None).value
        assert tiles[name].text.split()[1] == str(count)
        assert len(ids(Html((await client.get(tiles[name].get("href"))).text))) == count
    busiest = next(link for link in html.all("a") if link.text.startswith("Chloe Smith"))
    assert busiest.text == "Chloe Smith 4"
    assert len(ids(Html((await client.get(busiest.get("href"))).text))) == 4
    for heading in ("Users", "Event types", "Addresses", "Resource types"):
        assert heading in [head.text for head in html.all("h2")]


async def test_the_chart_is_a_table(client: httpx.AsyncClient, mixed: Log) -> None:
    """The chart's numbers stand in a table: consecutive spans whose sums are the outcomes, each a way to zoom in."""
    html = Html((await client.get("")).text)
    rows = html.all("tr", **{"data-at": "."})
    cells = [int(cell.text) for cell in html.all("td", cls="^n$")]
    assert (sum(cells[0::3]), sum(cells[1::3]), sum(cells[2::3])) == (6, 3, 3)
    assert all(int(a.get("data-to")) + 1 == int(b.get("data-at")) for a, b in itertools.pairwise(rows))
    zoom = html.all("a", href=r"\?q=since%3A2024")[0]
    zoomed = Html((await client.get(zoom.get("href"))).text)
    assert zoomed.all("a", cls="^tile")[0].text == "Events 1"


async def test_a_range_goes_everywhere(client: httpx.AsyncClient, mixed: Log) -> None:
    """A range in the overview's address bounds its numbers and stands in its links to the explorer."""
    query = "since:2024-01-01T00:02:00Z until:2024-01-01T00:05:00Z"
    html = Html((await client.get("", params={"q": query})).text)
    assert html.all("a", cls="tile")[0].text == "Events 4"
    for link in html.all("a", cls="tile"):
        assert "since%3A2024-01-01T00%3A02%3A00Z" in link.get("href")
    wanted = json.loads(mixed.reads.only().metadata or "")["filters"]
    assert set(wanted) == {"start_date", "end_date"}
    assert mixed.store.count(Filter(start=NEW_YEAR + 2 * MINUTE, end=NEW_YEAR + 5 * MINUTE), cap=None).value == 4


async def test_a_range_without_events_is_told(client: httpx.AsyncClient, mixed: Log) -> None:
    """A range in which nothing happened says so and offers the rest."""
    html = Html((await client.get("?q=until:1999-12-31")).text)
    assert "Nothing happened in this range" in html.text
    assert html.all("a", cls="tile")[0].text == "Events 0"


@pytest.mark.parametrize("query", ["user:alice", "status:denied since:2h", "free text", "since:never"])
async def test_the_overview_is_about_a_range_alone(client: httpx.AsyncClient, mixed: Log, query: str) -> None:
    """Other conditions are refused rather than left out: its numbers would not be what they seem."""
    assert (await client.get("", params={"q": query})).status_code == 422
    assert not mixed.reads


async def test_a_single_event_is_drawn(client: httpx.AsyncClient, log: Log) -> None:
    """One event is a chart of one span."""
    log.put()
    html = Html((await client.get("")).text)
    assert len(html.all("tr", **{"data-at": "."})) == 1


async def test_the_log_itself_stands_on_the_overview(client: httpx.AsyncClient, mixed: Log) -> None:
    """What is sealed, signed, anchored, waiting and missing can be read at a glance."""
    html = Html((await client.get("")).text)
    said = " ".join(element.text for element in html.all("dl", cls="facts"))
    assert "12 events" in said
    assert "none published" in said
    assert "nothing outside" in said
    mixed.publish()
    mixed.put()
    mixed.put(event_type="audit.gap", action="gap", status="failure", metadata='{"count": 3}')
    said = " ".join(element.text for element in Html((await client.get("")).text).all("dl", cls="facts"))
    assert "covers the first 12" in said
    assert re.search("Since then 2 events", said)
    assert re.search("Gaps 1", said)
