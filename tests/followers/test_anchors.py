"""The places outside: files, a webhook, a witness; what they are given, and what happens when they are away."""

from __future__ import annotations

import http.server
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from indelible.errors import AnchorFailed, ConfigurationError
from indelible.followers.anchors import Attempts, FileAnchor, Published
from indelible.followers.assembly import publisher as assembled
from indelible.followers.directory import Directory
from indelible.followers.webhook import Webhook
from indelible.followers.witnessing import WitnessClient
from indelible.integrity.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from indelible.integrity.merkle import CompactRange
from indelible.integrity.note import COSIGNATURE, Ed25519Signer
from indelible.keys import generate
from indelible.metrics import Tally
from indelible.settings import load
from indelible.testing import MemoryStore
from indelible.witness import Witness, WitnessServer

ORIGIN = "audit.example.com/prod"
SIGNER = generate(ORIGIN)


def _published(size: int, seed: bytes = b"", origin: str = ORIGIN) -> Published:
    """A checkpoint of a tree of so many made-up leaves."""
    tree, _ = CompactRange().extend([bytes([n % 256]) * 31 + (seed or b"x") for n in range(size)])
    signer = SIGNER if origin == ORIGIN else generate(origin)
    return Published(origin, size, sign_checkpoint(Checkpoint(origin, size, tree.root), signer))


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="indelible.publisher")


# --- a directory ------------------------------------------------------------------------------------------------------


def test_a_directory_gets_each_checkpoint_and_the_newest(tmp_path: Path) -> None:
    """Named by size, so that they sort; ``checkpoint`` is the newest. Putting one twice changes nothing."""
    anchor = FileAnchor(Directory(tmp_path / "out"))
    for size in (3, 20, 20):
        anchor.put(_published(size))
    folder = tmp_path / "out" / ORIGIN
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "checkpoint",
        "checkpoints/000000000003",
        "checkpoints/000000000020",
    ]
    assert (folder / "checkpoint").read_bytes() == _published(20).note
    assert (folder / "checkpoints/000000000003").read_bytes() == _published(3).note


def test_another_checkpoint_of_the_same_size_is_never_overwritten(tmp_path: Path) -> None:
    """Two trees were signed: the evidence stays as it is."""
    anchor = FileAnchor(Directory(tmp_path))
    anchor.put(_published(5))
    with pytest.raises(AnchorFailed, match="forked"):
        anchor.put(_published(5, b"y"))
    assert (tmp_path / ORIGIN / "checkpoints/000000000005").read_bytes() == _published(5).note
    assert (tmp_path / ORIGIN / "checkpoint").read_bytes() == _published(5).note
    (tmp_path / ORIGIN / "checkpoints/000000000005").write_bytes(b"nonsense")
    with pytest.raises(AnchorFailed, match="is none"):
        anchor.put(_published(5))


@pytest.mark.parametrize("origin", ["../up", "a/../../b", "/etc", ".hidden/x"])
def test_an_origin_cannot_lead_out_of_the_directory(tmp_path: Path, origin: str) -> None:
    """The key's name is whatever somebody chose."""
    with pytest.raises(AnchorFailed, match="not a path"):
        FileAnchor(Directory(tmp_path)).put(_published(1, origin=origin))
    assert list(tmp_path.rglob("*")) == []


def test_a_directory_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    """For example a mount that is away: its mount point is a file here."""
    (tmp_path / "out").write_text("")
    with pytest.raises(AnchorFailed):
        FileAnchor(Directory(tmp_path / "out")).put(_published(1))


# --- patience ---------------------------------------------------------------------------------------------------------


def test_a_place_that_fails_is_asked_less_and_less_often(caplog: pytest.LogCaptureFixture) -> None:
    """1, 2, 4, ... seconds up to five minutes; one line when it goes, one when it is back."""
    attempts, tally = Attempts("place", jitter=lambda: 1.0), Tally()
    waits = []
    for _ in range(12):
        attempts.failed(AnchorFailed("away"), 100.0, tally)
        waits.append(attempts.wait(100.0))
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert attempts.wait(399.0) == 1.0
    assert attempts.wait(400.0) == 0.0
    assert attempts.wait(0.0) == 0.0, "a clock that goes back does not stop it"
    assert tally.counter("anchor_failures") == 12
    attempts.succeeded()
    assert attempts.wait(100.0) == 0.0
    assert [r.getMessage() for r in caplog.records] == [
        "place does not take checkpoints, trying again: away",
        "place takes checkpoints again after 12 failed attempts",
    ]


def test_a_place_that_is_away_does_not_stop_the_log(bench: Any, anchor: Any) -> None:
    """The table goes on; the place gets the newest checkpoint when it is back; at the end it is not waited for."""
    publisher = bench.publisher(anchors=[anchor])
    bench.append()
    bench.step(publisher)
    anchor.away = True
    bench.step(publisher)
    asked = anchor.asked
    for _ in range(5):
        bench.append()
        bench.step(publisher)
    assert bench.sizes() == [2, 3, 4, 5, 6, 7]
    assert asked < anchor.asked < asked + 6
    before = anchor.asked
    bench.step(publisher, closing=True, later=400)
    assert anchor.asked == before
    anchor.away = False
    bench.step(publisher, later=400)
    assert [each.size for each in anchor.taken] == [7]
    again = bench.publisher(anchors=[anchor])
    publisher.close()
    bench.step(again)
    assert [each.size for each in anchor.taken] == [7, 7], "a new process brings the newest once more"


# --- a webhook --------------------------------------------------------------------------------------------------------


@dataclass
class _Receiver:
    """A server on the loopback interface that answers as it is told."""

    url: str = ""
    status: int = 204
    body: bytes = b""
    content_type: str = "text/plain"
    location: str = ""
    taken: list[tuple[str, str, bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[_Receiver]:
    """It stops with the test."""
    told = _Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.taken.append((self.path, self.headers["Content-Type"], body))
            self.send_response(told.status)
            self.send_header("Content-Type", told.content_type)
            self.send_header("Content-Length", str(len(told.body)))
            if told.location:
                self.send_header("Location", told.location)
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield told
        server.shutdown()
        thread.join()


def test_a_webhook_gets_the_note(receiver: _Receiver) -> None:
    """By POST, as text; the secret in its address stays out of its name."""
    webhook = Webhook(f"{receiver.url}/hook/s3cret?token=t")
    webhook.put(_published(7))
    assert receiver.taken == [("/hook/s3cret?token=t", "text/plain; charset=utf-8", _published(7).note)]
    assert "s3cret" not in webhook.name
    assert "token" not in webhook.name


@pytest.mark.parametrize("status", [301, 307, 400, 404, 500, 503])
def test_any_other_answer_is_a_failure(receiver: _Receiver, status: int) -> None:
    """Redirects, too: a checkpoint goes where it was sent."""
    receiver.status = status
    receiver.location = f"{receiver.url}/elsewhere"
    with pytest.raises(AnchorFailed, match=str(status)):
        Webhook(receiver.url).put(_published(7))
    assert len(receiver.taken) == 1


def test_an_answer_without_end_is_cut_off(receiver: _Receiver) -> None:
    """A megabyte is more than any place has to say."""
    receiver.body = b"x" * ((1 << 20) + 1)
    receiver.status = 200
    with pytest.raises(AnchorFailed, match="longer"):
        Webhook(receiver.url).put(_published(7))


def test_nobody_there_is_a_failure() -> None:
    """Connection refused, and a name that cannot be."""
    for url in ("http://127.0.0.1:1/", "http://localhost:1/"):
        with pytest.raises(AnchorFailed, match="no answer"):
            Webhook(url, timeout=1.0).put(_published(1))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "nonsense", "http://"])
def test_only_http_addresses(url: str) -> None:
    """Found when the service is made."""
    with pytest.raises(ConfigurationError, match="http"):
        Webhook(url)


# --- a witness --------------------------------------------------------------------------------------------------------


@pytest.fixture
def witness(tmp_path: Path, bench: Any) -> Iterator[tuple[Witness, str]]:
    """A witness of the bench's log, served on the loopback interface: it and its address."""
    bench.keys.create(SIGNER)
    signer = Ed25519Signer("witness.example.com", bytes(32), kind=COSIGNATURE)
    served = Witness(tmp_path / "witness.db", signer, [SIGNER.key], now=lambda: 1_700_000_000)
    with WitnessServer(("127.0.0.1", 0), served, prefix="/w") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield served, f"http://127.0.0.1:{server.server_port}/w"
        server.shutdown()
        thread.join()


def test_a_witness_cosigns_what_is_published(bench: Any, witness: tuple[Witness, str], anchor: Any) -> None:
    """The table and every place get the note with the cosignature; proofs lead from size to size, across restarts."""
    served, url = witness
    for size in (1, 300, 3):
        publisher = bench.publisher(anchors=[anchor], cosigners=[WitnessClient(str(served.key), url)])
        bench.append(size)
        bench.step(publisher)
        bench.step(publisher)
        bench.append(1)
        bench.step(publisher)
        publisher.close()
    notes = [each.note for each in bench.published()]
    assert bench.sizes() == [2, 3, 303, 304, 307, 308]
    for note in notes:
        opened = open_checkpoint(note, logs=[SIGNER.key], witnesses=[served.key])
        assert [c.time for c in opened.cosignatures] == [1_700_000_000]
    assert {each.note for each in anchor.taken} == set(notes)
    assert served.newest(ORIGIN) == notes[-1]
    assert bench.tally.counter("anchor_failures") == 0


class _Fickle(WitnessClient):
    away = True

    def cosign(self, published: Published, proof: Any) -> Any:
        if self.away:
            raise AnchorFailed("away")
        return super().cosign(published, proof)


def test_a_witness_that_was_away_cosigns_the_newest(bench: Any, witness: tuple[Witness, str], anchor: Any) -> None:
    """The log does not wait for it; what it cosigns late goes to the places outside."""
    served, url = witness
    client = _Fickle(str(served.key), url)
    publisher = bench.publisher(anchors=[anchor], cosigners=[client])
    bench.append()
    bench.step(publisher)
    bench.step(publisher)
    assert bench.sizes() == [2]
    assert not open_checkpoint(anchor.taken[-1].note, logs=[SIGNER.key], witnesses=[served.key]).cosignatures
    client.away = False
    bench.step(publisher)
    assert bench.sizes() == [2]
    assert len(open_checkpoint(anchor.taken[-1].note, logs=[SIGNER.key], witnesses=[served.key]).cosignatures) == 1


def test_a_witness_tells_a_rewritten_log(tmp_path: Path, witness: tuple[Witness, str]) -> None:
    """Database and key stolen, history rewritten and signed anew: no cosignature, whatever the proof."""
    served, url = witness
    client = WitnessClient(str(served.key), url)
    assert len(client.cosign(_published(9), lambda _: [])) == 1
    for forged in (_published(9, b"y"), _published(5, b"y"), _published(5)):
        with pytest.raises(AnchorFailed, match="has seen size 9"):
            client.cosign(forged, lambda _: [])
        with pytest.raises(AnchorFailed, match="has seen size 9"):
            WitnessClient(str(served.key), url).cosign(forged, lambda _: [])
    with pytest.raises(AnchorFailed, match="422"):
        client.cosign(_published(12, b"y"), lambda _: [bytes(32)] * 3)


def test_what_a_witness_answers_is_checked(receiver: _Receiver, witness: tuple[Witness, str]) -> None:
    """No signature, somebody else's, nonsense; a conflict without a size."""
    served, url = witness
    client = WitnessClient(str(served.key), receiver.url)
    receiver.status = 200
    other = Ed25519Signer("witness.example.com", bytes([1]) * 32, kind=COSIGNATURE)
    lines = "— witness.example.com AAAA\n".encode()
    assert other.key != served.key
    for body in (b"", b"nonsense", lines):
        receiver.body = body
        with pytest.raises(AnchorFailed, match="no cosignature"):
            client.cosign(_published(1), lambda _: [])
    receiver.status, receiver.body = 409, b"12\n"
    with pytest.raises(AnchorFailed, match="no size"):
        client.cosign(_published(1), lambda _: [])
    receiver.status, receiver.body = 404, b""
    with pytest.raises(AnchorFailed, match="does not know this log"):
        client.cosign(_published(1), lambda _: [])
    with pytest.raises(AnchorFailed, match="404"):
        WitnessClient(str(served.key), url + "/no").cosign(_published(1), lambda _: [])


@pytest.mark.parametrize("vkey", ["nonsense", str(SIGNER.key)], ids=["nonsense", "of a log"])
def test_a_witness_has_a_witness_key(vkey: str) -> None:
    """Of type 04, and readable."""
    with pytest.raises(ConfigurationError, match="witness"):
        WitnessClient(vkey, "http://127.0.0.1:1")


# --- from settings ----------------------------------------------------------------------------------------------------


def test_settings_become_places(tmp_path: Path) -> None:
    """Each setting makes its anchor; what cannot work is found when the service is made."""
    witness = Ed25519Signer("w.example.com", bytes(32), kind=COSIGNATURE).key
    settings = load(
        data_dir=tmp_path,
        anchor_directory=tmp_path / "out",
        anchor_s3_bucket="b",
        anchor_webhook_url="https://hook.example.com/x",
        anchor_tsa_url="http://tsa.example.com",
        anchor_witnesses=f"{witness} https://w.example.com, {witness} https://w2.example.com",
    )
    made = assembled(settings, MemoryStore())
    assert [outlet._anchor.name for outlet in made._outlets] == [
        f"directory {tmp_path / 'out'}",
        "bucket b",
        "webhook hook.example.com",
        "time-stamping authority tsa.example.com",
    ]
    assert [w.attempts.name for w in made._cosigners] == [
        "witness w.example.com at w.example.com",
        "witness w.example.com at w2.example.com",
    ]


def test_a_signer_takes_the_place_of_every_key(tmp_path: Path, bench: Any) -> None:
    """A KMS: what it signs is published, no file holds a key, and what it signed is remembered all the same."""
    settings = load(data_dir=tmp_path / "kms", signing_key=generate("other.example.com").encode())
    publisher = assembled(settings, bench.store, signer=SIGNER)
    bench.append()
    for _ in range(2):
        publisher._due = 0.0
        publisher.step(bench.host)
    publisher.close()
    (only,) = bench.published()
    bench.check(only.note, SIGNER.key)
    assert [path.name for path in (tmp_path / "kms" / "keys").iterdir()] == ["last-signed"]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"anchor_tsa_url": "http://tsa"}, "needs anchor_directory"),
        ({"anchor_witnesses": ("only-a-key",)}, "a vkey, a space and an address"),
        ({"anchor_webhook_url": "ftp://x"}, "http"),
        ({"signing_key": "secret-nonsense"}, "cannot be read"),
        ({"origin": "with space"}, "origin"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, settings: dict[str, Any], match: str) -> None:
    """Each is a ConfigurationError that quotes no secret."""
    with pytest.raises(ConfigurationError, match=match) as caught:
        assembled(load(data_dir=tmp_path, **settings), MemoryStore())
    assert "nonsense" not in str(caught.value)
