"""The append transaction: dense numbering, exactly once, exact values, typed refusals; on both engines."""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indelible import pacing
from indelible.errors import (
    ConfigurationError,
    OutOfSequence,
    RowRefused,
    SchemaOutOfDate,
    StoreUnavailable,
    WriterCloned,
)
from indelible.events import AuditEvent
from indelible.integrity.edge import RightEdge
from indelible.integrity.leaf import leaf_bytes
from indelible.migrations import upgrade_engine
from indelible.ports import Head
from indelible.queries import Filter
from indelible.stores import urls
from indelible.stores.base import SegmentedStore
from indelible.stores.batch import offer, plan
from indelible.stores.pgtypes import INFINITY
from indelible.stores.postgres import PostgresStore
from indelible.stores.schema import COLUMNS
from indelible.stores.sqlite import SqliteStore
from tests.reliability.faults import FaultySqlite, Fuse

Make = Callable[..., AuditEvent]
Raw = Callable[..., list[Any]]
YEAR_1, YEAR_9999 = -62_135_596_800_000_000, 253_402_300_799_999_999


def test_rows_are_numbered_densely_from_zero(store: SegmentedStore, event: Make, raw: Raw) -> None:
    """Two writers in turn: seq counts on through both, writer_seq counts each writer's own."""
    a, b = uuid.uuid4(), uuid.uuid4()
    assert store.append(a, 0, [event(), event()]) == 2
    assert store.append(b, 0, [event()]) == 3
    assert store.append(a, 2, [event()]) == 4
    found = [
        (seq, uuid.UUID(str(w)), n)
        for seq, w, n in raw("SELECT seq, writer_id, writer_seq FROM audit_logs ORDER BY seq")
    ]
    assert found == [(0, a, 0), (1, a, 1), (2, b, 0), (3, a, 2)]
    head = store.head()
    assert head is not None
    assert head == Head(4, head.root, a, 2)
    assert (store.position(a), store.position(b), store.position(uuid.uuid4())) == (3, 1, 0)


def test_an_empty_log_has_no_head_and_no_segment(store: SegmentedStore) -> None:
    """Nothing is made before the first row needs it."""
    assert store.head() is None
    assert store.segments() == []
    assert store.position(uuid.uuid4()) == 0
    assert store.append(uuid.uuid4(), 0, []) == 0
    assert store.head() is None


def test_a_replay_is_stored_once(store: SegmentedStore, event: Make, raw: Raw) -> None:
    """A batch sent again, whole or with news behind it, adds only what the writer's head does not show."""
    writer = uuid.uuid4()
    events = [event() for _ in range(5)]
    store.append(writer, 0, events[:3])
    assert store.append(writer, 0, events[:3]) == 3
    assert store.append(writer, 1, events[1:]) == 5
    assert store.append(writer, 2, events[2:4]) == 5
    ids = [str(i) for (i,) in raw("SELECT id FROM audit_logs ORDER BY seq")]
    assert ids == [str(e.id) for e in events]


def test_a_hole_in_the_writers_numbering_is_kept(store: SegmentedStore, event: Make, raw: Raw) -> None:
    """Events 0 and 7 of one writer: the rows say so, and the position is 8."""
    writer = uuid.uuid4()
    store.append(writer, 0, [event()])
    store.append(writer, 7, [event()], after=1)
    assert raw("SELECT seq, writer_seq FROM audit_logs ORDER BY seq") == [(0, 0), (1, 7)]
    assert store.position(writer) == 8


def test_a_store_that_holds_less_than_it_confirmed_says_so(store: SegmentedStore, event: Make) -> None:
    """After a restore or a lossy failover the writer's position is behind: OutOfSequence, and nothing is stored."""
    writer = uuid.uuid4()
    store.append(writer, 0, [event()])
    with pytest.raises(OutOfSequence):
        store.append(writer, 3, [event()])
    assert store.head() is not None
    assert store.position(writer) == 1


def test_other_events_under_the_same_numbers_are_a_clone(store: SegmentedStore, event: Make) -> None:
    """A replay is recognised by the ids of its events; anything else is WriterCloned, and nothing is stored."""
    writer = uuid.uuid4()
    mine = [event(), event()]
    store.append(writer, 0, mine)
    assert store.append(writer, 0, [*mine, event()]) == 3
    with pytest.raises(WriterCloned):
        store.append(writer, 2, [event(), event()])
    assert store.last_event(uuid.uuid4()) is None
    last = store.last_event(writer)
    assert last is not None
    assert last[0] == 2


def test_an_unknown_outcome_is_settled_by_the_next_append(
    store: SegmentedStore, make_store: Callable[..., SegmentedStore], event: Make
) -> None:
    """A commit whose answer was lost is found by whoever sends the batch again, from any process."""
    writer, events = uuid.uuid4(), [event(), event()]
    store.append(writer, 0, events)
    store.close()
    other = make_store()
    assert other.append(writer, 0, events) == 2


def test_everything_an_event_has_is_stored(store: SegmentedStore, event: Make, raw: Raw) -> None:
    """Every field arrives in the column of its name; both groups have their salts, and no digest before an erasure."""
    texts = {f: f"<{f}>" for f in COLUMNS if f in AuditEvent.__struct_fields__ and f not in {"id", "timestamp"}}
    given = event(
        **texts | {"response_status": 200, "duration_us": 7, "old_value": "1", "new_value": "[]", "metadata": "{}"}
    )
    store.append(uuid.uuid4(), 0, [given])
    (row,) = raw("SELECT " + ", ".join(f'"{c}"' for c in COLUMNS) + " FROM audit_logs")
    found = dict(zip(COLUMNS, row, strict=True))
    for field in AuditEvent.__struct_fields__:
        assert str(found[field]) == str(getattr(given, field)), field
    assert [len(found[c]) for c in ("leaf_hash", "actor_salt", "details_salt")] == [32, 16, 16]
    assert found["actor_digest"] is found["details_digest"] is None
    assert found["recorded_at"] > 1_700_000_000_000_000


_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_json = st.sampled_from(
    [
        "1e2",
        '{"a":1,"a":2}',
        '{"b": [ 1.50, -0.0, 1E400 ]}',
        '"\\u00e9\\ud83d\\ude00"',
        "9007199254740993",
        ' {"sp" : 1} ',
    ]
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=_text,
    json_text=_json,
    number=st.sampled_from([0, 1, -1, 2**53 - 1, -(2**53) + 1]),
    moment=st.sampled_from([YEAR_1, YEAR_9999, 0, -1, 1, 999_999]) | st.integers(YEAR_1, YEAR_9999),
)
def test_hostile_values_come_back_exactly(
    store: SegmentedStore, event: Make, raw: Raw, text: str, json_text: str, number: int, moment: int
) -> None:
    """All of Unicode, JSON as its exact text, ±(2^53 − 1) and the years 1 to 9999, to the microsecond."""
    given_event = event(
        timestamp=moment, user_id=text, error=text, old_value=json_text, metadata=json_text, duration_us=number
    )
    seq = store.append(uuid.uuid4(), 0, [given_event]) - 1
    columns = "timestamp, user_id, error, old_value, metadata, duration_us"
    assert raw(f"SELECT {columns} FROM audit_logs WHERE seq = {seq}") == [
        (moment, text, text, json_text, json_text, number)
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"user_id": "\ud800"},
        {"duration_us": 2**53},
        {"duration_us": 2**63},
        {"timestamp": YEAR_9999 + 1},
        {"timestamp": YEAR_1 - 1},
        {"action": None},
    ],
)
def test_a_row_that_cannot_be_stored_is_refused_and_nothing_of_its_batch(
    store: SegmentedStore, event: Make, fields: dict[str, Any]
) -> None:
    """The error names no driver; the log is as before; the next append works."""
    writer = uuid.uuid4()
    with pytest.raises(RowRefused):
        store.append(writer, 0, [event(), event(**fields)])
    assert store.head() is None
    assert store.append(writer, 0, [event()]) == 1


class _Unreadable(list[AuditEvent]):
    """Events one of which, the 600th, cannot be taken."""

    def __getitem__(self, at: Any) -> Any:
        if 599 in range(len(self))[at] if isinstance(at, slice) else at == 599:
            raise RowRefused("no event")
        return super().__getitem__(at)


@pytest.mark.parametrize("rows", [None, 15])
def test_an_event_that_cannot_be_taken(
    store: SegmentedStore, event: Make, monkeypatch: pytest.MonkeyPatch, rows: int | None
) -> None:
    """Parts of the batch are with the server by then: none of them stays, and the next append works."""
    monkeypatch.setattr(pacing, "_PAUSE", 0.0)
    writer = uuid.uuid4()
    with pytest.raises(RowRefused, match="no event"), pacing.beside_others(rows):
        store.append(writer, 0, _Unreadable([event() for _ in range(700)]))
    assert store.head() is None
    assert store.append(writer, 0, [event()]) == 1


def test_postgres_refuses_nul_and_what_is_not_json(
    make_store: Callable[..., SegmentedStore], event: Make, is_sqlite: bool
) -> None:
    """Its types cannot hold them; redaction keeps both from getting there."""
    if is_sqlite:
        return
    store = make_store()
    for fields in ({"user_id": "a\0b"}, {"metadata": "{"}):
        with pytest.raises(RowRefused):
            store.append(uuid.uuid4(), 0, [event(**fields)])


def test_an_id_twice_in_one_segment_is_refused(store: SegmentedStore, event: Make) -> None:
    """Two writers with one event id: a cloned data directory, to be told and not to be dropped in silence."""
    same = event()
    store.append(uuid.uuid4(), 0, [same])
    with pytest.raises(RowRefused):
        store.append(uuid.uuid4(), 0, [same])


def test_a_row_written_beside_the_service_stops_the_log_without_blaming_an_event(
    store: SegmentedStore, event: Make, raw: Raw
) -> None:
    """A smuggled row takes the next number: StoreUnavailable, so that events wait in the journal for somebody to look."""
    store.append(uuid.uuid4(), 0, [event()])
    columns = ", ".join(f'"{c}"' for c in COLUMNS if c not in {"seq", "id"})
    raw(f"INSERT INTO audit_logs_0 (seq, id, {columns}) SELECT 1, '{uuid.uuid4()}', {columns} FROM audit_logs_0")
    with pytest.raises(StoreUnavailable, match="taken"):
        store.append(uuid.uuid4(), 0, [event()])


def _write(kind: type[SegmentedStore], url: str, writer: uuid.UUID, batches: int, barrier: Any) -> None:
    store = kind(url, segment_rows=256, prepare=upgrade_engine)
    barrier.wait(60)
    store.open()
    for batch in range(batches):
        # Sent twice, as after a lost answer.
        for _ in range(2):
            store.append(
                writer,
                batch * 25,
                [
                    AuditEvent(
                        id=uuid.uuid5(writer, str(batch * 25 + i)),
                        timestamp=1_700_000_000_000_000,
                        event_type="login",
                        action="login",
                        status="success",
                    )
                    for i in range(25)
                ],
            )
    store.close()


def test_four_processes_append_at_once(engine_url: str, is_sqlite: bool, raw: Raw) -> None:
    """Each makes the schema if it is first, each sends every batch twice: seq dense from 0, every event once."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(4)
    kind = SqliteStore if is_sqlite else PostgresStore
    writers = [uuid.uuid4() for _ in range(4)]
    processes = [spawn.Process(target=_write, args=(kind, engine_url, w, 20, barrier)) for w in writers]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [p.exitcode for p in processes] == [0, 0, 0, 0]
    rows = [
        (s, str(i), str(w), n)
        for s, i, w, n in raw("SELECT seq, id, writer_id, writer_seq FROM audit_logs ORDER BY seq")
    ]
    assert [row[0] for row in rows] == list(range(2000))
    assert {(row[2], row[3]) for row in rows} == {(str(w), n) for w in writers for n in range(500)}
    assert len({row[1] for row in rows}) == 2000


def test_threads_may_share_a_store(store: SegmentedStore, event: Make) -> None:
    """Four threads on one store object: nothing is lost and nothing breaks."""

    def work() -> None:
        writer = uuid.uuid4()
        for n in range(10):
            store.append(writer, n, [event()])
            assert store.position(writer) == n + 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    head = store.head()
    assert head is not None
    assert head.size == 40


def test_a_connection_the_server_closed_is_replaced(
    store: SegmentedStore, event: Make, is_sqlite: bool, raw: Raw
) -> None:
    """A writer that was idle when the server dropped it appends as if nothing had been."""
    if is_sqlite:
        return
    writer = uuid.uuid4()
    store.append(writer, 0, [event()])
    raw(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    assert store.append(writer, 1, [event()]) == 2


def test_a_stalled_lock_holder_is_waited_for_only_so_long(
    store: SegmentedStore, event: Make, is_sqlite: bool, engine_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody sits on the log's lock: the append gives up with StoreUnavailable, and works once the lock is free."""
    store.append(uuid.uuid4(), 0, [event()])
    if is_sqlite:
        import sqlite3

        assert isinstance(store, SqliteStore)
        assert store._writer is not None
        store._writer.execute("PRAGMA busy_timeout = 50")
        holder: Any = sqlite3.connect(urls.parse(engine_url).database or "", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
    else:
        from indelible.stores import postgres, postgres_schema

        monkeypatch.setattr(
            postgres, "_BEGIN", postgres._BEGIN.replace("lock_timeout = '10s'", "lock_timeout = '50ms'")
        )
        holder = psycopg.connect(engine_url)
        holder.execute(postgres_schema.LOCK)
    with pytest.raises(StoreUnavailable):
        store.append(uuid.uuid4(), 0, [event()])
    holder.rollback()
    holder.close()
    assert store.append(uuid.uuid4(), 0, [event()]) == 2


def test_durability_does_not_hang_on_the_servers_defaults(
    store: SegmentedStore, event: Make, is_sqlite: bool, raw: Raw
) -> None:
    """A database whose default is synchronous_commit=off and another isolation level is overruled, per transaction."""
    if is_sqlite:
        assert isinstance(store, SqliteStore)
        store.append(uuid.uuid4(), 0, [event()])
        assert store._writer is not None
        assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)
        assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        return
    assert isinstance(store, PostgresStore)
    (name,) = raw("SELECT current_database()")[0]
    raw(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    raw(f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable')
    writer = store._begin(uuid.uuid4())[0]
    shown = [
        writer.execute(f"SHOW {s}").fetchone()[0]  # type: ignore[index]
        for s in ("synchronous_commit", "transaction_isolation", "timezone")
    ]
    assert shown == ["on", "read committed", "UTC"]
    writer.execute("ROLLBACK")


def test_a_forged_time_does_not_crash_a_reader(store: SegmentedStore, event: Make, is_sqlite: bool, raw: Raw) -> None:
    """Infinity, BC and the year 10000 in a forged row are numbers outside every real event's, no exception."""
    if is_sqlite:
        return
    store.append(uuid.uuid4(), 0, [event()])
    raw("ALTER TABLE audit_logs DISABLE TRIGGER ALL")
    raw("ALTER TABLE audit_logs_0 DISABLE TRIGGER ALL")
    for forged, expected in (
        ("infinity", INFINITY),
        ("-infinity", -INFINITY),
        ("0001-01-01 00:00:00+00 BC", YEAR_1 - 366 * 86_400_000_000),
        ("10000-01-01 00:00:00+00", YEAR_9999 + 1),
        ("294276-12-31 23:59:59.999999+00", 9_224_318_015_999_999_999),
        ("1900-01-01 00:00:00+00:19:32", -2_208_988_800_000_000 - 1172_000_000),
    ):
        raw(f"UPDATE audit_logs_0 SET timestamp = '{forged}'")
        with store.engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT timestamp FROM audit_logs").scalar()
        assert found == expected, forged


def test_open_and_close_can_be_repeated(store: SegmentedStore, event: Make) -> None:
    """Closing twice does nothing, opening twice does nothing, and a closed store says so."""
    store.append(uuid.uuid4(), 0, [event()])
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable):
        store.append(uuid.uuid4(), 0, [event()])
    with pytest.raises(StoreUnavailable):
        store.head()
    store.open()
    store.open()
    assert store.append(uuid.uuid4(), 0, [event()]) == 2


def test_a_missing_schema_is_told_and_not_made(make_store: Callable[..., SegmentedStore]) -> None:
    """Without ``prepare``, open names the command to run."""
    with pytest.raises(SchemaOutOfDate, match="indelible db upgrade"):
        make_store(prepare=False)


def test_an_absent_server_is_unavailable() -> None:
    """No server, no folder: StoreUnavailable, which callers try again."""
    for store in (
        PostgresStore("postgresql://nobody:secret@127.0.0.1:1/none", prepare=upgrade_engine),
        SqliteStore("sqlite:////nowhere/at/all.db", prepare=upgrade_engine),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            store.open()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgresql+asyncpg://u:p@h/d?ssl=require", "postgresql+psycopg://u:p@h/d?sslmode=require"),
        ("postgresql+asyncpg://u@h/d?prepared_statement_cache_size=0", "postgresql+psycopg://u@h/d"),
        ("sqlite+aiosqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
        ("sqlite:///a.db", f"sqlite:///{Path.cwd() / 'a.db'}"),
    ],
)
def test_urls_of_other_drivers_are_understood(url: str, expected: str) -> None:
    """The host's URL serves the log as it is."""
    assert urls.parse(url).render_as_string(hide_password=False) == expected


@pytest.mark.parametrize(
    "url", ["mysql://h/d", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true", "?"]
)
def test_urls_that_cannot_work_are_refused(url: str) -> None:
    """Another engine, a database in memory, no URL: ConfigurationError with a form that works."""
    with pytest.raises(ConfigurationError, match="sqlite:///path"):
        urls.parse(url)


def test_the_password_is_not_shown() -> None:
    """``url`` is for logs and answers."""
    assert PostgresStore("postgresql+asyncpg://u:hunter2@h/d").url == "postgresql://u:***@h/d"


@pytest.mark.parametrize("rows", [0, -1, 100, 255, 1000, 65_537, 98_304])
def test_a_segment_is_a_whole_number_of_subtrees(rows: int) -> None:
    """Sizes that would split a Merkle subtree are refused at construction."""
    with pytest.raises(ConfigurationError):
        SqliteStore("sqlite:///a.db", segment_rows=rows)


@given(
    size=st.integers(0, 600),
    position=st.integers(0, 260),
    first=st.integers(0, 60),
    count=st.integers(0, 250),
    ahead=st.booleans(),
)
def test_planning_stores_each_number_once(size: int, position: int, first: int, count: int, ahead: bool) -> None:
    """Whatever is replayed, hashed before or beside, the rows are the numbers from ``position`` on, densely placed."""
    writer = uuid.UUID(int=1)
    events = [
        AuditEvent(id=uuid.UUID(int=first + i), timestamp=0, event_type="login", action="a", status="success")
        for i in range(count)
    ]
    edge, _ = RightEdge().extend([bytes(32)] * size)
    batch = plan(
        offer(writer, first, events, after=0, recorded_at=5, random=bytes, ahead=ahead),
        edge=edge,
        position=position,
        last_id=lambda: uuid.UUID(int=position - 1),
    )
    numbers = [n for n in range(first, first + count) if n >= position]
    if not numbers:
        assert batch is None
        return
    assert batch is not None
    places = [dict(zip(COLUMNS, row, strict=True)) for part in batch.parts() for row in part.rows(epoch=0, ids=list)]
    assert [p["writer_seq"] for p in places] == numbers
    assert [p["id"].int for p in places] == numbers
    assert [p["seq"] for p in places] == list(range(size, size + len(numbers)))
    assert batch.head == Head(size + len(numbers), batch.edge.root, writer, numbers[-1])


def test_rows_go_to_sqlite_many_in_a_statement(sqlite_url: str, event: Make) -> None:
    """Each statement waits for the interpreter when it is done: a thread beside a busy loop would fall behind row by row."""
    store = SqliteStore(sqlite_url, prepare=upgrade_engine)
    store.open()
    writer, told = uuid.uuid4(), list[str]()
    store.append(writer, 0, [event()])
    store._connected().set_trace_callback(told.append)
    assert store.append(writer, 1, [event() for _ in range(1_001)]) == 1_002
    store.close()
    # A statement is told once more for each trigger that it fires.
    inserts = {statement for statement in told if statement.startswith("INSERT OR ROLLBACK INTO audit_logs_")}
    assert 1 <= len(inserts) <= 21


@pytest.mark.parametrize("persisted", [False, True], ids=["not-persisted", "but-persisted"])
def test_one_of_several_statements_that_fails(sqlite_url: str, event: Make, persisted: bool) -> None:
    """Nothing of the batch is stored, and all of it the next time."""
    store = FaultySqlite(sqlite_url, prepare=upgrade_engine)
    store.open()
    writer, events = uuid.uuid4(), [event() for _ in range(120)]
    store.append(writer, 0, events[:1])
    store.fuse = Fuse("copy", persisted=persisted, after=1)
    with pytest.raises(StoreUnavailable):
        store.append(writer, 1, events[1:])
    assert store.fuse.blown == 1
    assert store.position(writer) == 1
    assert store.append(writer, 1, events[1:]) == 120
    assert [row.id for rows in store.scan(Filter(), first=0, end=120) for row in rows] == [each.id for each in events]
    store.close()


@pytest.mark.parametrize("encoding", ["latin1", "EUC_JP"])
def test_a_client_encoding_changes_nothing(postgres_url: str, event: Make, encoding: str) -> None:
    """A URL, or a database of another encoding, may set one: what is written is what was sealed."""
    store = PostgresStore(f"{postgres_url}&client_encoding={encoding}", prepare=upgrade_engine)
    store.open()
    given = event(user_id="bj\u00f6rn", metadata='{"a": "\u00e9"}')
    store.append(uuid.uuid4(), 0, [given])
    store.close()
    with closing(PostgresStore(postgres_url)) as again:
        again.open()
        found = again.get(given.id)
    assert found is not None
    assert (found.user_id, found.metadata) == (given.user_id, given.metadata)
    assert found.leaf_hash == hashlib.sha256(b"\0" + leaf_bytes(found)).digest()
