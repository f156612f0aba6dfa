"""``db``: the tables of the log. Nothing here changes or deletes an event."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from indelible.cli import options as o
from indelible.cli.exits import FAILED, Commands
from indelible.cli.log import announce, engine_of, require_log, settings_for
from indelible.cli.output import note, print_table, progress, put, put_json, visible

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Make, examine and take over the tables of the log.")


def _role(flag: str, text: str) -> Any:
    return typer.Option(flag, metavar="ROLE", help=text)


def upgrade(ctx: typer.Context) -> None:
    """Make the tables, indexes and guards, or bring them to this version. Doing it twice is harmless.

    A table audit_logs of another program stops it: see indelible db adopt.
    """
    from indelible import migrations

    settings = settings_for(ctx.obj)
    announce(settings)
    with engine_of(settings, may_create=True) as engine:
        before = migrations.current(engine)
        migrations.upgrade_engine(engine)
        after = migrations.current(engine)
    put(f"{after}\n")
    note("already up to date" if before == after else f"upgraded from {before or 'nothing'} to {after}")


def current(ctx: typer.Context) -> None:
    """Print the version of the tables; exit with 1 when it is not the one this program works with."""
    from indelible.stores.schema import SCHEMA_VERSION
    from indelible.stores.versions import installed

    settings = settings_for(ctx.obj)
    announce(settings)
    with engine_of(settings) as engine, engine.connect() as connection:
        version = installed(connection)
    put(f"{version or 'none'}\n")
    if version != SCHEMA_VERSION:
        note(f"this program works with version {SCHEMA_VERSION}: run indelible db upgrade")
        raise typer.Exit(FAILED)


def check(ctx: typer.Context, as_json: o.AsJson = False) -> None:
    """Name every table, index, guard, segment and grant that is missing or not as it must be; exit with 1 if any is."""
    from indelible.runtime import open_store

    settings = settings_for(ctx.obj)
    announce(settings)
    with engine_of(settings) as engine:
        require_log(engine)
    store = open_store(settings)
    try:
        store.open()
        findings = store.check()
    finally:
        store.close()
    if as_json:
        for finding in findings:
            put_json({"kind": finding.kind, "name": finding.name, "detail": finding.detail})
    elif findings:
        print_table(("KIND", "NAME", "DETAIL"), ((f.kind, f.name, f.detail) for f in findings))
    note(f"{len(findings)} findings" if findings else "everything is as it must be")
    if findings:
        raise typer.Exit(FAILED)


def adopt(ctx: typer.Context) -> None:
    """Take over a table audit_logs that another program made.

    It is renamed to audit_logs_before and stays as it is; its rows are imported as events with source "import" and their
    own times, oldest first, secrets redacted. A run that was interrupted goes on where it stopped.
    """
    from indelible import migrations
    from indelible.redaction import Redactor

    settings = settings_for(ctx.obj)
    announce(settings)
    with engine_of(settings) as engine, progress("importing", None) as advance:
        before = 0

        def told(done: int, total: int) -> None:
            nonlocal before
            advance(done - before, total)
            before = done

        rows = migrations.adopt(engine, redactor=Redactor(extra_keys=settings.redact_keys), progress=told)
    note(f"the log holds {rows:,} imported events; the old table is audit_logs_before")


def roles(
    ctx: typer.Context,
    owner: Annotated[str, _role("--owner", "Owns the tables; cannot log in.")] = "indelible_owner",
    application: Annotated[str, _role("--app", "Adds and reads events; the service's role.")] = "indelible_app",
    reader: Annotated[str, _role("--reader", "Reads events, nothing else.")] = "indelible_reader",
) -> None:
    """Make the PostgreSQL roles of the log and give each exactly its rights. Doing it twice is harmless.

    The connection needs a superuser, or the tables' owner with the right to create roles. Prints the statements that
    were executed. New roles have no password yet: set one with ALTER ROLE ... PASSWORD.
    """
    from indelible import migrations

    settings = settings_for(ctx.obj)
    announce(settings)
    with engine_of(settings) as engine:
        statements = migrations.roles(engine, owner=owner, app=application, reader=reader)
    for statement in statements:
        put(f"{visible(statement)};\n")
    note(f"let the service connect as {application}; set its password with: ALTER ROLE {application} PASSWORD '...'")


for _function, _epilog in (
    (upgrade, o.examples("indelible db upgrade", "indelible --database-url postgresql://owner@db/prod db upgrade")),
    (current, o.examples("indelible db current")),
    (check, o.examples("indelible db check", "indelible db check --json")),
    (adopt, o.examples("indelible db adopt")),
    (
        roles,
        o.examples(
            "indelible --database-url postgresql://postgres@db/prod db roles",
            "indelible db roles --owner log_owner --app fog --reader auditor",
        ),
    ),
):
    app.command(help=o.prose(_function), epilog=_epilog)(_function)
