"""What is bound reaches tasks, threads and decorated functions, and nothing else."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from indelible.context import FIELDS, REQUEST, RequestRecord, bound, carried, current, current_request, enrich
from indelible.testing import capture_events


@pytest.fixture
def request_record() -> Iterator[RequestRecord]:
    """A request being served."""
    record = RequestRecord()
    token = REQUEST.set(record)
    yield record
    REQUEST.reset(token)


def test_bound_for_a_block() -> None:
    """Inside the block the fields are bound, as text; after it they are not. Blocks nest; None takes a binding away."""
    assert dict(current()) == {}
    with bound(user_id=UUID(int=1), tenant_id=7):
        assert dict(current()) == {"user_id": str(UUID(int=1)), "tenant_id": "7"}
        with bound(user_id=None, correlation_id="c"):
            assert dict(current()) == {"user_id": None, "tenant_id": "7", "correlation_id": "c"}
        assert current()["user_id"] == str(UUID(int=1))
    assert dict(current()) == {}


def test_every_field_can_be_bound() -> None:
    """The seven fields of an event that say who and whence; any other name is a mistake."""
    with bound(**dict.fromkeys(FIELDS, "x")):
        assert dict(current()) == dict.fromkeys(FIELDS, "x")
    with pytest.raises(TypeError):
        bound(event_type="login")  # type: ignore[call-arg]


def test_an_exception_leaves_nothing_bound() -> None:
    """The block ends however it ends, and hides no exception."""
    with pytest.raises(KeyError), bound(user_id="u"):
        raise KeyError
    assert dict(current()) == {}


def test_a_binding_may_be_used_again() -> None:
    """One binding can be entered many times, inside itself too."""
    binding = bound(user_id="u")
    with binding, binding:
        assert current()["user_id"] == "u"
    assert dict(current()) == {}


def test_decorated_function() -> None:
    """Each call of the function runs with the fields bound; its name and result are its own."""

    @bound(user_id="job")
    def work(n: int) -> tuple[int, str | None]:
        """Doubles."""
        return 2 * n, current()["user_id"]

    assert work(4) == (8, "job")
    assert (work.__name__, work.__doc__) == ("work", "Doubles.")
    assert dict(current()) == {}


async def test_decorated_coroutine_function() -> None:
    """The fields are bound while the coroutine runs, not only while it is made; calls side by side keep apart."""
    started = asyncio.Barrier(2)

    @bound(user_id="job")
    async def work(tenant: str) -> tuple[str | None, str | None]:
        with bound(tenant_id=tenant):
            await started.wait()
            return current()["user_id"], current()["tenant_id"]

    assert asyncio.iscoroutinefunction(work)
    assert list(await asyncio.gather(work("a"), work("b"))) == [("job", "a"), ("job", "b")]
    assert dict(current()) == {}


def test_generators_cannot_be_decorated() -> None:
    """A generator's body runs in its caller's context, piece by piece: refused at once."""

    def generator() -> Iterator[int]:
        yield 1

    async def agenerator() -> AsyncIterator[int]:
        yield 1

    for function in (generator, agenerator):
        with pytest.raises(TypeError, match="generator"):
            bound(user_id="u")(function)


async def test_tasks_and_to_thread_take_what_is_bound() -> None:
    """``create_task`` and ``to_thread`` copy the context, and keep it after the block has ended."""
    release = asyncio.Event()

    async def later() -> str | None:
        await release.wait()
        return current().get("user_id")

    with bound(user_id="u"):
        task = asyncio.create_task(later())
        assert await asyncio.to_thread(lambda: current().get("user_id")) == "u"
    release.set()
    assert await task == "u"


def test_plain_threads_need_carried(request_record: RequestRecord) -> None:
    """A plain thread knows nothing, one started with ``carried`` what was bound where it was made, and the request."""
    seen: list[Any] = []

    def look() -> None:
        seen.append((current().get("user_id"), current_request()))

    with bound(user_id="u"):
        plain, carrying = threading.Thread(target=look), threading.Thread(target=carried(look))
    for thread in (plain, carrying):
        thread.start()
        thread.join()
    assert seen == [(None, None), ("u", request_record)]


def test_carried_in_a_pool_leaves_the_threads_clean() -> None:
    """One function in many threads at once; the pool's threads forget it afterwards."""
    barrier = threading.Barrier(4)

    def look(n: int) -> tuple[int, str | None]:
        barrier.wait(10)
        return n, current().get("user_id")

    with ThreadPoolExecutor(4) as pool:
        with bound(user_id="u"):
            work = carried(look)
        assert list(pool.map(work, range(4))) == [(n, "u") for n in range(4)]
        assert list(pool.map(look, range(4))) == [(n, None) for n in range(4)]


def test_a_block_left_in_another_context(caplog: pytest.LogCaptureFixture) -> None:
    """Frameworks may end a generator's block elsewhere than it began; that is no error."""
    binding = bound(user_id="u")
    contextvars.copy_context().run(binding.__enter__)
    with caplog.at_level(logging.DEBUG, "indelible.context"):
        binding.__exit__(None, None, None)
    assert dict(current()) == {}
    assert len(caplog.records) == 1


def test_log_takes_its_defaults_from_what_is_bound() -> None:
    """Every ``log()`` inside has the bound fields, unless it names its own."""
    from indelible.runtime import get_audit_service

    with capture_events() as events, bound(user_id="u", correlation_id="c", on_behalf_of="boss"):
        get_audit_service().log(event_type="admin_action", action="a")
        get_audit_service().log(event_type="admin_action", action="b", user_id="other")
    assert [(e.user_id, e.correlation_id, e.on_behalf_of) for e in events] == [
        ("u", "c", "boss"),
        ("other", "c", "boss"),
    ]


# --- enrich -----------------------------------------------------------------------------------------------------------


def test_enrich_outside_a_request_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Code that is shared with jobs may call it anywhere: a debug line, nothing more."""
    with caplog.at_level(logging.DEBUG, "indelible"):
        enrich(user_id="canary", metadata={"a": "canary"})
    (line,) = caplog.records
    assert line.levelno == logging.DEBUG
    assert "canary" not in line.getMessage()


def test_enrich_replaces_and_merges(request_record: RequestRecord) -> None:
    """Fields replace, ``metadata`` merges, None leaves alone."""
    enrich(user_id=1, old_value={"a": 1}, metadata={"x": 1, "y": 1})
    enrich(user_id=2, old_value=None, metadata={"y": 2})
    assert request_record.fields == {"user_id": 2, "old_value": {"a": 1}}
    assert request_record.metadata == {"x": 1, "y": 2}


class Bad:
    """No mapping, and everything about it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("canary")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("canary")

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        raise RuntimeError("canary")


@pytest.mark.parametrize(
    "wrong",
    [
        {"event_type": "audit.read"}, {"event_type": "no such"}, {"event_type": 5}, {"event_type": Bad()},
        {"event_type": []},
        {"status": "fine"}, {"status": Bad()}, {"status": []}, {"metadata": 5}, {"metadata": "ab"}, {"metadata": Bad()},
    ],
    ids=lambda wrong: next(iter(wrong)),
)  # fmt: skip
def test_enrich_ignores_what_cannot_be(
    request_record: RequestRecord, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any]
) -> None:
    """Wrong values are ignored with a warning that holds none of them; the right ones beside them count."""
    enrich(user_id="u", **wrong)
    assert (request_record.fields, request_record.metadata) == ({"user_id": "u"}, {})
    (line,) = caplog.records
    assert (line.name, line.levelno) == ("indelible.context", logging.WARNING)
    assert "canary" not in line.getMessage()


def test_enrich_after_the_event_is_written(request_record: RequestRecord, caplog: pytest.LogCaptureFixture) -> None:
    """What comes too late changes nothing."""
    request_record.recorded = True
    with caplog.at_level(logging.DEBUG, "indelible"):
        enrich(user_id="u")
    assert request_record.fields == {}
    assert "already written" in caplog.text
