"""``db``: make, examine, take over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from indelible.stores import urls
from indelible.stores.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine


def execute(url: str, *statements: str) -> None:
    engine = create_engine(urls.parse(url), poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_upgrade_twice_is_harmless(empty_log: CommandLine) -> None:
    """The second run says that there is nothing to do."""
    result = empty_log.run("db", "upgrade")
    assert (result.exit_code, result.stdout) == (0, f"{SCHEMA_VERSION}\n")
    assert "already up to date" in result.stderr


def test_current_is_the_version_on_standard_output(empty_log: CommandLine) -> None:
    """Scripts can read it."""
    result = empty_log.run("db", "current")
    assert (result.exit_code, result.stdout) == (0, f"{SCHEMA_VERSION}\n")


def test_an_old_version_is_exit_code_1(empty_log: CommandLine) -> None:
    """So that a deployment can stop on it."""
    execute(empty_log.url, "UPDATE indelible_version SET version_num = '0000'")
    result = empty_log.run("db", "current")
    assert (result.exit_code, result.stdout) == (1, "0000\n")
    assert "indelible db upgrade" in result.stderr


def test_check_is_content_with_what_upgrade_made(log: CommandLine) -> None:
    """Rows change nothing about it."""
    result = log.run("db", "check")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "as it must be" in result.stderr


def test_check_names_what_is_missing(log: CommandLine) -> None:
    """A dropped guard or index is named, as a table or as JSON, and the exit code is 1."""
    if log.url.startswith("sqlite"):
        execute(log.url, "DROP TRIGGER audit_guard_update_0", "DROP INDEX idx_audit_ip_0")
        guard, index = "audit_guard_update_0", "idx_audit_ip_0"
    else:
        execute(log.url, "DROP TRIGGER audit_guard_update ON audit_logs", "DROP INDEX idx_audit_ip")
        guard, index = "audit_guard_update", "idx_audit_ip"
    shown, told = log.run("db", "check"), log.run("db", "check", "--json")
    assert shown.exit_code == told.exit_code == 1
    findings = [json.loads(line) for line in told.stdout.splitlines()]
    assert any(f["kind"] == "guard" and guard in f["name"] for f in findings)
    assert any(f["kind"] == "index" and index in f["name"] for f in findings)
    assert guard in shown.stdout
    assert index in shown.stdout


@pytest.fixture
def foreign_log(engine_url: str, missing_log: CommandLine) -> CommandLine:
    """A database with another program's audit_logs."""
    execute(
        engine_url,
        "CREATE TABLE audit_logs (id INTEGER PRIMARY KEY, created_at TEXT, action TEXT, user_id TEXT)",
        "INSERT INTO audit_logs VALUES (1, '2020-01-01T00:00:00Z', 'update', 'alice')",
    )
    return type(missing_log)(engine_url, missing_log.data_dir)


def test_a_foreign_table_stops_upgrade_and_adopt_is_the_way_out(foreign_log: CommandLine) -> None:
    """The error names the command; after it the old rows are events with their own times."""
    refused = foreign_log.run("db", "upgrade")
    assert refused.exit_code == 1
    assert "indelible db adopt" in refused.stderr
    adopted = foreign_log.run("db", "adopt")
    assert adopted.exit_code == 0, adopted.output
    assert "the log holds 1 imported events" in adopted.stderr
    [event] = foreign_log.stored()
    assert (event.source, event.user_id, event.action) == ("import", "alice", "update")
    assert foreign_log.run("db", "check").exit_code == 0


def test_adopt_without_anything_to_adopt_says_so(empty_log: CommandLine) -> None:
    """It is an error, not a silent success."""
    result = empty_log.run("db", "adopt")
    assert result.exit_code == 1
    assert "hint: " in result.stderr


def test_roles_are_a_matter_of_postgresql(missing_log: CommandLine) -> None:
    """On SQLite the error says what protects the file."""
    missing_log.make()
    result = missing_log.run("db", "roles")
    assert result.exit_code == 1
    assert "SQLite has no roles" in result.stderr


def test_roles_prints_what_it_did(missing_log: CommandLine, postgres_url: str) -> None:
    """Every statement on standard output; then the application's role can add, read and be examined, nothing else."""
    line = type(missing_log)(postgres_url, missing_log.data_dir)
    line.make()
    result = line.run("db", "roles", "--owner", "cli_owner", "--app", "cli_app", "--reader", "cli_reader")
    try:
        assert result.exit_code == 0, result.output
        assert all(statement.endswith(";") for statement in result.stdout.splitlines())
        assert 'CREATE ROLE "cli_app" LOGIN;' in result.stdout
        assert line.run("db", "check").exit_code == 0
        url = make_url(postgres_url).set(username="cli_app").render_as_string(hide_password=False)
        service = type(line)(url, line.data_dir)
        service.seed([{"event_type": "login", "action": "login"}])
        examined = service.run("doctor", "--json")
        assert examined.exit_code == 0, examined.output
        states = {check["name"]: check["state"] for check in map(json.loads, examined.stdout.splitlines())}
        assert states["role"] == states["TRUNCATE is refused"] == states["UPDATE is refused"] == "ok"
        assert service.run("query").exit_code == 0
        assert [event.event_type for event in service.stored()] == ["login", "audit.read"]
    finally:
        # Roles belong to the server, which other tests use too.
        execute(
            postgres_url,
            *(f"DROP OWNED BY cli_{role} CASCADE" for role in ("owner", "app", "reader")),
            *(f"DROP ROLE cli_{role}" for role in ("owner", "app", "reader")),
        )
