"""``witness``: cosign the checkpoints of somebody else's log."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from indelible.cli import options as o
from indelible.cli.exits import Commands
from indelible.cli.output import note, put
from indelible.errors import ConfigurationError, IntegrityError

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Cosign the checkpoints of other hosts' logs.")


@app.callback()
def _group() -> None:
    """Keep ``serve`` a command of its own: a Typer with one command would take its place."""


def serve(
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The witness's name, as witness.example.com.")],
    logs: Annotated[
        list[str],
        typer.Option("--log", metavar="VKEY", help="A log's vkey, as indelible key show prints it. Repeatable."),
    ],
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen; port 0: any free one.")
    ] = "127.0.0.1:8081",
    db: Annotated[Path, typer.Option("--db", metavar="FILE", help="What was seen: one SQLite file.")] = Path(
        "witness.db"
    ),
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="The private key. Default: beside --db.", show_default=False),
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", metavar="PATH", help="What stands before /add-checkpoint.")] = "",
) -> None:
    """Serve a C2SP witness until SIGTERM or Ctrl-C, on another host than the log's, under another administrator.

    Prints the witness's vkey; its private key is made at the first start. Speaks plain HTTP: put a proxy with TLS
    before it.
    """
    from indelible.integrity.note import VerifierKey
    from indelible.keys import witness_key
    from indelible.witness import Witness, WitnessServer

    try:
        keys = [VerifierKey.parse(text) for text in logs]
        signer = witness_key(key or db.with_suffix(".skey"), name)
    except IntegrityError as error:
        raise ConfigurationError(f"a name or a key cannot be used: {error.message}", hint=error.hint) from None
    try:
        server = WitnessServer(_address(listen), Witness(db, signer, keys), prefix=prefix)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {listen}: {error.strerror}") from None
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with server:
        serving = threading.Thread(target=server.serve_forever, name="indelible-witness", daemon=True)
        serving.start()
        host, port = server.server_address[:2]
        put(f"{signer.key}\n")
        note(f"witnessing {', '.join(sorted({k.name for k in keys}))} at http://{host!s}:{port}{server.prefix}")
        stopping.wait()
        note("stopping")
        server.shutdown()


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigurationError(f"{listen!r} is not an address", hint="as in: --listen 127.0.0.1:8081")
    return host.strip("[]"), int(port)


app.command(
    "serve",
    help=o.prose(serve),
    epilog=o.examples(
        "indelible witness serve --name witness.example.com --log audit.example.com/prod+1234abcd+BASE64",
    ),
)(serve)
