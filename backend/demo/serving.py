"""A real uvicorn in a process of its own, for the demo, the tests and the benchmarks."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

ROOT: Final = Path(__file__).resolve().parents[2]
_READY: Final = re.compile(r"Uvicorn running on http://[^:\s]+:(\d+)")


class StartError(RuntimeError):
    """The server ended, or said nothing, before it accepted connections; the message ends with its last lines."""


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Server:
    """``with Server("package.module:app") as server: server.url`` - started on entry, stopped on exit.

    ``port`` 0 takes a free one. ``env`` is laid over this process's environment; a value of None removes the name.
    ``cwd`` defaults to the repository. What the server prints goes to ``log`` (default: nowhere). ``start_timeout``
    is in seconds; StartError is raised when it has passed or when the server ends before it is ready. ``options`` are
    uvicorn's own.
    """

    def __init__(
        self,
        target: str,
        *,
        port: int = 0,
        workers: int = 1,
        env: Mapping[str, str | None] | None = None,
        cwd: Path = ROOT,
        log: Path | None = None,
        start_timeout: float = 60.0,
        options: Sequence[str] = (),
    ) -> None:
        self.port = port
        self._command = [sys.executable, "-m", "uvicorn", target, "--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--workers", str(workers), "--no-use-colors", "--no-proxy-headers", *options]
        merged = {**os.environ, **(env or {})}
        self._env = {name: value for name, value in merged.items() if value is not None}
        self._cwd = cwd
        self._log = log
        self._start_timeout = start_timeout
        self._tail: deque[str] = deque(maxlen=20)
        self._settled = threading.Event()
        self._ready = False
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the server listens, without a slash at the end."""
        return f"http://localhost:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the server in order.
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            self._command,
            cwd=self._cwd,
            env={**self._env, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), name="server-output")
        self._reader.start()
        self._settled.wait(self._start_timeout)
        if not self._ready:
            self.stop()
            raise StartError("the server did not start:\n" + "".join(self._tail))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait(self) -> int:
        """Wait until the server ends by itself; return its exit code."""
        assert self._process is not None
        return self._process.wait()

    def stop(self, timeout: float = 20.0) -> None:
        """Ask the server to shut down, and kill it if it has not after ``timeout`` seconds. Twice does nothing."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader is not None:
            self._reader.join(timeout)
        self._process = None

    def _read(self, output: IO[str]) -> None:
        # Reads to the end, so that the server never waits for a full pipe.
        with output, open(self._log or os.devnull, "w", encoding="utf-8") as log:
            for line in output:
                log.write(line)
                log.flush()
                self._tail.append(line)
                if match := _READY.search(line):
                    self.port = int(match[1])
                    self._ready = True
                    self._settled.set()
        self._settled.set()
