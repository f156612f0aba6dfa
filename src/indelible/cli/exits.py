"""The exit codes, and how every error becomes one line, a hint and one of them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

from indelible.cli.options import flag
from indelible.cli.output import complain
from indelible.errors import IndelibleError, InvalidQuery, NotAccepted

FAILED: Final = 1
USAGE: Final = 2
#: The read could not be recorded, so nothing was shown.
UNRECORDED: Final = 3
INTERRUPTED: Final = 130
#: Whoever read our output went away: what a shell reports for SIGPIPE.
PIPE_CLOSED: Final = 141


class Commands(TyperGroup):
    """The command group that turns what its commands raise into exit codes. Programming errors keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; raise typer.Exit for every error a user can meet."""
        try:
            result = super().invoke(ctx)
            # Here, not at interpreter exit: a reader gone meanwhile must be met inside this block.
            sys.stdout.flush()
        except InvalidQuery as error:
            complain(f"{flag(error.parameter)}: {error.message}", error.hint)
            raise typer.Exit(USAGE) from None
        except NotAccepted as error:
            complain(f"nothing is shown, because this read cannot be recorded: {error.message}", error.hint)
            raise typer.Exit(UNRECORDED) from None
        except IndelibleError as error:
            complain(error.message, error.hint)
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            complain("interrupted")
            _drop_output()
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _drop_output()
            raise typer.Exit(PIPE_CLOSED) from None
        return result


def _drop_output() -> None:
    """Let nobody wait for what is still unwritten: the interpreter flushes standard output on its way out.

    Its reader may be gone, or, after an interruption, may never read again.
    """
    with contextlib.suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
