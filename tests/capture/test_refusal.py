"""``on_failure="refuse"``: what cannot be audited is not carried out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible import AuditService
from indelible.capture.asgi import AuditMiddleware
from indelible.capture.refusal import RefusalPolicy
from indelible.errors import ConfigurationError
from indelible.settings import load
from indelible.testing import MemoryStore

Talk = Callable[..., Awaitable[Any]]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AuditService]:
    service = AuditService(MemoryStore(), load(data_dir=tmp_path / "data"), announce=False)
    yield service
    service.close(timeout=0.1)


class Host:
    """An application that notes whether it ran."""

    ran = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.ran += 1
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


def rows(service: AuditService) -> list[Any]:
    assert isinstance(service.store, MemoryStore)
    return service.store.rows


def block(service: AuditService) -> None:
    """Make the journal impossible."""
    directory = service.settings.data_dir
    directory.parent.mkdir(exist_ok=True)
    directory.write_text("in the way")


async def test_a_request_that_cannot_be_audited_is_not_carried_out(service: AuditService, talk: Talk) -> None:
    """503 with Retry-After and the correlation id, and the application never runs."""
    host = Host()
    block(service)
    got = await talk(AuditMiddleware(host, service=service, on_failure="refuse"), "POST")
    assert (got.status, host.ran) == (503, 0)
    assert got.header("retry-after") == ["1"]
    assert len(got.header("x-correlation-id")) == 1
    assert got.error is None


async def test_by_default_it_is_served(service: AuditService, talk: Talk) -> None:
    """No audit failure changes a response."""
    host = Host()
    block(service)
    got = await talk(AuditMiddleware(host, service=service), "POST")
    assert (got.status, host.ran) == (200, 1)


async def test_intent_and_outcome_become_one_event(service: AuditService, talk: Talk) -> None:
    """A request that is audited is one row, with everything an ordinary one has."""
    app = AuditMiddleware(Host(), service=service, on_failure="refuse")
    await talk(app, "POST", "/api/nodes")
    await talk(app, "GET", "/api/nodes")
    await service.stop()
    (row,) = rows(service)
    assert (row.event_type, row.status, row.response_status, row.request_path) == (
        "data_create",
        "success",
        200,
        "/api/nodes",
    )
    assert row.metadata is None


async def test_an_exception_is_the_outcome(service: AuditService, talk: Talk) -> None:
    """What the application raises is recorded under the intent's id and raised again."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("secret")

    got = await talk(AuditMiddleware(broken, service=service, on_failure="refuse"), "DELETE")
    assert isinstance(got.error, ValueError)
    await service.stop()
    (row,) = rows(service)
    assert (row.event_type, row.response_status, row.error) == ("api_request_error", 500, "ValueError")


async def test_paths_and_event_types_choose(service: AuditService, talk: Talk) -> None:
    """Only admin actions and one path are refused; everything else is served."""
    host = Host()
    block(service)
    app = AuditMiddleware(
        host, service=service, on_failure={"admin_action": "refuse", "/api/pay": "refuse", "/api/pay/status": "serve"}
    )
    answers = {path: (await talk(app, "POST", path)).status for path in (
        "/api/admin/users", "/api/pay", "/api/pay/1", "/api/pay/status", "/api/payments", "/api/nodes",
    )}  # fmt: skip
    assert answers == {
        "/api/admin/users": 503,
        "/api/pay": 503,
        "/api/pay/1": 503,
        "/api/pay/status": 200,
        "/api/payments": 200,
        "/api/nodes": 200,
    }
    assert host.ran == 3


async def test_a_websocket_is_closed_before_it_opens(service: AuditService, talk: Talk) -> None:
    """1013, try again later; a proper 503 where the server can send one."""
    host = Host()
    block(service)
    app = AuditMiddleware(host, service=service, on_failure="refuse")
    got = await talk(app, type="websocket")
    assert got.sent == [{"type": "websocket.close", "code": 1013, "reason": "cannot be audited at the moment"}]
    got = await talk(app, type="websocket", extensions={"websocket.http.response": {}})
    assert got.sent[0]["status"] == 503
    assert host.ran == 0


async def test_excluded_paths_need_no_intent(service: AuditService, talk: Talk) -> None:
    """A health check answers whatever the journal does."""
    block(service)
    got = await talk(AuditMiddleware(Host(), service=service, on_failure="refuse"), "GET", "/health")
    assert got.status == 200


async def test_the_intent_is_on_disk_when_the_handler_runs(service: AuditService, talk: Talk) -> None:
    """What a crash inside the handler would leave behind names the actor's request."""
    from indelible.journal import open_intents, writers

    seen: list[dict[str, Any]] = []

    async def host(scope: Any, receive: Any, send: Any) -> None:
        import msgspec

        (journal,) = writers(service.settings.data_dir / "journal")
        seen.extend(msgspec.msgpack.decode(payload) for payload in open_intents(journal))
        await Host()(scope, receive, send)

    await talk(AuditMiddleware(host, service=service, on_failure="refuse"), "PUT", "/api/nodes/42")
    (intent,) = seen
    assert (intent["request_method"], intent["request_path"], intent["status"]) == ("PUT", "/api/nodes/42", "failure")
    assert json.loads(intent["metadata"]) == {"outcome": "unknown"}


@pytest.mark.parametrize(
    "wrong",
    [
        "maybe",
        {"admin_action": "perhaps"},
        {"no_such_type": "refuse"},
        {"audit.read": "refuse"},
        {"login_failed": "refuse"},
        {"permission_denied": "serve"},
        {"api_request_error": "refuse"},
    ],
)
def test_wrong_choices_are_refused_at_start(wrong: Any) -> None:
    """A misspelt choice must not mean serve, nor one by what only the outcome tells."""
    with pytest.raises(ConfigurationError):
        AuditMiddleware(Host(), on_failure=wrong)


@given(st.dictionaries(st.sampled_from(["/a", "/a/b", "/c", "login", "*"]), st.sampled_from(["serve", "refuse"])))
def test_the_most_specific_choice_wins(choices: dict[str, Any]) -> None:
    """The longest path, then the event type, then the rest, then serve."""
    policy = RefusalPolicy(choices)
    expected = next((choices[k] for k in ("/a/b", "/a", "login", "*") if k in choices), "serve")
    assert policy.refuses("/a/b/x", lambda: "login") == (expected == "refuse")
    assert policy.active == ("refuse" in choices.values())
