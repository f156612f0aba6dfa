"""What every store answers: pages, counts, slices, statistics, against plain Python over the same events."""

from __future__ import annotations

import ipaddress
import itertools
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any
from uuid import UUID

import pytest
import uuid_utils
from sqlalchemy import Connection, create_engine, event, text

from indelible.errors import InvalidQuery, StoreError, StoreUnavailable
from indelible.events import AuditEvent, StoredEvent
from indelible.ports import Page, Store
from indelible.queries import (
    EARLIEST,
    FACETS,
    LATEST,
    MAX_SEQ,
    REPEATABLE,
    SORT_FIELDS,
    Count,
    Cursor,
    Facets,
    Filter,
    Query,
)
from indelible.stores import raw as raw_rows
from indelible.stores import sql, walks
from indelible.testing import MemoryStore

SEGMENT = 256
ROWS = 1_000
START = 1_700_000_000_000_000
SECOND = 1_000_000
WRITER = UUID(int=7)
HOSTILE = (
    "'; DROP TABLE audit_logs_0; --",
    "%",
    "_",
    ":user_id",
    "%(x)s",
    "\\",
    "Ä",
    "ä",
    "A",
    "a",
    "\uffff",
    "𝔘",
    '"',
    "{}",
)
USERS = (None, "u1", "u2", "u3", *HOSTILE)
TYPES = ("login", "login_failed", "data_access", "admin_action", "audit.read")
STATUSES = ("success", "success", "success", "failure", "denied")
#: Addresses, and what looks like one: texts that no network can hold.
ADDRESSES = (
    *(
        None,
        "10.0.0.1",
        "10.0.0.10",
        "10.0.0.2",
        "10.128.0.1",
        "192.168.1.100",
        "2001:db8::1",
        "2001:DB8:0:1::2",
        "::1",
    ),
    *("0:0:0:0:0:0:0:9", "unknown", "10.", "10.0.0.01", "10.0.0.256", "10.0.0.0/8", "10.0.0.1 ", "1:2:3:4:5:6:7::8:9"),
    *("fe80::1%eth0", "::ffff:10.0.0.1", ":::", "12345::", "g::1", "2001:db8::1\n", "10.0.0.1.in-addr.arpa"),
)
NETWORKS = ("10.0.0.0/8", "10.0.0.0/28", "10.0.0.1/31", "10.0.0.0/7", "0.0.0.0/0", "2001:db8::/32", "::/0", "::/96")
PATHS = (None, "/api/nodes/42", "/API/Nodes/7", "/api/jobs?x=100%_done", "/straße/Ärger", "/a\\b'c")
AGENTS = (None, "curl/8", "Mozilla/5.0 (NODES)", "%")


def made(rnd: random.Random, at: int) -> AuditEvent:
    return AuditEvent(
        id=UUID(str(uuid_utils.uuid7())) if rnd.random() < 0.9 else UUID(int=rnd.getrandbits(128)),
        timestamp=at,
        event_type=rnd.choice(TYPES),
        action=rnd.choice(("create", "read", "update")),
        status=rnd.choice(STATUSES),
        user_id=rnd.choice(USERS),
        ip_address=rnd.choice(ADDRESSES),
        resource_type=rnd.choice((None, "node", "job")),
        resource_id=rnd.choice((None, "42", "7", "node-%")),
        correlation_id=rnd.choice((None, "c1", "c2")),
        request_path=rnd.choice(PATHS),
        user_agent=rnd.choice(AGENTS),
        metadata=rnd.choice((None, '{"b": 1,  "a":1.0}', "[]", "null")),
    )


def events(rnd: random.Random, n: int) -> list[AuditEvent]:
    """Events about a second apart, some late by minutes (so that spans overlap), many at the very same time."""
    at = [START + i * SECOND - (rnd.choice((0, 0, 0, 5, 60, 300)) * SECOND) for i in range(n)]
    return [made(rnd, t - t % (4 * SECOND)) for t in at]


@pytest.fixture
def log(make_store: Callable[..., Store]) -> Store:
    """A log of 1,000 events in four segments whose time spans overlap, the last of them open."""
    store = make_store(segment_rows=SEGMENT)
    store.append(WRITER, 0, events(random.Random(1), ROWS))
    return store


def everything(store: Store) -> list[StoredEvent]:
    return [row for rows in store.scan(Filter()) for row in rows]


def folded(value: str | None) -> str:
    return (value or "").encode().lower().decode()


def inside(address: str | None, networks: Iterable[str]) -> bool:
    if address is None or "%" in address or (":" in address and "." in address):
        return False
    try:
        return any(ipaddress.ip_address(address) in ipaddress.ip_network(one, False) for one in networks)
    except ValueError:
        return False


def matches(asked: Filter, row: StoredEvent) -> bool:
    networks = [value for value in asked.ip_address if "/" in value]
    same = row.ip_address in set(asked.ip_address) - set(networks)
    if asked.ip_address and not same and not inside(row.ip_address, networks):
        return False
    for name in ("event_type", "user_id", "status", "action"):
        if getattr(asked, name) and getattr(row, name) not in getattr(asked, name):
            return False
    for name in ("resource_type", "resource_id", "correlation_id"):
        if getattr(asked, name) is not None and getattr(row, name) != getattr(asked, name):
            return False
    if asked.start is not None and row.timestamp < asked.start:
        return False
    if asked.end is not None and row.timestamp > asked.end:
        return False
    if asked.q is None:
        return True
    return any(folded(asked.q) in folded(value) for value in (row.request_path, row.resource_id, row.user_agent))


def in_order(rows: Iterable[StoredEvent], sort_by: str, descending: bool) -> list[StoredEvent]:
    rows = list(rows)
    valued = [row for row in rows if getattr(row, sort_by) is not None]
    valued.sort(key=lambda row: (getattr(row, sort_by), row.seq), reverse=descending)
    valueless = [row for row in rows if getattr(row, sort_by) is None]
    valueless.sort(key=lambda row: row.seq, reverse=descending)
    return valued + valueless


def pages(store: Store, query: Query, budget: float | None = None) -> Iterator[Page]:
    while True:
        page = store.page(query, budget=budget)
        yield page
        if page.next_cursor is None:
            return
        assert page.next_cursor != query.cursor, "no progress"
        query = replace(query, page=1, cursor=page.next_cursor)


def seqs(rows: Iterable[StoredEvent]) -> list[int]:
    return [row.seq for row in rows]


def random_filter(rnd: random.Random, chance: float) -> Filter:
    def several(values: Sequence[str | None]) -> tuple[str, ...]:
        known = [v for v in values if v is not None]
        return tuple(rnd.sample(known, rnd.randint(1, 2))) if rnd.random() < chance else ()

    def one(*values: str) -> str | None:
        return rnd.choice(values) if rnd.random() < chance else None

    times = sorted(START + rnd.randrange(-600, ROWS + 600) * SECOND for _ in range(2))
    return Filter(
        event_type=several(TYPES),
        user_id=several((*USERS, "nobody")),
        status=several(("success", "failure", "denied")),
        ip_address=several((*ADDRESSES, *NETWORKS)),
        action=several(("create", "read", "update", "delete")),
        resource_type=one("node", "job", "none"),
        resource_id=one("42", "7", "node-%", "%"),
        correlation_id=one("c1", "c2", "c3"),
        start=times[0] if rnd.random() < chance else None,
        end=times[1] if rnd.random() < chance else None,
        q=one("nodes", "NODES", "%", "_", "\\", "Ä", "ä", "ß", "'", "100%_", "zzz"),
    )


#: Each condition alone, with values that match some rows, and values that match none.
ALONE = (
    Filter(),
    *(Filter(event_type=(value,)) for value in (*TYPES, "nothing")),
    *(Filter(user_id=(value,)) for value in USERS if value),
    *(Filter(status=(value,)) for value in ("success", "failure", "denied", "other")),
    *(Filter(ip_address=(value,)) for value in (*ADDRESSES[:10], *NETWORKS) if value),
    Filter(ip_address=("10.0.0.0/28", "192.168.1.100", "2001:db8::/32", "nowhere")),
    Filter(action=("update",)),
    Filter(resource_type="node"),
    Filter(resource_id="42"),
    Filter(correlation_id="c1"),
    Filter(start=START + 500 * SECOND),
    Filter(end=START + 500 * SECOND),
    Filter(q="nodes"),
    Filter(event_type=TYPES[:2], status=("success", "denied")),
)


def test_each_filter_alone_in_every_order(log: Store) -> None:
    """Every condition of the guide, page after page by cursor, gives exactly the rows that match, in order."""
    rows = everything(log)
    orders = list(itertools.product(SORT_FIELDS, (True, False)))
    # Each filter in both orders of time, and in one of the others in turn.
    others = itertools.cycle(orders[2:])
    for asked, (sort_by, descending) in ((asked, order) for asked in ALONE for order in (*orders[:2], next(others))):
        expected = in_order((r for r in rows if matches(asked, r)), sort_by, descending)
        query = Query(filter=asked, sort_by=sort_by, descending=descending, page_size=max(7, len(expected) // 3))
        got = [row for page in pages(log, query) for row in page.rows]
        assert got == expected, query
        assert log.count(asked, cap=None) == Count(len(expected), exact=True), asked


def test_filters_combined_in_every_order(log: Store) -> None:
    """Random combinations: cursor pages, numbered pages, counts and slices all agree with plain Python."""
    rnd = random.Random(2)
    rows = everything(log)
    for _ in range(150):
        asked = random_filter(rnd, rnd.choice((0.1, 0.2, 0.4)))
        sort_by, descending, size = rnd.choice(SORT_FIELDS), rnd.random() < 0.5, rnd.choice((1, 9, 100, 1000))
        expected = in_order((r for r in rows if matches(asked, r)), sort_by, descending)
        query = Query(filter=asked, sort_by=sort_by, descending=descending, page_size=size)
        for number, page in zip(range(3), pages(log, query), strict=False):
            assert seqs(page.rows) == seqs(expected[number * size : (number + 1) * size]), query
            assert (page.next_cursor is None) == (len(expected) <= (number + 1) * size), query
            assert page.complete
            assert seqs(log.page(replace(query, page=number + 1)).rows) == seqs(page.rows), query
        assert log.count(asked, cap=None) == Count(len(expected), exact=True), asked
        scanned = [row for slice_ in log.scan(asked) for row in slice_]
        assert seqs(scanned) == sorted(seqs(expected)), asked
        assert [seq for columns in log.columns(asked) for seq in columns[0]] == seqs(scanned), asked


def test_rows_come_back_as_they_were_stored(make_store: Callable[..., Store]) -> None:
    """Every field, JSON as its exact text, times as integer microseconds, by page, id and slice alike."""
    store = make_store(segment_rows=SEGMENT)
    sent = events(random.Random(3), 20)
    sent.append(
        replaced(sent[0], id=UUID(int=99), timestamp=START + 123_457, old_value='{"é":  [1.50, null]}', new_value='"x"')
    )
    store.append(WRITER, 0, sent)
    for seq, (event_, row) in enumerate(zip(sent, everything(store), strict=True)):
        assert {f: getattr(row, f) for f in event_.__struct_fields__} == {
            f: getattr(event_, f) for f in event_.__struct_fields__
        }
        assert (row.seq, row.writer_id, row.writer_seq) == (seq, WRITER, seq)
        assert type(row.timestamp) is type(row.recorded_at) is int
        assert store.get(event_.id) == row
    assert store.page(Query(page_size=1000)).rows == in_order(everything(store), "timestamp", True)


def replaced(event_: AuditEvent, **changes: Any) -> AuditEvent:
    return AuditEvent(**{f: getattr(event_, f) for f in event_.__struct_fields__} | changes)


def test_get_finds_every_id_and_no_other(log: Store) -> None:
    """By id, in whichever segment, for ids with and without a time in them; an unknown id is None."""
    for row in everything(log)[::17]:
        assert log.get(row.id) == row
    assert log.get(UUID(int=0)) is None
    assert log.get(UUID(int=2**128 - 1)) is None
    assert log.get(UUID(str(uuid_utils.uuid7()))) is None


def test_an_empty_log_answers_everything(make_store: Callable[..., Store]) -> None:
    """No rows, no segments: empty answers, no errors."""
    store = make_store(segment_rows=SEGMENT)
    for sort_by in SORT_FIELDS:
        for page in (1, 5_000):
            assert store.page(Query(sort_by=sort_by, page=page)) == Page(rows=[], next_cursor=None)
    assert store.page(Query(filter=Filter(q="x")), budget=0.0).rows == []
    assert store.count(Filter(), cap=None) == store.count(Filter(user_id=("a",)), cap=10) == Count(0, exact=True)
    assert not list(store.scan(Filter()))
    assert not list(store.columns(Filter()))
    assert store.get(UUID(int=1)) is None
    stats = store.stats(Filter())
    assert (stats.total_events, stats.events_over_time, stats.top_users) == (0, (), ())
    assert store.facets(Filter()) == Facets({name: {} for name in FACETS}, 0, exact=True)


@pytest.mark.parametrize("sort_by", SORT_FIELDS)
@pytest.mark.parametrize("descending", [True, False])
def test_cursors_are_stable_while_rows_arrive(log: Store, sort_by: str, descending: bool) -> None:
    """Rows that were there at the first page come exactly once and in order, whatever is appended between pages."""
    before = in_order(everything(log), sort_by, descending)
    rnd = random.Random(4)
    seen: list[StoredEvent] = []
    written = ROWS
    for page in pages(log, Query(sort_by=sort_by, descending=descending, page_size=90)):
        seen += page.rows
        if written < ROWS + 8 * 40:
            late = rnd.choice((-2000, 0, 500, 2000)) * SECOND
            log.append(WRITER, written, [made(rnd, START + late) for _ in range(40)])
            written += 40
    assert len({row.seq for row in seen}) == len(seen)
    assert seqs(row for row in seen if row.seq < ROWS) == seqs(before)
    assert seqs(seen) == seqs(in_order(seen, sort_by, descending))


@pytest.mark.parametrize("descending", [True, False])
def test_deep_pages_by_number(log: Store, descending: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far pages skip whole segments and hop over the rest; they are the pages that cursors reach."""
    monkeypatch.setattr(sql, "_HOP", 20)
    rows = everything(log)
    window = Filter(start=START + 100 * SECOND, end=START + 900 * SECOND)
    for asked in (
        Filter(),
        window,
        Filter(event_type=("login",)),
        Filter(user_id=("u1",)),
        replace(window, status=("denied",)),
    ):
        for sort_by in ("timestamp", "user_id", "status"):
            expected = in_order((r for r in rows if matches(asked, r)), sort_by, descending)
            for number in (2, 3, 26, 50, 51, 10**9):
                query = Query(filter=asked, sort_by=sort_by, descending=descending, page=number, page_size=20)
                page = log.page(query)
                assert seqs(page.rows) == seqs(expected[(number - 1) * 20 : number * 20]), query
                assert (page.next_cursor is None) == (len(expected) <= number * 20), query


def test_a_numbered_page_can_be_continued_by_cursor(log: Store) -> None:
    """The cursor of page 3 leads to page 4."""
    third = log.page(Query(page=3, page_size=30))
    fourth = log.page(Query(page_size=30, cursor=third.next_cursor))
    assert fourth.rows == log.page(Query(page=4, page_size=30)).rows


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("slice_rows", [16, 10_000])
def test_a_search_out_of_time_goes_on_at_its_cursor(
    log: Store, descending: bool, slice_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no time at all each answer still gets further, says it is incomplete, and together they are complete."""
    monkeypatch.setattr(walks, "SLICE", slice_rows)
    monkeypatch.setattr(walks, "FEW", slice_rows)
    rows = everything(log)
    # Few addresses of a network are found through an index, many are looked for as text is.
    for asked in (
        *(Filter(q="nodes"), Filter(q="Ärger"), Filter(q="zzz"), Filter(q="nodes", user_id=("u1", "u2"))),
        *(Filter(ip_address=(value,)) for value in ("10.0.0.0/8", "2001:db8::/32", "172.16.0.0/12")),
        Filter(ip_address=("10.0.0.0/28", "192.168.1.100"), q="nodes"),
    ):
        query = Query(filter=asked, descending=descending, page_size=10)
        answers = list(pages(log, query, budget=0.0))
        got = [row for page in answers for row in page.rows]
        assert got == in_order((r for r in rows if matches(asked, r)), "timestamp", descending)
        assert answers[-1].complete
        assert not all(page.complete for page in answers)


def test_networks_hold_addresses_and_nothing_else(log: Store) -> None:
    """Whatever else a text looks like, it is in no network, and no engine stumbles over it."""
    rows = everything(log)
    for value in NETWORKS:
        held = {row.ip_address for row in rows if matches(Filter(ip_address=(value,)), row)}
        counts = log.stats(Filter(ip_address=(value,)), top=50).top_ips
        assert dict(counts).keys() == held
    assert log.count(Filter(ip_address=("0.0.0.0/0", "::/0")), cap=None).value == sum(
        inside(row.ip_address, ("0.0.0.0/0", "::/0")) for row in rows
    )


def test_rare_addresses_of_a_network_are_found_through_the_index(make_store: Callable[..., Store]) -> None:
    """A network of which a segment holds little costs one statement there, however many rows the segment has."""
    store = make_store(segment_rows=16_384)
    rnd = random.Random(10)
    sent = [replaced(made(rnd, START + i * SECOND), ip_address="192.0.2.1") for i in range(20_000)]
    sent[70] = replaced(sent[70], ip_address="172.20.1.1")
    for at in range(0, len(sent), 1_000):
        store.append(WRITER, at, sent[at : at + 1_000])
    with Statements(store) as found:
        assert seqs(store.page(Query(filter=Filter(ip_address=("172.16.0.0/12",))), budget=60.0).rows) == [70]
    assert len(found) <= 3
    with Statements(store) as common:
        assert len(store.page(Query(filter=Filter(ip_address=("192.0.2.0/24",))), budget=60.0).rows) == 50
    assert len(common) <= 6


def test_a_search_has_no_wildcards_and_folds_ascii_only(log: Store) -> None:
    """``%`` and ``_`` are themselves; ``NODES`` finds ``nodes``; ``Ä`` does not find ``ä``: on both engines."""
    rows = everything(log)
    for q in ("%", "_", "100%_done", "\\b'", "nOdEs", "Ärger", "ärger", "STRAßE", "strasse", "x" * 100_000):
        got = [row for page in pages(log, Query(filter=Filter(q=q), page_size=300)) for row in page.rows]
        assert got == in_order((r for r in rows if matches(Filter(q=q), r)), "timestamp", True), q[:20]
        assert log.count(Filter(q=q), cap=None).value == len(got)


def test_a_search_in_another_order_says_when_its_time_ran_out(log: Store) -> None:
    """Sorted by user it cannot stop early: with no time it is incomplete, with time it is right."""
    query = Query(filter=Filter(q="nodes"), sort_by="user_id", page_size=1000)
    assert not log.page(query, budget=0.0).complete
    assert log.page(query, budget=60.0) == log.page(query)


def test_a_search_by_page_number_within_a_budget(log: Store) -> None:
    """A numbered page that the time does not reach is empty and incomplete, without a cursor that would lie."""
    late = log.page(Query(filter=Filter(q="nodes"), page=40, page_size=5), budget=0.0)
    assert (list(late.rows), late.complete, late.next_cursor) == ([], False, None)


def test_counts_are_capped(log: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the cap the count is exact, beyond it a flagged lower bound; the whole log is exact and free."""
    rows = everything(log)
    logins = sum(row.event_type == "login" for row in rows)
    asked = Filter(event_type=("login",))
    assert log.count(asked, cap=logins) == Count(logins, exact=True)
    assert log.count(asked, cap=logins - 1) == Count(logins - 1, exact=False)
    assert log.count(asked, cap=1) == Count(1, exact=False)
    assert log.count(Filter(), cap=1) == Count(ROWS, exact=True)
    assert log.count(Filter(start=START - 10_000 * SECOND), cap=1) == Count(ROWS, exact=True)
    late = Filter(start=START + 300 * SECOND)
    counted = log.count(late, cap=10)
    assert not counted.exact
    assert 10 <= counted.value < sum(matches(late, row) for row in rows)
    monkeypatch.setattr(sql, "COUNT_BUDGET", 0.0)
    assert not log.count(Filter(q="nodes"), cap=10_000).exact
    assert log.count(Filter(q="nodes"), cap=None).exact


def test_scan_gives_bounded_slices_of_a_range(log: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices in order of seq, none longer than the bound, between first and end, at whatever places segments begin."""
    monkeypatch.setattr(sql, "SLICE_ROWS", 64)
    monkeypatch.setattr(raw_rows, "SLICE_ROWS", 64)
    for first, end in ((0, ROWS), (10, 11), (250, 520), (255, 257), (999, 5000), (500, 400), (2000, 3000)):
        slices = list(log.scan(Filter(), first=first, end=end))
        assert all(0 < len(rows) <= 64 for rows in slices)
        assert [row.seq for rows in slices for row in rows] == list(range(first, min(end, ROWS)))
        columns = list(log.columns(Filter(), first=first, end=end))
        assert all(0 < len(part[0]) <= 64 for part in columns)
        assert [seq for part in columns for seq in part[0]] == list(range(first, min(end, ROWS)))
    denied = [row.seq for rows in log.scan(Filter(status=("denied",)), first=100, end=700) for row in rows]
    assert denied == [row.seq for row in everything(log) if row.status == "denied" and 100 <= row.seq < 700]


def test_scan_ends_where_the_log_ended_when_it_began(log: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows may be appended between two slices: nothing waits, and the scan does not run after them."""
    monkeypatch.setattr(sql, "SLICE_ROWS", 100)
    slices = log.scan(Filter())
    got = seqs(next(slices))
    log.append(WRITER, ROWS, events(random.Random(5), 300))
    for rows in slices:
        got += seqs(rows)
    assert got == list(range(ROWS))


SUMMED = (
    Filter(),
    Filter(start=START + 100 * SECOND, end=START + 777 * SECOND),
    Filter(start=START + 996 * SECOND),
    Filter(user_id=("u1", "u2"), status=("failure", "denied")),
    Filter(q="nodes"),
    Filter(user_id=("nobody",)),
)


def test_stats_agree_with_the_rows(log: Store) -> None:
    """Totals, breakdowns, tops (ties by name) and a gapless time axis, inclusive at both ends."""
    rows = everything(log)
    for asked in SUMMED:
        check_stats(log, asked, [row for row in rows if matches(asked, row)])


def check_stats(log: Store, asked: Filter, rows: Sequence[StoredEvent]) -> None:
    stats = log.stats(asked, top=3)

    def top(name: str) -> tuple[tuple[str, int], ...]:
        counts = Counter(getattr(row, name) for row in rows if getattr(row, name) is not None)
        return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3])

    assert stats.total_events == len(rows)
    assert stats.event_type_breakdown == Counter(row.event_type for row in rows)
    assert stats.status_breakdown == Counter(row.status for row in rows)
    assert stats.top_users == top("user_id")
    assert stats.top_ips == top("ip_address")
    counted = Counter(row.timestamp // stats.bucket * stats.bucket for row in rows)
    assert {start: n for start, n in stats.events_over_time if n} == counted
    starts = [start for start, _ in stats.events_over_time]
    assert starts == list(range(min(counted), max(counted) + 1, stats.bucket)) if counted else starts == []
    assert len(starts) <= 200


def counted(rows: Iterable[StoredEvent]) -> dict[str, list[tuple[str, int]]]:
    return {
        name: sorted(
            Counter(getattr(row, name) for row in rows if getattr(row, name) is not None).items(),
            key=lambda item: (-item[1], item[0]),
        )
        for name in FACETS
    }


def test_facets_agree_with_the_rows(log: Store) -> None:
    """Every value of the facets with its count, the greatest first, ties by name, absent values left out."""
    rows = everything(log)
    for asked in (*SUMMED, *ALONE):
        matching = [row for row in rows if matches(asked, row)]
        facets = log.facets(asked)
        assert {name: list(counts.items()) for name, counts in facets.counts.items()} == counted(matching), asked
        assert (facets.rows, facets.exact) == (len(matching), True)


def test_facets_are_of_the_newest_rows(log: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the cap or the budget: from the newest segment back, by time within one; and a flag where more match."""
    rows = everything(log)
    for asked in (Filter(), Filter(event_type=("login",)), Filter(q="nodes"), Filter(ip_address=("10.0.0.0/8",))):
        matching = [row for row in rows if matches(asked, row)]
        newest = sorted(matching, key=lambda row: (row.seq // SEGMENT, row.timestamp, row.seq), reverse=True)
        for cap in (1, 10, len(matching) - 1, len(matching), len(matching) + 1):
            facets = log.facets(asked, cap=cap)
            assert {name: list(counts.items()) for name, counts in facets.counts.items()} == counted(newest[:cap])
            assert (facets.rows, facets.exact) == (min(cap, len(matching)), cap >= len(matching))
    assert log.facets(Filter(user_id=("\0",))) == Facets({name: {} for name in FACETS}, 0, exact=True)
    with Statements(log) as sent:
        log.facets(Filter(), cap=SEGMENT // 2)
    assert len(sent) == 1
    newest = [row for row in rows if row.seq >= 3 * SEGMENT]
    hurried = log.facets(Filter(), budget=0.0)
    assert (hurried.rows, hurried.exact) == (len(newest), False)
    assert {name: list(counts.items()) for name, counts in hurried.counts.items()} == counted(newest)
    monkeypatch.setattr(walks, "SLICE", 64)
    asked = Filter(q="nodes", event_type=("login", "data_access"))
    slice_ = sorted(newest, key=lambda row: (row.timestamp, row.seq), reverse=True)
    searched = log.facets(asked, budget=0.0)
    assert not searched.exact
    assert 0 < searched.rows < sum(matches(asked, row) for row in slice_)


def test_the_store_in_memory_agrees() -> None:
    """What hosts test against answers pages, counts and facets of every filter as plain Python does."""
    store = MemoryStore()
    store.append(WRITER, 0, events(random.Random(1), ROWS))
    for asked in (*ALONE, *SUMMED):
        matching = in_order((row for row in store.rows if matches(asked, row)), "timestamp", True)
        assert seqs(store.page(Query(filter=asked, page_size=ROWS)).rows) == seqs(matching), asked
        assert store.count(asked, cap=None) == Count(len(matching), exact=True)
        for cap in (7, ROWS):
            facets = store.facets(asked, cap=cap)
            assert {name: list(counts.items()) for name, counts in facets.counts.items()} == counted(matching[:cap])
            assert (facets.rows, facets.exact) == (min(cap, len(matching)), cap >= len(matching))


def test_stats_at_the_ends_of_time(make_store: Callable[..., Store]) -> None:
    """Events in the years 1, 1969 and 9999 fall into buckets that can be written down; none is lost."""
    store = make_store(segment_rows=SEGMENT)
    times = [EARLIEST, -1, 0, START, LATEST]
    store.append(WRITER, 0, [made(random.Random(6), at) for at in times])
    stats = store.stats(Filter())
    assert sum(n for _, n in stats.events_over_time) == stats.total_events == 5
    assert all(EARLIEST <= start <= LATEST for start, _ in stats.events_over_time)
    assert 10 <= len(stats.events_over_time) <= 200
    assert store.stats(Filter(start=-1, end=0)).events_over_time == ((-SECOND, 1), (0, 1))


def test_time_ranges_reach_to_the_ends_of_time(log: Store) -> None:
    """Bounds at and beyond the years 1 and 9999 are taken; those that exclude everything match nothing."""
    for asked in (Filter(start=EARLIEST, end=LATEST), Filter(start=-(2**80), end=2**80), Filter(start=EARLIEST)):
        assert log.count(asked, cap=None) == Count(ROWS, exact=True)
        assert len(log.page(Query(filter=asked, page_size=10)).rows) == 10
    for asked in (Filter(start=LATEST), Filter(end=EARLIEST), Filter(start=2**80), Filter(end=-(2**80))):
        assert log.count(asked, cap=None) == Count(0, exact=True)
        assert list(log.page(Query(filter=asked)).rows) == []
        assert not list(log.scan(asked))
        assert not list(log.columns(asked))
        assert log.stats(asked).total_events == 0


def test_a_time_range_includes_both_its_ends(log: Store) -> None:
    """``start = end`` finds the events of exactly that microsecond."""
    at = everything(log)[500].timestamp
    found = log.page(Query(filter=Filter(start=at, end=at), page_size=1000)).rows
    assert seqs(found) == seqs(in_order((r for r in everything(log) if r.timestamp == at), "timestamp", True))
    assert not log.page(Query(filter=Filter(start=at + 1, end=at + 1))).rows


def test_text_that_cannot_be_stored_matches_nothing(log: Store) -> None:
    """NUL and lone surrogates are in no row: no match, and never an error of a driver."""
    names = [field.name for field in fields(Filter) if field.name not in ("start", "end")]
    for name, value in itertools.product(names, ("a\0b", "\ud800", "\udfff!")):
        given: dict[str, Any] = {name: (value,) if name in REPEATABLE else value}
        asked = Filter(**given)
        assert list(log.page(Query(filter=asked)).rows) == []
        assert log.count(asked, cap=10) == Count(0, exact=True)
        assert log.stats(asked).total_events == 0
        assert list(log.scan(asked)) == []
    assert (
        log.page(Query(filter=Filter(user_id=("\0", "u1")))).rows
        == log.page(Query(filter=Filter(user_id=("u1",)))).rows
    )


def test_many_values_of_every_repeatable_filter(log: Store) -> None:
    """A hundred values each, over all segments, stay below the engines' limits."""
    many = tuple(f"v{i}" for i in range(99))
    asked = Filter(
        event_type=(*many, "login"),
        user_id=(*many, "u1"),
        status=(*many, "success"),
        ip_address=(*many, "10.0.0.1"),
        action=(*many, "read"),
    )
    expected = [row for row in everything(log) if matches(asked, row)]
    assert seqs(log.page(Query(filter=asked)).rows) == seqs(in_order(expected, "timestamp", True))


REFUSED = (
    Query(sort_by="seq"),
    Query(sort_by="timestamp; --"),
    Query(page=0),
    Query(page_size=0),
    Query(cursor=Cursor(0, -1)),
    Query(cursor=Cursor(0, MAX_SEQ + 1)),
    Query(cursor=Cursor(LATEST + 1, 0)),
    Query(cursor=Cursor("text", 0)),
    Query(cursor=Cursor(None, 0)),
    Query(cursor=Cursor(None, 0), sort_by="status"),
    Query(cursor=Cursor("a\0", 0), sort_by="user_id"),
)


def test_a_query_that_means_nothing_is_refused(log: Store) -> None:
    """The same error on both engines, before the database is asked."""
    for query in REFUSED:
        with pytest.raises(InvalidQuery):
            log.page(query)


def test_a_cursor_may_be_anywhere(log: Store) -> None:
    """A cursor between rows, before all or after all of them continues with what lies beyond it."""
    rows = everything(log)
    for descending, seq in itertools.product((True, False), (0, 300, 10**6, MAX_SEQ)):
        check_cursors_at(log, rows, descending, seq)


def check_cursors_at(log: Store, rows: Sequence[StoredEvent], descending: bool, seq: int) -> None:
    for sort_by, values in (
        ("timestamp", (EARLIEST, START, START + 400 * SECOND, LATEST)),
        ("user_id", ("", "u1", "u2", "zzz", "\U0010ffff", None)),
        ("status", ("a", "denied", "e", "success", "t")),
    ):
        for value in values:
            page = log.page(Query(sort_by=sort_by, descending=descending, cursor=Cursor(value, seq), page_size=1000))
            anchor = (value is None, value, seq)
            expected = [row for row in in_order(rows, sort_by, descending) if beyond(row, sort_by, anchor, descending)]
            assert seqs(page.rows) == seqs(expected), (sort_by, value, seq)


def beyond(row: StoredEvent, sort_by: str, anchor: tuple[bool, Any, int], descending: bool) -> bool:
    valueless, value, seq = anchor
    own = getattr(row, sort_by)
    if (own is None) != valueless:
        return own is None
    if own == value:
        return row.seq < seq if descending else row.seq > seq
    return bool(own < value) == descending


def test_a_closed_store_is_unavailable(log: Store) -> None:
    """Every reading method says so in our own words."""
    log.close()  # type: ignore[attr-defined,unused-ignore]
    for ask in (
        lambda: log.page(Query()),
        lambda: log.get(UUID(int=1)),
        lambda: log.count(Filter(user_id=("a",)), cap=1),
        lambda: list(log.scan(Filter())),
        lambda: log.stats(Filter()),
        lambda: log.facets(Filter()),
    ):
        with pytest.raises(StoreUnavailable):
            ask()


def test_driver_errors_do_not_leak(log: Store, engine_url: str) -> None:
    """A segment that somebody dropped behind our back is a StoreError, not an exception of SQLAlchemy or the driver."""
    engine = create_engine(engine_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE audit_logs_1"))
    engine.dispose()
    with pytest.raises(StoreError):
        list(log.scan(Filter()))
    query = Query(filter=Filter(user_id=("canary",)), page_size=1000)
    with pytest.raises(StoreError) as caught:
        log.page(query)
    # Whoever logs the traceback logs no values.
    assert "canary" not in "".join(traceback.format_exception(caught.value))


class Statements:
    """The statements that a store's readers send while it is active."""

    def __init__(self, store: Any) -> None:
        self.engine = store.engine
        self.sent: list[tuple[str, Any]] = []

    def __enter__(self) -> list[tuple[str, Any]]:
        event.listen(self.engine, "before_cursor_execute", self._note)
        return self.sent

    def __exit__(self, *_: object) -> None:
        event.remove(self.engine, "before_cursor_execute", self._note)

    def _note(self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "audit_logs_" in statement:
            self.sent.append((statement, parameters))


def touched(sent: Sequence[tuple[str, Any]]) -> set[int]:
    return {n for n in range(100) for statement, _ in sent if f"audit_logs_{n} " in statement}


def test_pages_cost_few_statements_over_many_segments(make_store: Callable[..., Store]) -> None:
    """The newest page reads the newest segments only; a value that is rare in twenty segments, a handful of statements."""
    store = make_store(segment_rows=SEGMENT)
    rnd = random.Random(8)
    sent = [made(rnd, START + i * SECOND) for i in range(20 * SEGMENT + 10)]
    sent[40] = replaced(sent[40], user_id="rare")
    store.append(WRITER, 0, sent)
    with Statements(store) as newest:
        store.page(Query(page_size=100))
    assert len(newest) <= 3
    assert touched(newest) <= {18, 19, 20}
    with Statements(store) as rare:
        assert seqs(store.page(Query(filter=Filter(user_id=("rare",)))).rows) == [40]
    assert len(rare) <= 8
    with Statements(store) as windowed:
        window = Filter(user_id=("rare",), start=START, end=START + 200 * SECOND)
        assert seqs(store.page(Query(filter=window)).rows) == [40]
        store.stats(window)
    assert touched(windowed) <= {0, 20}
    with Statements(store) as sorted_:
        store.page(Query(sort_by="status", page_size=100))
    assert len(sorted_) <= 8
    with Statements(store) as deep:
        page = store.page(Query(page=SEGMENT * 15 // 10, page_size=10))
    assert len(page.rows) == 10
    assert len(deep) <= 8
    with Statements(store) as counted:
        assert store.count(Filter(start=START + SECOND), cap=None) == Count(len(sent) - 1, exact=True)
    assert touched(counted) <= {0, 20}


#: Conditions common enough that reading the newest rows through an index is better than sorting all that match.
LED = {
    "none": Filter(),
    "event_type": Filter(event_type=("login",)),
    "user_id": Filter(user_id=("u1",)),
    "status": Filter(status=("denied",)),
    "ip_address": Filter(ip_address=("10.0.0.1",)),
    "action": Filter(action=("update",)),
    "resource_type": Filter(resource_type="node"),
    "resource_id": Filter(resource_id="42"),
    "resource": Filter(resource_type="node", resource_id="42"),
}


def test_every_filter_is_led_by_an_index(make_store: Callable[..., Store], engine_url: str) -> None:
    """No page in order of time reads a segment in full or sorts it: alone, within a time range, and after a cursor."""
    rows = 4_096
    store = make_store(segment_rows=rows)
    rnd = random.Random(9)
    users = [f"user-{i}" for i in range(60)]
    store.append(
        WRITER,
        0,
        [
            replaced(
                made(rnd, START + i * SECOND),
                user_id=rnd.choice(("u1", *users[:6])),
                ip_address=rnd.choice(ADDRESSES[:4]),
                status=rnd.choice(STATUSES[2:]),
                correlation_id=f"c{i}",
            )
            for i in range(2 * rows)
        ],
    )
    postgres = engine_url.startswith("postgres")
    engine = create_engine(engine_url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    middle = Cursor(START + rows // 2 * SECOND, rows // 2)
    try:
        with engine.connect() as connection:
            # Autovacuum keeps statistics on PostgreSQL; a SQLite file usually has none, and must do well without.
            for statistics in ("VACUUM ANALYZE",) if postgres else ("SELECT 1", "ANALYZE"):
                connection.execute(text(statistics))
                for name, asked in {**LED, "correlation_id": Filter(correlation_id="c77")}.items():
                    ranged = replace(asked, start=START + 1000 * SECOND, end=START + 3000 * SECOND)
                    for query in (Query(filter=asked), Query(filter=ranged), Query(filter=asked, cursor=middle)):
                        for statement, plan in plans(store, query, connection):
                            assert not faults(plan, sorts=name == "correlation_id"), "\n".join([statement, *plan])
    finally:
        engine.dispose()


def plans(store: Store, query: Query, connection: Connection) -> Iterator[tuple[str, list[str]]]:
    """The statements of a page in both orders of time, and how the engine will run them."""
    explain = "EXPLAIN " if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
    with Statements(store) as sent:
        store.page(query)
        store.page(replace(query, descending=False))
    for statement, parameters in sent:
        yield statement, [str(row) for row in connection.exec_driver_sql(explain + statement, parameters)]


def faults(plan: Sequence[str], *, sorts: bool) -> list[str]:
    """The steps of a plan that read or sort a whole segment; ``sorts`` lets the few rows of one value be sorted."""
    found = []
    for step in plan:
        if "Seq Scan" in step or ("SCAN audit_logs" in step and "USING" not in step):
            found.append(step)
        if not sorts and ("TEMP B-TREE" in step or (" Sort " in step and "Incremental" not in step)):
            found.append(step)
    return found


def test_plan_faults_are_recognised(log: Store, engine_url: str) -> None:
    """The check of plans is able to fail: a sort that no index serves is found on both engines."""
    engine = create_engine(engine_url.replace("postgresql://", "postgresql+psycopg://"))
    explain = "EXPLAIN " if engine_url.startswith("postgres") else "EXPLAIN QUERY PLAN "
    with engine.connect() as connection:
        plan = [
            str(row) for row in connection.exec_driver_sql(f"{explain} SELECT seq FROM audit_logs_0 ORDER BY error")
        ]
    engine.dispose()
    assert faults(plan, sorts=False)
