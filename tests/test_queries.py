"""How questions are written: parameters, dates, addresses, cursors, bucket widths."""

from __future__ import annotations

import base64
import datetime as dt
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible import queries
from indelible.errors import InvalidQuery
from indelible.events import micros
from indelible.queries import (
    EARLIEST,
    LATEST,
    MAX_SEQ,
    NULLABLE_SORT_FIELDS,
    SORT_FIELDS,
    Cursor,
    Filter,
    Query,
    bucket_width,
    canonical_address,
    decode_cursor,
    encode_cursor,
    filter_as_params,
    parse_filter,
    parse_moment,
    parse_query,
)
from indelible.taxonomy import STATUSES

DAY = 86_400_000_000
TEXT = st.text(min_size=1, max_size=40)
SEVERAL = st.lists(TEXT, max_size=4, unique=True).map(tuple)
TIMES = st.integers(EARLIEST, LATEST)


def us(*parts: int) -> int:
    return micros(dt.datetime(*parts, tzinfo=dt.UTC))  # type: ignore[arg-type,misc]


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    times = sorted(draw(st.lists(TIMES, min_size=2, max_size=2)))
    return Filter(
        event_type=draw(SEVERAL),
        user_id=draw(SEVERAL),
        status=draw(st.lists(st.sampled_from(STATUSES), unique=True).map(tuple)),
        ip_address=draw(
            st.lists(st.ip_addresses().map(str).map(canonical_address), max_size=3, unique=True).map(tuple)
        ),
        action=draw(SEVERAL),
        resource_type=draw(st.none() | TEXT),
        resource_id=draw(st.none() | TEXT),
        correlation_id=draw(st.none() | TEXT),
        start=draw(st.none() | st.just(times[0])),
        end=draw(st.none() | st.just(times[1])),
        q=draw(st.none() | TEXT),
    )


@st.composite
def cursors(draw: st.DrawFn) -> tuple[Cursor, str]:
    sort_by = draw(st.sampled_from(SORT_FIELDS))
    texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
    value: st.SearchStrategy[Any] = TIMES if sort_by == "timestamp" else texts
    if sort_by in NULLABLE_SORT_FIELDS:
        value |= st.none()
    return Cursor(draw(value), draw(st.integers(0, MAX_SEQ))), sort_by


def refused(*pairs: tuple[str, str]) -> InvalidQuery:
    with pytest.raises(InvalidQuery) as caught:
        parse_query(pairs)
    return caught.value


def test_nothing_asked_is_the_newest_page() -> None:
    """Without parameters the query has no condition and the documented defaults."""
    assert parse_query([]) == Query(filter=Filter(), sort_by="timestamp", descending=True, page=1, page_size=50)


def test_every_parameter_is_read() -> None:
    """Each name of the guide lands in its field; repeatable ones keep their order and lose repetitions."""
    query = parse_query(
        [
            ("event_type", "login"),
            ("event_type", "logout"),
            ("event_type", "login"),
            ("user_id", "u1"),
            ("status", "denied"),
            ("ip_address", "2001:DB8:0::1"),
            ("action", "update"),
            ("resource_type", "node"),
            ("resource_id", "42"),
            ("correlation_id", "c-1"),
            ("start_date", "2024-01-01"),
            ("end_date", "2024-01-31"),
            ("q", "/api"),
            ("page", "3"),
            ("page_size", "1000"),
            ("sort_by", "user_id"),
            ("sort_order", "asc"),
        ]
    )
    assert query == Query(
        filter=Filter(
            event_type=("login", "logout"),
            user_id=("u1",),
            status=("denied",),
            ip_address=("2001:db8::1",),
            action=("update",),
            resource_type="node",
            resource_id="42",
            correlation_id="c-1",
            start=us(2024, 1, 1),
            end=us(2024, 2, 1) - 1,
            q="/api",
        ),
        page=3,
        page_size=1000,
        sort_by="user_id",
        descending=False,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "sucess"),
        ("page", "0"),
        ("page", "-1"),
        ("page", "1.0"),
        ("page", "１"),
        ("page", "1_0"),
        ("page", " 1"),
        ("page", "1000000001"),
        ("page", "9" * 5000),
        ("page_size", "0"),
        ("page_size", "1001"),
        ("page_size", "ten"),
        ("sort_by", "seq"),
        ("sort_order", "descending"),
        ("start_date", "yesterday"),
        ("end_date", "2024-02-30"),
        ("cursor", "x"),
        ("q", "x" * 257),
        ("ip_address", "10.0.0.0/33"),
        ("ip_address", "2001:db8::/x"),
        ("ip_address", "10.0.0.0/"),
        ("user_id", ""),
        ("event_type", ""),
        ("start_date", ""),
        ("page", ""),
    ],
)
def test_a_meaningless_value_is_refused_by_name(name: str, value: str) -> None:
    """What cannot be meant is an error that names the parameter, never a query without it."""
    assert refused((name, value)).parameter == name


def test_an_unknown_parameter_is_refused_with_the_closest_name() -> None:
    """A misspelt filter must not return everything."""
    error = refused(("event_typ", "login"))
    assert error.parameter == "event_typ"
    assert "event_type" in error.hint
    assert refused(("USER_ID", "1")).parameter == "USER_ID"
    assert "known are" in refused(("zzzzzz", "1")).hint
    assert len(str(refused(("x" * 100_000, "1")))) < 500


def test_allowed_narrows_the_names() -> None:
    """Statistics take dates only; the rest of the filters is unknown there."""
    allowed = ("start_date", "end_date")
    assert parse_filter([("start_date", "2024-01-01")], allowed=allowed) == Filter(start=us(2024, 1, 1))
    with pytest.raises(InvalidQuery):
        parse_filter([("user_id", "1")], allowed=allowed)
    with pytest.raises(InvalidQuery, match="leave it out"):
        parse_filter([("user_id", "1")], allowed=())
    with pytest.raises(InvalidQuery):
        parse_filter([("page", "1")])


@pytest.mark.parametrize("name", [n for n in queries.PARAMETERS if n not in queries.REPEATABLE])
def test_single_parameters_cannot_be_repeated(name: str) -> None:
    """Two values where one is meant: refused, neither of them is picked."""
    assert refused((name, "1"), (name, "1")).parameter == name


def test_repeatable_parameters_are_bounded() -> None:
    """A hundred values pass, one more does not."""
    values = [("user_id", str(i)) for i in range(101)]
    assert len(parse_query(values[:100]).filter.user_id) == 100
    assert refused(*values).parameter == "user_id"


def test_start_after_end_is_refused() -> None:
    """A range that is empty by construction is a mistake; one of a single instant or day is not."""
    assert refused(("start_date", "2024-01-02"), ("end_date", "2024-01-01")).parameter == "start_date"
    day = parse_filter([("start_date", "2024-01-01"), ("end_date", "2024-01-01")])
    assert (day.start, day.end) == (us(2024, 1, 1), us(2024, 1, 1) + DAY - 1)
    now = "2024-01-01T00:00:00Z"
    assert parse_filter([("start_date", now), ("end_date", now)]).start == us(2024, 1, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-31", us(2024, 1, 31)),
        ("2024-01-31T12:30", us(2024, 1, 31, 12, 30)),
        ("2024-01-31 12:30:15", us(2024, 1, 31, 12, 30, 15)),
        ("2024-01-31T12:30:15Z", us(2024, 1, 31, 12, 30, 15)),
        ("2024-01-31t12:30:15z", us(2024, 1, 31, 12, 30, 15)),
        ("2024-01-31T12:30:15.1", us(2024, 1, 31, 12, 30, 15, 100_000)),
        ("2024-01-31T12:30:15.000001Z", us(2024, 1, 31, 12, 30, 15, 1)),
        ("2024-01-31T12:30:15+02:00", us(2024, 1, 31, 10, 30, 15)),
        ("2024-01-31T12:30:15 02:00", us(2024, 1, 31, 10, 30, 15)),
        ("2024-01-31T12:30:15-0530", us(2024, 1, 31, 18, 0, 15)),
        ("2024-01-31T12:30+02", us(2024, 1, 31, 10, 30)),
        ("0001-01-01T00:00:00Z", EARLIEST),
        ("0001-01-01T00:00:00+02:00", EARLIEST),
        ("9999-12-31T23:59:59.999999-02:00", LATEST),
    ],
)
def test_dates(text: str, expected: int) -> None:
    """ISO 8601 to the microsecond; no zone is UTC; a plus that arrived as a space is one; the ends of time hold."""
    assert parse_moment(text, parameter="start_date") == expected


@pytest.mark.parametrize(
    "text",
    [
        "2024",
        "2024-1-1",
        "20240131",
        "2024-W01-1",
        "0000-01-01",
        "2024-13-01",
        "2024-01-31T24:00:00",
        "2024-01-31T12",
        "2024-01-31T12:30:60",
        "2024-01-31T12:30:15.1234567",
        "2024-01-31T12:30:15+24:00",
        "2024-01-31T12:30:15+2",
        "2024-01-31Z",
        "２０２４-01-31",
        "2024-01-31\n",
        "1706659200",
        "now",
        "\0",
    ],
)
def test_other_forms_of_dates_are_refused(text: str) -> None:
    """What could be read in two ways, or would lose digits, is not guessed at."""
    with pytest.raises(InvalidQuery) as caught:
        parse_moment(text, parameter="end_date")
    assert caught.value.parameter == "end_date"


def test_a_bare_end_date_reaches_to_the_end_of_that_day() -> None:
    """Dates are inclusive: the last microsecond of the day belongs to it, also on the last day there is."""
    assert parse_moment("2024-02-29", parameter="end_date", whole_day=True) == us(2024, 3, 1) - 1
    assert parse_moment("9999-12-31", parameter="end_date", whole_day=True) == LATEST
    assert parse_moment("2024-02-29T10:00", parameter="end_date", whole_day=True) == us(2024, 2, 29, 10)


@given(TIMES)
def test_dates_round_trip(at: int) -> None:
    """Every time of the log can be asked for exactly as it is shown."""
    text = filter_as_params(Filter(start=at))["start_date"]
    assert isinstance(text, str)
    assert parse_moment(text, parameter="start_date") == at


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.168.1.1", "192.168.1.1"),
        ("2001:0DB8:0000::0001", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:0a00:0001", "10.0.0.1"),
        ("unknown", "unknown"),
        ("010.0.0.1", "010.0.0.1"),
        ("testclient", "testclient"),
        ("1.2.3", "1.2.3"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3/255.0.0.0", "10.0.0.0/8"),
        ("10.1.2.3/32", "10.1.2.3"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8:0:0:1::/32", "2001:db8::/32"),
        ("2001:db8::1/128", "2001:db8::1"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ("::ffff:0:0/95", "::fffe:0:0/95"),
        ("fe80::1%eth0/64", "fe80::1%eth0/64"),
        ("10.0.0.0/33", "10.0.0.0/33"),
        ("a/b", "a/b"),
    ],
)
def test_addresses_have_one_form(text: str, canonical: str) -> None:
    """IPv6 is compressed, IPv4 inside IPv6 is IPv4, networks have no host bits, anything else is left alone."""
    assert canonical_address(text) == canonical
    assert canonical_address(canonical) == canonical


@given(filters())
def test_filters_round_trip_through_parameters(asked: Filter) -> None:
    """What is set is written under the guide's names, what is not set is left out, and reading it gives the same."""
    params = filter_as_params(asked)
    assert all(params.values())
    pairs = [(k, v) for k, values in params.items() for v in ([values] if isinstance(values, str) else values)]
    assert parse_filter(pairs) == asked


def test_an_empty_filter_has_no_parameters() -> None:
    """Nothing set, nothing written."""
    assert filter_as_params(Filter()) == {}
    assert filter_as_params(Filter(start=-(2**70), end=2**70)) == {
        "start_date": "0001-01-01T00:00:00.000000Z",
        "end_date": "9999-12-31T23:59:59.999999Z",
    }


@given(cursors(), st.booleans())
def test_cursors_round_trip(made: tuple[Cursor, str], descending: bool) -> None:
    """A cursor is URL-safe text that reads back for its own order and is refused for the other."""
    cursor, sort_by = made
    text = encode_cursor(cursor, sort_by=sort_by, descending=descending)
    assert text.replace("-", "").replace("_", "").isalnum()
    assert decode_cursor(text, sort_by=sort_by, descending=descending) == cursor
    with pytest.raises(InvalidQuery, match="another order"):
        decode_cursor(text, sort_by=sort_by, descending=not descending)


@given(cursors(), st.integers(0), st.characters(codec="utf-8"))
def test_a_changed_cursor_is_refused(made: tuple[Cursor, str], at: int, other: str) -> None:
    """One character changed, wherever, is noticed."""
    cursor, sort_by = made
    text = encode_cursor(cursor, sort_by=sort_by, descending=True)
    at %= len(text)
    changed = text[:at] + other + text[at + 1 :]
    if changed != text:
        with pytest.raises(InvalidQuery):
            decode_cursor(changed, sort_by=sort_by, descending=True)


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")))
def test_any_text_as_a_cursor_is_a_clean_refusal(text: str) -> None:
    """Whatever is sent instead of a cursor is InvalidQuery, nothing else."""
    with pytest.raises(InvalidQuery) as caught:
        decode_cursor(text, sort_by="timestamp", descending=True)
    assert caught.value.parameter == "cursor"


@pytest.mark.parametrize(
    ("cursor", "sort_by"),
    [
        (Cursor(0, -1), "timestamp"),
        (Cursor(0, 2**63), "timestamp"),
        (Cursor(0, 10**400), "timestamp"),
        (Cursor(LATEST + 1, 0), "timestamp"),
        (Cursor(EARLIEST - 1, 0), "timestamp"),
        (Cursor(10**400, 0), "timestamp"),
        (Cursor("a", 0), "timestamp"),
        (Cursor(None, 0), "timestamp"),
        (Cursor(None, 0), "status"),
        (Cursor(1, 0), "user_id"),
        (Cursor("a\0b", 0), "user_id"),
        (Cursor("x" * 20_000, 0), "user_id"),
    ],
)
def test_a_forged_cursor_with_the_right_checksum_is_refused(cursor: Cursor, sort_by: str) -> None:
    """The checksum is public, so values that no row can have are looked for as well."""
    text = encode_cursor(cursor, sort_by=sort_by, descending=True)
    with pytest.raises(InvalidQuery):
        decode_cursor(text, sort_by=sort_by, descending=True)


def test_a_cursor_excludes_a_page_number() -> None:
    """Both name a place; asking for both is refused. A cursor alone, with its order, is taken."""
    text = encode_cursor(Cursor("u", 7), sort_by="user_id", descending=False)
    order = [("sort_by", "user_id"), ("sort_order", "asc")]
    assert parse_query([("cursor", text), *order]).cursor == Cursor("u", 7)
    assert refused(("cursor", text), ("page", "1"), *order).parameter == "cursor"
    assert refused(("cursor", text)).parameter == "cursor"


@given(TIMES, TIMES)
def test_charts_have_a_readable_number_of_buckets(a: int, b: int) -> None:
    """At most 200 buckets, and at least 40 wherever the range is not a matter of seconds."""
    first, last = sorted((a, b))
    width = bucket_width(first, last)
    buckets = last // width - first // width + 1
    assert buckets <= 200
    assert buckets >= 40 or width == 1_000_000


@pytest.mark.parametrize(
    ("length", "width"),
    [(0, 1), (199, 1), (200, 5), (3_600, 60), (86_400, 900), (7 * 86_400, 3_600), (366 * 86_400, 4 * 86_400)],
)
def test_bucket_widths_suit_the_axis(length: int, width: int) -> None:
    """Seconds, minutes, hours and days, not odd numbers (all in seconds here)."""
    start = us(2024, 1, 1) // width // 1_000_000 * width * 1_000_000
    assert bucket_width(start, start + length * 1_000_000) == width * 1_000_000


def test_questions_are_read_without_a_database_library() -> None:
    """The command line parses its options before SQLAlchemy is loaded."""
    code = "import sys, indelible.queries; sys.exit(any(m.startswith('sqlalchemy') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
