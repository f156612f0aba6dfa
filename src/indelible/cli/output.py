"""What reaches the terminal: results on standard output, everything else on standard error.

Values of the log were chosen by strangers. ``visible`` and ``plain_json`` keep control characters, escape sequences
and bidirectional overrides from ever acting on the reader's terminal.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from indelible import rendering

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from indelible.events import StoredEvent

#: Colours of statuses and of the verdicts of ``doctor``.
STYLES: Final = {
    "success": "green",
    "failure": "red",
    "denied": "yellow",
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
}
_SHORT_ESCAPE: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
#: Everything a JSON text may hold unescaped that a terminal might act upon: DEL, C1 and all of general category
#: "other" or "separator" beyond ASCII.
_NON_ASCII: Final = re.compile(r"[^\x00-\x7e]")
_BLOCKS: Final = " ▏▎▍▌▋▊▉"


def visible(text: str) -> str:
    """``text`` with every character that is not printed as itself (C0, C1, format, bidi, surrogate) as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def plain_json(text: str) -> str:
    """A JSON text of the same value in which such characters are ``\\u`` escapes."""
    return _NON_ASCII.sub(lambda m: m[0] if m[0].isprintable() else _json_escape(m[0]), text)


def _escape(c: str) -> str:
    code = ord(c)
    if c in _SHORT_ESCAPE:
        return _SHORT_ESCAPE[c]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(c: str) -> str:
    units = c.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def note(text: str) -> None:
    """One line for the person, on standard error."""
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()


def complain(message: str, hint: str = "") -> None:
    """An error as one line and, if there is one, its hint as another."""
    note(f"error: {message}")
    if hint:
        note(f"hint: {hint}")


def put(text: str) -> None:
    """Text that is ready for standard output."""
    sys.stdout.write(text)


def put_json(value: object) -> None:
    """One JSON value on one line."""
    put(plain_json(msgspec.json.encode(value).decode()) + "\n")


def put_csv(cells: Iterable[str]) -> None:
    """One CSV record; exact in a file or pipe, with its hostile characters visible on a terminal."""
    put(rendering.csv_line(map(visible, cells) if sys.stdout.isatty() else cells))


def console() -> Console:
    """Standard output for tables. Away from a terminal lines are as long as they need to be, nothing is cut."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100_000
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=wide)


def cell(value: object, style: str = "") -> Text:
    """A value as it may stand in a table: never markup, never control characters; None is empty."""
    from rich.text import Text

    return Text("" if value is None else visible(str(value)), style=style)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> None:
    """A table of values (or ready ``Text``). Columns named in ``right`` hold numbers."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    numbers = frozenset(right)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    console().print(table)


def clock(us: int) -> str:
    """A time of the log (Unix µs) in UTC, as a person reads it."""
    return rendering.time_text(us).replace("T", " ")


def resource(event: StoredEvent) -> str:
    """What was acted upon, as ``node/42``."""
    return "/".join(part for part in (event.resource_type, event.resource_id) if part)


def bar(value: int, most: int, width: int = 24) -> str:
    """``value`` as a bar of at most ``width`` characters, an eighth of a character fine; any but 0 shows."""
    if value <= 0 or most <= 0:
        return ""
    eighths = max(1, round(8 * width * value / most))
    return "█" * (eighths // 8) + (_BLOCKS[eighths % 8] if eighths % 8 else "")


class Advance(Protocol):
    """What moves a progress bar."""

    def __call__(self, more: int, total: int | None = None, /) -> object:
        """So many more are done; ``total`` once it is known, if it was not."""
        ...


@contextmanager
def progress(doing: str, total: int | None) -> Iterator[Advance]:
    """A bar on standard error if that is a terminal; gives what advances it."""
    if not sys.stderr.isatty():
        yield lambda more, total=None, /: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:,.0f}/s", style="progress.data.speed")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(""), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(doing, total=total)
        yield lambda more, total=None, /: shown.update(task, advance=more, total=total)
