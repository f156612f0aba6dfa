"""What is compiled does what its counterpart in Python does, byte for byte, and survives whatever it is given."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import math
import os
import re
import subprocess
import sys
import sysconfig
import time
import types
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from shutil import which
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock
from uuid import RFC_4122, UUID, uuid4

import httpx
import jwt
import msgspec
import pytest
from fastapi import APIRouter, FastAPI
from fastapi import Request as HostRequest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indelible import bound, enrich
from indelible.capture import asgi, watch
from indelible.capture.asgi import AuditMiddleware
from indelible.capture.identity import ANONYMOUS, Identity
from indelible.capture.watch import Complaints, Seen
from indelible.events import LIMITS, decode_event
from indelible.intake import Intake
from indelible.native import native
from indelible.redaction import Redactor
from indelible.settings import Settings, load
from indelible.testing import CapturedEvents
from tests.capture.conftest import SECRET

ROOT = Path(__file__).parents[2]
ROUTES = (
    "/api/nodes/{node_id}", "/api/nodes", "/users/{user}/keys/{key_id}", "/login", "/admin/jobs/{job}", "/reset/{token}",
    "/files/{rest}", "/", "/a b/{x}", "/register", "/{word}",
)  # fmt: skip
#: Nobody is named, and there are no plans.
USUAL: Any = (None, {}, None, None, None, None)
needs_native = pytest.mark.skipif(native is None, reason="indelible._native is not compiled")


def test_it_is_compiled_where_it_can_be() -> None:
    """A machine with a compiler and Python's headers has the module, so that the tests below are about it."""
    able = which("cc") and Path(sysconfig.get_path("include"), "Python.h").exists()
    assert native is not None or not able or os.environ.get("INDELIBLE_PURE") == "1", "run make install again"


# --- requests ---------------------------------------------------------------------------------------------------------


class Pure(watch._Request):
    """Seen with nothing compiled in it."""


for _name, _member in vars(Seen).items():
    if not _name.startswith("__"):
        setattr(Pure, _name, _member)


class Kept:
    """A service that makes events as the real one does, and keeps them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._intake = Intake(Redactor(), settings.service_name)
        self.payloads: list[bytes] = []
        self.packed = 0

    def offer(self, fields: Any) -> None:
        self.payloads.append(self._intake.take(fields)[1])

    def accept(self, payload: bytes) -> None:
        self.packed += 1
        self.payloads.append(payload)

    def events(self) -> list[dict[str, Any]]:
        """What is the same whenever it happens, of each event; unless its id and time are none."""
        told = []
        for payload in self.payloads:
            event = msgspec.structs.asdict(decode_event(payload))
            assert event.pop("id").version == 7
            assert event.pop("timestamp") > 1_700_000_000_000_000
            assert 0 <= event.pop("duration_us") < 60_000_000
            told.append(event)
        return told


class Request(msgspec.Struct, frozen=True):
    """A request, and what the application does with it."""

    method: str = "PUT"
    route: str = ROUTES[0]
    value: str = "42"
    path: str | None = None
    status: Any = 200
    headers: Any = ()
    more: Any = msgspec.field(default_factory=dict)
    answer: Any = ()
    happens: str = ""

    def scope(self) -> dict[str, Any]:
        names = re.findall(r"{(\w+)}", self.route)
        path = re.sub(r"{\w+}", self.value.replace("\\", "\\\\"), self.route) if self.path is None else self.path
        return {
            "type": "http", "method": self.method, "path": path, "raw_path": path.encode("utf-8", "replace"),
            "root_path": "", "query_string": b"", "client": ("192.0.2.7", 50000), "state": {},
            "headers": [(b"x-correlation-id", b"given"), *self.headers],
            "route": SimpleNamespace(path_format=self.route), "path_params": dict.fromkeys(names, self.value), **self.more,
        }  # fmt: skip

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """The application."""
        match self.happens:
            case "enriched":
                enrich(metadata={"by": "the handler"}, resource_type="thing")
            case "user":
                scope["state"] = {**(scope.get("state") or {}), "user": "somebody"}
            case "raises":
                raise LookupError("canary")
            case "goes away":
                while (await receive())["type"] != "http.disconnect":
                    pass
        if self.happens == "bound":
            with bound(tenant_id="t-1"):
                await self.respond(send)
            return
        await self.respond(send)
        if self.happens == "raises after":
            raise LookupError("canary")

    async def respond(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.answer]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})


async def _chosen(scope: Any, receive: Any, send: Any) -> None:
    await scope["chosen"].app(scope, receive, send)


def spoken(request: Request, app: Callable[..., Awaitable[None]]) -> tuple[Any, ...]:
    """What came of a request: what was sent, what was raised, what is left in the scope."""
    sent: list[Any] = []
    raised: list[str] = []
    scope = {**request.scope(), "chosen": request}

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def speak() -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - compared
            raised.append(repr(error))

    asyncio.run(speak())
    return sent, raised, scope.get("state")


def compared(requests: list[Request], *, name: str = "tests", **options: Any) -> Kept:
    """Both ways tell the same of each request, whatever came before it; returns the compiled one's events."""
    loaded = load(jwt_secret=SECRET, service_name=name, trusted_proxies=("192.0.2.0/24",))
    told: list[tuple[Any, Kept]] = []
    for kind in (Pure, Seen):
        kept = Kept(loaded)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asgi, "Seen", kind)
            app = AuditMiddleware(_chosen, service=kept, **options)
            results = [spoken(request, app) for request in requests]
        told.append(((results, kept.events()), kept))
    (python, _), (compiled, kept) = told
    assert compiled == python
    return kept


TOKEN = jwt.encode({"sub": "alice"}, SECRET, "HS256").encode()
VALUES = (
    "42",
    "0199-abcdef",
    "DEADBEEF",
    "admin",
    "login",
    "naïve",
    "a" * 300,
    "f" * 300,
    "",
    "-",
    "4/2",
    "eyJh",
    "a=b",
)
NAMES = (
    b"user-agent", b"authorization", b"x-correlation-id", b"x-forwarded-for", b"User-Agent", b"accept", b"x-correlation-ix",
)  # fmt: skip
CONTENTS = (
    b"curl/8", b"", b"a\x00b", b"\xff\xe9", b"x" * 2000, b"Bearer " + TOKEN, b"Bearer nonsense", b"Basic abc", b"id-1",
    b"not valid!", b"203.0.113.9, 192.0.2.8", b"unknown",
)  # fmt: skip
#: What a server, or the application, may leave in the scope beside what is usual.
UNUSUAL: dict[str, tuple[Any, ...]] = {
    "root_path": ("", "/api", None, "/"),
    "query_string": (b"", b"a=1", b"token=x"),
    "client": (None, ("", 1), ["::1", 2], ("testclient", 0), (b"x", 1), (), ("a\x00b", 1), ("x" * 99, 1)),
    "state": (None, {}, {"user": "bob"}, {"user": None}, {"other": 1}),
    "user": (None, "carol", SimpleNamespace(is_authenticated=False), SimpleNamespace(id=7)),
    "path_template": ("/nodes/{id}",),
    "route": (None, SimpleNamespace(), SimpleNamespace(path_format=b"x"), SimpleNamespace(path="/x/{node_id}")),
    "path_params": (None, {}, {"node_id": 7}, {"node_id": 7.5}, {"node_id": "9" * 300}, {"other": "1"}, {"token": 0}),
}
unusual = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in UNUSUAL.items()})
PATHS = ("/health", "/docs/x", "/api/nodes/42/", "/\x7f", "/é", "/a//b", "/api/nodes/42?", "")
ANSWERED = (b"content-type", b"X-Correlation-ID", b"x-correlation-id", b"set-cookie")
HAPPENS = ("enriched", "user", "raises", "raises after", "bound", "goes away")
requests = st.builds(
    Request,
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "OPTIONS", "BREW"]),
    route=st.sampled_from(ROUTES),
    value=st.sampled_from(VALUES),
    path=st.none() | st.sampled_from(PATHS),
    status=st.sampled_from([200, 201, 204, 302, 401, 403, 404, 422, 500]),
    headers=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(CONTENTS)), max_size=5),
    more=st.just({}) | unusual,
    answer=st.lists(st.tuples(st.sampled_from(ANSWERED), st.just(b"v")), max_size=3),
    happens=st.just("") | st.sampled_from(HAPPENS),
)


@needs_native
@given(st.lists(requests, min_size=1, max_size=8), st.booleans())
@settings(max_examples=400)
def test_both_ways_tell_the_same(several: list[Request], reads: bool) -> None:
    """Any sequence of requests, each twice so that plans are used: the same answers, the same events."""
    compared([one for one in several for _ in range(2)], log_successful_reads=reads)


@needs_native
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_plain_requests_go_by_a_plan(route: str, method: str) -> None:
    """After the first of its kind a request goes the compiled way, or is of a kind that never does."""
    plain = [Request(method, route, value) for value in ("1", "2-a", "3")]
    packed = compared(plain, log_successful_reads=True).packed
    # The user's id is the handler's to tell; the name of the parameter is a secret's; what it is about is in the path.
    never = route == "/register" or route in {"/reset/{token}", "/", "/{word}"}
    assert packed == (0 if never and (route != "/register" or method == "POST") else packed)
    if route in {"/api/nodes/{node_id}", "/users/{user}/keys/{key_id}", "/admin/jobs/{job}"}:
        assert packed == 2


@needs_native
def test_its_bounds_are_within_the_events() -> None:
    """They are written down a second time in C; a longer text goes through Python."""
    bounds = dict(re.findall(r"#define MAX_(\w+) (\d+)", (ROOT / "src" / "native" / "capture.c").read_text()))
    fields = {"AGENT": "user_agent", "ADDRESS": "ip_address", "CORRELATION": "correlation_id", "PATH": "request_path"}
    assert bounds.keys() == {*fields, "KEY"}
    assert all(int(bounds[name]) <= LIMITS[field] for name, field in fields.items())
    assert int(bounds["KEY"]) <= min(LIMITS["user_id"], LIMITS["resource_id"])


@needs_native
def test_a_secret_in_the_path_is_never_planned() -> None:
    """Not even after a value that there was no need to mask."""
    zero, secret = (
        Request("PUT", "/reset/{token}", "0", more={"path_params": {"token": 0}}),
        Request("PUT", "/reset/{token}", "42"),
    )
    kept = compared([zero, secret, secret])
    assert kept.packed == 0
    assert kept.events()[1]["request_path"] == "/reset/[redacted]"


@needs_native
@pytest.mark.parametrize(
    ("name", "method"), [("a\0b", "PUT"), ("näme", "PUT"), ("tests", "M" * 100), ("tests", "A\0B")]
)
def test_what_no_event_can_hold_is_never_planned(name: str, method: str) -> None:
    """A service's name or a method that is too long, or has a NUL, is cleaned for each event."""
    assert compared([Request(method), Request(method)], name=name).packed == 0


@needs_native
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Request("PUT", "/sk_live_{node_id}", "1"), Request("PUT", "/sk_live_{node_id}", "0123456789ab")),
        (Request("PUT", "/admin/x/{node_id}", more={"root_path": "/admin"}), Request("PUT", "/admin/x/{node_id}")),
        (Request("PUT", "/api/nodes"), Request("PUT", "/api/nodes", more={"path_params": {"token": "nodes"}})),
        (Request(path="/v1/api/nodes/42"), Request(path="/admin/api/nodes/42")),
        (Request(path="/{x}/api/nodes/42"), Request(path="/7/api/nodes/42")),
        (Request(path="/api/nodes/42"), Request(path="/x/api/nodes/42")),
    ],
)
def test_what_only_looks_alike(first: Request, second: Request) -> None:
    """A secret that is a part of a segment, another root, a parameter from elsewhere."""
    assert compared([first, second]).packed == 0


@needs_native
def test_an_included_router_has_plans_of_its_own() -> None:
    """By the prefix that is in the path and not in the route's template; numbers in it may be others."""
    places = ["/v1", "/v2", "/tenants/7", "", "/admin", "/sub/app"]
    asked = [Request(path=f"{place}/api/nodes/{n}", value=str(n)) for place in places for n in (1, 2, 3)]
    kept = compared([*asked, Request(path="/tenants/8/api/nodes/4", value="4")])
    assert kept.packed == len(asked) - len(places) + 1
    many = [Request(path=f"/x{n}/api/nodes/1") for n in range(20)]
    assert compared([*many, *many]).packed == 8


@needs_native
async def test_a_fastapi_application_has_plans(events: CapturedEvents) -> None:
    """Its own routes, those of routers in routers, and those of an application mounted in it."""
    app, outer, inner, mounted = FastAPI(), APIRouter(prefix="/api"), APIRouter(prefix="/nodes"), FastAPI()

    @app.put("/direct/{x}")
    @inner.put("/{node_id}")
    @mounted.put("/things/{thing}")
    async def change(request: HostRequest) -> dict[str, str]:
        """Something."""
        return {}

    outer.include_router(inner)
    app.include_router(outer)
    app.mount("/sub", mounted)
    wrapped = AuditMiddleware(app)
    composed: list[str] = []
    python = wrapped._compose

    def compose(setup: Any, seen: Any, error: Any) -> None:
        composed.append(seen.path)
        python(setup, seen, error)

    wrapped._compose = compose  # type: ignore[method-assign]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://host") as client:
        for n in range(4):
            for path in ("/direct", "/api/nodes", "/sub/things"):
                assert (await client.put(f"{path}/{n}")).status_code == 200
    assert composed == ["/direct/0", "/api/nodes/0", "/sub/things/0"]
    told = [(event.event_type, event.resource_type, event.resource_id, event.request_path) for event in events]
    assert told[9:] == [
        ("data_modify", "direct", "3", "/direct/3"),
        ("data_modify", "node", "3", "/api/nodes/3"),
        ("data_modify", "thing", "3", "/sub/things/3"),
    ]


@needs_native
@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_is_not_swallowed(raised: type[BaseException]) -> None:
    """Although it comes at the worst time: while a route is asked for its template."""

    class Route:
        @property
        def path_format(self) -> str:
            raise raised

    seen = Seen({**Request().scope(), "route": Route()}, None, None, None, Complaints())  # type: ignore[arg-type]
    assert seen.read(frozenset(), (), USUAL)
    seen.status = 200
    with pytest.raises(raised):
        copy_context().run(lambda: (seen.bind(), native.Seen.pack(seen, {})))


@needs_native
@pytest.mark.parametrize("raised", [OSError, KeyboardInterrupt])
def test_a_service_that_fails_harms_no_request(
    raised: type[BaseException], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exception is told, once, and the answer goes out; one that ends the process ends it."""
    kept = Kept(load())
    monkeypatch.setattr(kept, "accept", Mock(side_effect=raised("canary")))
    app = AuditMiddleware(_chosen, service=kept)
    assert spoken(Request(), app)[1] == []
    if raised is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            spoken(Request(), app)
        return
    sent, errors, _ = spoken(Request(), app)
    assert (len(sent), errors) == (3, [])
    assert kept.accept.call_count == 1  # type: ignore[attr-defined]
    assert [record.getMessage() for record in caplog.records] == [
        "audit of a request failed at writing an event: OSError (0 more since the last line)"
    ]


@pytest.mark.parametrize("kind", [Pure, Seen])
def test_an_event_goes_to_the_service_that_is_there_when_it_is_written(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was replaced while the request was under way is left alone: it may be closed."""
    first, second = Kept(load()), Kept(load())
    now = first
    monkeypatch.setattr(asgi, "Seen", kind)
    app = AuditMiddleware(_chosen, service=lambda: now)
    spoken(Request(), app)
    spoken(Request(), app)
    answered = Request.respond

    async def replaced(request: Request, send: Any) -> None:
        nonlocal now
        now = second
        await answered(request, send)

    with monkeypatch.context() as patch:
        patch.setattr(Request, "respond", replaced)
        spoken(Request(), app)
    assert (len(first.payloads), len(second.payloads)) == (2, 1)
    assert first.packed == (kind is Seen and native is not None)
    spoken(Request(), app)
    assert (len(first.payloads), len(second.payloads)) == (2, 2)


@needs_native
@pytest.mark.parametrize("raised", [LookupError, KeyboardInterrupt])
def test_a_service_that_is_not_to_be_had_harms_no_request(raised: type[BaseException]) -> None:
    """Asked for when an event is to be written: told of, or passed on where it ends the process."""
    kept, wanted = Kept(load()), [9]

    def service() -> Kept:
        wanted[0] -= 1
        if wanted[0] < 0:
            raise raised
        return kept

    app = AuditMiddleware(_chosen, service=service)
    spoken(Request(), app)
    wanted[0] = 1
    if raised is LookupError:
        sent, errors, _ = spoken(Request(), app)
        assert (len(sent), errors, len(kept.payloads)) == (3, [], 1)
        return
    with pytest.raises(KeyboardInterrupt):
        spoken(Request(), app)


@needs_native
def test_a_request_that_starts_again_is_no_crash() -> None:
    """While its route is asked for its template, in the middle of writing its event."""
    scope = Request().scope()

    class Route:
        @property
        def path_format(self) -> str:
            Seen.__init__(seen, scope, None, discard, never, Complaints())  # type: ignore[arg-type]
            return ROUTES[0]

    for _ in range(20):
        scope["route"] = Route()
        seen = Seen(scope, None, discard, never, Complaints())  # type: ignore[arg-type]
        plans: Any = {(f"{n}", "PUT", 200): ((),) for n in range(1000)}
        usual: Any = (None, {}, plans, int, 0, never)
        assert seen.read(frozenset(), (), usual)
        del plans, usual
        seen.status = 200
        copy_context().run(lambda: (seen.bind(), asyncio.run(seen.send({"type": "http.response.body"}))))  # noqa: B023


@needs_native
@pytest.mark.parametrize(
    ("known", "named"),
    [
        ((-math.inf, math.inf), "remembered"), ((0.0, 4e9), "remembered"), ((0.0, 1.7e9), "verified"),
        ((4e9, math.inf), "verified"), ((0, 4e9), "verified"), ((math.nan, math.inf), "verified"), ((), "verified"),
    ],
)  # fmt: skip
def test_a_remembered_token_is_held_to_its_times(known: tuple[float, ...], named: str) -> None:
    """Whatever is not clearly good is for Python to decide."""
    header = b"Bearer x"
    remembered = {native.fingerprint(header): (Identity("remembered"), *known)}
    seen = Seen(Request(headers=((b"authorization", header),)).scope(), None, None, None, Complaints())  # type: ignore[arg-type]
    usual: Any = (lambda _: Identity("verified"), remembered, None, None, None, None)
    assert seen.read(frozenset(), (), usual)
    assert seen.identity.user_id == named


@needs_native
def test_ids_are_uuids_of_version_7() -> None:
    """In the order of their times to a quarter of a microsecond, of the current time, no two alike, forked or not."""
    before = time.time_ns() // 10**6
    texts = [native.uuid7() for _ in range(100_000)]
    made = [UUID(text) for text in texts]
    after = time.time_ns() // 10**6
    assert {(each.version, each.variant) for each in made} == {(7, RFC_4122)}
    assert all(str(each) == text for each, text in zip(made, texts, strict=True))
    assert all(before <= each.int >> 80 <= after for each in made)
    assert sum(one.int >> 64 > other.int >> 64 for one, other in itertools.pairwise(made)) < 2, "a clock set back, once"
    assert len({each.int & (2**62 - 1) for each in made}) == len(made)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, native.uuid7().encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    theirs = os.read(reader, 100).decode()
    os.close(reader)
    os.close(writer)
    assert UUID(theirs).int & (2**62 - 1) != UUID(native.uuid7()).int & (2**62 - 1)


@needs_native
def test_what_is_not_recorded_has_a_plan_too() -> None:
    """Successful reads."""
    kept = compared([Request("GET"), Request("GET", value="7")])
    assert kept.payloads == []


@needs_native
@pytest.mark.parametrize(
    "second",
    [
        Request(value="admin"), Request(value="x"), Request(more={"query_string": b"a=1"}), Request(status=403),
        Request(happens="enriched"), Request(happens="bound"), Request(happens="user"), Request(happens="raises"),
        Request(happens="goes away"), Request(more={"user": "bob"}), Request(more={"root_path": "/v1"}),
        Request(headers=((b"user-agent", b"a\x00b"),)), Request(headers=((b"authorization", b"Bearer x"),)),
        Request(headers=((b"user-agent", b"x" * 1025),)), Request(path="/api/nodes/42/"), Request(method="POST"),
        Request(more={"path_params": {"node_id": "9" * 256}}), Request(more={"client": ("x" * 65, 1)}),
    ],
)  # fmt: skip
def test_what_is_not_plain_goes_through_python(second: Request) -> None:
    """A plan is for its own kind only, and for a request that brings nothing of its own."""
    assert compared([Request(), second]).packed == 0
    assert compared([Request(), second, Request()]).packed == 1


@needs_native
def test_plain_requests_leave_nothing_behind() -> None:
    """Neither objects nor references: twenty thousand requests, and as many blocks as before."""
    kept = Kept(load(jwt_secret=SECRET))
    one = Request(headers=((b"user-agent", b"curl/8"), (b"authorization", b"Bearer " + TOKEN)))
    app = AuditMiddleware(one.app, service=kept)

    async def receive() -> Any:
        """Nobody asks."""

    async def send(message: Any) -> None:
        """Nobody listens."""

    async def repeat(count: int) -> None:
        for _ in range(count):
            await app(one.scope(), receive, send)
            kept.payloads.clear()

    asyncio.run(repeat(1_000))
    watched = (None, ANONYMOUS, True, False, watch.HEADER, "", Seen)
    before, blocks = [sys.getrefcount(each) for each in watched], sys.getallocatedblocks()
    asyncio.run(repeat(20_000))
    assert sys.getallocatedblocks() - blocks < 500
    assert all(abs(sys.getrefcount(each) - was) < 500 for each, was in zip(watched, before, strict=True))
    assert kept.packed > 20_000


@needs_native
def test_whatever_seen_is_given() -> None:
    """Wrong arguments are exceptions, objects of other kinds are somebody else's to handle; neither is a crash."""
    nobody: Any = None
    hostile: list[Any] = [None, 0, "", b"", (), [], {}, object(), SimpleNamespace(), {"type": "http"}, float("nan")]
    for one in hostile:
        with pytest.raises((TypeError, KeyError)):
            Seen(one, one, one, one, one) if one != {"type": "http"} else Seen(one)  # type: ignore[call-arg]
        for function in (native.fingerprint, native.key):
            if type(one) is not bytes or function is native.key:
                with pytest.raises((TypeError, ValueError)):
                    function(one)
        for other in hostile:
            assert native.fits(one, other) in (True, False)
    for name in Request().scope():
        for one in [*hostile, [(1, 2)], [b"x"], [("a", "b")], [(b"a",)], {"user_id": 1}]:
            scope: Any = Request().scope() | {name: one} if name != "type" else Request().scope()
            seen = Seen(scope, nobody, discard, nobody, Complaints())
            assert seen.read(frozenset(), (), USUAL) in (True, False)
            start = {"type": "http.response.start", "status": 200, "headers": one}
            for message in (one, {"type": one}, {"type": "http.response.body", "more_body": one}, start):
                seen.complete = True
                with suppress(TypeError, KeyError, AttributeError):
                    asyncio.run(seen.send(message))
            copy_context().run(seen.bind)
            for plan in (
                None,
                1,
                (1, 2, 3, 4),
                ("", "a", b"", None),
                (ROUTES[0], 1, "", None),
                (ROUTES[0], 9, b"", "node_id"),
            ):
                seen.status = 200
                for several in (plan, (plan,), [plan]):
                    told = native.Seen.pack(seen, {(ROUTES[0], "PUT", 200): several})
                    assert told is None or plan[-1] == "node_id"  # type: ignore[index]
    del seen.scope
    for broken in (seen, Seen.__new__(Seen)):
        for name, arguments in (("read", (frozenset(), (), USUAL)), ("bind", ()), ("pack", ({},))):
            with pytest.raises(TypeError, match="not a whole Seen"):
                getattr(broken, name)(*arguments)


@needs_native
@pytest.mark.parametrize("one", [None, 0, "", b"", (), [], {}, object(), float("nan")])
def test_whatever_the_usual_is(one: Any) -> None:
    """Anything but four things is a TypeError; any of the four may be anything."""
    nobody: Any = None
    seen = Seen(Request(headers=((b"authorization", b"x"),)).scope(), nobody, discard, never, Complaints())
    with pytest.raises(TypeError, match="identify, remembered, plans, current, service, accept"):
        seen.read(frozenset(), (), one)
    assert seen.read(frozenset(), (), (lambda _: ANONYMOUS, one, one, one, one, one))
    asyncio.run(seen.send({"type": "http.response.body"}))
    assert seen.record.recorded


# --- messages on their way --------------------------------------------------------------------------------------------


async def discard(*_: object) -> Any:
    """A server that takes everything."""


def never(*_: object) -> None:
    """Nothing is written here."""


class Inner:
    """What the server's own send or receive is awaited by: it does what it is told, step by step."""

    def __init__(self, script: list[Any]) -> None:
        self.script = [*script]
        self.seen: list[Any] = []

    def __iter__(self) -> Inner:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """The next step."""
        self.seen.append(value)
        return self._step()

    def _step(self) -> Any:
        step = self.script.pop(0) if self.script else StopIteration({"type": "http.disconnect"})
        if isinstance(step, BaseException):
            raise step
        return step

    def throw(self, *error: Any) -> Any:
        """The next step, or what was thrown."""
        self.seen.append(type(error[0]).__name__ if isinstance(error[0], BaseException) else error[0].__name__)
        if len(self.script) % 2:
            return self._step()
        raise error[0]

    def close(self) -> None:
        """May fail as well."""
        self.seen.append("closed")
        if self.script and isinstance(self.script[0], OSError):
            raise self.script[0]


class ByMethod:
    """Something with __await__ that is no coroutine."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __await__(self) -> Any:
        return self._inner


def awaitable(kind: str, inner: Inner) -> Any:
    """What a server's function may return."""

    async def coroutine() -> Any:
        return await ByMethod(inner)

    @types.coroutine
    def generator() -> Generator[Any, Any, Any]:
        return (yield from inner)

    match kind:
        case "coroutine":
            return coroutine()
        case "generator":
            return generator()
        case "iterator":
            return ByMethod(inner)
        case "none":
            return None
        case "no iterator":
            return ByMethod(7)
    return iter(())  # a generator-less iterator cannot be awaited


def driven(
    kind: type, way: str, inner: str, script: list[Any], steps: list[Any], message: Any, fails: bool
) -> list[Any]:
    """What comes of a message, step by step, and what is known of the request then."""
    told: list[Any] = []
    server = Inner(script)

    def call(*passed: Any) -> Any:
        told.append(("passed", passed))
        if fails:
            raise BrokenPipeError("gone")
        return awaitable(inner, server)

    seen = kind(Request().scope(), call, call, lambda *_: told.append("written"), Complaints())
    seen.correlation_id = "c"
    passing = seen.send(message) if way == "send" else seen.receive()
    assert isinstance(passing, Coroutine)
    for step in steps:
        try:
            if step == "close":
                told.append(passing.close())
            elif isinstance(step, (type, BaseException)):
                told.append(passing.throw(step))
            else:
                told.append(passing.send(step))
        except BaseException as error:  # noqa: BLE001 - told
            told.append((type(error).__name__, *(str(a) for a in error.args)))
    passing.close() if "close" not in steps else None
    return [*told, server.seen, seen.disconnected, seen.complete, seen.status, seen.close_code]


def plainly(told: list[Any]) -> list[Any]:
    """Without what two coroutines of Python say differently too."""
    return [
        re.sub(r"(coroutine|generator) (already executing|raised StopIteration)", r"\2", repr(each)) for each in told
    ]


@needs_native
@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["send", "receive"]),
    st.sampled_from(["coroutine", "generator", "iterator", "none", "no iterator", "other"]),
    st.lists(
        st.sampled_from(
            [1, None, OSError(32, "gone"), ValueError("no"), StopIteration({"type": "http.request"}), StopIteration(3),
             StopIteration({"type": "websocket.disconnect", "code": 1001}), StopIteration()]
        ),
        max_size=4,
    ),
    st.lists(
        st.sampled_from(
            [None, None, None, 1, "close", ValueError, ValueError("thrown"), OSError(5, "thrown"), asyncio.CancelledError]
        ),
        max_size=5,
    ),
    st.sampled_from(
        [{"type": "http.response.start", "status": 201, "headers": []}, {"type": "http.response.body"}, {"type": "x"}, {},
         {"type": "http.response.body", "more_body": True}, {"type": "websocket.close"}, {"type": "websocket.accept"}]
    ),
    st.booleans(),
)  # fmt: skip
def test_a_message_on_its_way(
    way: str, inner: str, script: list[Any], steps: list[Any], message: Any, fails: bool
) -> None:
    """What comes of it is what comes of a coroutine, whatever the server's own does, and whatever is thrown at it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine that is never awaited says so; this one does not
        plain, native_ = (driven(kind, way, inner, script, steps, message, fails) for kind in (Pure, Seen))
    assert plainly(native_) == plainly(plain)


@needs_native
def test_a_message_as_a_task() -> None:
    """Frameworks may make a task of it, and cancel that."""

    async def run() -> None:
        waiting = asyncio.Event()

        async def forever(*_: object) -> Any:
            waiting.set()
            await asyncio.Event().wait()

        seen = Seen(Request().scope(), forever, forever, never, Complaints())
        for passing in (seen.receive(), seen.send({"type": "http.response.body", "more_body": True})):
            assert asyncio.iscoroutine(passing)
            task = asyncio.create_task(passing)
            await waiting.wait()
            waiting.clear()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not seen.disconnected

    asyncio.run(run())


@needs_native
def test_who_interferes_with_a_message() -> None:
    """Whoever drives one that runs, or waits for somebody else, is told so, and that one goes on."""
    refused: list[str] = []

    def interfere(step: Callable[[], object]) -> None:
        try:
            step()
        except (ValueError, RuntimeError) as error:
            refused.append(str(error))

    class Once:
        def __await__(self) -> Generator[Any, Any, Any]:
            meddle()
            assert (yield 7) == 8
            meddle()

    def meddle() -> None:
        interfere(lambda: passing.send(None))
        interfere(lambda: passing.throw(KeyError))
        interfere(passing.close)
        assert inspect.getcoroutinestate(passing) == inspect.CORO_RUNNING

    def server(*_: object) -> Any:
        meddle()
        return Once()

    seen = Seen(Request().scope(), server, server, never, Complaints())
    passing: Any = seen.send({"type": "http.response.body", "more_body": True})
    iterator = passing.__await__()
    assert iterator.send(None) == 7
    assert refused == ["coroutine already executing"] * 6
    assert inspect.getcoroutinestate(passing) == inspect.CORO_SUSPENDED
    assert passing.cr_await is not None
    with pytest.raises(RuntimeError, match="being awaited already"):
        passing.__await__()
    with pytest.raises(StopIteration):
        iterator.send(8)
    assert inspect.getcoroutinestate(passing) == inspect.CORO_CLOSED
    assert (passing.cr_await, passing.cr_frame) == (None, None)
    for name, argument in (("send", None), ("throw", KeyError)):
        with pytest.raises(RuntimeError, match="cannot reuse"):
            getattr(passing, name)(argument)
    passing.close()


@needs_native
def test_what_a_server_gave_may_be_taken_away() -> None:
    """A hook of the host's runs before a message is passed on."""
    seen: Any = Seen(Request().scope(), discard, discard, lambda *_: delattr(seen, "_send"), Complaints())
    seen.correlation_id = "c"
    asyncio.run(seen.send({"type": "http.response.body"}))
    with pytest.raises(TypeError, match="not a whole Seen"):
        asyncio.run(seen.send({"type": "http.response.body"}))


@needs_native
def test_they_are_coroutine_functions() -> None:
    """To whoever asks; called as such ones are."""
    seen: Any = Seen(Request().scope(), discard, discard, never, Complaints())
    for way in (seen.send, seen.receive):
        assert asyncio.iscoroutinefunction(way) if sys.version_info < (3, 14) else inspect.iscoroutinefunction(way)
    message = {"type": "http.response.body", "more_body": True}
    assert asyncio.run(seen.send(message=message)) is None
    wrong: list[tuple[Any, dict[str, Any]]] = [((1, 2), {}), ((), {"other": 1}), ((1,), {"message": 1})]
    for arguments, names in wrong:
        for way in (seen.send, seen.receive):
            with pytest.raises(TypeError):
                way(*arguments, **names)
    with pytest.raises(TypeError):
        seen.send()
    with pytest.raises(TypeError):
        seen.receive(1)
    with pytest.raises(TypeError):
        native.Way()


@needs_native
def test_bindings_are_undone_in_another_context() -> None:
    """Or rather not: that context has nothing of ours."""
    seen = Seen(Request().scope(), discard, discard, never, Complaints())
    seen.correlation_id = "c"
    bound, request = copy_context().run(seen.enter)
    seen.leave(bound, request)
    bound, request = seen.enter()
    seen.leave(bound, request)
    with pytest.raises(RuntimeError, match="already been used"):
        seen.leave(bound, request)
    for arguments in ((), (bound,), (1, 2), (bound, None)):
        with pytest.raises(TypeError):
            seen.leave(*arguments)


# --- the rest ---------------------------------------------------------------------------------------------------------


@needs_native
@given(
    st.from_regex(r"\A(/[a-z0-9. -]{0,4}|/?\{[a-z]{1,3}\}){0,4}\Z"), st.from_regex(r"\A(/[a-zA-F0-9. -]{0,4}){0,4}\Z")
)
def test_what_fits_a_template(template: str, path: str) -> None:
    """As a regular expression says it."""
    pattern = re.sub(r"\\{\w+\\}", "(?<=/)[0-9a-fA-F-]+(?=/|$)", re.escape(template))
    assert native.fits(path, template) == (re.fullmatch(pattern, path) is not None)


@needs_native
def test_fingerprints_are_siphash() -> None:
    """The vectors of SipHash-2-4 with 128 bits (github.com/veorq/SipHash, vectors.h); and the key is not that one."""
    own = native.fingerprint(b"")
    script = (
        "from indelible import _native as n; n.key(bytes(range(16)));"
        "print(n.fingerprint(b'').hex(), n.fingerprint(b'\\0').hex())"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert told == ["a3817f04ba25a8e66df67214c7550293", "da87c1d86b99af44347659119b22fc45"]
    assert own.hex() not in told
    headers = [uuid4().bytes * n for n in range(200)]
    assert len({native.fingerprint(each) for each in headers}) == 200


@pytest.mark.parametrize(
    "tests",
    [
        ["tests/capture", "--deselect", "tests/capture/test_native.py"],
        ["tests/test_journal.py", "tests/test_tail.py", "tests/test_drainer.py", "tests/integrity/test_leaf.py"],
        ["tests/stores/test_append.py", "tests/stores/test_sealing.py"],
    ],
    ids=["requests", "journal", "rows"],
)
def test_python_alone(tests: list[str]) -> None:
    """Where nothing is compiled the same tests hold."""
    if os.environ.get("INDELIBLE_PURE") == "1":
        return
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {**os.environ, "INDELIBLE_PURE": "1"}
    done = subprocess.run([*command, *tests], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
