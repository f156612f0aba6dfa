"""The guide's step 5 on the reference host: its Alembic history takes the log in, on either engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from indelible.events import AuditEvent
from indelible.stores import urls
from indelible.stores.postgres import PostgresStore
from indelible.stores.sqlite import SqliteStore

ROOT = Path(__file__).resolve().parents[2]
SEGMENT_ROWS = 256

Alembic = Callable[..., str]


@pytest.fixture
def backend(tmp_path: Path) -> Path:
    """A copy of ``backend/`` without its audit revision."""
    copy = tmp_path / "backend"
    shutil.copytree(ROOT / "backend", copy, ignore=shutil.ignore_patterns("__pycache__", "*.db*", ".env", ".indelible"))
    (audit,) = (copy / "alembic" / "versions").glob("*_add_audit_logging_table.py")
    audit.unlink()
    return copy


@pytest.fixture
def alembic(backend: Path, engine_url: str) -> Alembic:
    """A function that runs ``alembic`` in the copy with nothing but the venv on PATH, and returns what it said."""
    env = {"PATH": str(Path(sys.executable).parent), "DATABASE_URL": engine_url}

    def alembic(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("alembic")), *arguments]
        done = subprocess.run(command, cwd=backend, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return alembic


def revision(backend: Path, slug: str) -> str:
    """The one revision of this name, as text."""
    (path,) = (backend / "alembic" / "versions").glob(f"*_{slug}.py")
    return path.read_text()


def fill(url: str, rows: int) -> None:
    """Append so many events in segments of SEGMENT_ROWS."""
    kind: type[SqliteStore] | type[PostgresStore] = SqliteStore if url.startswith("sqlite") else PostgresStore
    store = kind(url, segment_rows=SEGMENT_ROWS)
    store.open()
    try:
        values = {"event_type": "login", "action": "login", "status": "success"}
        events = [AuditEvent(id=uuid.uuid4(), timestamp=number, **values) for number in range(rows)]  # type: ignore[arg-type]
        assert store.append(uuid.uuid4(), 0, events) == rows
        assert len(store.segments()) >= 2
        assert list(store.check()) == []
    finally:
        store.close()


@pytest.mark.parametrize("existing", [True, False], ids=["existing", "empty"])
def test_step_5_then_nothing_more(backend: Path, alembic: Alembic, engine_url: str, existing: bool) -> None:
    """Both commands as written make the log, on a database in use or an empty one; later autogenerate leaves it alone.

    "Later" is with rows and two segments there, which are tables that no model knows.
    """
    if existing:
        alembic("upgrade", "head")
    alembic("revision", "--autogenerate", "-m", "Add audit logging table")
    alembic("upgrade", "head")
    made = revision(backend, "add_audit_logging_table")
    assert "indelible.migrations.upgrade(op)" in made
    assert "indelible.migrations.downgrade(op)" in made
    assert "create_table" not in made

    fill(engine_url, 2 * SEGMENT_ROWS)
    alembic("revision", "--autogenerate", "-m", "Nothing")
    assert "op." not in revision(backend, "nothing")
    alembic("upgrade", "head")
    assert "No new upgrade operations detected" in alembic("check")


def test_the_history_goes_back_while_the_log_is_empty(alembic: Alembic, engine_url: str) -> None:
    """``downgrade base`` takes every table of ours away again; with a row in the log it is refused."""
    alembic("revision", "--autogenerate", "-m", "Add audit logging table")
    alembic("upgrade", "head")
    alembic("downgrade", "base")
    engine = create_engine(urls.parse(engine_url))
    try:
        assert set(inspect(engine).get_table_names()) <= {"alembic_version", "sqlite_sequence"}
    finally:
        engine.dispose()
    alembic("upgrade", "head")
    fill(engine_url, 2 * SEGMENT_ROWS)
    with pytest.raises(AssertionError, match="the audit log holds rows"):
        alembic("downgrade", "base")
