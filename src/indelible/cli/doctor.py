"""``doctor``: examine an installation without changing anything."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Final

import typer

from indelible.cli import environment as env
from indelible.cli import options as o
from indelible.cli.environment import Check
from indelible.cli.exits import FAILED
from indelible.cli.log import announce, engine_of, settings_for, sqlite_file
from indelible.cli.output import STYLES, cell, note, print_table, put_json
from indelible.errors import IndelibleError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from indelible.settings import Settings

EPILOG: Final = o.examples("indelible doctor", "indelible doctor --json | jq 'select(.state != \"ok\")'")
#: Seconds by which clocks may differ, and by which a wrong one spoils every time range asked for.
CLOCK_WARN: Final = 2
CLOCK_FAIL: Final = 60
#: What Store.check looks at; each gets a line even when nothing is wrong.
_KINDS: Final = ("table", "index", "guard", "segment", "grant", "version")
#: Named findings per line; ``db check`` lists all of them.
_NAMED: Final = 3


def doctor(ctx: typer.Context, as_json: o.AsJson = False) -> None:
    """Examine configuration, schema, guards, clock, disk and permissions.

    Tries UPDATE, DELETE and TRUNCATE (on SQLite REPLACE) on the log, in a transaction that is rolled back: the database
    must refuse them. Exits with 0 when nothing fails; warnings do not count as failures.
    """
    checks = list(examine(ctx.obj))
    if as_json:
        for check in checks:
            put_json({"name": check.name, "state": check.state, "detail": check.detail, "hint": check.hint})
    else:
        print_table(
            ("CHECK", "STATE", "DETAIL"),
            ((check.name, cell(check.state, STYLES[check.state]), _told(check)) for check in checks),
        )
    sys.stdout.flush()
    states = Counter(check.state for check in checks)
    note(f"{states['ok']} ok, {states['warn']} to look at, {states['fail']} failed")
    if states["fail"]:
        raise typer.Exit(FAILED)


def examine(database_url: str | None) -> Iterator[Check]:
    """Every check in turn. One that cannot be made is a failed check, never an exception of Indelible's."""
    try:
        settings = settings_for(database_url)
        announce(settings)
    except IndelibleError as error:
        yield _failed("configuration", error)
        return
    yield from _configuration(settings)
    yield from _places(settings)
    try:
        with engine_of(settings) as engine:
            yield from _database(engine, settings)
    except IndelibleError as error:
        yield _failed("database", error)


def _told(check: Check) -> str:
    return f"{check.detail} ({check.hint})" if check.hint else check.detail


def _failed(name: str, error: IndelibleError) -> Check:
    return Check(name, "fail", error.message, error.hint)


def _configuration(settings: Settings) -> Iterator[Check]:
    from indelible.settings import unknown_variables

    yield Check("configuration", "ok", "every setting can work")
    for name, meant in unknown_variables().items():
        hint = f"did you mean {meant}?" if meant else "docs/reference/settings.md lists them"
        yield Check(f"variable {name}", "warn", "it is no setting and changes nothing", hint)
    secret = settings.jwt_secret
    if secret is not None and len(secret.get_secret_value().encode()) < 32:
        # RFC 7518 §3.2: an HS256 key has at least as many bits as the hash.
        yield Check("JWT secret", "warn", "it is shorter than 32 bytes and can be guessed", "use a longer random one")
    elif secret is None and settings.jwt_public_key is None:
        yield Check("JWT key", "ok", "none: no token is believed, actors come from the host alone")
    else:
        yield Check("JWT key", "ok", "set")

    yield Check("compiled part", "ok", *_compiled_part())


def _compiled_part() -> tuple[str, str]:
    from indelible.native import native, wanted

    if native is not None:
        return "in use", ""
    if not wanted:
        return "not in use: INDELIBLE_PURE=1", ""
    return (
        "not there: Python does it, some 40 µs of CPU an event slower",
        "to compile it, install again where there is a C compiler, with --no-cache-dir",
    )


def _places(settings: Settings) -> Iterator[Check]:
    yield env.relative_path("INDELIBLE_DATA_DIR", settings.data_dir)
    yield env.data_directory(settings.data_dir)
    yield from env.disk("journal", settings.data_dir)
    file = sqlite_file(settings)
    if file is not None:
        yield env.relative_path("INDELIBLE_DATABASE_URL", env.path_as_written(settings.database_url))
        if file.exists():
            yield env.database_file(file)
        yield from env.disk("database", file)


def _database(engine: Engine, settings: Settings) -> Iterator[Check]:
    from indelible.stores.schema import SCHEMA_VERSION
    from indelible.stores.versions import installed

    with engine.connect() as connection:
        version = installed(connection)
    if version != SCHEMA_VERSION:
        has = "no tables of Indelible" if version is None else f"version {version}"
        yield Check("schema version", "fail", f"{has}, wanted {SCHEMA_VERSION}", "run: indelible db upgrade")
        return
    yield Check("schema version", "ok", version)
    yield from _schema(settings)
    yield from _guarded("forbidden statements", lambda: _forbidden(engine))
    yield from _guarded("clock", lambda: _clock(engine))
    if engine.dialect.name == "postgresql":
        yield from _guarded("role", lambda: _role(engine))


def _guarded(name: str, checks: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    from indelible.stores.faults import translated

    try:
        with translated():
            found = list(checks())
    except IndelibleError as error:
        found = [_failed(name, error)]
    yield from found


def _schema(settings: Settings) -> Iterator[Check]:
    from indelible.runtime import open_store

    store = open_store(settings)
    try:
        store.open()
        findings = sorted(store.check(), key=lambda finding: finding.kind)
        segments = store.segments()
    except IndelibleError as error:
        yield _failed("schema", error)
        return
    finally:
        store.close()
    wrong = {kind: list(found) for kind, found in groupby(findings, key=lambda finding: finding.kind)}
    for kind in (*_KINDS, *sorted(wrong.keys() - set(_KINDS))):
        if found := wrong.get(kind, []):
            named = "; ".join(f"{finding.name} {finding.detail}" for finding in found[:_NAMED])
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            yield Check(f"{kind} definitions", "fail", named + more, "indelible db check lists them")
        elif kind != "version":
            of = f" ({len(segments)})" if kind == "segment" else ""
            yield Check(f"{kind} definitions", "ok", f"as they must be{of}")


def _forbidden(engine: Engine) -> Iterator[Check]:
    from indelible.cli.forbidden import try_forbidden

    return try_forbidden(engine)


def _clock(engine: Engine) -> Iterator[Check]:
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            before = time.time()
            theirs = float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
            # The server read its clock somewhere between our two readings.
            apart = max(before - theirs, theirs - time.time(), 0.0)
            yield _drift("clock", f"{apart:.1f} s from the database server's", apart)
        newest = connection.exec_driver_sql(_NEWEST[engine.dialect.name]).scalar()
    ahead = 0.0 if newest is None else max(0.0, float(newest) - time.time())
    told = (
        "the newest event is not from the future" if ahead <= CLOCK_WARN else f"the newest event is {ahead:.0f} s ahead"
    )
    yield _drift("clock against the log", told, ahead)


#: When the newest row was recorded, by the clock of whoever recorded it (Unix seconds).
_NEWEST: Final = {
    "postgresql": "SELECT extract(epoch FROM recorded_at) FROM audit_logs ORDER BY seq DESC LIMIT 1",
    "sqlite": "SELECT recorded_at / 1000000.0 FROM audit_logs ORDER BY seq DESC LIMIT 1",
}


def _drift(name: str, told: str, seconds: float) -> Check:
    if seconds > CLOCK_FAIL:
        return Check(name, "fail", told, "synchronise the clocks (NTP)")
    return (
        Check(name, "warn", told, "synchronise the clocks (NTP)") if seconds > CLOCK_WARN else Check(name, "ok", told)
    )


def _role(engine: Engine) -> Iterator[Check]:
    with engine.connect() as connection:
        name, is_super, owns = connection.exec_driver_sql(
            "SELECT current_user, rolsuper, pg_has_role(c.relowner, 'MEMBER') FROM pg_roles, pg_class c"
            " WHERE rolname = current_user AND c.oid = 'audit_logs'::regclass"
        ).one()
    if is_super or owns:
        why = "is a superuser" if is_super else "owns the log"
        hint = "let the application use the role that indelible db roles makes"
        yield Check("role", "warn", f"{name} {why} and could take the guards away", hint)
    else:
        yield Check("role", "ok", f"{name} can add and read, nothing else")
