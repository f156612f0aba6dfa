"""The middleware, request by request."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import indelible.context as context
from indelible import runtime
from indelible.capture.asgi import AuditMiddleware
from indelible.capture.classify import Exchange, Rules
from indelible.capture.watch import Seen
from indelible.context import bound, current, current_request, enrich
from indelible.errors import ConfigurationError
from indelible.testing import CapturedEvents

Talk = Callable[..., Awaitable[Any]]
Answer = Callable[..., Any]
Told = Callable[[Any], Any]


async def test_one_request_is_one_event_with_every_field(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """A request leaves one event that says who, what, where from, how long and how it ended."""
    app = AuditMiddleware(answer(201))
    got = await talk(app, "POST", "/api/nodes", headers=[(b"user-agent", b"curl/8"), (b"x-correlation-id", b"abc-1")])
    event = events.only()
    assert got.sent[1] == {"type": "http.response.body", "body": b"ok"}
    assert (event.event_type, event.action, event.status) == ("data_create", "create", "success")
    assert (event.request_method, event.request_path, event.response_status) == ("POST", "/api/nodes", 201)
    assert (event.resource_type, event.resource_id) == ("node", None)
    assert (event.ip_address, event.user_agent, event.correlation_id) == ("192.0.2.7", "curl/8", "abc-1")
    assert (event.user_id, event.error, event.metadata, event.source) == (None, None, None, "tests")
    assert event.duration_us is not None
    assert event.duration_us >= 0


async def test_the_event_is_accepted_before_the_last_byte(events: CapturedEvents, talk: Talk) -> None:
    """Who has the whole answer can rely on the event: it is written before the last part is sent, not before others."""
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async def count(message: Any) -> None:
        seen.append(len(events))

    await talk(AuditMiddleware(app, log_successful_reads=True), send=count)
    assert seen == [0, 0, 1]


async def test_duration_reaches_to_the_last_part_of_a_stream(
    events: CapturedEvents, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``duration_us`` counts from the arrival of the request to the last part of the answer."""
    passed: list[bytes] = []
    monkeypatch.setattr(Seen, "elapsed", lambda _: len(passed))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"a", b"b", b"c"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            passed.append(part)
        await send({"type": "http.response.body", "body": b""})

    await talk(AuditMiddleware(app, log_successful_reads=True))
    assert events.only().duration_us == 3


class Boom(Exception):
    """An error of the application's."""


async def test_exception_is_recorded_as_500_and_raised_again(events: CapturedEvents, talk: Talk) -> None:
    """What the application raises is recorded by its type, without its message, and leaves unchanged."""
    boom = Boom("secret text")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        enrich(event_type="data_access", status="success", metadata={"step": 3})
        raise boom

    got = await talk(AuditMiddleware(app), "GET")
    event = events.only()
    assert got.error is boom
    assert (event.event_type, event.status, event.response_status) == ("api_request_error", "failure", 500)
    assert event.error == f"{Boom.__module__}.Boom"
    assert event.metadata == '{"step":3}'


async def test_a_group_of_one_exception_is_told_as_that_one(events: CapturedEvents, talk: Talk) -> None:
    """Task groups wrap what went wrong; the event names what it was."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ExceptionGroup("tasks", [ValueError("no")])

    await talk(AuditMiddleware(app))
    assert events.only().error == "ValueError"


async def test_exception_in_a_begun_answer_keeps_the_status_sent(events: CapturedEvents, talk: Talk) -> None:
    """The status that the client got is the status recorded, also when the answer then broke off."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise Boom

    await talk(AuditMiddleware(app))
    assert (events.only().event_type, events.only().response_status) == ("api_request_error", 200)


async def test_exception_after_the_answer_is_an_event_of_its_own(
    events: CapturedEvents, talk: Talk, told: Told
) -> None:
    """A background task that fails does not change what happened: the request stays a success, the failure is added."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        raise Boom

    got = await talk(AuditMiddleware(app), "POST")
    assert isinstance(got.error, Boom)
    assert [event.event_type for event in events] == ["data_create", "api_request_error"]
    assert (events[1].response_status, told(events[1])) == (201, {"after_response": True})
    assert events[0].correlation_id == events[1].correlation_id


async def test_cancelled_request_is_recorded_and_stays_cancelled(events: CapturedEvents, talk: Talk) -> None:
    """A request that the server cancels is recorded; the cancellation goes on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    got = await talk(AuditMiddleware(app))
    assert isinstance(got.error, asyncio.CancelledError)
    assert (events.only().status, events.only().error) == ("failure", "asyncio.exceptions.CancelledError")


async def test_no_answer_at_all_is_a_failure(events: CapturedEvents, talk: Talk) -> None:
    """An application that returns without an answer is recorded as such."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    await talk(AuditMiddleware(app))
    event = events.only()
    assert (event.status, event.response_status, event.error) == ("failure", None, "no response")


async def test_disconnect_seen_by_the_application(events: CapturedEvents, talk: Talk) -> None:
    """A client that goes away in the middle of a stream: the status already sent, and the reason."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"

    await talk(AuditMiddleware(app), incoming=[])
    event = events.only()
    assert (event.response_status, event.error, event.event_type) == (200, "client disconnected", "data_access")


async def test_disconnect_raised_by_the_server(events: CapturedEvents, talk: Talk) -> None:
    """Servers may raise OSError from ``send`` when the client is gone: recorded as that, and raised on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})

    async def gone(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise BrokenPipeError

    got = await talk(AuditMiddleware(app), send=gone)
    assert isinstance(got.error, BrokenPipeError)
    assert (events.only().response_status, events.only().error) == (200, "client disconnected")


async def test_the_end_of_the_connection_after_the_answer_is_no_disconnect(events: CapturedEvents, talk: Talk) -> None:
    """``http.disconnect`` after a complete answer is how every connection ends."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        await receive()

    await talk(AuditMiddleware(app), "POST", incoming=[])
    assert events.only().error is None


async def test_lifespan_passes_through(events: CapturedEvents) -> None:
    """Other scopes than requests are none of the middleware's business."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((scope, receive, send))

    scope, receive, send = {"type": "lifespan"}, object(), object()
    await AuditMiddleware(app)(scope, receive, send)  # type: ignore[arg-type]
    assert [one is other for one, other in zip(seen, (scope, receive, send), strict=True)] == [True] * 3
    assert not events


# --- correlation id ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hostile",
    [
        b"x\r\nSet-Cookie: a=b", b"x\nX-Evil: 1", b"a b", b"", b"a" * 129, b"\xff\xfe", "ключ".encode(), b"<script>",
        b"a\x00b", b"abc\n",
    ],
)  # fmt: skip
async def test_hostile_correlation_id_is_replaced(
    events: CapturedEvents, talk: Talk, answer: Answer, hostile: bytes
) -> None:
    """Anything but 1 to 128 of ``A-Za-z0-9._:-`` is replaced by a UUID, in the answer and in the event."""
    got = await talk(AuditMiddleware(answer()), "POST", headers=[(b"x-correlation-id", hostile)])
    (sent,) = got.header("x-correlation-id")
    assert str(uuid.UUID(sent)) == sent == events.only().correlation_id
    assert got.scope["state"]["correlation_id"] == sent


async def test_correlation_id_is_on_every_answer(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """Excluded paths and unaudited reads get the header too; a valid one comes back as it was."""
    app = AuditMiddleware(answer())
    for path in ("/health", "/api/nodes"):
        got = await talk(app, "GET", path, headers=[(b"x-correlation-id", b"A.z_9:-")])
        assert got.header("x-correlation-id") == ["A.z_9:-"]
    assert not events


async def test_the_applications_own_correlation_header_stays(events: CapturedEvents, talk: Talk) -> None:
    """An answer that has the header already is passed on as it is."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": [(b"X-Correlation-ID", b"own")]})
        await send({"type": "http.response.body", "body": b""})

    got = await talk(AuditMiddleware(app), "POST")
    assert got.header("x-correlation-id") == ["own"]


# --- what is left out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "recorded"),
    [
        ("/health", False), ("/health/live", False), ("/healthz", True), ("/health/", False), ("/docs", False),
        ("/docs/oauth2-redirect", False), ("/docsy", True), ("/api/health", True), ("/", False), ("/x", True),
    ],
)  # fmt: skip
async def test_excluded_paths(events: CapturedEvents, talk: Talk, answer: Answer, path: str, recorded: bool) -> None:
    """Excluded is a path and what lies below it; ``/`` is only itself."""
    app = AuditMiddleware(answer(), excluded_paths=["/health", "docs/", "/"], log_successful_reads=True)
    await talk(app, "GET", path)
    assert len(events) == recorded


def test_excluded_paths_are_several() -> None:
    """A text alone would exclude a path for each of its letters: it is refused."""
    with pytest.raises(ConfigurationError, match="excluded_paths"):
        AuditMiddleware(lambda *_: asyncio.sleep(0), excluded_paths="/health")


async def test_excluded_paths_below_a_root_path(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """Behind a proxy that adds a prefix, or inside a mount, paths are excluded as the application knows them."""
    app = AuditMiddleware(answer(), log_successful_reads=True)
    await talk(app, "GET", "/prefix/health", root_path="/prefix")
    assert not events


async def test_excluded_path_stays_excluded_when_it_fails(events: CapturedEvents, talk: Talk) -> None:
    """An exception in an excluded path is raised and not recorded."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise Boom

    assert isinstance((await talk(AuditMiddleware(app), "GET", "/health")).error, Boom)
    assert not events


@pytest.mark.parametrize(
    ("method", "path", "status", "recorded"),
    [
        ("GET", "/api/nodes", 200, False), ("HEAD", "/api/nodes", 200, False), ("OPTIONS", "/api/nodes", 204, False),
        ("GET", "/api/nodes", 404, True), ("GET", "/api/nodes", 403, True), ("OPTIONS", "/api/nodes", 405, True),
        ("GET", "/api/admin/users", 200, True), ("GET", "/logout", 302, True), ("POST", "/login", 200, True),
        ("POST", "/api/nodes", 200, True), ("GET", "/api/nodes", 304, False), ("TRACE", "/x", 200, True),
    ],
)  # fmt: skip
async def test_successful_reads_are_left_out_and_nothing_else(
    events: CapturedEvents, talk: Talk, answer: Answer, method: str, path: str, status: int, recorded: bool
) -> None:
    """``log_successful_reads=False`` drops successful ``data_access`` and OPTIONS only; True drops nothing."""
    await talk(AuditMiddleware(answer(status)), method, path)
    assert len(events) == recorded
    await talk(AuditMiddleware(answer(status), log_successful_reads=True), method, path)
    assert len(events) == recorded + 1


async def test_a_read_that_a_handler_renamed_is_kept(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """What counts is the event's type after ``enrich``."""
    app = AuditMiddleware(answer(inside=lambda scope: enrich(event_type="admin_action")))
    await talk(app, "GET")
    assert events.only().event_type == "admin_action"


async def test_the_audit_logs_own_event_is_the_only_one(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """When the log's API has recorded the reading, the middleware records nothing more."""

    def read(scope: Any) -> None:
        runtime.get_audit_service().record(event_type="audit.read", action="read")
        request = current_request()
        assert request is not None
        request.recorded = True

    await talk(AuditMiddleware(answer(inside=read), log_successful_reads=True), "GET", "/api/audit/logs")
    assert events.only().event_type == "audit.read"


async def test_nested_middleware_records_once(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """A middleware inside another leaves the request to the outer one."""
    await talk(AuditMiddleware(AuditMiddleware(answer())), "POST")
    events.only()


# --- context and enrichment -------------------------------------------------------------------------------------------


async def test_handlers_enrich_their_own_event(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """``enrich`` fills and overrides the fields of the one event."""

    def handler(scope: Any) -> None:
        enrich(user_id=uuid.UUID(int=7), action="promote", status="failure", resource_type="team", resource_id=9)
        enrich(old_value={"role": "user", "password": "canary"}, new_value={"role": "admin"}, error="half done")
        enrich(metadata={"a": 1})
        enrich(metadata={"b": 2})

    await talk(AuditMiddleware(answer(inside=handler)), "PATCH")
    event = events.only()
    assert (event.user_id, event.action, event.status) == (str(uuid.UUID(int=7)), "promote", "failure")
    assert (event.resource_type, event.resource_id, event.error) == ("team", "9", "half done")
    assert (event.old_value, event.new_value) == ('{"role":"user","password":"[redacted]"}', '{"role":"admin"}')
    assert event.metadata == '{"a":1,"b":2}'


async def test_registration_makes_the_new_user_the_resource(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """On ``user_created`` the resource is the user that the handler named."""
    await talk(AuditMiddleware(answer(201, inside=lambda scope: enrich(user_id="u-1"))), "POST", "/api/auth/register")
    event = events.only()
    assert (event.event_type, event.action) == ("user_created", "register")
    assert (event.resource_type, event.resource_id, event.user_id) == ("user", "u-1", "u-1")


async def test_log_inside_a_request_knows_the_request(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """Events that a handler logs carry the request's correlation id, address and user agent."""
    app = AuditMiddleware(
        answer(inside=lambda scope: runtime.get_audit_service().log(event_type="admin_action", action="x"))
    )
    await talk(app, "GET", headers=[(b"x-correlation-id", b"c1"), (b"user-agent", b"ua")])
    event = events.only()
    assert (event.correlation_id, event.ip_address, event.user_agent) == ("c1", "192.0.2.7", "ua")


@pytest.mark.parametrize("fails", [False, True])
async def test_context_is_restored(events: CapturedEvents, talk: Talk, answer: Answer, fails: bool) -> None:
    """After the request, however it ended, what was bound before is bound again."""

    def inside(scope: Any) -> None:
        assert (current()["tenant_id"], current()["correlation_id"]) == ("t", "c1")
        if fails:
            raise Boom

    with bound(tenant_id="t"):
        before = current()
        await talk(AuditMiddleware(answer(inside=inside)), "POST", headers=[(b"x-correlation-id", b"c1")])
        assert current() is before
        assert current_request() is None
    assert events.only().tenant_id == "t"


# --- the request is never harmed --------------------------------------------------------------------------------------


class Failing:
    """A service whose every use fails."""

    @property
    def settings(self) -> Any:
        raise RuntimeError("canary")

    def offer(self, event: Any) -> None:
        raise RuntimeError("canary")

    accept = offer


async def test_failing_service_harms_nothing_and_is_told_once(
    talk: Talk, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever fails in the audit, the answer is the application's; the log tells it once, without content."""
    app = AuditMiddleware(answer(201), service=Failing())
    for _ in range(3):
        got = await talk(app, "POST")
        assert (got.status, got.error) == (201, None)
    lines = [record for record in caplog.records if record.name == "indelible.capture"]
    assert [line.getMessage().split(" at ")[1].split(":")[0] for line in lines] == [
        "finding the client",
        "writing an event",
    ]
    assert all(line.levelno == logging.ERROR and "canary" not in line.getMessage() for line in lines)


@pytest.mark.parametrize(
    "scope",
    [
        {"headers": None}, {"headers": [(b"a",)]}, {"client": ()}, {"state": None}, {"query_string": None},
        {"path_params": 5}, {"route": object()}, {"user": object()}, {"root_path": None},
    ],
)  # fmt: skip
async def test_strange_scopes_harm_nothing(
    events: CapturedEvents, talk: Talk, answer: Answer, scope: dict[str, Any]
) -> None:
    """A scope that is not as it should be costs at most the event, never the answer."""
    got = await talk(AuditMiddleware(answer(201)), "POST", **scope)
    assert (got.status, got.error) == (201, None)


async def test_hooks_that_fail_cost_nothing(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """``identify`` and ``classify`` may raise or answer nonsense: the table and the other ways to an actor remain."""

    def fail(anything: Any) -> Any:
        raise Boom

    await talk(AuditMiddleware(answer(), identify=fail, classify=fail), "POST")
    await talk(AuditMiddleware(answer(), classify=lambda exchange: "no.such.type"), "POST")
    assert [event.event_type for event in events] == ["data_create", "data_create"]


async def test_hooks_name_actor_and_event(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """``identify`` may be asynchronous; ``classify`` answers a type, a type and a status, or None for the table."""

    async def identify(scope: Any) -> Any:
        return {"id": 5}

    def classify(exchange: Exchange) -> tuple[str, str] | str | None:
        return {"/a": "logout", "/b": ("login_failed", "denied"), "/c": None}[exchange.path]

    app = AuditMiddleware(answer(), identify=identify, classify=classify)
    for path in ("/a", "/b", "/c"):
        await talk(app, "POST", path)
    assert [(e.event_type, e.status, e.user_id) for e in events] == [
        ("logout", "success", "5"),
        ("login_failed", "denied", "5"),
        ("data_create", "success", "5"),
    ]


async def test_rules_with_other_paths(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """A host with other log-in paths gives the table's own rules other words."""
    await talk(AuditMiddleware(answer(401), classify=Rules(login=("/token",))), "POST", "/auth/token")
    assert (events.only().event_type, events.only().status) == ("login_failed", "failure")


# --- hostile values ---------------------------------------------------------------------------------------------------


async def test_spoofed_forwarded_for_is_not_believed(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """From a peer that is no trusted proxy, ``X-Forwarded-For`` counts for nothing."""
    await talk(AuditMiddleware(answer()), "POST", headers=[(b"x-forwarded-for", b"203.0.113.9")])
    assert events.only().ip_address == "192.0.2.7"


async def test_forwarded_for_through_trusted_proxies(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """From a trusted proxy the rightmost address that is none of ours is the client; what it claims itself is ignored."""
    headers = [(b"x-forwarded-for", b"1.1.1.1, 198.51.100.4"), (b"x-forwarded-for", b"10.1.1.1")]
    await talk(AuditMiddleware(answer()), "POST", headers=headers, client=("10.0.0.1", 1))
    assert events.only().ip_address == "198.51.100.4"


async def test_a_huge_user_agent_is_cut(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """Of 1 MB of user agent the first part is kept, with the number of characters left out."""
    await talk(AuditMiddleware(answer()), "POST", headers=[(b"user-agent", b"A" * 1_000_000)])
    agent = events.only().user_agent
    assert agent is not None
    assert len(agent) <= 1024
    match = re.fullmatch(r"(A+)…\[(\d+) more characters\]", agent)
    assert match
    assert len(match[1]) + int(match[2]) == 1_000_000


async def test_user_agent_is_read_as_latin_1(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """Bytes of a header that are no text are kept readable, NUL replaced."""
    await talk(AuditMiddleware(answer()), "POST", headers=[(b"user-agent", b"caf\xe9\x00")])
    assert events.only().user_agent == "café\ufffd"


@pytest.mark.parametrize(
    ("path", "raw", "stored"),
    [
        ("/api/\ufffd\ufffd", b"/api/%FF%FE", "/api/%FF%FE"),
        ("/api/a\nb\x00", b"/api/a%0Ab%00", "/api/a%0Ab%00"),
        ("/api/a\nb", None, "/api/a%0Ab"),
        ("/api/grün", b"/api/gr%C3%BCn", "/api/grün"),
    ],
)
async def test_path_that_is_not_printable_stays_encoded(
    events: CapturedEvents, talk: Talk, answer: Answer, path: str, raw: bytes | None, stored: str
) -> None:
    """A path that is not UTF-8, or holds control characters, is kept percent-encoded, as it came."""
    await talk(AuditMiddleware(answer(404)), "GET", path, raw_path=raw)
    event = events.only()
    assert (event.request_path, event.resource_type, event.resource_id) == (stored, None, None)


async def test_secrets_in_the_query_string_are_masked(events: CapturedEvents, talk: Talk, answer: Answer) -> None:
    """The query string is kept, its secret parameters are not."""
    await talk(AuditMiddleware(answer()), "POST", "/api/nodes", query_string=b"page=2&access_token=canary&q=a%20b")
    assert events.only().request_path == "/api/nodes?page=2&access_token=[redacted]&q=a%20b"


@pytest.mark.parametrize(
    ("parameter", "value", "shown", "stored"),
    [
        ("token", "canary-1", "/reset/canary-1", "[redacted]"),
        ("reset_token", "ca nary", "/reset/ca%20nary\n", "[redacted]"),
        ("session_id", "s-1", "/reset/s-1", "s-1"),
        ("token_id", 7, "/reset/7", "7"),
    ],
)
async def test_secret_path_parameters_are_masked(
    events: CapturedEvents, talk: Talk, answer: Answer, parameter: str, value: object, shown: str, stored: str
) -> None:
    """The value of ``/reset/{token}`` is in neither path nor resource id; an id names a resource, and stays."""
    app = AuditMiddleware(answer())
    path = shown.replace("%20", " ")
    scope = {"path_template": f"/reset/{{{parameter}}}", "path_params": {parameter: value}, "raw_path": shown.encode()}
    await talk(app, "POST", path, **scope)
    event = events.only()
    assert event.resource_id == stored
    assert event.request_path == f"/reset/{stored}" + ("\n" if path.endswith("\n") else "")


# --- WebSocket --------------------------------------------------------------------------------------------------------


async def websocket(app: Any, incoming: list[Any], path: str = "/ws") -> tuple[list[Any], BaseException | None]:
    sent: list[Any] = []
    waiting = [{"type": "websocket.connect"}, *incoming]

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": path, "headers": [], "client": ("192.0.2.7", 1), "query_string": b""}
    try:
        await app(scope, receive, send)
    except BaseException as error:  # noqa: BLE001 - given to the test to look at
        return sent, error
    return sent, None


async def test_websocket_is_one_event_at_its_end(events: CapturedEvents, told: Told) -> None:
    """A WebSocket is recorded when it ends: 101, its close code; the acceptance carries the correlation id."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert not events
        assert (await receive())["code"] == 1001

    sent, _ = await websocket(AuditMiddleware(app), [{"type": "websocket.disconnect", "code": 1001}])
    event = events.only()
    assert sent[0]["headers"] == [(b"x-correlation-id", str(event.correlation_id).encode())]
    assert (event.event_type, event.action, event.status) == ("api_request", "connect", "success")
    assert (event.request_method, event.response_status, event.error) == ("WEBSOCKET", 101, None)
    assert told(event) == {"close_code": 1001}


async def test_rejected_websocket_is_denied(events: CapturedEvents) -> None:
    """Closing before accepting is how a WebSocket is refused: the server answers 403."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close", "code": 1008})

    await websocket(AuditMiddleware(app), [])
    event = events.only()
    assert (event.event_type, event.status, event.response_status) == ("permission_denied", "denied", 403)


async def test_websocket_that_fails(events: CapturedEvents) -> None:
    """An exception out of a WebSocket is recorded and raised; that of a client that left is its normal end."""

    class WebSocketDisconnect(Exception):
        pass

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        raise Boom

    async def leaves(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "headers": [(b"a", b"b")]})
        await receive()
        await receive()
        raise WebSocketDisconnect

    _, error = await websocket(AuditMiddleware(fails), [])
    assert isinstance(error, Boom)
    _, error = await websocket(AuditMiddleware(leaves), [{"type": "websocket.disconnect"}])
    assert isinstance(error, WebSocketDisconnect)
    assert [(e.event_type, e.status, e.response_status) for e in events] == [
        ("api_request_error", "failure", 101),
        ("api_request", "success", 101),
    ]


def test_nothing_is_left_bound() -> None:
    """The variables are as they were when this file's tests began."""
    assert not context.BOUND.get()
    assert context.REQUEST.get() is None
