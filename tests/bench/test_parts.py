"""The other pure parts: which experiments are meant, sizes, stacks of a profile, the client's requests, what is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread

import pytest

from bench import asking, large, load, profiles
from bench.__main__ import EXPERIMENTS, chosen
from bench.experiment import Context, Experiment, Ways, run
from bench.machine import ROOT
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


def test_a_sample_is_the_mean_of_its_turns(tmp_path: Path) -> None:
    """Of rates the harmonic one; every way has one turn before any has its next, in the same order in every run."""
    calls: list[str] = []

    def way(name: str) -> dict[str, float]:
        calls.append(name)
        turn = calls.count(name)
        return {"cpu_us": turn, "rps": turn}

    @contextmanager
    def setup(_: Context) -> Iterator[Ways]:
        yield {name: partial(way, name) for name in ("a", "b", "c")}

    context = Context(tmp_path, None, quick=False)  # type: ignore[arg-type]
    samples = run(Experiment((), setup, rounds=2, turns=2), context)
    assert samples == {name: {"cpu_us": [1.5, 3.5], "rps": [4 / 3, pytest.approx(24 / 7)]} for name in "abc"}
    assert [sorted(calls[at : at + 3]) for at in range(0, 12, 3)] == [["a", "b", "c"]] * 4
    before = [*calls]
    calls.clear()
    run(Experiment((), setup, rounds=2, turns=2), context)
    assert calls == before


def test_the_client_answers_load_after_load() -> None:
    """By the clock and as fast as it can; a server that goes away ends it with a word."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        command = [sys.executable, "-m", "bench.load", str(server.server_port)]
        loads = [{"requests": n, "connections": 2, "rate": rate} for n, rate in ((20, None), (5, 200.0), (10, None))]
        done = subprocess.run(
            command, cwd=ROOT, input="".join(f"{json.dumps(one)}\n" for one in loads), capture_output=True, text=True,
            timeout=60, check=True,
        )  # fmt: skip
        server.shutdown()
        thread.join()
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["requests"], one["failed"]) for one in told] == [(20, 0), (5, 0), (10, 0)]
    gone = subprocess.run(
        command, cwd=ROOT, input=json.dumps(loads[0]) + "\n", capture_output=True, text=True, timeout=60
    )
    assert gone.returncode == 1
    assert "ConnectionRefusedError" in gone.stderr


class Answering(BaseHTTPRequestHandler):
    """Answers every PUT."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        """Nothing but a length."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


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
