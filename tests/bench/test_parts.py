"""The other pure parts: which experiments are meant, sizes, stacks of a profile, the client's requests, what is asked."""

from __future__ import annotations

from itertools import islice

import pytest

from bench import asking, large, load, profiles
from bench.__main__ import EXPERIMENTS, chosen
from indelible import synthetic
from indelible.events import StoredEvent
from indelible.queries import FILTERS, Filter


def test_experiments_are_chosen_by_bar_or_name() -> None:
    """Quick runs leave out what takes long; an unknown name is refused."""
    assert list(chosen("bar4", quick=True)) == ["log-call"]
    assert set(chosen("ingest,log-call", quick=False)) == {
        "ingest-sqlite", "ingest-postgresql", "ingest-2-hosts", "ingest-4-hosts", "log-call",
    }  # fmt: skip
    assert "latency-sqlite" not in chosen(None, quick=True)
    assert set(chosen(None, quick=False)) | set(chosen(None, quick=True)) == set(EXPERIMENTS)
    assert "large-sqlite-quick" not in chosen(None, quick=False)
    with pytest.raises(SystemExit):
        chosen("bar99", quick=False)


def test_sizes_are_whole_segments() -> None:
    """So that a rate is that of whole segments on each engine."""
    assert large.parse_sizes("20M,5M,100k,262144") == [100_000, 262_144, 5_000_000, 20_000_000]
    assert large.whole(1) == large.UNIT
    assert large.whole(5_000_000) == 20 * large.UNIT
    assert large.whole(2 * large.UNIT) == 2 * large.UNIT


def test_stacks_become_shares() -> None:
    """Of the samples below the root; recursion counts once, lines and machine paths do not count."""
    stacks = [
        "main (/x/y.py:1);append (/a/src/indelible/stores/base.py:9);seal (/b/src/leaf.py:1) 3",
        "main (/x/y.py:2);append (/a/src/indelible/stores/base.py:8);seal (/b/src/leaf.py:2);seal (/b/src/leaf.py:7) 1",
        "other (/usr/lib/python3.11/threading.py:5) 96",
    ]
    lines = profiles.shares(stacks, "append (indelible/stores/base.py)")
    assert lines == [
        profiles.Line("append (indelible/stores/base.py)", 1.0, 0.0),
        profiles.Line("seal (leaf.py)", 1.0, 1.0),
    ]
    assert "| `seal (leaf.py)` | 100% | 40 | 40 |" in profiles.table(lines, 40.0)


def test_every_filter_of_the_guide_is_asked() -> None:
    """Alone and with a time range, and the search that no index serves is left out."""
    like = [
        StoredEvent(
            seq=n, recorded_at=0, writer_id=e.id, writer_seq=n, **{f: getattr(e, f) for f in e.__struct_fields__}
        )
        for n, e in enumerate(islice(synthetic.events(1), 50))
    ]
    asked = asking.filters(like)
    single = {name for name in FILTERS if name not in ("q", "start_date", "end_date")}
    assert single | {f"{name}, a week" for name in single} | {"a week", "(no filter)"} <= set(asked)
    for name, wanted in asked.items():
        assert wanted
        for each in wanted:
            assert (each.start is not None) == name.endswith("a week")
            assert each.q is None
            assert (each == Filter()) == (name == "(no filter)")


def test_the_client_sends_whole_requests_of_many_users() -> None:
    """Each with a token, a body, and its length."""
    made = load.requests(80)
    assert len(
        {line for request in made for line in request.split(b"\r\n") if line.startswith(b"Authorization")}
    ) == len(made)
    for request in made:
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
