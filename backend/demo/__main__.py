"""``python -m backend.demo [--port 8000] [--once]``: what ``make demo`` runs."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, NoReturn

import httpx

from backend.demo import traffic
from backend.demo.serving import ROOT, Server, StartError, port_is_free

_GUIDE: Final = ROOT / "docs" / "guide.md"
_TOKEN_MINUTES: Final = 24 * 60
#: How long the summary waits for the last event to reach the table: the flush interval and some.
_SETTLE_SECONDS: Final = 30.0
_CURL: Final = re.compile(r"^# (?P<title>.+)\n(?P<command>curl (?:.*\\\n)*.*)$", re.MULTILINE)


def guide_questions(guide: str, *, url: str, token: str, user_id: str) -> list[tuple[str, str]]:
    """The guide's curl examples as (title, one line), its placeholders filled in."""
    filled = {"<admin-token>": token, "<uuid>": user_id, "http://localhost:8000": url}
    questions = []
    for match in _CURL.finditer(guide):
        command = re.sub(r"\\\n\s*", "", match["command"])
        for placeholder, value in filled.items():
            command = command.replace(placeholder, value)
        questions.append((match["title"], command))
    return questions


def terminal_question(state: Path) -> str:
    """A command line that asks the demo's log without its server, to be pasted in the repository's folder."""
    command = Path(sys.executable).with_name("indelible")
    words = [os.path.relpath(command, ROOT), "--database-url", database(Path(os.path.relpath(state, ROOT)))]
    return shlex.join([*words, "query", "--event-type", "login_failed"])


def database(state: Path) -> str:
    """The URL of the SQLite file under ``state``."""
    return f"sqlite:///{state / 'fog.db'}"


def environment(state: Path) -> dict[str, str]:
    """What the demo's server is told; its state lies under ``state``."""
    url = database(state)
    return {
        "DATABASE_URL": url,
        "JWT_SECRET": secrets.token_urlsafe(48),
        "ACCESS_TOKEN_MINUTES": str(_TOKEN_MINUTES),
        "INDELIBLE_DATABASE_URL": url,
        "INDELIBLE_DATA_DIR": str(state / "indelible"),
        "INDELIBLE_SERVICE_NAME": "fog-compute",
        # All traffic comes from this machine and names its clients as a proxy would.
        "INDELIBLE_TRUSTED_PROXIES": "127.0.0.1",
    }


def prepare(state: Path, env: dict[str, str]) -> None:
    """Empty the state and make the first administrator."""
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "backend.server.create_admin", traffic.ADMIN],
        input=traffic.password_of(traffic.ADMIN) + "\n",
        env={**os.environ, **env},
        cwd=ROOT,
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )


async def perform(url: str, state: Path, *, stays: bool) -> None:
    """Send the traffic, say what came of it, and print the guide's questions with a token for them.

    A server that ``stays`` gets its traffic over a minute.
    """
    start = time.monotonic()

    async def until(at: float) -> None:
        await asyncio.sleep(max(0.0, start + at - time.monotonic()))

    calls = traffic.script()
    async with httpx.AsyncClient(base_url=url, timeout=30.0) as client:
        say(f"Sending {len(calls)} requests {'over a minute' if stays else 'without pauses'} ...")
        outcome = await traffic.play(calls, client, pause_until=until if stays else None)
        answers = ", ".join(f"{count} x {status}" for status, count in sorted(outcome.statuses.items()))
        say(f"{outcome.sent} requests in {time.monotonic() - start:.1f} s: {answers}")
        if outcome.surprises:
            stop("Unexpected answers:\n  " + "\n  ".join(outcome.surprises))
        token = outcome.saved[f"token:{traffic.ADMIN}"]
        client.headers["Authorization"] = f"Bearer {token}"
        await settled(client)
        stats = (await client.get("/api/audit/stats")).raise_for_status().json()
    say()
    say(summary(stats))
    say()
    if stays:
        say(f"Ask it yourself (the token is good for {_TOKEN_MINUTES // 60} hours):")
    else:
        say(
            "The guide's questions. This server stops now: make demo keeps one running, and prints them with its token."
        )
    user_id = outcome.saved["user:alice"]
    for title, command in guide_questions(_GUIDE.read_text("utf-8"), url=url, token=token, user_id=user_id):
        say(f"\n# {title}\n{command}")
    say(f"\n# The same log at the terminal\n{terminal_question(state)}\n")


async def settled(client: httpx.AsyncClient) -> None:
    """Return when everything sent so far is in the table: a log keeps the order of its writer."""
    marker = f"demo-{secrets.token_hex(8)}"
    await client.get("/api/admin/users", headers={"X-Correlation-ID": marker})
    async with asyncio.timeout(_SETTLE_SECONDS):
        while True:
            found = await client.get("/api/audit/logs", params={"correlation_id": marker})
            if found.raise_for_status().json()["logs"]:
                return
            await asyncio.sleep(0.25)


def summary(stats: dict[str, Any]) -> str:
    """The answer of ``/api/audit/stats`` for people."""
    lines = [f"{stats['total_events']} events in the log", "", "  by type"]
    by_type = sorted(stats["event_type_breakdown"].items(), key=lambda item: (-item[1], item[0]))
    lines += [f"    {name:<20}{count:>6}" for name, count in by_type]
    lines += ["  by outcome"]
    lines += [f"    {name:<20}{count:>6}" for name, count in sorted(stats["status_breakdown"].items())]
    lines += ["  busiest addresses"]
    lines += [f"    {each['ip']:<20}{each['count']:>6}" for each in stats["top_ips"][:5]]
    return "\n".join(lines)


def say(text: str = "") -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)  # noqa: T201 - a command


def port(text: str) -> int:
    """A TCP port to listen on; ValueError for what is none."""
    if not 0 < (number := int(text)) < 65_536:
        raise ValueError
    return number


def stop(reason: str) -> NoReturn:
    """End with the reason on standard error."""
    raise SystemExit(reason)


def main() -> None:
    """Parse the options, run the demo, leave nothing running."""
    parser = argparse.ArgumentParser(prog="python -m backend.demo", description=__doc__)
    parser.add_argument("--port", type=port, default=8000, help="the port to serve on (default: 8000)")
    parser.add_argument("--once", action="store_true", help="no pauses, and stop after the summary")
    options = parser.parse_args()
    # A terminated demo takes its server along: the exit goes through the `with` below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    if not port_is_free(options.port):
        stop(f"Port {options.port} is busy. Choose another: make demo PORT={options.port + 1}")
    state = ROOT / ".demo" / str(options.port)
    env = environment(state)
    prepare(state, env)
    log = state / "server.log"
    try:
        with Server("backend.server.main:app", port=options.port, env=env, log=log) as server:
            say(f"The Fog Compute API is at {server.url} (its log: {shlex.quote(str(log.relative_to(ROOT)))})")
            asyncio.run(perform(server.url, state, stays=not options.once))
            if not options.once:
                say(
                    f"Look at it: {server.url}/audit/ as {traffic.ADMIN}, password {traffic.password_of(traffic.ADMIN)}"
                )
                say("Serving until you press Ctrl-C.")
                sys.exit(server.wait())
    except StartError as exc:
        stop(str(exc))
    except KeyboardInterrupt:
        say("\nStopped.")


if __name__ == "__main__":
    main()
