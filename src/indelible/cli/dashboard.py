"""``dashboard``: the pages for a log without a host."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from typing import Annotated, Final

import typer

from indelible.cli import options as o
from indelible.cli.output import note, put
from indelible.cli.reading import opened, operator
from indelible.errors import ConfigurationError

EPILOG: Final = o.examples(
    "indelible dashboard",
    "indelible --database-url postgresql://reader@db/prod dashboard --port 8800",
)
#: Seconds that open connections get when it ends: live pages have one each.
_GRACE: Final = 2


def dashboard(
    ctx: typer.Context,
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65_535, help="Where to listen; 0: any free port.")
    ] = 0,
) -> None:
    """Serve the dashboard on this machine, for you alone, until Ctrl-C.

    Prints a link that can be opened once. It listens on 127.0.0.1 only, and whatever is read through it is recorded as
    read by your account on this system.
    """
    try:
        import uvicorn

        from indelible.web.local import Server, local_dashboard
    except ImportError as error:
        raise ConfigurationError(f"{error.name} is not installed", hint="pip install 'indelible[dashboard]'") from None

    with opened(ctx.obj) as service, _listening(port) as listener:
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(32)
        # Cookies do not tell ports apart: two dashboards must not sign each other out.
        app = local_dashboard(service, token=token, reader=operator(), cookie=f"indelible_{port}")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE,
        )
        put(f"http://127.0.0.1:{port}/enter?token={token}\n")
        typer.get_text_stream("stdout").flush()
        note("open this link, once; Ctrl-C ends the dashboard")
        with suppress(KeyboardInterrupt):
            Server(config).run(sockets=[listener])


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on port {port}: {error.strerror}", hint="choose another --port"
        ) from None
