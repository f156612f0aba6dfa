"""What reaches a terminal is never what a stranger put into the log to act on it."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.cli import output

ANY_TEXT = st.text(alphabet=st.characters())
ENCODABLE = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@given(ANY_TEXT)
def test_visible_text_is_printable(text: str) -> None:
    """Whatever the text, what is shown holds printable characters only."""
    assert output.visible(text).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("alice", "alice"),
        ("Zoë 漢字", "Zoë 漢字"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b31m", r"\x9b31m"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud800", r"\ud800"),
    ],
)
def test_hostile_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    """Escape sequences, C1 controls, line breaks, bidi overrides, tags and surrogates appear as their escapes."""
    assert output.visible(text) == shown


@given(ENCODABLE)
def test_plain_json_is_printable_and_means_the_same(text: str) -> None:
    """JSON on standard output keeps its value, but no character of it can act on a terminal."""
    plain = output.plain_json(json.dumps(text, ensure_ascii=False))
    assert plain.isprintable()
    assert json.loads(plain) == text


def test_cells_are_never_markup() -> None:
    """Rich's own markup in a value is shown, not obeyed."""
    assert output.cell("[red]x[/red]").plain == "[red]x[/red]"
    assert output.cell("[link=http://evil]x").spans == []


def test_tables_away_from_a_terminal_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe each row is one line, however long."""
    monkeypatch.delenv("COLUMNS", raising=False)
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    output.print_table(("A", "B"), [("x" * 500, "\x1b[31mred")])
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert "x" * 500 in lines[1]
    assert r"\x1b[31mred" in lines[1]


@pytest.mark.parametrize(
    ("value", "most", "length"), [(0, 10, 0), (1, 10_000, 1), (10, 10, 24), (5, 10, 12), (0, 0, 0)]
)
def test_bars_are_in_proportion_and_small_ones_still_show(value: int, most: int, length: int) -> None:
    """The greatest fills the width; anything but nothing is visible."""
    assert len(output.bar(value, most)) == length


def test_an_error_is_one_line_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """Line breaks in a message cannot fake further lines."""
    output.complain("no\nroot access granted", "look")
    assert capsys.readouterr().err == "error: no\\nroot access granted\nhint: look\n"
