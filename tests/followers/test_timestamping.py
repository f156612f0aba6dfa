"""RFC 3161 time stamps, from an authority made with ``openssl ts``, checked by ``openssl ts``."""

from __future__ import annotations

import http.server
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from indelible.errors import AnchorFailed
from indelible.followers.anchors import Published
from indelible.followers.directory import Directory
from indelible.followers.timestamping import TimestampAnchor
from indelible.integrity.checkpoint import Checkpoint, sign_checkpoint
from indelible.integrity.note import Note
from indelible.keys import generate

ORIGIN = "audit.example.com/prod"
SIGNER = generate(ORIGIN)

_CONFIG = """
[req]
distinguished_name = name
prompt = no
[name]
CN = Test TSA
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[tsa_certificate]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[tsa]
default_tsa = authority
[authority]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.crt
signer_key = {folder}/tsa.key
certs = {folder}/ca.crt
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256
ess_cert_id_alg = sha256
"""


def _published(size: int) -> Published:
    return Published(ORIGIN, size, sign_checkpoint(Checkpoint(ORIGIN, size, bytes([size]) * 32), SIGNER))


def openssl(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run it; its output is text."""
    return subprocess.run(["openssl", *map(str, args)], cwd=cwd, capture_output=True, text=True, check=False)


@dataclass
class Authority:
    """A time-stamping authority on the loopback interface. ``instead`` is answered in place of the truth."""

    folder: Path
    url: str = ""
    status: int = 200
    content_type: str = "application/timestamp-reply"
    instead: bytes | None = None
    asked: list[bytes] = field(default_factory=list)

    def reply(self, query: bytes) -> bytes:
        """The response that ``openssl ts -reply`` makes."""
        self.asked.append(query)
        if self.instead is not None:
            return self.instead
        (self.folder / "query.tsq").write_bytes(query)
        made = openssl(
            "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query.tsq", "-out", "reply.tsr", cwd=self.folder
        )
        assert made.returncode == 0, made.stderr
        return (self.folder / "reply.tsr").read_bytes()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a root, an authority's certificate and the configuration of ``openssl ts``."""
    folder = tmp_path_factory.mktemp("tsa")
    (folder / "tsa.cnf").write_text(_CONFIG.format(folder=folder))
    (folder / "serial").write_text("01\n")
    made = [
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
                "-subj", "/CN=Test CA", "-config", "tsa.cnf", "-extensions", "ca", cwd=folder),
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "tsa.key", "-out", "tsa.csr",
                "-subj", "/CN=Test TSA", "-config", "tsa.cnf", cwd=folder),
        openssl("x509", "-req", "-in", "tsa.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-set_serial", "2", "-days", "2",
                "-out", "tsa.crt", "-extfile", "tsa.cnf", "-extensions", "tsa_certificate", cwd=folder),
    ]  # fmt: skip
    assert all(each.returncode == 0 for each in made), [each.stderr for each in made]
    return folder


@pytest.fixture
def authority(certificates: Path) -> Iterator[Authority]:
    """It stops with the test."""
    told = Authority(certificates)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/timestamp-query"
            body = told.reply(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(told.status)
            self.send_header("Content-Type", told.content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}/tsa"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield told
        server.shutdown()
        thread.join()


def test_openssl_verifies_the_token_beside_the_checkpoint(authority: Authority, tmp_path: Path) -> None:
    """In every place, about the very bytes that lie there; another checkpoint does not pass for it."""
    places = [Directory(tmp_path / "one"), Directory(tmp_path / "two")]
    TimestampAnchor(authority.url, places).put(_published(7))
    for name in ("one", "two"):
        folder = tmp_path / name / ORIGIN / "checkpoints"
        checkpoint = folder / "000000000007"
        assert checkpoint.read_bytes() == _published(7).note
        roots = authority.folder / "ca.crt"
        verify = ("ts", "-verify", "-in", f"{checkpoint}.tsr", "-CAfile", roots)
        good = openssl(*verify, "-data", checkpoint, cwd=folder)
        assert good.returncode == 0, good.stderr
        other = tmp_path / "other"
        other.write_bytes(_published(8).note)
        assert openssl(*verify, "-data", other, cwd=folder).returncode != 0
    assert len(authority.asked) == 1


def test_openssl_verifies_the_signature_of_the_note(tmp_path: Path) -> None:
    """The text of the note, the last 64 bytes of its signature and the 32 bytes of the vkey are all it takes."""
    note = Note.parse(_published(7).note)
    (tmp_path / "text").write_text(note.text)
    (tmp_path / "signature").write_bytes(note.signatures[0].value)
    # RFC 8410: twelve fixed bytes in front of the key make it a SubjectPublicKeyInfo.
    prefix = bytes.fromhex("302a300506032b6570032100")
    (tmp_path / "key.der").write_bytes(prefix + SIGNER.key.public_key)
    command = ("pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key.der", "-rawin", "-in", "text")
    verified = openssl(*command, "-sigfile", "signature", cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    (tmp_path / "text").write_text(note.text.replace("\n7\n", "\n8\n"))
    assert openssl(*command, "-sigfile", "signature", cwd=tmp_path).returncode != 0


def test_one_stamp_an_interval(authority: Authority, tmp_path: Path) -> None:
    """A checkpoint inside it is contained in a later one; after a failure the next is stamped."""
    times = iter((0.0, 1.0, 3600.0, 3601.0, -5.0))
    anchor = TimestampAnchor(authority.url, [Directory(tmp_path)], interval=3600, clock=lambda: next(times))
    authority.status = 503
    with pytest.raises(AnchorFailed, match="503"):
        anchor.put(_published(1))
    authority.status = 200
    for size in (2, 3, 4, 5):
        anchor.put(_published(size))
    stamped = sorted(path.name for path in (tmp_path / ORIGIN / "checkpoints").glob("*.tsr"))
    assert stamped == ["000000000002.tsr", "000000000004.tsr", "000000000005.tsr"]


def test_only_a_stamp_of_this_checkpoint_is_kept(authority: Authority, tmp_path: Path) -> None:
    """Neither nonsense, nor a refusal, nor a stamp of something else, nor another answer to the same question."""
    anchor = TimestampAnchor(authority.url, [Directory(tmp_path)])
    authority.content_type = "text/html"
    with pytest.raises(AnchorFailed, match="text/html"):
        anchor.put(_published(7))
    authority.content_type = "application/timestamp-reply"
    authority.instead = b"nonsense"
    with pytest.raises(AnchorFailed, match="something else than a time stamp"):
        anchor.put(_published(7))
    authority.instead = bytes.fromhex("30053003020102")
    with pytest.raises(AnchorFailed, match="refused: status 2"):
        anchor.put(_published(7))
    authority.instead = None
    other = TimestampAnchor(authority.url, [Directory(tmp_path)])
    other.put(_published(9))
    # Its nonce was another: an answer from before is not taken twice, even for the same checkpoint.
    authority.instead = (tmp_path / ORIGIN / "checkpoints/000000000009.tsr").read_bytes()
    for size in (7, 9):
        with pytest.raises(AnchorFailed, match="stamped something else"):
            anchor.put(_published(size))
    assert not (tmp_path / ORIGIN / "checkpoints/000000000007.tsr").exists()
