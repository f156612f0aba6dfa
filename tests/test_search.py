"""The search language: words to filters, filters to words, and how a word can go on."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.errors import InvalidQuery
from indelible.events import micros
from indelible.queries import (
    EARLIEST,
    LATEST,
    Completion,
    Filter,
    canonical_address,
    complete,
    filter_as_search,
    parse_search,
)
from indelible.taxonomy import STATUSES

NOW = micros(dt.datetime(2024, 5, 17, 12, 0, 0, tzinfo=dt.UTC))
HOUR = 3_600_000_000
DAY = 24 * HOUR
#: Texts that are likely to be mistaken for something else.
AWKWARD = st.sampled_from(
    [
        "user:x",
        '"',
        "\\",
        '\\"',
        "a b",
        " a",
        "a ",
        "a  b",
        "/",
        "a/b",
        "//",
        ":",
        "::",
        "http://x",
        "a:b c",
        "\n",
        "\xa0",
    ]
)
TEXT = st.text(min_size=1, max_size=20) | AWKWARD | st.lists(AWKWARD, min_size=1, max_size=3).map(" ".join)
SEVERAL = st.lists(TEXT, max_size=3, unique=True).map(tuple)
NETWORKS = st.tuples(st.ip_addresses(), st.integers(0, 128)).map(
    lambda pair: f"{pair[0]}/{pair[1] if pair[0].version == 6 else pair[1] // 4}"
)
ADDRESSES = (st.ip_addresses().map(str) | NETWORKS).map(canonical_address)
TIMES = st.integers(EARLIEST, LATEST) | st.integers(1, 2_900_000).map(lambda day: EARLIEST + day * DAY)
BOUNDS = TIMES | TIMES.map(lambda us: us - us % DAY + DAY - 1)


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    first, last = sorted(draw(st.tuples(BOUNDS, BOUNDS)))
    return Filter(
        event_type=draw(SEVERAL),
        user_id=draw(SEVERAL),
        status=draw(st.lists(st.sampled_from(STATUSES), unique=True).map(tuple)),
        ip_address=draw(st.lists(ADDRESSES, max_size=3, unique=True).map(tuple)),
        action=draw(SEVERAL),
        resource_type=draw(st.none() | TEXT),
        resource_id=draw(st.none() | TEXT),
        correlation_id=draw(st.none() | TEXT),
        start=draw(st.none() | st.just(first)),
        end=draw(st.none() | st.just(last)),
        q=draw(st.none() | TEXT),
    )


def refused(text: str) -> InvalidQuery:
    with pytest.raises(InvalidQuery) as caught:
        parse_search(text, now=NOW)
    assert caught.value.parameter == "search"
    return caught.value


def test_every_key_is_a_condition() -> None:
    """Each key lands in its filter, and what has no key is the text to look for."""
    found = parse_search(
        "user:alice status:denied type:login_failed resource:node/42 ip:10.0.0.0/8 action:update correlation:c-1"
        ' since:2h until:2024-05-17 "free text"',
        now=NOW,
    )
    assert found == Filter(
        user_id=("alice",),
        status=("denied",),
        event_type=("login_failed",),
        resource_type="node",
        resource_id="42",
        ip_address=("10.0.0.0/8",),
        action=("update",),
        correlation_id="c-1",
        start=NOW - 2 * HOUR,
        end=NOW + 12 * HOUR - 1,
        q="free text",
    )
    assert parse_search("", now=NOW) == parse_search(" \t\n", now=NOW) == Filter()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("user:a user:b user:a", Filter(user_id=("a", "b"))),
        ('user:"Alice Smith"', Filter(user_id=("Alice Smith",))),
        (r'user:"say \"hi\" \\ bye"', Filter(user_id=('say "hi" \\ bye',))),
        ("USER:a Status:denied", Filter(user_id=("a",), status=("denied",))),
        ("user_id:a event_type:login", Filter(user_id=("a",), event_type=("login",))),
        ("resource:node", Filter(resource_type="node")),
        ("resource:/42", Filter(resource_id="42")),
        ("resource:node/a/b", Filter(resource_type="node", resource_id="a/b")),
        ('resource_type:a/b resource_id:"1 2"', Filter(resource_type="a/b", resource_id="1 2")),
        ("ip:2001:DB8::1 ip:::1", Filter(ip_address=("2001:db8::1", "::1"))),
        ("ip:10.1.2.3/8", Filter(ip_address=("10.0.0.0/8",))),
        ("ip:10.1.2.3/32", Filter(ip_address=("10.1.2.3",))),
        ("ip:2001:DB8:0:0::/32", Filter(ip_address=("2001:db8::/32",))),
        ("ip:::ffff:10.0.0.0/104", Filter(ip_address=("10.0.0.0/8",))),
        ("free text", Filter(q="free text")),
        ("curl status:denied 8.1", Filter(q="curl 8.1", status=("denied",))),
        ('"status:denied"', Filter(q="status:denied")),
        ('"two  blanks" kept', Filter(q="two  blanks kept")),
        ("10:30 a/b?c:d ::1", Filter(q="10:30 a/b?c:d ::1")),
        ('in"side', Filter(q='in"side')),
        ("since:30s", Filter(start=NOW - 30_000_000)),
        ("since:5m", Filter(start=NOW - 300_000_000)),
        ("since:3d until:1d", Filter(start=NOW - 3 * DAY, end=NOW - DAY)),
        ("since:1w", Filter(start=NOW - 7 * DAY)),
        ("since:999999w", Filter(start=EARLIEST)),
        ("since:2024-05-17T10:00+02:00", Filter(start=NOW - 4 * HOUR)),
    ],
)
def test_searches(text: str, meant: Filter) -> None:
    """Repetition, quotation, capitals, API names, resources, networks, spans of time, and text that only looks special."""
    assert parse_search(text, now=NOW) == meant


@pytest.mark.parametrize(
    ("text", "word", "hint"),
    [
        ("a usr:alice", "usr:alice", "did you mean user:"),
        ("https://example.org", "https://example.org", "quotation marks"),
        ("user:", "user:", ""),
        ('user:""', 'user:""', ""),
        ("resource:node/", "resource:node/", ""),
        ("status:deneid", "status:deneid", "success, failure, denied"),
        ("since:yesterday", "since:yesterday", "2024-01-31"),
        ("since:2x", "since:2x", "2024-01-31"),
        ("since:1234567h", "since:1234567h", "2024-01-31"),
        ("ip:10.0.0.0/33", "ip:10.0.0.0/33", "10.0.0.0/8"),
        ("since:1h since:2h", "since:2h", "leave one"),
        ("resource:node resource_id:1 resource:/2", "resource:/2", "leave one"),
        ("correlation:a correlation_id:b", "correlation_id:b", "leave one"),
        ('user:"alice', 'user:"alice', ""),
        ('"a"b', '"a"', ""),
        ('"a\\"', '"a\\"', ""),
    ],
)
def test_a_mistake_is_refused_by_its_word(text: str, word: str, hint: str) -> None:
    """What cannot be meant is an error that names the word and says what could be."""
    error = refused(text)
    assert error.message.startswith(f"{word}: ")
    assert hint in error.hint


def test_mistakes_of_the_whole_are_refused_too() -> None:
    """A range that ends before it begins, a text too long, too many values: in the words of the search."""
    assert "since is after until" in refused("since:1h until:2h").message
    assert "the text is longer" in refused("x" * 300).message
    assert "100 times" in refused(" ".join(f"user:{i}" for i in range(101))).message
    assert len(str(refused("x" * 100_000 + ":1"))) < 500


@given(filters())
def test_filters_round_trip(asked: Filter) -> None:
    """Every filter can be written as a search that means exactly it."""
    assert parse_search(filter_as_search(asked), now=NOW) == asked


@given(st.text() | st.lists(AWKWARD | st.sampled_from(["user:a", "since:", "ip:1/2", "x"]), max_size=5).map(" ".join))
def test_any_text_is_a_search_or_a_clean_refusal(text: str) -> None:
    """Whatever is typed is a filter that can be written again, or InvalidQuery; completing it never fails."""
    complete(text)
    try:
        found = parse_search(text, now=NOW)
    except InvalidQuery:
        return
    assert parse_search(filter_as_search(found), now=NOW) == found


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (Filter(), ""),
        (Filter(status=("failure", "denied"), user_id=("a b",)), 'user:"a b" status:failure status:denied'),
        (Filter(resource_type="node", resource_id="42"), "resource:node/42"),
        (Filter(resource_id="42"), "resource:/42"),
        (Filter(start=NOW - 12 * HOUR, end=NOW + 12 * HOUR - 1), "since:2024-05-17 until:2024-05-17"),
        (Filter(start=NOW), "since:2024-05-17T12:00:00Z"),
        (Filter(start=NOW + 1), "since:2024-05-17T12:00:00.000001Z"),
        (Filter(q="free text"), "free text"),
        (Filter(q="user:x"), '"user:x"'),
    ],
)
def test_searches_are_written_as_people_would(asked: Filter, text: str) -> None:
    """Short keys, whole days as dates, no quotation marks where none are needed."""
    assert filter_as_search(asked) == text


@pytest.mark.parametrize(
    ("text", "start", "some"),
    [
        ("", 0, ("user:", "status:", "type:")),
        ("user:a ", 7, ("user:", "status:")),
        ("s", 0, ("status:", "since:")),
        ("user:a st", 7, ("status:",)),
        ("status:", 0, ("status:success", "status:failure", "status:denied")),
        ("x status:D", 2, ("status:denied",)),
        ("type:login", 0, ("type:login_failed",)),
        ("type:audit.r", 0, ("type:audit.read",)),
        ("since:", 0, ("since:1h", "since:7d")),
        ("user:al", 0, ("user:alice", 'user:"al b"')),
        ('user:"al', 0, ("user:alice", 'user:"al b"')),
    ],
)
def test_the_last_word_is_completed(text: str, start: int, some: tuple[str, ...]) -> None:
    """Keys, then their values: statuses, event types, spans, and what the caller knows."""
    found = complete(text, {"user": ["alice", "al b", "bob"]})
    assert found.start == start
    assert set(some) <= set(found.words)
    assert all(word.lower().startswith(text[start:].lower().replace('"', "")[:4]) for word in found.words)


def test_nothing_is_offered_where_nothing_fits() -> None:
    """An unknown word, or a value that is complete, has no completion."""
    assert complete("zzz") == Completion(0, ())
    assert complete("status:denied") == Completion(0, ())
    assert complete("nokey:a") == Completion(0, ())
