"""A small C2SP witness (tlog-witness): it cosigns a log's checkpoints, and never two that contradict each other.

It belongs on another host than the log, under another administrator: then a log that was rewritten and signed anew with
a stolen key still cannot show the cosignature. All it keeps is the newest checkpoint of each log, in one SQLite file.
``docs/how-to/run-a-witness.md`` is the guide.
"""

from __future__ import annotations

import http.server
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from indelible.errors import CheckpointInvalid, ConfigurationError, IntegrityError, NoteInvalid, ProofInvalid
from indelible.integrity.checkpoint import Checkpoint, add_cosignatures, cosign_checkpoint, open_checkpoint
from indelible.integrity.merkle import EMPTY_ROOT, verify_consistency
from indelible.integrity.note import COSIGNATURE, ED25519, Note, Signer, VerifierKey
from indelible.integrity.witnessing import ADD_CHECKPOINT, MAX_REQUEST, SIZE_TYPE, AddCheckpoint, encode_signatures
from indelible.stores.wal import use_wal

log: Final = logging.getLogger("indelible.witness")

_PLAIN: Final = "text/plain; charset=utf-8"
#: Where the newest cosigned checkpoint of a log is read, with its origin behind it. No part of the C2SP protocol.
CHECKPOINT: Final = "/checkpoint/"
#: Seconds that a client is given to send its request, and requests that are answered at the same time.
PATIENCE: Final = 10.0
CONNECTIONS: Final = 32

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS checkpoints (
    origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = _PLAIN


class Witness:
    """The newest checkpoint of each of these logs, and a key to say so. Safe to use from several threads and processes.

    ``logs`` are the keys of the logs, of type 01; a log may have two during a rotation. ``signer`` has a key of type 04.
    ``now`` gives Unix seconds. Raises ConfigurationError for other keys and for a file that is not a witness's.
    """

    def __init__(
        self, path: Path, signer: Signer, logs: Iterable[VerifierKey], *, now: Callable[[], float] = time.time
    ) -> None:
        self._signer = signer
        self._now = now
        self._path = path
        self._logs: dict[str, list[VerifierKey]] = {}
        for key in logs:
            self._logs.setdefault(key.name, []).append(key)
            if key.kind != ED25519:
                raise ConfigurationError(f"the key of {key.name} is not a log's", hint="it has to be of type 01")
        if signer.key.kind != COSIGNATURE:
            raise ConfigurationError("a witness signs with a key of type 04")
        try:
            with closing(self._connect()) as connection:
                use_wal(connection)
                connection.execute(_TABLE)
        except sqlite3.Error as error:
            raise ConfigurationError(f"{path} cannot be used: {error}") from error

    @property
    def key(self) -> VerifierKey:
        """The witness's public key: what logs and verifiers need of it."""
        return self._signer.key

    def add_checkpoint(self, body: bytes) -> Reply:
        """Cosign a checkpoint if it contains the newest one that was cosigned; see the standard for the statuses."""
        try:
            request = AddCheckpoint.parse(body)
            note = Note.parse(request.checkpoint)
        except (ProofInvalid, NoteInvalid) as error:
            return _refusal(HTTPStatus.BAD_REQUEST, error)
        keys = self._logs.get(note.text.partition("\n")[0])
        if keys is None:
            return Reply(HTTPStatus.NOT_FOUND, b"this log is not known here\n")
        try:
            checkpoint = open_checkpoint(request.checkpoint, logs=keys).checkpoint
        except CheckpointInvalid as error:
            return _refusal(HTTPStatus.BAD_REQUEST, error)
        except NoteInvalid as error:
            return _refusal(HTTPStatus.FORBIDDEN, error)
        if request.old > checkpoint.size:
            return Reply(HTTPStatus.BAD_REQUEST, b"the old size is larger than the checkpoint's\n")
        try:
            return self._advance(request, checkpoint, note)
        except sqlite3.Error as error:
            log.error("the checkpoint cannot be kept: %s", error)
            return Reply(HTTPStatus.SERVICE_UNAVAILABLE, b"the checkpoint cannot be kept now\n")

    def newest(self, origin: str) -> bytes | None:
        """The newest checkpoint that was cosigned, with the cosignature; None for a log that has shown none."""
        with closing(self._connect()) as connection:
            found = connection.execute("SELECT note FROM checkpoints WHERE origin = ?", (origin,)).fetchone()
        return None if found is None else found[0].encode()

    def _advance(self, request: AddCheckpoint, checkpoint: Checkpoint, note: Note) -> Reply:
        with closing(self._connect()) as connection:
            # From here to the commit nobody else can look: two requests never pass with the same old size.
            connection.execute("BEGIN IMMEDIATE")
            found = connection.execute(
                "SELECT size, root FROM checkpoints WHERE origin = ?", (checkpoint.origin,)
            ).fetchone()
            size, root = found or (0, EMPTY_ROOT)
            if request.old != size or (checkpoint.size == size and checkpoint.root != root):
                return Reply(HTTPStatus.CONFLICT, b"%d\n" % size, SIZE_TYPE)
            try:
                _check(request, checkpoint, root)
            except ProofInvalid as error:
                return _refusal(HTTPStatus.UNPROCESSABLE_ENTITY, error)
            cosignature = cosign_checkpoint(checkpoint, self._signer, time=int(self._now()))
            connection.execute(
                "INSERT INTO checkpoints (origin, size, root, note) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (origin) DO UPDATE SET size = excluded.size, root = excluded.root, note = excluded.note",
                (
                    checkpoint.origin,
                    checkpoint.size,
                    checkpoint.root,
                    add_cosignatures(request.checkpoint, [cosignature]).decode(),
                ),
            )
            # Crash before here ⇒ nothing was said and nothing is kept; after ⇒ the log asks again, and gets it.
            connection.execute("COMMIT")
        return Reply(HTTPStatus.OK, encode_signatures(note.text, (cosignature,)))

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=PATIENCE, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        return connection


def _check(request: AddCheckpoint, checkpoint: Checkpoint, root: bytes) -> None:
    """Raise ProofInvalid unless the proof leads from the old root to the new one. From nothing there is none to give."""
    if request.old:
        verify_consistency(request.old, checkpoint.size, request.proof, root, checkpoint.root)
    elif request.proof:
        raise ProofInvalid("a first checkpoint has no consistency proof")


def _refusal(status: HTTPStatus, error: IntegrityError) -> Reply:
    return Reply(status, f"{error.message}\n".encode())


class WitnessServer(http.server.ThreadingHTTPServer):
    """Serves a witness: ``POST <prefix>/add-checkpoint`` and ``GET <prefix>/checkpoint/<origin>``.

    Plain HTTP, for a loopback address or behind a proxy that speaks TLS. A bounded number of requests at a time, each
    of bounded size and duration.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], witness: Witness, *, prefix: str = "") -> None:
        self.witness = witness
        self.prefix = prefix.rstrip("/")
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """As the base class, when there is room: the others wait in the listen queue."""
        self._room.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As the base class."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WitnessServer
    server_version = "indelible-witness"
    sys_version = ""
    timeout = PATIENCE

    def do_POST(self) -> None:
        if self.path != self.server.prefix + ADD_CHECKPOINT:
            self._reply(Reply(HTTPStatus.NOT_FOUND, b"there is nothing here\n"))
            return
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self._reply(Reply(HTTPStatus.LENGTH_REQUIRED, b"the request has no Content-Length\n"))
        elif len(length) > 9 or int(length) > MAX_REQUEST:
            self._reply(Reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"the request is too large\n"))
        else:
            self._reply(self.server.witness.add_checkpoint(self.rfile.read(int(length))))

    def do_GET(self) -> None:
        before = self.server.prefix + CHECKPOINT
        note = self.server.witness.newest(unquote(self.path[len(before) :])) if self.path.startswith(before) else None
        if note is None:
            self._reply(Reply(HTTPStatus.NOT_FOUND, b"there is no checkpoint here\n"))
        else:
            self._reply(Reply(HTTPStatus.OK, note))

    def _reply(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        log.info("%s %s", self.address_string(), (format % args).encode("unicode_escape").decode())
