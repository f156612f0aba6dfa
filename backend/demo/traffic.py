"""Believable traffic for the reference host: a pure, seeded script, and the player that sends it."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

#: Registered people, busiest first: each is about half as busy again as the next.
PEOPLE: Final = ("alice", "ben", "chloe", "dmitri", "elif", "farid", "greta", "hugo", "ines", "jonas")
ADMIN: Final = "admin"
#: Somebody who has no account and tries those of others.
INTRUDER: Final = "203.0.113.66"

_AGENTS: Final = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36",
    "fogctl/2.3.1 (linux; amd64)",
)
_PLACES: Final = ("berlin", "lyon", "porto", "tartu", "zagreb", "oslo")
_WORK: Final = ("index", "transcode", "backup", "report", "train", "render")
_REFERENCE: Final = re.compile(r"\{([^}]+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request of the script.

    ``at`` is in seconds from the start. ``who`` signs in with the token of that person's last log-in (None: nobody).
    ``{node:3}`` in ``path`` stands for the ``id`` in the answer to the call that has ``saves="node:3"``. ``expect``
    is the status that a healthy host answers.
    """

    at: float
    who: str | None
    method: str
    path: str
    ip: str
    agent: str
    body: Mapping[str, str] | None = None
    saves: str | None = None
    expect: int = 200


def password_of(person: str) -> str:
    """The demo's password of a person."""
    return f"{person}-correct-horse-battery"


@dataclass(slots=True)
class _Script:
    rng: random.Random
    seconds: float
    length: int
    calls: list[Call] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    signed_in: set[str] = field(default_factory=set)
    admins: set[str] = field(default_factory=lambda: {ADMIN})

    def add(self, who: str | None, method: str, path: str, **rest: Any) -> None:
        at = min(len(self.calls) / self.length, 1.0) * self.seconds
        origin = rest.pop("origin", who)
        home = sum(map(ord, origin)) if origin else 0
        rest.setdefault("ip", f"198.51.100.{home % 200 + 10}")
        rest.setdefault("agent", _AGENTS[home % len(_AGENTS)])
        self.calls.append(Call(at=round(at, 3), who=who, method=method, path=path, **rest))

    def number(self, kind: str) -> str:
        self.counters[kind] = self.counters.get(kind, 0) + 1
        return f"{kind}:{self.counters[kind]}"

    def person(self) -> str:
        return self.rng.choices(PEOPLE, [1.5**-rank for rank in range(len(PEOPLE))])[0]

    def log_in(self, person: str) -> None:
        if self.rng.random() < 0.1:
            wrong = {"username": person, "password": "correct-hose-battery"}
            self.add(None, "POST", "/api/auth/login", body=wrong, origin=person, expect=401)
        right = {"username": person, "password": password_of(person)}
        self.add(None, "POST", "/api/auth/login", body=right, saves=f"token:{person}", origin=person)
        self.signed_in.add(person)

    def create(self, person: str, kind: str) -> None:
        reference = self.number(kind)
        words = _PLACES if kind == "node" else _WORK
        name = f"{self.rng.choice(words)}-{self.counters[kind]:02d}"
        self.add(person, "POST", f"/api/{kind}s", body={"name": name}, saves=reference, expect=201)
        self.owners[reference] = person

    def choose(self, kind: str, owner: str | None) -> str | None:
        """One of the existing things, of ``owner`` if given; the newest are the ones that people look at."""
        things = [each for each in self.owners if each.startswith(kind) and owner in (None, self.owners[each])]
        return things[-1 - min(int(self.rng.expovariate(0.5)), len(things) - 1)] if things else None

    def step(self) -> None:
        person = self.person()
        if person not in self.signed_in:
            self.log_in(person)
            return
        kind = self.rng.choice(("node", "node", "job"))
        what = self.rng.choices(
            ("list", "read", "create", "change", "replace", "delete", "missing", "denied", "log-out", "health"),
            (20, 26, 14, 13, 4, 4, 3, 4, 5, 7),
        )[0]
        # Everybody sees all nodes; the rest is for owners.
        target = self.choose(kind, None if (kind, what) == ("node", "read") else person)
        match what:
            case "list":
                self.add(person, "GET", f"/api/{kind}s")
            case "read" if target:
                self.add(person, "GET", f"/api/{kind}s/{{{target}}}")
            case "change" if target:
                name = f"{self.rng.choice(_PLACES)}-renamed"
                self.add(person, "PATCH", f"/api/{kind}s/{{{target}}}", body={"name": name})
            case "replace" if target:
                self.add(person, "PUT", f"/api/{kind}s/{{{target}}}", body={"name": f"{self.rng.choice(_WORK)}-moved"})
            case "delete" if target:
                del self.owners[target]
                self.add(person, "DELETE", f"/api/{kind}s/{{{target}}}", expect=204)
            case "missing":
                self.add(person, "GET", f"/api/{kind}s/999999", expect=404)
            case "denied" if person not in self.admins:
                self.add(person, "GET", self.rng.choice(("/api/admin/users", "/api/audit/logs")), expect=403)
            case "log-out":
                self.add(person, "POST", "/api/auth/logout")
                self.signed_in.discard(person)
            case "health":
                self.add(None, "GET", "/health", ip="198.51.100.5", agent="kube-probe/1.33")
            case _:
                self.create(person, kind)

    def intrusion(self) -> None:
        for guess in ("admin", "root", "alice", "admin", "test", "admin"):
            body = {"username": guess, "password": f"{guess}123"}
            self.add(None, "POST", "/api/auth/login", body=body, ip=INTRUDER, agent="python-requests/2.34", expect=401)
        self.add(None, "GET", "/api/admin/users", ip=INTRUDER, agent="python-requests/2.34", expect=401)

    def administration(self) -> None:
        self.add(ADMIN, "GET", "/api/admin/users")
        self.add(ADMIN, "PATCH", "/api/admin/users/{user:chloe}", body={"role": "admin"})
        self.admins.add("chloe")
        self.add(ADMIN, "GET", "/api/audit/logs?event_type=login_failed&page_size=20")


def script(seed: int = 1, *, calls: int = 240, seconds: float = 60.0) -> tuple[Call, ...]:
    """A script of ``calls`` requests (at least 60) spread evenly over ``seconds``; the same for the same arguments.

    People register and sign in, mostly read, sometimes create, change and delete nodes and jobs, mistype passwords,
    try what they may not; an intruder guesses passwords, an administrator promotes somebody. Some do far more than
    others. The host must know the user ``admin`` with ``password_of("admin")`` already.
    """
    if calls < 60:
        raise ValueError("a script has at least 60 calls")
    story = _Script(random.Random(seed), seconds, calls)  # noqa: S311 - a script, not a secret
    for person in PEOPLE:
        body = {"username": person, "email": f"{person}@example.org", "password": password_of(person)}
        path = "/api/auth/register"
        story.add(None, "POST", path, body=body, saves=f"user:{person}", origin=person, expect=201)
    story.log_in(ADMIN)
    while len(story.calls) < calls // 3:
        story.step()
    story.intrusion()
    while len(story.calls) < calls * 2 // 3:
        story.step()
    story.administration()
    while len(story.calls) < calls:
        story.step()
    return tuple(story.calls[:calls])


@dataclass(slots=True)
class Outcome:
    """What came of a script: ``statuses`` counts the answers, ``surprises`` lists calls not answered as expected."""

    sent: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    surprises: list[str] = field(default_factory=list)
    saved: dict[str, str] = field(default_factory=dict)


async def play(
    calls: Iterable[Call],
    client: httpx.AsyncClient,
    *,
    pause_until: Callable[[float], Awaitable[None]] | None = None,
) -> Outcome:
    """Send the calls in order. ``pause_until`` is awaited with each call's ``at``; without it there are no pauses."""
    outcome = Outcome()
    for call in calls:
        if pause_until is not None:
            await pause_until(call.at)
        headers = {"User-Agent": call.agent, "X-Forwarded-For": call.ip}
        if call.who is not None:
            headers["Authorization"] = f"Bearer {outcome.saved[f'token:{call.who}']}"
        path = _filled(call.path, outcome.saved)
        answer = await client.request(call.method, path, json=call.body, headers=headers)
        outcome.sent += 1
        outcome.statuses[answer.status_code] = outcome.statuses.get(answer.status_code, 0) + 1
        if answer.status_code != call.expect:
            outcome.surprises.append(f"{call.method} {path}: {answer.status_code} instead of {call.expect}")
        elif call.saves is not None:
            field_name = "access_token" if call.saves.startswith("token:") else "id"
            outcome.saved[call.saves] = str(answer.json()[field_name])
    return outcome


def _filled(text: str, saved: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda match: saved[match[1]], text)
