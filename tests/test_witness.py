"""The witness: every status of the standard, kept before it is said, whoever asks at the same time."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indelible import witness as module
from indelible.errors import ConfigurationError, KeyUnavailable
from indelible.integrity.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from indelible.integrity.merkle import CompactRange, consistency_proof, hash_leaf, perfect_root, root_hash
from indelible.integrity.note import COSIGNATURE, Ed25519Signer, Note, Signer
from indelible.integrity.witnessing import AddCheckpoint, parse_signatures
from indelible.keys import generate, witness_key
from indelible.witness import Reply, Witness, WitnessServer

ORIGIN = "audit.example.com/prod"
LOG = generate(ORIGIN)
KEY = Ed25519Signer("witness.example.com", bytes(32), kind=COSIGNATURE)
NOW = 1_700_000_000
LEAVES = [hash_leaf(b"%d" % n) for n in range(64)]


def _note(size: int, *, fork: bytes = b"", signer: Signer = LOG) -> bytes:
    """A signed checkpoint of the first leaves; with ``fork``, of others."""
    leaves = [hash_leaf(fork + leaf) for leaf in LEAVES[:size]] if fork else LEAVES[:size]
    return sign_checkpoint(Checkpoint(signer.key.name, size, root_hash(leaves)), signer)


def _proof(first: int, second: int) -> tuple[bytes, ...]:
    if not 0 < first < second:
        return ()
    return tuple(
        consistency_proof(first, second, lambda level, at: perfect_root(LEAVES[at << level : (at + 1) << level]))
    )


def _request(old: int, size: int, *, fork: bytes = b"", signer: Signer = LOG) -> bytes:
    return AddCheckpoint(old, _proof(old, size), _note(size, fork=fork, signer=signer)).encode()


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    """A witness of the log that has seen nothing yet."""
    return Witness(tmp_path / "witness.db", KEY, [LOG.key], now=lambda: NOW)


def _status(reply: Reply) -> int:
    return int(reply.status)


def test_it_cosigns_what_contains_what_it_has_seen(witness: Witness, tmp_path: Path) -> None:
    """From nothing to 1, 7, 7 again and 64: 200, and a line that verifies. A restart forgets nothing."""
    seen = 0
    for size in (1, 7, 7, 64):
        reply = witness.add_checkpoint(_request(seen, size))
        assert _status(reply) == 200
        (verified,) = parse_signatures(Note.parse(_note(size)).text, reply.body).verify([KEY.key])
        assert verified.time == NOW
        witness = Witness(tmp_path / "witness.db", KEY, [LOG.key], now=lambda: NOW)
        seen = size
        newest = witness.newest(ORIGIN)
        assert newest is not None
        assert open_checkpoint(newest, logs=[LOG.key], witnesses=[KEY.key]).checkpoint.size == size
    assert witness.newest("unknown") is None


def test_an_empty_log_may_begin(witness: Witness) -> None:
    """Size 0 has one root; what comes after it needs no proof."""
    assert _status(witness.add_checkpoint(_request(0, 0))) == 200
    assert _status(witness.add_checkpoint(_request(0, 5))) == 200


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        (lambda: b"", 400),
        (lambda: b"old 0\n\nnonsense", 400),
        (lambda: b"old -1\n\n" + _note(9), 400),
        (lambda: b"old 07\n\n" + _note(9), 400),
        (lambda: b"old 7\n!!!\n\n" + _note(9), 400),
        (lambda: b"old 7\nAAAA\n\n" + _note(9), 400),
        (lambda: b"old 7\n" + b"A" * 43 + b"=\n" * 1 + b"\n" + b"x" * 9, 400),
        (lambda: AddCheckpoint(9, (), _note(8)).encode(), 400),
        (lambda: _request(7, 9, signer=generate("other.example.com/log")), 404),
        (lambda: _request(7, 9, signer=generate(ORIGIN)), 403),
        (lambda: _request(7, 9).replace(b"\n9\n", b"\n8\n"), 403),
        (lambda: AddCheckpoint(7, (), _signed(f"{ORIGIN}\n9\nAAAA\n")).encode(), 400),
        (lambda: AddCheckpoint(7, (), _signed(f"{ORIGIN}\n").replace(b"\n\n", b"\nx\n\n", 1)).encode(), 403),
        (lambda: _request(0, 9), 409),
        (lambda: _request(6, 9), 409),
        (lambda: _request(8, 9), 409),
        (lambda: _request(7, 7, fork=b"x"), 409),
        (lambda: _request(5, 5), 409),
        (lambda: AddCheckpoint(7, (), _note(9)).encode(), 422),
        (lambda: AddCheckpoint(7, (bytes(32),), _note(9)).encode(), 422),
        (lambda: AddCheckpoint(7, _proof(7, 9), _note(9, fork=b"x")).encode(), 422),
        (lambda: AddCheckpoint(7, _proof(7, 9), _note(7)).encode(), 422),
    ],
)  # fmt: skip
def test_every_refusal(witness: Witness, request_of: Callable[[], bytes], status: int) -> None:
    """After size 7 was seen. Nothing is signed and nothing is kept; 409 alone says the size, in its own type."""
    assert _status(witness.add_checkpoint(_request(0, 7))) == 200
    before = witness.newest(ORIGIN)
    reply = witness.add_checkpoint(request_of())
    assert _status(reply) == status
    assert "— ".encode() not in reply.body
    assert witness.newest(ORIGIN) == before
    if status == 409:
        assert (reply.body, reply.content_type) == (b"7\n", "text/x.tlog.size")
    else:
        assert reply.content_type.startswith("text/plain")


def _signed(text: str) -> bytes:
    from indelible.integrity.note import sign

    return Note(text, (sign(text, LOG),)).encode()


def test_a_first_checkpoint_has_no_proof(witness: Witness) -> None:
    """There is nothing to be consistent with: hashes are 422."""
    assert _status(witness.add_checkpoint(AddCheckpoint(0, (bytes(32),), _note(9)).encode())) == 422


def test_either_key_of_a_rotation_will_do(tmp_path: Path) -> None:
    """A log may have two keys; a line by a key that the witness does not know is no harm."""
    new = generate(ORIGIN)
    tree, _ = CompactRange().extend(LEAVES[:3])
    both = sign_checkpoint(Checkpoint(ORIGIN, 3, tree.root), new, LOG)
    for name, keys in (("both", [LOG.key, new.key]), ("old", [LOG.key]), ("new", [new.key])):
        witness = Witness(tmp_path / name, KEY, keys)
        assert _status(witness.add_checkpoint(AddCheckpoint(0, (), both).encode())) == 200


def test_of_two_that_contradict_one_is_signed(tmp_path: Path) -> None:
    """Sixteen threads over four connections' worth of witnesses bring different trees of one size: 200 once, else 409."""
    witnesses = [Witness(tmp_path / "witness.db", KEY, [LOG.key]) for _ in range(4)]
    barrier = threading.Barrier(16)

    def ask(number: int) -> int:
        body = _request(0, 8, fork=b"%d" % number)
        barrier.wait()
        return _status(witnesses[number % 4].add_checkpoint(body))

    with ThreadPoolExecutor(16) as pool:
        statuses = sorted(pool.map(ask, range(16)))
    assert statuses == [200] + [409] * 15


def test_concurrent_growth_never_goes_back(tmp_path: Path) -> None:
    """Each thread climbs as far as it can; what is kept is the largest that was signed."""
    witnesses = [Witness(tmp_path / "witness.db", KEY, [LOG.key]) for _ in range(4)]

    def climb(witness: Witness) -> int:
        old = top = 0
        while old < 40:
            reply = witness.add_checkpoint(_request(old, old + 1))
            assert _status(reply) in {200, 409}
            top = old + 1 if _status(reply) == 200 else top
            old = old + 1 if _status(reply) == 200 else int(reply.body)
        return top

    with ThreadPoolExecutor(4) as pool:
        tops = list(pool.map(climb, witnesses))
    newest = witnesses[0].newest(ORIGIN)
    assert newest is not None
    assert open_checkpoint(newest, logs=[LOG.key]).checkpoint.size == max(tops) == 40


def test_what_cannot_be_kept_is_not_said(witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full or locked disk: 503, and no signature."""
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    with contextlib.closing(sqlite3.connect(tmp_path / "witness.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        reply = witness.add_checkpoint(_request(0, 8))
        assert _status(reply) == 503
        assert "— ".encode() not in reply.body
        other.execute("ROLLBACK")
    assert _status(witness.add_checkpoint(_request(0, 8))) == 200


def test_keys_and_files_that_do_not_fit(tmp_path: Path) -> None:
    """A log's key as the witness's, a witness's as the log's, a file that is no database."""
    with pytest.raises(ConfigurationError, match="type 04"):
        Witness(tmp_path / "a.db", LOG, [LOG.key])
    with pytest.raises(ConfigurationError, match="type 01"):
        Witness(tmp_path / "a.db", KEY, [KEY.key])
    (tmp_path / "b.db").write_text("not a database, and long enough to be looked at" * 30)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Witness(tmp_path / "b.db", KEY, [LOG.key])


def test_the_witness_keeps_its_key(tmp_path: Path) -> None:
    """Made once, mode 0600; another name, or a file that others can read, is refused."""
    path = tmp_path / "w.skey"
    signer = witness_key(path, "w.example.com")
    assert witness_key(path, "w.example.com").key == signer.key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="holds the key of"):
        witness_key(path, "other.example.com")
    path.chmod(0o640)
    with pytest.raises(KeyUnavailable, match="open to other users"):
        witness_key(path, "w.example.com")


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture
def address(witness: Witness) -> Iterator[tuple[str, int]]:
    """Where the witness is served, under the prefix ``/w``."""
    with WitnessServer(("127.0.0.1", 0), witness, prefix="/w/") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield "127.0.0.1", server.server_port
        server.shutdown()
        thread.join()


def _http(
    address: tuple[str, int], method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, str, bytes]:
    with contextlib.closing(http.client.HTTPConnection(*address, timeout=10)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()


def test_it_speaks_http(address: tuple[str, int]) -> None:
    """Statuses, types and bodies as the witness gives them; the newest checkpoint by GET; nothing elsewhere."""
    status, kind, body = _http(address, "POST", "/w/add-checkpoint", _request(0, 7))
    assert (status, kind) == (200, "text/plain; charset=utf-8")
    assert body.startswith("— witness.example.com ".encode())
    assert _http(address, "POST", "/w/add-checkpoint", _request(0, 9)) == (409, "text/x.tlog.size", b"7\n")
    status, _, note = _http(address, "GET", f"/w/checkpoint/{ORIGIN}")
    assert status == 200
    assert note == _note(7) + body
    for method, path in (("POST", "/add-checkpoint"), ("GET", "/w/checkpoint/x"), ("GET", "/"), ("POST", "/w/")):
        assert _http(address, method, path, b"" if method == "POST" else None)[0] == 404
    assert _http(address, "PUT", "/w/add-checkpoint", b"")[0] == 501


@pytest.mark.parametrize(
    ("length", "status"), [(None, 411), ("x", 411), ("-1", 411), ("1e3", 411), ("1010000", 413), ("9" * 30, 413)]
)
def test_a_body_has_a_bounded_length(address: tuple[str, int], length: str | None, status: int) -> None:
    """Said before it is read; without one, or too long, nothing is read."""
    with socket.create_connection(address, timeout=10) as client:
        line = "" if length is None else f"Content-Length: {length}\r\n"
        client.sendall(f"POST /w/add-checkpoint HTTP/1.0\r\n{line}\r\n".encode())
        assert client.makefile("rb").readline().split()[1] == str(status).encode()


def test_a_client_that_stalls_is_let_go(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request never comes; others are answered meanwhile, and its connection is closed."""
    monkeypatch.setattr(module._Handler, "timeout", 0.2)
    with WitnessServer(("127.0.0.1", 0), witness) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = ("127.0.0.1", server.server_port)
        with socket.create_connection(address, timeout=10) as client:
            client.sendall(b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
            assert _http(address, "POST", "/add-checkpoint", _request(0, 7))[0] == 200
            assert client.recv(100) == b""
        server.shutdown()
        thread.join()


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """It prints its vkey, takes checkpoints, ends with 0 on SIGTERM, and is the same witness when it starts again."""
    command = [sys.executable, "-c", "from indelible.cli import main; main()", "witness", "serve"]
    command += ["--name", "w.example.com", "--log", str(LOG.key), "--listen", "127.0.0.1:0", "--db", "w.db"]
    vkeys = set()
    for status in (200, 409):
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
        ) as served:
            assert served.stderr is not None
            assert served.stdout is not None
            said = served.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
            assert found, said
            assert _http(("127.0.0.1", int(found[1])), "POST", "/add-checkpoint", _request(0, 7))[0] == status
            served.send_signal(signal.SIGTERM)
            out, err = served.communicate(timeout=20)
            vkeys.add(out)
            assert served.returncode == 0, err
    assert len(vkeys) == 1
