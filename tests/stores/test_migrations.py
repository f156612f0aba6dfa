"""Migrations: by ourselves, inside a host's Alembic history, and by its autogenerate; sync and async, on both engines."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text

from indelible.errors import ForeignTable, Protected, SchemaOutOfDate
from indelible.events import AuditEvent
from indelible.migrations import current, upgrade_engine
from indelible.migrations.autogenerate import autogenerate_options, is_ours
from indelible.stores import urls
from indelible.stores.base import SegmentedStore
from indelible.stores.schema import SCHEMA_VERSION
from indelible.stores.wal import use_wal

Make = Callable[..., AuditEvent]
Raw = Callable[..., list[Any]]


@pytest.fixture
def engine(engine_url: str) -> Any:
    """A plain engine, as a host or the command line has one."""
    engine = create_engine(urls.parse(engine_url))
    yield engine
    engine.dispose()


def test_upgrading_twice_is_a_no_op(engine: Any, raw: Raw, is_sqlite: bool) -> None:
    """The second time finds everything there and touches nothing."""
    assert current(engine) is None
    upgrade_engine(engine)
    assert current(engine) == SCHEMA_VERSION
    query = (
        "SELECT name, sql FROM sqlite_master" if is_sqlite else "SELECT oid, relname FROM pg_class WHERE oid > 16383"
    )
    before = raw(query)
    upgrade_engine(engine)
    assert raw(query) == before


def test_several_may_upgrade_at_once(engine: Any, engine_url: str) -> None:
    """Eight starts at the same moment: one makes the tables, the others find them."""
    barrier, errors = threading.Barrier(8), []

    def start() -> None:
        mine = create_engine(urls.parse(engine_url))
        barrier.wait()
        try:
            upgrade_engine(mine)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            errors.append(error)
        finally:
            mine.dispose()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert current(engine) == SCHEMA_VERSION


def test_several_may_change_the_journal_mode_at_once(tmp_path: Path) -> None:
    """Where two connections meet in the pragma, SQLite tells one of them "locked" whatever its timeout: that one waits."""
    for number in range(40):
        path, barrier = tmp_path / f"{number}.db", threading.Barrier(4)
        errors: list[sqlite3.Error] = []

        def start(path: Path, barrier: threading.Barrier, errors: list[sqlite3.Error]) -> None:
            connection = sqlite3.connect(path, timeout=30, isolation_level=None)
            barrier.wait()
            try:
                use_wal(connection)
            except sqlite3.Error as error:
                errors.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=start, args=(path, barrier, errors)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []


def test_a_failed_upgrade_leaves_nothing(engine: Any, raw: Raw) -> None:
    """Something is in the way: the whole upgrade is undone, and works once the way is free."""
    raw("CREATE TABLE audit_segment_spans (x INTEGER)")
    with pytest.raises(Exception, match="already exists"):
        upgrade_engine(engine)
    assert inspect(engine).get_table_names() == ["audit_segment_spans"]
    raw("DROP TABLE audit_segment_spans")
    upgrade_engine(engine)


def test_a_foreign_table_stops_it(engine: Any, raw: Raw, make_store: Callable[..., SegmentedStore]) -> None:
    """A table audit_logs of another shape is never touched; the error names the way out."""
    raw("CREATE TABLE audit_logs (id INTEGER PRIMARY KEY, what TEXT)")
    for attempt in (lambda: upgrade_engine(engine), lambda: current(engine), make_store):
        with pytest.raises(ForeignTable, match="indelible db adopt"):
            attempt()
    assert inspect(engine).get_table_names() == ["audit_logs"]


def test_a_newer_schema_is_left_alone(engine: Any, raw: Raw, make_store: Callable[..., SegmentedStore]) -> None:
    """Tables of a later version of the library: neither opened nor changed."""
    upgrade_engine(engine)
    raw("UPDATE indelible_version SET version_num = '9999'")
    with pytest.raises(SchemaOutOfDate, match="9999"):
        upgrade_engine(engine)
    with pytest.raises(SchemaOutOfDate, match="9999"):
        make_store()


# ---------------------------------------------------------------------------------------- inside a host's project

_ENV_SYNC = """
from alembic import context
from sqlalchemy import create_engine
import indelible.migrations
import models

def run(connection):
    context.configure(connection=connection, target_metadata=models.target, **indelible.migrations.autogenerate_options())
    with context.begin_transaction():
        context.run_migrations()

if context.is_offline_mode():
    context.configure(url=models.URL, target_metadata=models.target, literal_binds=True,
                      **indelible.migrations.autogenerate_options())
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = create_engine(models.URL)
    with engine.connect() as connection:
        run(connection)
    engine.dispose()
"""
_ENV_ASYNC = """
import asyncio
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
import indelible.migrations
import models

def run(connection):
    context.configure(connection=connection, target_metadata=models.target, **indelible.migrations.autogenerate_options())
    with context.begin_transaction():
        context.run_migrations()

async def main():
    engine = create_async_engine(models.URL)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()

asyncio.run(main())
"""
_MODELS = """
from sqlalchemy import Column, Index, Integer, MetaData, Table, Text
from sqlalchemy.orm import DeclarativeBase
from indelible.stores.schema import AuditLog
import indelible.stores.schema

class Base(DeclarativeBase):
    pass

class Node(Base):
    __tablename__ = "nodes"
    id = Column(Integer, primary_key=True)
    name = Column(Text, index=True)

{target}
URL = {url!r}
"""
_TARGETS = {
    "own metadata": "target = Base.metadata",
    "both": "target = [Base.metadata, indelible.stores.schema.metadata]",
    "copied": "AuditLog.__table__.to_metadata(Base.metadata)\ntarget = Base.metadata",
}
_MAKO = '''"""${message}"""
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None

def upgrade():
    ${upgrades if upgrades else "pass"}

def downgrade():
    ${downgrades if downgrades else "pass"}
'''
_RUN = """
import shlex, sys
from alembic.config import main
for command in sys.argv[1:]:
    main(shlex.split(command))
"""


class Host:
    """A throwaway Alembic project."""

    def __init__(self, folder: Path, url: str, *, target: str, asynchronous: bool) -> None:
        self.folder = folder
        (folder / "alembic" / "versions").mkdir(parents=True)
        (folder / "alembic.ini").write_text(
            "[alembic]\nscript_location = alembic\nprepend_sys_path = .\npath_separator = os\n"
        )
        (folder / "alembic" / "env.py").write_text(_ENV_ASYNC if asynchronous else _ENV_SYNC)
        (folder / "alembic" / "script.py.mako").write_text(_MAKO)
        parsed = urls.parse(url)
        if asynchronous:
            parsed = parsed.set(drivername="sqlite+aiosqlite" if "sqlite" in url else "postgresql+asyncpg")
        shown = parsed.render_as_string(hide_password=False)
        (folder / "models.py").write_text(_MODELS.format(target=_TARGETS[target], url=shown))

    def alembic(self, *commands: str, ok: bool = True) -> str:
        """Run Alembic's command line for each in turn, in one process, until one fails; return what was printed."""
        run = subprocess.run(
            [sys.executable, "-c", _RUN, *commands],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert (run.returncode == 0) is ok, run.stdout + run.stderr
        return run.stdout + run.stderr

    def revise(self, *then: str) -> str:
        """Autogenerate a revision, run further commands, return the revision's text."""
        known = set(self.folder.glob("alembic/versions/*.py"))
        self.alembic("revision --autogenerate -m 'Add audit logging table'", *then)
        (made,) = set(self.folder.glob("alembic/versions/*.py")) - known
        return made.read_text()


_CASES = [("own metadata", True), ("both", False), ("copied", False)]


@pytest.mark.parametrize(("target", "asynchronous"), _CASES, ids=[f"{t}-{'async' if a else 'sync'}" for t, a in _CASES])
def test_a_hosts_autogenerate_renders_our_migration_and_then_nothing(
    tmp_path: Path,
    engine_url: str,
    target: str,
    asynchronous: bool,
    make_store: Callable[..., SegmentedStore],
    event: Make,
    raw: Raw,
) -> None:
    """The guide's step 5: revision, upgrade; a log with two segments; the next autogenerate is empty; no downgrade."""
    host = Host(tmp_path / "host", engine_url, target=target, asynchronous=asynchronous)
    script = host.revise("upgrade head", "check", "downgrade base", "upgrade head")
    assert "import indelible.migrations\n" in script
    assert script.count("indelible.migrations.upgrade(op)") == 1
    assert script.count("indelible.migrations.downgrade(op)") == 1
    assert "audit_" not in script
    assert "'nodes'" in script

    store = make_store(segment_rows=256, prepare=False)
    assert store.check() == []
    store.append(uuid.uuid4(), 0, [event() for _ in range(300)])
    assert len(store.segments()) == 2
    again = host.revise()
    assert again.count("pass") == 2
    assert "indelible" not in again
    assert "Protected" in host.alembic("downgrade base", ok=False)
    assert raw("SELECT count(*) FROM audit_logs") == [(300,)]


def test_an_existing_log_is_not_made_again(tmp_path: Path, engine_url: str, engine: Any) -> None:
    """The command line made the log before the host's history knew of it: autogenerate proposes nothing of ours."""
    upgrade_engine(engine)
    host = Host(tmp_path / "host", engine_url, target="both", asynchronous=False)
    script = host.revise()
    assert "indelible" not in script
    assert "audit_" not in script


def test_a_hosts_revision_may_come_after_our_own_upgrade(
    tmp_path: Path, engine_url: str, engine: Any, raw: Raw
) -> None:
    """``upgrade(op)`` on tables that are there already leaves them alone, as ``downgrade(op)`` does on none."""
    host = Host(tmp_path / "host", engine_url, target="own metadata", asynchronous=False)
    host.revise()
    upgrade_engine(engine)
    host.alembic("upgrade head")
    assert raw("SELECT version_num FROM indelible_version") == [(SCHEMA_VERSION,)]
    host.alembic("downgrade base")
    assert current(engine) is None
    host.alembic("upgrade head")
    assert current(engine) == SCHEMA_VERSION


def test_a_revision_without_autogenerate_stays_empty(tmp_path: Path, engine_url: str) -> None:
    """``alembic revision`` by hand renders nothing of ours."""
    host = Host(tmp_path / "host", engine_url, target="both", asynchronous=False)
    host.alembic("revision -m 'by hand'")
    (script,) = host.folder.glob("alembic/versions/*.py")
    assert "indelible" not in script.read_text()


def test_the_host_can_print_the_sql(tmp_path: Path, engine_url: str, raw: Raw, is_sqlite: bool, engine: Any) -> None:
    """Offline mode writes statements that make the log: for a database administrator to run."""
    host = Host(tmp_path / "host", engine_url, target="own metadata", asynchronous=False)
    host.revise()
    script = host.alembic("upgrade head --sql")
    assert "CREATE TRIGGER" in script
    assert "INSERT INTO indelible_version" in script
    if is_sqlite:
        return
    body = script[script.index("BEGIN;") : script.rindex("COMMIT;") + len("COMMIT;")]
    raw("DROP TABLE IF EXISTS alembic_version")
    import psycopg

    with psycopg.connect(engine_url, autocommit=True) as connection:
        connection.execute(body.encode())
    assert current(engine) == SCHEMA_VERSION


def test_downgrade_is_refused_for_a_log_with_rows(
    engine: Any, make_store: Callable[..., SegmentedStore], event: Make
) -> None:
    """Protected, with nothing dropped."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    from indelible.migrations import downgrade

    store = make_store()
    store.append(uuid.uuid4(), 0, [event()])
    with engine.connect() as connection:
        operations = Operations(MigrationContext.configure(connection))
        with pytest.raises(Protected, match="holds rows"):
            downgrade(operations)
    assert store.check() == []


def test_a_hosts_own_filters_are_still_asked() -> None:
    """What the host leaves out stays out; what is ours is out in any case."""
    options = autogenerate_options(
        include_name=lambda name, _kind, _parents: name != "spatial_ref_sys",
        include_object=lambda _item, name, _kind, _reflected, _other: name != "mine",
    )
    assert not options["include_name"]("audit_logs_17", "table", {"schema_name": None})
    assert not options["include_name"]("spatial_ref_sys", "table", {"schema_name": None})
    assert options["include_name"]("nodes", "table", {"schema_name": None})
    assert options["include_name"]("audit_logs", "table", {"schema_name": "elsewhere"})
    assert not options["include_object"](None, "mine", "table", False, None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("audit_logs", True),
        ("audit_logs_0", True),
        ("audit_logs_before", True),
        ("audit_heads", True),
        ("indelible_version", True),
        ("audit_logs_archive", False),
        ("audit_trail", False),
        ("nodes", False),
        (None, False),
    ],
)
def test_names_of_the_log(name: str | None, expected: bool) -> None:
    """Ours are the tables of the schema, numbered segments and what adoption set aside; a host's are its own."""
    assert is_ours(name) is expected


def test_a_log_in_a_schema_of_its_own(postgres_url: str, event: Make) -> None:
    """The first schema of the search path holds the log, its functions included, whatever its name."""
    from indelible.stores.postgres import PostgresStore

    engine = create_engine(urls.parse(postgres_url))
    with engine.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Audit trail"'))
    there = engine.url.update_query_dict({"options": '-csearch_path="Audit\\ trail"'})
    store = PostgresStore(there.render_as_string(hide_password=False), segment_rows=256, prepare=upgrade_engine)
    store.open()
    assert store.append(uuid.uuid4(), 0, [event() for _ in range(600)]) == 600
    assert store.check() == []
    store.close()
    assert inspect(engine).get_table_names() == []
    engine.dispose()
