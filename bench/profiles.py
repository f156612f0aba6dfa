"""Where the microseconds go: ``python -m bench.profiles``, tables for the request path and the append path.

Each path runs alone in a process that py-spy samples 500 times a second. A function's *share* is that of the samples in
which it runs, or something it has called; *own* that of those in which it is the innermost frame. Shares of the measured
time of one request, or one row, make microseconds. Sampling slows both a little: compare within a table.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from uuid import uuid4

import jwt

from bench import machine, report
from bench.apps import SECRET
from bench.databases import ENGINES, NAMES, Databases, opened
from indelible import configure, synthetic
from indelible.capture.asgi import AuditMiddleware

RATE: Final = 500
_FRAME: Final = re.compile(r"(?P<function>\S+) \((?P<file>[^:)]+)(?::\d+)?\)")
#: The outermost frames of what is measured; what lies outside them is the harness.
_ROOTS: Final = {
    "request": "AuditMiddleware.__call__ (indelible/capture/asgi.py)",
    "append": "SegmentedStore.append (indelible/stores/base.py)",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A function, its share with all it has called, and its own, both of 1."""

    function: str
    share: float
    own: float


def shares(stacks: Iterable[str], root: str) -> list[Line]:
    """From py-spy's collapsed stacks, ``outer;inner COUNT``: what happens below ``root``, the largest share first."""
    within: Counter[str] = Counter()
    own: Counter[str] = Counter()
    total = 0
    for stack in stacks:
        frames_text, _, count = stack.rpartition(" ")
        frames = [named(frame) for frame in frames_text.split(";")]
        if root not in frames:
            continue
        below = frames[frames.index(root) :]
        total += int(count)
        own[below[-1]] += int(count)
        for frame in dict.fromkeys(below):
            within[frame] += int(count)
    if not total:
        raise ValueError(f"no sample holds {root}")
    return [Line(frame, n / total, own[frame] / total) for frame, n in within.most_common()]


def named(frame: str) -> str:
    """A frame without its line, its file as a package has it: ``append (indelible/stores/base.py)``."""
    match = _FRAME.fullmatch(frame)
    if match is None:
        return frame
    path = re.sub(r"^.*?(?:site-packages/|src/|lib/python3\.\d+/|/wt/[^/]+/)", "", match["file"])
    return f"{match['function']} ({path})"


def table(lines: Iterable[Line], microseconds: float, most: int = 24) -> str:
    """Those of at least one hundredth, with the microseconds that their shares make."""
    told = ["| function | share | µs | own µs |", "|---|---|---|---|"]
    for line in itertools.islice((each for each in lines if each.share >= 0.01), most):
        cells = report.number(line.share * microseconds), report.number(line.own * microseconds)
        told.append(f"| `{line.function}` | {line.share:.0%} | {' | '.join(cells)} |")
    return "\n".join(told)


def request(url: str, seconds: float) -> tuple[int, float]:
    """The middleware around an application that answers at once, called without a server: requests and seconds.

    The scope has what a router leaves in it: the route's template and the path's parameters.
    """
    folder = tempfile.mkdtemp(prefix="indelible-profile-")
    service = configure(database_url=url, data_dir=folder, jwt_secret=SECRET, auto_migrate=True, writer="process")
    service.open()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        """Nobody listens."""

    token = jwt.encode({"sub": "user-1", "exp": 4_000_000_000}, SECRET, "HS256")
    headers = [(b"authorization", f"Bearer {token}".encode()), (b"user-agent", b"bench"), (b"host", b"localhost")]

    route = SimpleNamespace(path_format="/api/nodes/{node_id}")

    async def repeat() -> tuple[int, float]:
        app, done, began = AuditMiddleware(answer), 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            for number in range(100):
                path = f"/api/nodes/{number}"
                scope = {
                    "type": "http", "method": "PUT", "path": path, "raw_path": path.encode(), "query_string": b"",
                    "headers": headers, "client": ("192.0.2.7", 4711), "scheme": "http", "http_version": "1.1",
                    "route": route, "path_params": {"node_id": str(number)},
                }  # fmt: skip
                await app(scope, receive, send)
            done += 100
        return done, time.perf_counter() - began

    told = asyncio.run(repeat())
    service.close(0)
    return told


def append(url: str, seconds: float) -> tuple[int, float]:
    """``Store.append`` in batches of 1,000: rows and seconds inside it."""
    events, writer, position, inside = synthetic.events(1), uuid4(), 0, 0.0
    with opened(url) as store:
        while inside < seconds:
            given = list(itertools.islice(events, 1000))
            began = time.perf_counter()
            store.append(writer, position, given)
            inside += time.perf_counter() - began
            position += len(given)
    return position, inside


_PATHS: Final[Mapping[str, Callable[[str, float], tuple[int, float]]]] = {"request": request, "append": append}


def profile(path: str, url: str, seconds: float) -> str:
    """One path in a process of its own, sampled: a sentence and a table."""
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name) / "stacks"
        inner = [sys.executable, "-m", "bench.profiles", "--path", path, "--url", url, "--seconds", str(seconds)]
        options = ["--format", "raw", "--idle", "--rate", str(RATE), "--output", str(raw)]
        done = subprocess.run(
            ["py-spy", "record", *options, "--", *inner],
            cwd=machine.ROOT, capture_output=True, text=True, check=True, timeout=seconds + 120,
        )  # fmt: skip
        count, took = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("[")))
        microseconds = took / count * 1e6
        what = {"request": "requests", "append": "rows in batches of 1,000"}[path]
        text = table(shares(raw.read_text().splitlines(), _ROOTS[path]), microseconds)
        return f"{count:,} {what}, {report.number(microseconds)} µs each.\n\n{text}"


def main() -> None:
    """Profile both paths, the append path on each engine, and write the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--path", choices=tuple(_PATHS), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.path:
        print(json.dumps(_PATHS[options.path](options.url, options.seconds)))
        return
    parts: list[str] = []
    with tempfile.TemporaryDirectory(dir=machine.ROOT, prefix=".bench-") as name, Databases(Path(name)) as databases:
        parts += ["### The request path", profile("request", databases.fresh("sqlite"), options.seconds)]
        for engine in ENGINES:
            told = profile("append", databases.fresh(engine), options.seconds)
            parts += [f"### The append path, {NAMES[engine]}", told]
    text = "\n\n".join(parts)
    print(text)
    report.PAGE.write_text(report.replaced(report.PAGE.read_text(), "profiles", text))


if __name__ == "__main__":
    main()
