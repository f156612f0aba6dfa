"""``verify``: whether the log is what it was, by recomputing all of it."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from indelible.cli import options as o
from indelible.cli.log import announce, engine_of, require_log, settings_for
from indelible.cli.output import cell, complain, note, print_table, progress, put, put_json
from indelible.errors import IndelibleError

if TYPE_CHECKING:
    from indelible.integrity.verify import Report
    from indelible.ports import Store
    from indelible.settings import Settings

EPILOG: Final = o.examples(
    "indelible verify --checkpoint /mnt/auditor/checkpoint",
    "indelible verify --witness https://witness.example.com --max-age 3600",
    "indelible verify --since-last --json",
)
#: Exit codes by verdict.
EXITS: Final = {"verified": 0, "tampered": 1, "incomplete": 2}
_STYLES: Final = {"verified": "green", "tampered": "bold red", "incomplete": "yellow"}


def verify(
    ctx: typer.Context,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="A checkpoint kept outside the database, or a directory of them. Repeatable.",
            show_default=False,
        ),
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(
            "--witness", metavar="URL", help="Ask this witness what it has seen. Repeatable.", show_default=False
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="VKEY",
            help="Believe outside checkpoints signed by this key of the log or of a witness, and no other. Repeatable."
            " Default: this host's keys, the settings' witnesses, and what the log itself registers.",
            show_default=False,
        ),
    ] = None,
    max_age: Annotated[
        float | None,
        typer.Option(
            "--max-age",
            metavar="SECONDS",
            min=0,
            help="How old the newest checkpoint from outside may be.",
            show_default=False,
        ),
    ] = None,
    since_last: Annotated[
        bool,
        typer.Option(
            "--since-last",
            metavar="",
            help="Read what is new since the last run, and in turn a 24th of what is old. Default: everything.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Processes. Default: one a CPU.", show_default=False),
    ] = None,
    as_json: o.AsJson = False,
) -> None:
    """Recompute every row, tile and root of the log, and compare it with checkpoints from outside the database.

    Names the first bad row and what is wrong with it. Without --checkpoint and --witness it compares with the directory,
    the bucket and the witnesses of the settings. Exits with 0 when the log is verified, with 1 when it was tampered with,
    and with 2 when nothing is wrong but nothing from outside says so, a place outside does not answer, or the log could
    not be verified at all.
    """
    from indelible import trust
    from indelible.verification import Request, state
    from indelible.verification import verify as run

    settings = settings_for(ctx.obj)
    announce(settings)
    try:
        with opened(settings) as store:
            registered = trust.registered_keys(store)
            own = trust.own_keys(settings, tell=note)
            believed = trust.parse_vkeys(key) if key else [*own, *registered, *trust.witness_keys(settings)]
            logs, witnesses = trust.by_kind(believed)
            file = state.state_file(settings.data_dir, store.url)
            outside, unreachable = trust.outside(settings, logs, files=checkpoint or (), urls=witness or ())
            request = Request(
                url=settings.database_url,
                now=time.time(),
                logs=logs,
                witnesses=witnesses,
                registered=tuple({*logs, *registered, *own}),
                outside=outside,
                unreachable=unreachable,
                schema=store.check(),
                max_age=max_age,
                workers=workers,
                since=state.load(file) if since_last else None,
            )
            with progress("verifying", None) as advance:
                report, left = run(request, progress=advance)
            if report.verdict != "tampered":
                state.save(file, left)
    except IndelibleError as error:
        # Exit code 1 is for what was found in the log, and nothing else.
        complain(f"the log was not verified: {error.message}", error.hint)
        raise typer.Exit(EXITS["incomplete"]) from None
    _show(report, as_json)
    raise typer.Exit(EXITS[report.verdict])


@contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    """The log's store; it is not made if it is not there."""
    from indelible.runtime import open_store

    with engine_of(settings) as engine:
        require_log(engine)
    store = open_store(settings)
    store.open()
    try:
        yield store
    finally:
        store.close()


def _show(report: Report, as_json: bool) -> None:
    root = b64encode(report.root).decode()
    findings = [{"kind": f.kind, "seq": f.seq, "detail": f.detail} for f in report.findings]
    if as_json:
        told: dict[str, Any] = {
            "verdict": report.verdict,
            "size": report.size,
            "root": root,
            "findings": findings,
            "counts": dict(report.counts),
            "rows": report.rows,
            "witnessed": report.witnessed,
        }
        put_json(told)
        return
    if report.findings:
        print_table(("KIND", "ROW", "WHAT"), ((f.kind, f.seq, f.detail) for f in report.findings), right=("ROW",))
    hidden = sum(report.counts.values()) - len(report.findings)
    if hidden > 0:
        put(f"and {hidden:,} more of these kinds\n")
    print_table(
        ("VERDICT", "ROWS", "ROOT"),
        [(cell(report.verdict, _STYLES[report.verdict]), f"{report.size:,}", root)],
        right=("ROWS",),
    )
    if report.witnessed is not None:
        note(f"a checkpoint from outside confirms the first {report.witnessed:,} rows")
    elif report.verdict == "incomplete":
        note("the log agrees with itself; a checkpoint from outside would tell whether it is the same as it was")
