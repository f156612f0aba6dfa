"""Bar 4: what accepting one event costs, beside what a log line costs. Each sample is a block of calls.

* ``journal``: ``AuditService.log`` as it is by default: redaction, mapped journal, its sync thread running fdatasync every
  5 ms and its drainer storing into SQLite;
* ``capture``: the same call with a journal that takes everything and keeps nothing: validation, redaction, id, encoding;
* ``QueueHandler``: ``logging.Logger.info`` with the same fields as ``extra``, through ``QueueHandler`` into a queue;
* ``QueueHandler, by reference``: the same with one ready-made mapping as ``extra``, which costs nothing to hand over;
* ``structlog``: ``structlog`` to JSON into a list of lines;
* ``refuse``, ``refuse, 32 at once``: an intent that is written and synced before, and its outcome after
  (``on_failure="refuse"``), awaited by a lone client and by 32 that share the fdatasync;
* ``encode``: the least that keeps an event: a struct with an id and a time, encoded and copied into a mapped file.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import mmap
import queue
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import structlog
from uuid_utils.compat import uuid7

from bench.experiment import Context, Experiment, Ways
from bench.figures import quantile
from indelible import AuditService
from indelible.events import AuditEvent
from indelible.runtime import open_store
from indelible.settings import load

FIELDS: Final[dict[str, Any]] = {
    "event_type": "data_modify",
    "action": "update",
    "user_id": "0b9c2f5e-1f5c-4c0e-9d7e-2f6a1f0e7c11",
    "ip_address": "192.168.1.100",
    "resource_type": "node",
    "resource_id": "4711",
    "correlation_id": "9f86d081884c7d659a2feaa0c55ad015",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
    "request_method": "PUT",
    "request_path": "/api/nodes/4711",
    "response_status": 200,
}
BLOCK: Final = 1_000

Call = Callable[[], object]


class Nowhere:
    """A journal that takes everything and keeps nothing."""

    def append(self, payload: bytes, *, reserved: bool = False) -> int:
        """Take one."""
        return 0


def logged(service: AuditService) -> Call:
    """``AuditService.log``, as a host's code calls it."""
    return lambda: service.log(
        event_type="data_modify",
        action="update",
        user_id="0b9c2f5e-1f5c-4c0e-9d7e-2f6a1f0e7c11",
        ip_address="192.168.1.100",
        resource_type="node",
        resource_id="4711",
        correlation_id="9f86d081884c7d659a2feaa0c55ad015",
        user_agent="Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
        request_method="PUT",
        request_path="/api/nodes/4711",
        response_status=200,
    )


def queue_handler(*, by_reference: bool = False) -> Call:
    """A log line through the standard library's way out of the request path."""
    lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logger = logging.getLogger(f"bench.queue.{by_reference}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.handlers = [logging.handlers.QueueHandler(lines)]

    # Taken out again at once: nobody else does, and a full memory would cost as well.
    def call() -> None:
        logger.info(
            "%s %s",
            "data_modify",
            "update",
            extra={
                "event_type": "data_modify",
                "action": "update",
                "user_id": "0b9c2f5e-1f5c-4c0e-9d7e-2f6a1f0e7c11",
                "ip_address": "192.168.1.100",
                "resource_type": "node",
                "resource_id": "4711",
                "correlation_id": "9f86d081884c7d659a2feaa0c55ad015",
                "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
                "request_method": "PUT",
                "request_path": "/api/nodes/4711",
                "response_status": 200,
            },
        )
        lines.get_nowait()

    def call_by_reference() -> None:
        logger.info("%s %s", "data_modify", "update", extra={"event": FIELDS})
        lines.get_nowait()

    return call_by_reference if by_reference else call


def structured() -> Call:
    """A log line of structlog, rendered as JSON, kept in a list."""
    lines: list[str] = []

    class Keep:
        def msg(self, line: str) -> None:
            lines.append(line)
            if len(lines) > BLOCK:
                lines.clear()

        info = msg

    logger = structlog.wrap_logger(
        Keep(),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        cache_logger_on_first_use=True,
    ).bind()
    return lambda: logger.info("data_modify", **FIELDS)


def encoded(folder: Path) -> Call:
    """Struct, id, time, msgpack, and a copy into a mapped file: what no journal of such events can do without."""
    fields = {**FIELDS, "status": "success"}
    encoder, buffer = msgspec.msgpack.Encoder(), bytearray(2048)
    path = folder / "map"
    path.write_bytes(bytes(1 << 16))
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)

    def call() -> None:
        event = AuditEvent(id=uuid7(), timestamp=time.time_ns() // 1000, **fields)
        encoder.encode_into(event, buffer)
        mapped[: len(buffer)] = buffer

    return call


def block(call: Call) -> dict[str, float]:
    """One block of calls, each timed."""
    clock, times = time.perf_counter_ns, []
    for _ in range(BLOCK):
        began = clock()
        call()
        times.append(clock() - began)
    return _told(times)


def _told(ns: list[int]) -> dict[str, float]:
    mean = sum(ns) / len(ns) / 1000
    return {"p50_us": quantile(ns, 0.5) / 1000, "p99_us": quantile(ns, 0.99) / 1000, "mean_us": mean}


async def _refused(service: AuditService, count: int) -> list[int]:
    times = []
    for _ in range(count):
        began = time.perf_counter_ns()
        intent = await service.intend(**FIELDS)
        service.fulfil(intent, **FIELDS)
        times.append(time.perf_counter_ns() - began)
    return times


async def _refused_together(service: AuditService, each: int, clients: int) -> float:
    began = time.perf_counter_ns()
    await asyncio.gather(*(_refused(service, each) for _ in range(clients)))
    return (time.perf_counter_ns() - began) / each / clients / 1000


@contextmanager
def log_call(context: Context) -> Iterator[Ways]:
    """A service with every default on, beside the others, all warmed up."""
    with tempfile.TemporaryDirectory(dir=context.folder) as name:
        folder = Path(name)
        settings = load(database_url=f"sqlite:///{folder}/log.db", data_dir=folder / "data")
        service = AuditService(open_store(settings), settings)
        service.open()
        # Only the append is left out: what is accepted goes nowhere.
        bare = AuditService(service.store, settings, announce=False)
        bare._journal = cast("Any", Nowhere())
        bare._syncer.dirty = True

        def together() -> Mapping[str, float]:
            return {"mean_us": asyncio.run(_refused_together(service, 30, 32))}

        calls: dict[str, Call] = {
            "journal": logged(service),
            "capture": logged(bare),
            "QueueHandler": queue_handler(),
            "QueueHandler, by reference": queue_handler(by_reference=True),
            "structlog": structured(),
            "encode": encoded(folder),
        }
        for call in calls.values():
            block(call)
        try:
            yield {
                **{name: partial(block, call) for name, call in calls.items()},
                "refuse": lambda: _told(asyncio.run(_refused(service, 100))),
                "refuse, 32 at once": together,
            }
        finally:
            bare._journal = None
            service.close(60)


EXPERIMENTS: Final = {"log-call": Experiment(("4",), log_call, rounds=30, quick_rounds=8)}
