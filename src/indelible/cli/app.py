"""The tree of commands. What a command needs beyond Typer is imported when it runs: ``--help`` stays quick."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from indelible import __version__
from indelible.cli import (
    bench,
    dashboard,
    db,
    doctor,
    export,
    journal,
    key,
    proofs,
    query,
    tail,
    tiles,
    verify,
    witness,
)
from indelible.cli.exits import Commands
from indelible.cli.options import examples, prose

app = typer.Typer(
    name="indelible",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"indelible {__version__}")
        raise typer.Exit


def root(
    ctx: typer.Context,
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database-url",
            metavar="URL",
            help="Which log. Default: INDELIBLE_DATABASE_URL, else sqlite:///indelible.db.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", help="Print the version and exit.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Read, export and examine an append-only audit log.

    No command changes or deletes an event. Reading the log is itself recorded in it. Results go to standard output,
    the log's address and all else to standard error.
    """
    if not sys.stdout.isatty() and hasattr(sys.stdout, "reconfigure"):
        # JSON and CSV are UTF-8 whatever the locale says; a terminal gets what it can show.
        sys.stdout.reconfigure(encoding="utf-8")
    ctx.obj = database_url


app.callback(
    help=prose(root),
    epilog=examples(
        "indelible query --event-type login_failed --page-size 20",
        "indelible --database-url postgresql://app@db/prod stats",
        "indelible doctor --json",
    ),
)(root)
for _function, _epilog in (
    (query.query, query.QUERY_EPILOG),
    (query.show, query.SHOW_EPILOG),
    (query.stats, query.STATS_EPILOG),
    (tail.tail, tail.EPILOG),
    (export.export, export.EPILOG),
    (dashboard.dashboard, dashboard.EPILOG),
    (verify.verify, verify.EPILOG),
    (proofs.checkpoint, proofs.CHECKPOINT_EPILOG),
    (proofs.prove, proofs.PROVE_EPILOG),
    (proofs.prove_consistency, proofs.CONSISTENCY_EPILOG),
    (tiles.export_tiles, tiles.EPILOG),
    (doctor.doctor, doctor.EPILOG),
    (journal.writer, journal.WRITER_EPILOG),
):
    app.command(help=prose(_function), epilog=_epilog)(_function)
app.add_typer(db.app, name="db")
app.add_typer(key.app, name="key")
app.add_typer(witness.app, name="witness")
app.add_typer(journal.app, name="journal")
app.add_typer(bench.app, name="bench")
