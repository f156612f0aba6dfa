"""How values are written for people, and how changes are told: pure functions."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from indelible.web.dashboard import words
from indelible.web.dashboard.differences import MAX_LINES, differences, pretty

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "just now"),
        (42, "42 s ago"),
        (300, "5 min ago"),
        (7_300, "2 h ago"),
        (90_000, "25 h ago"),
        (864_000, "10 days ago"),
    ],
)
def test_how_long_ago(seconds: float, said: str) -> None:
    """The largest unit that says something."""
    assert words.since(seconds) == said


@pytest.mark.parametrize(
    ("us", "said"), [(850, "850 µs"), (12_400, "12.4 ms"), (999_999, "1000.0 ms"), (3_020_000, "3.02 s")]
)
def test_how_long_it_took(us: int, said: str) -> None:
    """Three digits, more or less, in the unit that fits."""
    assert words.duration(us) == said


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_time_can_be_shown(us: int) -> None:
    """A time that a forged row has, outside the years that can be written, is shown as a number."""
    assert words.clock(us)
    assert words.exact(us)
    assert words.machine(us) == "" or words.machine(us).endswith("Z")


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_shares_are_bounded(part: int, whole: int) -> None:
    """A share lies between 0 and 100, and what is there at all can be seen."""
    part = min(part, whole)
    share = words.share(part, whole)
    assert 0 <= share <= 100
    assert (share > 0) == (part > 0)
    assert (words.percent(part, whole) == "0 %") == (part == 0)


@given(st.text())
def test_nothing_hides_in_a_text(text: str) -> None:
    """What is shown has no control character but line breaks and tabs, and nothing that turns its direction."""
    shown = words.visible(text)
    assert isinstance(shown, str)
    for character in shown:
        assert character in "\t\n" or unicodedata.category(character) != "Cc"
        assert unicodedata.bidirectional(character) not in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        )


def test_ordinary_text_is_shown_as_it_is() -> None:
    """Letters of any script, the joiners they need, emoji, line breaks; and what is not text."""
    for text in ("Zoë", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "👩\u200d🔧", "a\n\tb"):
        assert words.visible(text) == text
    assert words.visible("a\u202egnp.exe\x07") == "a‹U+202E›gnp.exe‹U+0007›"
    assert words.visible(7) == 7
    assert words.visible(Markup("<b>\u202e</b>")) == Markup("<b>\u202e</b>")


@given(JSON)
def test_equal_values_have_no_difference(value: Any) -> None:
    """The same value twice is told as the same throughout."""
    text = json.dumps(value)
    lines, whole = differences(text, text)
    assert all(line.kind == "same" for line in lines)
    assert whole


@given(JSON, JSON)
def test_different_values_differ_somewhere(old: Any, new: Any) -> None:
    """Two values that are not the same have at least one line that says so, and changes come first."""
    before, after = json.dumps(old), json.dumps(new)
    lines, _ = differences(before, after)
    kinds = [line.kind == "same" for line in lines]
    assert kinds == sorted(kinds)
    if json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
        assert not all(kinds)


def test_every_kind_of_line() -> None:
    """Changed, added, removed and the same, each with its path; a new value alone is all added."""
    lines, _ = differences('{"a": {"b": 1, "gone": [true]}, "c": "x"}', '{"a": {"b": 2, "more": null}, "c": "x"}')
    assert [(line.kind, line.path, line.old, line.new) for line in lines] == [
        ("changed", "a.b", "1", "2"),
        ("removed", "a.gone[0]", "true", None),
        ("added", "a.more", None, "null"),
        ("same", "c", "x", "x"),
    ]
    assert [line.kind for line in differences(None, '{"a": 1, "b": []}')[0]] == ["added", "added"]
    assert differences(None, None) == ([], True)


def test_numbers_that_only_look_the_same_differ() -> None:
    """True is not 1, and a number is not its text."""
    assert differences("true", "1")[0][0].kind == "changed"
    assert differences("1", '"1"')[0][0].kind == "changed"


def test_what_is_not_json_is_one_text() -> None:
    """Text that a forger left, or that nests too deep, is compared as it stands."""
    assert differences("not json", "[1")[0][0].kind == "changed"
    deep = "[" * 5_000 + "]" * 5_000
    assert differences(deep, deep)[0][0].kind == "same"
    assert pretty(deep) == deep or pretty(deep)
    assert pretty("not json") == "not json"


def test_a_huge_difference_is_cut() -> None:
    """A page holds only so many lines and so much of each; that there are more is said."""
    lines, whole = differences(json.dumps({str(n): n for n in range(9_999)}), "{}")
    assert len(lines) == MAX_LINES
    assert not whole
    assert len(differences(None, json.dumps("x" * 99_999))[0][0].new or "") < 3_000
