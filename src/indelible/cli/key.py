"""``key``: the signing keys of the log's checkpoints. Private keys are shown only where ``--print`` asks for it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from indelible.cli import options as o
from indelible.cli.exits import Commands
from indelible.cli.log import announce, engine_of, require_log, settings_for
from indelible.cli.output import note, put
from indelible.cli.reading import operator
from indelible.errors import ConfigurationError, KeyUnavailable, NotAccepted

if TYPE_CHECKING:
    from indelible.integrity.checkpoint import Checkpoint
    from indelible.integrity.note import Ed25519Signer, VerifierKey
    from indelible.keys import KeyDirectory, Ring
    from indelible.settings import Settings

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Make, show and replace the key that signs checkpoints.")

Print = Annotated[
    bool,
    typer.Option("--print", metavar="", help="Print the private key for INDELIBLE_SIGNING_KEY, and keep no file."),
]
Origin = Annotated[
    str | None,
    typer.Option("--origin", metavar="NAME", help="The log's name, as audit.example.com/prod.", show_default=False),
]


def new(ctx: typer.Context, origin: Origin = None, secret: Print = False) -> None:
    """Make a signing key for a log that has none, and print its public half (vkey).

    Its name is the log's origin: --origin, else INDELIBLE_ORIGIN, else indelible.local/ and a random id. The embedded
    default, SQLite, makes one at its first start.
    """
    from indelible import keys

    settings = settings_for(ctx.obj)
    signer = keys.generate(_checked(origin, settings) or settings.origin or keys.default_origin())
    if not secret:
        _directory(settings).create(signer)
    _show(signer, settings, secret=secret)


def show(ctx: typer.Context) -> None:
    """Print the public key (vkey) of this host's log: what verifiers and witnesses need. The one that signs comes first."""
    settings = settings_for(ctx.obj)
    if settings.signing_key is not None:
        from indelible.keys import parse_keys

        for signer in parse_keys(settings.signing_key.get_secret_value()):
            put(f"{signer.key}\n")
        note("from INDELIBLE_SIGNING_KEY")
        return
    ring = _ring(settings)
    put(f"{ring.signing.key}\n")
    for old in ring.retiring:
        put(f"{old.signer.key}\n")
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(old.until))
        note(f"{old.signer.key.key_id.hex()} signs along until {until}")


def rotate(
    ctx: typer.Context,
    overlap: Annotated[
        float, typer.Option("--overlap-days", metavar="DAYS", min=0, help="How long the old key signs along.")
    ] = 7.0,
    secret: Print = False,
) -> None:
    """Replace the signing key. The log records it under the old key; then both sign, until the overlap is over.

    The service need not be restarted. With --print put the new key before the old one into INDELIBLE_SIGNING_KEY,
    separated by a space, and take the old one out when the overlap is over.
    """
    from indelible import keys

    settings = settings_for(ctx.obj)
    announce(settings)
    _needs_print(settings, secret)
    if settings.signing_key is not None:
        old = keys.parse_keys(settings.signing_key.get_secret_value())[0]
    else:
        old = _ring(settings).signing
    signer = keys.generate(old.key.name)
    _record(settings, "rotate", signer.key, {"replaces": str(old.key)})
    if not secret:
        _directory(settings).rotate(signer, until=int(time.time() + overlap * 86_400))
    _show(signer, settings, secret=secret)


def new_epoch(
    ctx: typer.Context,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stands in the log for ever.")],
    origin: Origin = None,
    secret: Print = False,
) -> None:
    """Begin anew under another name: after a backup was put back on purpose, or the signing key was lost.

    Whoever holds checkpoints of the old name sees that it ends, and that the log is not what they were shown. The name
    is --origin, else the old one with /epoch-2, /epoch-3, ... behind it. Verifiers and witnesses need the new vkey.
    """
    from indelible import keys

    settings = settings_for(ctx.obj)
    announce(settings)
    _needs_print(settings, secret)
    if not reason.strip():
        raise ConfigurationError("a new epoch needs a reason")
    directory = _directory(settings)
    last, published = directory.last_signed(), _published(settings)
    ring = None if settings.signing_key is not None else directory.load()
    before = next((c.origin for c in (last, published) if c is not None), settings.origin)
    if ring is not None:
        before = ring.signing.key.name
    signer = keys.generate(_checked(origin, settings) or keys.next_origin(before or keys.default_origin()))
    if published is not None and signer.key.name == published.origin:
        raise ConfigurationError(f"{signer.key.name} is the name of the epoch that ends", hint="choose another")
    told = {"reason": reason, "last_signed": _told(last), "last_published": _told(published)}
    _record(settings, "new-epoch", signer.key, told)
    if not secret:
        directory.begin_epoch(signer)
    _show(signer, settings, secret=secret)


def _show(signer: Ed25519Signer, settings: Settings, *, secret: bool) -> None:
    if secret:
        put(f"{signer.encode()}\n")
        note(f"public key: {signer.key}")
        note("put the private key where the service finds it as INDELIBLE_SIGNING_KEY, and nowhere else")
    else:
        put(f"{signer.key}\n")
        note(f"kept in {_directory(settings).path}; keep a copy in a safe place")


def _directory(settings: Settings) -> KeyDirectory:
    from indelible.keys import KeyDirectory

    return KeyDirectory(settings.data_dir / "keys")


def _ring(settings: Settings) -> Ring:
    directory = _directory(settings)
    ring = directory.load()
    if ring is None:
        raise KeyUnavailable(f"there is no signing key in {directory.path}", hint="make one: indelible key new")
    return ring


def _needs_print(settings: Settings, secret: bool) -> None:
    if settings.signing_key is not None and not secret:
        raise ConfigurationError(
            "the signing key comes from INDELIBLE_SIGNING_KEY", hint="use --print, and put it there"
        )


def _checked(origin: str | None, settings: Settings) -> str | None:
    from indelible.keys import belongs_to

    if origin is not None and settings.origin is not None and not belongs_to(origin, settings.origin):
        raise ConfigurationError(f"INDELIBLE_ORIGIN is {settings.origin}, not {origin}", hint="set it to the new name")
    return origin


def _published(settings: Settings) -> Checkpoint | None:
    """The newest checkpoint in the database. Raises StoreError when there is no log."""
    from indelible.integrity.checkpoint import Checkpoint
    from indelible.integrity.note import Note
    from indelible.stores.publishing import newest

    with engine_of(settings) as engine:
        require_log(engine)
        with engine.connect() as connection:
            found = newest(connection)
    return None if found is None else Checkpoint.parse(Note.parse(found.note).text)


def _told(checkpoint: Checkpoint | None) -> dict[str, object] | None:
    if checkpoint is None:
        return None
    return {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()}


def _record(settings: Settings, action: str, key: VerifierKey, told: Mapping[str, object]) -> None:
    """Record the ``audit.key`` event that lets the publisher use the key. It waits in the journal if need be."""
    from indelible.followers.publisher import KEY_EVENT, KEY_RESOURCE
    from indelible.runtime import open_store
    from indelible.service import AuditService

    with engine_of(settings) as engine:
        require_log(engine)
    service = AuditService(open_store(settings), settings, announce=False)
    behind = {"sudo_user": os.environ["SUDO_USER"]} if "SUDO_USER" in os.environ else {}
    try:
        service.open()
        service.record(
            must=True,
            event_type=KEY_EVENT,
            action=action,
            user_id=operator(),
            resource_type=KEY_RESOURCE,
            resource_id=str(key),
            metadata={"origin": key.name, "key_id": key.key_id.hex(), **told, "host": socket.gethostname(), **behind},
            source="cli",
        )
    except NotAccepted as error:
        raise KeyUnavailable(f"the key is not changed, because it cannot be recorded: {error.message}") from error
    finally:
        service.close()


for _name, _function, _epilog in (
    ("new", new, o.examples("indelible key new --origin audit.example.com/prod", "indelible key new --print")),
    ("show", show, o.examples("indelible key show")),
    ("rotate", rotate, o.examples("indelible key rotate", "indelible key rotate --overlap-days 30")),
    (
        "new-epoch",
        new_epoch,
        o.examples("indelible key new-epoch --reason 'restored the backup of 3 May after a disk failure'"),
    ),
):
    app.command(_name, help=o.prose(_function), epilog=_epilog)(_function)
