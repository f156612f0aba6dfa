"""A client in a process of its own, cheap enough not to starve the server it measures: ``python -m bench.load PORT``.

Each line of its input is a load, ``{"requests": 2000, "connections": 8, "rate": null}``, and is answered by a line: what
came of it. With a rate, requests go out by the clock, whatever comes back (open loop), and a request that finds no
connection free waits, and its waiting counts; without it each connection sends its next request when it has an answer
(closed loop).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from typing import Final

import jwt

from bench.apps import SECRET
from bench.figures import quantile

_BODY: Final = b'{"region":"south","replicas":3}'
_END: Final = b"\r\n\r\n"
#: Different tokens, so that no server can remember just one.
_USERS: Final = 64
#: Seconds after which a load is given up.
_TIMEOUT: Final = 120.0


def requests(port: int) -> list[bytes]:
    """Ready requests of different users to different nodes."""
    tokens = [jwt.encode({"sub": f"user-{n}", "exp": 4_000_000_000}, SECRET, "HS256") for n in range(_USERS)]
    return [
        (
            f"PUT /api/nodes/{n} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            f"User-Agent: bench\r\nContent-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n"
        ).encode()
        + _BODY
        for n, token in enumerate(tokens)
    ]


class Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._got = b""
        self._since = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for a request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes, since: int) -> None:
        """Send one; ``since`` (ns) is when it was due."""
        assert self._transport is not None
        self._since = since
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Some of the answer; once it is whole, the next request may be sent."""
        self._got += data
        head = self._got.find(_END)
        if head < 0:
            return
        length = self._got.lower().index(b"content-length:") + 15
        size = int(self._got[length : self._got.index(b"\r", length)])
        if len(self._got) < head + len(_END) + size:
            return
        ok, self._got = self._got.startswith(b"HTTP/1.1 200"), b""
        self._client.answered(self, time.perf_counter_ns() - self._since, ok=ok)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server went away: nothing more can be measured."""
        self._client.lost()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()


class Client:
    """Sends ``count`` requests over some connections."""

    def __init__(self, port: int, count: int, rate: float | None) -> None:
        self._requests, self._count, self._rate = requests(port), count, rate
        self._sent = self._failed = 0
        self._times: list[int] = []
        # The one that has rested longest comes first: a server hangs up on those that rest for seconds.
        self._idle: deque[Connection] = deque()
        self._due: deque[int] = deque()
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, port: int, connections: int) -> dict[str, float]:
        """Send all of them and say how it went."""
        loop = asyncio.get_running_loop()
        opened = [
            (await loop.create_connection(lambda: Connection(self), "127.0.0.1", port))[1] for _ in range(connections)
        ]
        self._idle.extend(opened)
        began = time.perf_counter()
        if self._rate is None:
            for connection in list(opened):
                self._idle.remove(connection)
                self._send(connection, time.perf_counter_ns())
        else:
            ticking = loop.create_task(self._tick(self._rate))
        await self._done
        took = time.perf_counter() - began
        if self._rate is not None:
            await ticking
        for connection in opened:
            connection.close()
        return {
            "requests": self._count,
            "failed": self._failed,
            "seconds": took,
            **{
                f"p{name}_ms": quantile(self._times, at) / 1e6
                for name, at in (("50", 0.5), ("99", 0.99), ("999", 0.999))
            },
        }

    async def _tick(self, rate: float) -> None:
        began = time.perf_counter()
        for number in range(self._count):
            if (wait := began + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            now = time.perf_counter_ns()
            if self._idle:
                self._send(self._idle.popleft(), now)
            else:
                self._due.append(now)

    def _send(self, connection: Connection, since: int) -> None:
        connection.send(self._requests[self._sent % len(self._requests)], since)
        self._sent += 1

    def answered(self, connection: Connection, ns: int, *, ok: bool) -> None:
        """One request is done."""
        self._times.append(ns)
        self._failed += not ok
        if len(self._times) == self._count:
            self._done.set_result(None)
        elif self._due:
            self._send(connection, self._due.popleft())
        elif self._rate is None and self._sent < self._count:
            self._send(connection, time.perf_counter_ns())
        else:
            self._idle.append(connection)

    def lost(self) -> None:
        """A connection broke."""
        if not self._done.done():
            self._done.set_exception(ConnectionError("the server closed a connection"))


async def _run(port: int, requests: int, connections: int, rate: float | None) -> dict[str, float]:
    return await asyncio.wait_for(Client(port, requests, rate).run(port, connections), _TIMEOUT)


def main() -> None:
    """One load after the other until there is no more input."""
    port = int(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(asyncio.run(_run(port, **json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
