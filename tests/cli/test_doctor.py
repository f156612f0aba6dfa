"""``doctor``: what is wrong is found, nothing is changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import NullPool, create_engine, text
from typer.testing import CliRunner, Result

from indelible.cli.app import app
from indelible.native import native
from indelible.stores import urls

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine


def execute(url: str, *statements: str) -> None:
    engine = create_engine(urls.parse(url), poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def verdicts(result: Result) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in map(json.loads, result.stdout.splitlines())}


@pytest.mark.parametrize("rows", [0, 3])
def test_a_sound_log_passes_and_stays_as_it_is(empty_log: CommandLine, rows: int) -> None:
    """Exit code 0; the forbidden statements were refused, on an empty log too; not a row more or less afterwards."""
    line = empty_log
    line.seed({"event_type": "login", "action": "login"} for _ in range(rows))
    before = line.stored()
    result = line.run("doctor", "--json")
    assert result.exit_code == 0, result.output
    checks = verdicts(result)
    for statement in ("UPDATE", "DELETE", "REPLACE" if line.url.startswith("sqlite") else "TRUNCATE"):
        assert checks[f"{statement} is refused"]["state"] == "ok"
    for kind in ("table", "index", "guard", "segment"):
        assert checks[f"{kind} definitions"]["state"] == "ok"
    assert checks["schema version"]["state"] == checks["clock against the log"]["state"] == "ok"
    assert checks["compiled part"]["detail"] == ("in use" if native else "not in use: INDELIBLE_PURE=1")
    assert line.stored() == before


def test_the_table_says_the_same_to_people(log: CommandLine) -> None:
    """One line a check with its state, the sums on standard error."""
    result = log.run("doctor")
    assert result.exit_code == 0
    assert any(line.startswith("UPDATE is refused") and " ok " in line for line in result.stdout.splitlines())
    assert "0 failed" in result.stderr


def test_a_lost_segment_is_named_and_the_rest_examined(log: CommandLine) -> None:
    """A log that has lost a table can still be examined; on SQLite the view over it can no longer be read."""
    execute(log.url, "DROP TABLE audit_logs_0")
    result = log.run("doctor", "--json")
    assert result.exit_code == 1
    checks = verdicts(result)
    assert checks["segment definitions"]["state"] == "fail"
    assert "audit_logs_0 is missing" in checks["segment definitions"]["detail"]
    assert checks["table definitions"]["state"] == "ok"
    assert "audit_logs_0" in log.run("db", "check").stdout


def test_a_missing_guard_is_found_by_trying(log: CommandLine) -> None:
    """Without its triggers the database would let rows be changed: a failure, and the rows are still there."""
    if log.url.startswith("sqlite"):
        execute(log.url, "DROP TRIGGER audit_guard_update_0", "DROP TRIGGER audit_guard_delete_0")
    else:
        execute(
            log.url,
            "DROP TRIGGER audit_guard_update ON audit_logs",
            "DROP TRIGGER audit_guard_delete ON audit_logs",
            "DROP TRIGGER audit_guard_truncate ON audit_logs",
            "DROP TRIGGER audit_guard_truncate ON audit_logs_0",
        )
    before = log.stored()
    result = log.run("doctor", "--json")
    assert result.exit_code == 1
    checks = verdicts(result)
    wanted = ["UPDATE", "DELETE"] + (["TRUNCATE"] if log.url.startswith("postgres") else [])
    for statement in wanted:
        assert checks[f"{statement} is refused"]["state"] == "fail"
        assert "audit_logs" in checks[f"{statement} is refused"]["detail"]
    assert checks["guard definitions"]["state"] == "fail"
    assert log.stored() == before


def test_a_missing_index_is_a_failure_that_names_it(log: CommandLine) -> None:
    """It is what Store.check found."""
    execute(log.url, f"DROP INDEX idx_audit_ip{'_0' if log.url.startswith('sqlite') else ''}")
    result = log.run("doctor", "--json")
    assert result.exit_code == 1
    assert "idx_audit_ip" in verdicts(result)["index definitions"]["detail"]


def test_an_event_from_the_future_is_a_failure(empty_log: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks that disagree spoil every time range that is asked for."""
    empty_log.seed([{"event_type": "login", "action": "login"}])
    behind = empty_log.stored()[0].recorded_at / 1e6 - 3600
    monkeypatch.setattr("indelible.cli.doctor.time.time", lambda: behind)
    result = empty_log.run("doctor", "--json")
    assert result.exit_code == 1
    assert verdicts(result)["clock against the log"]["state"] == "fail"


def test_relative_paths_are_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults are relative: fine to begin with, and said so."""
    monkeypatch.delenv("INDELIBLE_DATA_DIR")
    CliRunner().invoke(app, ["db", "upgrade"])
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    checks = verdicts(result)
    assert checks["path of INDELIBLE_DATA_DIR"]["state"] == "warn"
    assert checks["path of INDELIBLE_DATABASE_URL"]["state"] == "warn"
    assert not Path(".indelible").exists()


def test_a_log_that_is_not_there_is_a_failure_and_none_is_made(missing_log: CommandLine, tmp_path: Path) -> None:
    """The other checks are made all the same."""
    result = missing_log.run("doctor", "--json")
    assert result.exit_code == 1
    checks = verdicts(result)
    assert checks["database"]["state"] == "fail"
    assert checks["data directory"]["state"] == "ok"
    assert not (tmp_path / "missing.db").exists()


def test_a_wrong_setting_ends_the_examination(log: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the setting's name, as a failed check, not as a traceback."""
    monkeypatch.setenv("INDELIBLE_FLUSH_INTERVAL", "-1")
    result = log.run("doctor", "--json")
    assert result.exit_code == 1
    assert "flush_interval" in verdicts(result)["configuration"]["detail"]


def test_a_misspelt_setting_is_warned_about(log: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be ignored without a word; the name that was meant is told, the value is not."""
    monkeypatch.setenv("INDELIBLE_TRUSTED_PROXY", "10.0.0.9")
    monkeypatch.setenv("INDELIBLE_NONSENSE", "")
    monkeypatch.setenv("indelible_flush_interval", "1")
    result = log.run("doctor", "--json")
    assert result.exit_code == 0
    checks = verdicts(result)
    proxy, nonsense = checks["variable INDELIBLE_TRUSTED_PROXY"], checks["variable INDELIBLE_NONSENSE"]
    assert (proxy["state"], proxy["hint"]) == ("warn", "did you mean INDELIBLE_TRUSTED_PROXIES?")
    assert (nonsense["state"], nonsense["hint"]) == ("warn", "docs/reference/settings.md lists them")
    assert not any("flush_interval" in name for name in checks)
    assert "10.0.0.9" not in result.output


def test_a_short_secret_is_warned_about(log: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never printed."""
    monkeypatch.setenv("INDELIBLE_JWT_SECRET", "hunter2")
    result = log.run("doctor", "--json")
    assert verdicts(result)["JWT secret"]["state"] == "warn"
    assert "hunter2" not in result.output


def test_the_owner_of_the_tables_is_warned_about(missing_log: CommandLine, postgres_url: str) -> None:
    """Whoever owns the tables can drop their triggers: the service should use the application's role."""
    line = type(missing_log)(postgres_url, missing_log.data_dir)
    line.make()
    assert verdicts(line.run("doctor", "--json"))["role"]["state"] == "warn"


def test_a_busy_log_is_a_warning_and_keeps_nobody_waiting(missing_log: CommandLine, postgres_url: str) -> None:
    """TRUNCATE needs the strongest lock: while somebody reads, it gives up after half a second."""
    line = type(missing_log)(postgres_url, missing_log.data_dir)
    line.make()
    engine = create_engine(urls.parse(postgres_url), poolclass=NullPool)
    with engine.connect() as reader:
        reader.execute(text("SELECT * FROM audit_logs"))
        check = verdicts(line.run("doctor", "--json"))["TRUNCATE is refused"]
    engine.dispose()
    assert check["state"] == "warn"
    assert "audit_logs:" in check["detail"]
