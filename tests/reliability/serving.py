"""A real server in processes of its own, to be killed, and clients that remember what they were told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import psutil

ROOT = Path(__file__).parents[2]
APP = "tests.reliability.host:app"


def eventually(condition: Callable[[], object], timeout: float = 30.0, *, what: str = "") -> None:
    """Return as soon as ``condition`` holds; AssertionError after ``timeout`` seconds. For what happens elsewhere."""
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what or condition}"
        pause.wait(0.01)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server and its workers. ``command`` is put behind ``python -m``; ``{port}`` in it becomes the port."""

    def __init__(self, command: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self._command = [sys.executable, "-m", *(part.format(port=self.port) for part in command)]
        self._log = log
        self._metrics = log.with_suffix(".metrics")
        self._metrics.mkdir(exist_ok=True)
        own = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "RELIABILITY_METRICS": str(self._metrics)}
        self._env = {**os.environ, **own, **env}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server's first process; who needs its answers waits for them."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=ROOT, env=self._env, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def workers(self) -> list[psutil.Process]:
        """The processes that serve, oldest first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid).children(recursive=True)
            return [p for p in found if not _is(p, "resource_tracker") and p.status() != psutil.STATUS_ZOMBIE]
        return []

    def kill_everything(self) -> int:
        """SIGKILL for every process of the server; return how many."""
        family = [*self.workers(), psutil.Process(self.pid)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.wait()
        psutil.wait_procs(family, timeout=10)
        return len(family)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30.0) -> int:
        """Send a signal and wait for the end; the exit status."""
        assert self._process is not None
        family = self.workers()
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self.wait(timeout)
        finally:
            _, alive = psutil.wait_procs(family, timeout=5)
            for process in alive:
                process.kill()

    def wait(self, timeout: float = 30.0) -> int:
        assert self._process is not None
        return self._process.wait(timeout)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def metrics(self) -> list[dict[str, float]]:
        """What each worker that ended in order told at its end."""
        return [json.loads(path.read_text()) for path in self._metrics.iterdir()]

    def wait_until_served(self, timeout: float = 40.0) -> None:
        """Return when the server answers."""
        eventually(self._answers, timeout, what=f"the server answers\n{self._tail()}")

    def _answers(self) -> bool:
        assert self.running, f"the server ended\n{self._tail()}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
            s.sendall(b"GET /pid HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
            return s.recv(12).endswith(b"200")
        return False

    def _tail(self) -> str:
        return self._log.read_text()[-3000:] if self._log.exists() else ""


def _is(process: psutil.Process, word: str) -> bool:
    try:
        return any(word in part for part in process.cmdline())
    except psutil.Error:
        return False


def uvicorn(*more: str, app: str = APP) -> list[str]:
    """The command of a uvicorn on the loopback interface."""
    return ["uvicorn", app, "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning", *more]


@dataclass
class Told:
    """What the clients were told: ids of accepted events, correlation ids of answered requests, and what failed."""

    ids: list[UUID] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    failed: int = 0
    refused: int = 0
    slowest: float = 0.0

    @property
    def answered(self) -> int:
        return len(self.ids) + len(self.requests)


class _Connection:
    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, correlation: str) -> tuple[int, bytes]:
        try:
            if self._writer is None or self._reader is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writer.write(
                f"POST {path} HTTP/1.1\r\nhost: t\r\nx-correlation-id: {correlation}\r\ncontent-length: 0\r\n\r\n".encode()
            )
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            return int(head[9:12]), await self._reader.readexactly(length)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


class Load:
    """Clients in a thread of their own, each sending one request after the other until told to stop.

    ``requests`` bounds how many are *answered* in all. Requests alternate between the middleware's route and the call's,
    or go to ``paths``.
    """

    def __init__(
        self, port: int, *, clients: int = 8, requests: int | None = None, paths: Sequence[str] = ("/things", "/log")
    ) -> None:
        self.told = Told()
        self._port, self._clients, self._paths = port, clients, paths
        self._left = requests
        self._done = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[Told]:
        """The clients work while it is entered."""
        self._thread.start()
        try:
            yield self.told
        finally:
            self._done.set()
            self._thread.join(60)
            assert not self._thread.is_alive()

    def finish(self, timeout: float = 600.0) -> Told:
        """Run until ``requests`` were answered."""
        self._thread.start()
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"{self.told.answered} answers after {timeout:g} s"
        return self.told

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(n) for n in range(self._clients)))

    async def _client(self, number: int) -> None:
        connection = _Connection(self._port)
        turn = number
        while not self._done.is_set():
            if self._left is not None:
                if self._left <= 0:
                    break
                self._left -= 1
            turn += 1
            path, correlation = self._paths[turn % len(self._paths)], uuid.uuid4().hex
            began = time.monotonic()
            try:
                status, body = await asyncio.wait_for(connection.post(path, correlation), 20)
            except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError):
                # Killed: whether it was accepted is not known to this client, who begins anew.
                self.told.failed += 1
                if self._left is not None:
                    self._left += 1
                await asyncio.sleep(0.02)
                continue
            self.told.slowest = max(self.told.slowest, time.monotonic() - began)
            if status >= 500:
                self.told.refused += 1
            elif path == "/log":
                self.told.ids.append(UUID(json.loads(body)))
            else:
                self.told.requests.append(correlation)
        connection.close()


def pick(choices: Sequence[psutil.Process], chance: random.Random) -> psutil.Process:
    """One of the processes."""
    return choices[chance.randrange(len(choices))]
