"""The command line: ``indelible [--database-url URL] COMMAND``. See docs/reference/cli.md."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave the process with its exit code (documented in docs/reference/cli.md)."""
    from indelible.cli.app import app

    app(prog_name="indelible")
