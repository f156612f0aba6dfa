"""Writes ``docs/reference/cli.md`` from the command line itself: ``python -m scripts.cli_reference``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from indelible.cli.app import app

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"

_INTRODUCTION: Final = """\
<!-- Made from the code by `make docs`. -->

# The command line

```
indelible [--database-url URL] COMMAND [OPTIONS]
```

`--database-url` says which log is meant; without it `INDELIBLE_DATABASE_URL` does, else it is `sqlite:///indelible.db`
in the current directory. The [settings](settings.md) come from the environment as they do for the service.

- **Results go to standard output**, everything else to standard error: which log is read (its address without the
  password), how many events there are, the cursor of the next page, progress, errors with a hint. So
  `indelible query --json | jq ...` gets events and nothing else.
- **Reading is recorded.** `query`, `show`, `stats`, `export`, `prove` and `export-tiles` each add one event
  (`audit.read`, `audit.exported`) with the operating system's user, the filters and the number of rows; `tail -f` adds one
  when it begins, one for every further minute in which it shows something and one at its end, and `dashboard` one for each
  page. Nothing switches that off: when the journal does not take the event, nothing is shown and the exit code is 3.
- **No command changes or deletes an event.** `doctor` tries to, in a transaction that is rolled back: the database must
  refuse.
- **Values are shown safely.** Control characters, terminal escape sequences and bidirectional overrides appear as
  escapes such as `\\x1b`. `--json` holds the same values with such characters as JSON's own `\\u` escapes. CSV cells that
  a spreadsheet would run as a formula have an apostrophe before them; taking one leading apostrophe away gives the
  stored text back. On a terminal CSV is made visible like a table; in a file or pipe it is exact.
- `NO_COLOR` switches colours off. In a pipe, tables have no colours and lines are never cut.

| Exit code | Meaning |
|---|---|
| 0 | done (`tail -f`, `dashboard`: by Ctrl-C); for `doctor` and `db check`: nothing failed; for `verify`: verified |
| 1 | it could not be done, or there are findings, or there is no such event; for `verify`: tampered |
| 2 | the command line is wrong: an unknown option, a filter that means nothing; for `verify`: incomplete |
| 3 | the read could not be recorded, so nothing was shown |
| 130 | interrupted (Ctrl-C) |
| 141 | whoever read the output went away |
"""


def cli_page() -> str:
    """The introduction, then every command with its help, arguments, options and examples."""
    return "\n".join((_INTRODUCTION, *_lines("indelible", typer.main.get_command(app)))).rstrip() + "\n"


def _lines(path: str, command: Any) -> Iterator[str]:
    children = getattr(command, "commands", None)
    yield f"## `{path}`"
    yield ""
    yield from _paragraphs(command.help or "")
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    if arguments or children is None:
        yield f"```\n{' '.join((path, *(p.metavar for p in arguments), '[OPTIONS]'))}\n```"
        yield ""
    rows = [(f"`{p.metavar}`", p.help) for p in arguments]
    rows += [(_option(p), p.help) for p in command.params if p.param_type_name == "option"]
    if rows:
        yield "| Argument or option | Meaning |\n|---|---|"
        yield from (f"| {name} | {(meaning or '').replace('|', chr(92) + '|')} |" for name, meaning in rows)
        yield ""
    yield from _examples(command.epilog or "")
    for name, child in (children or {}).items():
        yield from _lines(f"{path} {name}", child)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        yield " ".join(paragraph.split())
        yield ""


def _option(option: Any) -> str:
    value = f" {option.metavar}" if option.metavar else ""
    return ", ".join(f"`{name}{value}`" for name in option.opts).replace("|", "\\|")


def _examples(epilog: str) -> Iterator[str]:
    _, *lines = epilog.replace("\\[", "[").split("\n\n")
    if lines:
        yield "```bash"
        yield from lines
        yield "```"
        yield ""


if __name__ == "__main__":
    PAGE.write_text(cli_page(), encoding="utf-8")
