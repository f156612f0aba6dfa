"""``checkpoint``, ``prove`` and ``prove-consistency``: what a stranger needs to check the log, as files."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import typer

from indelible.cli import options as o
from indelible.cli.exits import FAILED
from indelible.cli.export import destination
from indelible.cli.log import announce, settings_for
from indelible.cli.output import complain, note, put_json
from indelible.cli.reading import reading
from indelible.cli.verify import opened
from indelible.errors import IndelibleError
from indelible.queries import Filter

CHECKPOINT_EPILOG: Final = o.examples("indelible checkpoint", "indelible checkpoint --out /mnt/auditor/checkpoint")
PROVE_EPILOG: Final = o.examples(
    "indelible prove 01890a5d-ac96-774b-bcce-b302099a8057 --out evidence",
    "python3 evidence/verify_bundle.py evidence",
)
CONSISTENCY_EPILOG: Final = o.examples("indelible prove-consistency 65536 70000")


def checkpoint(
    ctx: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", dir_okay=False, help="Write this file.", show_default=False),
    ] = None,
) -> None:
    """Print the newest signed checkpoint: what to keep outside, and to compare with later (verify --checkpoint)."""
    from indelible.trust import newest_of

    settings = settings_for(ctx.obj)
    announce(settings)
    with opened(settings) as store:
        newest = newest_of(store)
    write_whole(out, newest.note)


def prove(
    ctx: typer.Context,
    event_id: Annotated[UUID, typer.Argument(metavar="ID", help="The event's id.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", file_okay=False, help="Where to write; made if it is not there.")
    ],
) -> None:
    """Write the proof that one event is in the log, for somebody who trusts neither this host nor this program.

    DIR gets ID.tlog-proof, ID.entry (the leaf bytes), ID.disclosures (what opens the personal data and details in it),
    policy (the keys to believe), VERIFY.txt (how to check it with other tools) and verify_bundle.py, which needs only
    Python and its package cryptography. Leave the disclosures out to prove the event without showing them.
    """
    from indelible.bundles import bundle
    from indelible.proving import prove as evidence_of
    from indelible.trust import newest_of, policy_for

    settings = settings_for(ctx.obj)
    with reading(ctx.obj, "prove") as log:
        newest = newest_of(log.store)
        event = log.store.get(event_id)
        if event is not None and event.seq >= newest.size:
            raise IndelibleError("no checkpoint covers this event yet", hint="the next one is published within seconds")
        evidence = None if event is None else evidence_of(log.store, event, newest)
        log.record("audit.read", Filter(), 0 if event is None else 1, event_id=str(event_id))
        policy = policy_for(settings, log.store, newest, tell=note)
    if evidence is None:
        complain(f"there is no event {event_id}")
        raise typer.Exit(FAILED)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IndelibleError(f"cannot write {out}: {error.strerror}", hint="choose another --out") from error
    for name, data in bundle(event_id, evidence, policy).items():
        write_whole(out / name, data)
    note(f"the proof of entry {evidence.proof.index:,} is in {out}; see VERIFY.txt there")


def prove_consistency(
    ctx: typer.Context,
    first: Annotated[int, typer.Argument(metavar="FIRST", min=1, help="The smaller size.", show_default=False)],
    second: Annotated[int, typer.Argument(metavar="SECOND", min=1, help="The larger size.", show_default=False)],
) -> None:
    """Print the proof that the log only grew between two sizes (RFC 9162, 2.1.4): JSON, its hashes in base64.

    With the two checkpoints, any RFC 6962 or RFC 9162 library can check it.
    """
    from indelible.proving import prove_consistency as hashes_of

    settings = settings_for(ctx.obj)
    announce(settings)
    with opened(settings) as store:
        hashes = hashes_of(store, first, second)
    put_json({"proof": [b64encode(value).decode() for value in hashes]})


def write_whole(out: Path | None, data: bytes) -> None:
    """Write a file whole or not at all; None is standard output."""
    with destination(out) as (write, _):
        write(data)
