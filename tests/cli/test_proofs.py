"""`verify`, `checkpoint`, `prove`, `prove-consistency` and `export-tiles`, and what a stranger does with their files."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from indelible.integrity.checkpoint import Checkpoint, sign_checkpoint
from indelible.integrity.merkle import root_hash, verify_consistency
from indelible.integrity.note import Ed25519Signer, Note
from indelible.keys import KeyDirectory
from indelible.ports import StoredCheckpoint
from indelible.runtime import open_store
from indelible.settings import load

if TYPE_CHECKING:
    from .conftest import CommandLine
else:
    CommandLine = Any

SIGNER = Ed25519Signer("audit.example.com/cli", bytes(range(32)))


def publish(log: CommandLine) -> int:
    """Sign the newest head with this host's key; the size."""
    store = open_store(load(database_url=log.url, data_dir=log.data_dir))
    store.open()
    try:
        head, lease = store.head(), store.lease()
        assert head is not None
        assert head.root is not None
        assert lease is not None
        note = sign_checkpoint(Checkpoint(SIGNER.key.name, head.size, head.root), SIGNER)
        lease.insert(StoredCheckpoint(head.size, 0, note))
        lease.close()
        return head.size
    finally:
        store.close()


@pytest.fixture
def published(log: CommandLine) -> CommandLine:
    """The log with a checkpoint, on a host that has its key."""
    KeyDirectory(log.data_dir / "keys").create(SIGNER)
    publish(log)
    return log


def test_a_log_without_a_checkpoint_from_outside_is_incomplete(log: CommandLine) -> None:
    """Exit code 2, and one finding that says so."""
    result = log.run("verify", "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == 2
    assert (answer["verdict"], answer["size"], answer["witnessed"]) == ("incomplete", 4, None)
    assert [f["kind"] for f in answer["findings"]] == ["unwitnessed"]
    assert "agrees with itself" in log.run("verify").stderr


def test_a_checkpoint_that_was_kept_verifies_the_log(published: CommandLine, tmp_path: Path) -> None:
    """Written by `checkpoint --out`, compared by `verify --checkpoint`: exit code 0."""
    kept = tmp_path / "kept"
    assert published.run("checkpoint", "--out", str(kept)).exit_code == 0
    assert published.run("checkpoint").stdout.encode() == kept.read_bytes()
    result = published.run("verify", "--checkpoint", str(kept), "--json")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["verdict"], answer["findings"]) == (0, "verified", [])
    assert answer["root"] == Note.parse(kept.read_bytes()).text.split("\n")[2]


def test_the_keys_given_are_the_only_ones_believed(published: CommandLine, tmp_path: Path) -> None:
    """--key names what an auditor has from somewhere else."""
    kept = tmp_path / "kept"
    published.run("checkpoint", "--out", str(kept))
    assert published.run("verify", "--checkpoint", str(kept), "--key", str(SIGNER.key)).exit_code == 0
    other = Ed25519Signer(SIGNER.key.name, bytes(32)).key
    assert published.run("verify", "--checkpoint", str(kept), "--key", str(other)).exit_code == 2
    assert published.run("verify", "--key", "nonsense").exit_code == 2


def test_the_anchor_directory_is_compared_by_itself(
    published: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the settings name as a place outside needs no option."""
    place = tmp_path / "anchor" / "audit.example.com" / "cli"
    place.mkdir(parents=True)
    published.run("checkpoint", "--out", str(place / "checkpoint"))
    monkeypatch.setenv("INDELIBLE_ANCHOR_DIRECTORY", str(tmp_path / "anchor"))
    assert published.run("verify").exit_code == 0


def test_a_changed_row_is_named(
    published: CommandLine, unguarded: Callable[[CommandLine, str], None], tmp_path: Path
) -> None:
    """Exit code 1, with the row and what is wrong with it; in a table for people."""
    kept = tmp_path / "kept"
    published.run("checkpoint", "--out", str(kept))
    unguarded(published, "UPDATE audit_logs_0 SET user_id = 'nobody' WHERE seq = 2")
    result = published.run("verify", "--checkpoint", str(kept))
    assert result.exit_code == 1
    assert "row_changed" in result.stdout
    answer = json.loads(published.run("verify", "--since-last", "--json").stdout)
    assert {(f["kind"], f["seq"]) for f in answer["findings"]} >= {("row_changed", 2)}


def test_since_last_remembers_what_was_verified(published: CommandLine) -> None:
    """A state in the data directory; one that cannot be read says how to go on."""
    assert published.run("verify", "--since-last").exit_code == 2
    (state,) = (published.data_dir / "verify").iterdir()
    assert published.run("verify", "--since-last").exit_code == 2
    state.write_text("{")
    result = published.run("verify", "--since-last")
    assert (result.exit_code, "delete it" in result.stderr) == (2, True)


def test_a_witness_that_does_not_answer_is_incomplete(
    published: CommandLine, unguarded: Callable[[CommandLine, str], None], tmp_path: Path
) -> None:
    """Exit code 2 with the reason, even beside a checkpoint that agrees; and it hides nothing that is wrong."""
    kept = tmp_path / "kept"
    published.run("checkpoint", "--out", str(kept))
    asked = ("verify", "--witness", "http://127.0.0.1:9", "--checkpoint", str(kept), "--json")
    result = published.run(*asked)
    assert result.exit_code == 2
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["kind"] == "unreachable"
    assert "does not answer" in finding["detail"]
    unguarded(published, "UPDATE audit_logs_0 SET user_id = 'nobody' WHERE seq = 2")
    result = published.run(*asked)
    assert result.exit_code == 1
    assert "row_changed" in {f["kind"] for f in json.loads(result.stdout)["findings"]}


def test_what_could_not_be_verified_was_not_tampered_with(published: CommandLine, tmp_path: Path) -> None:
    """Exit code 1 is for findings: a file that is not there and a wrong address are 2."""
    missing = published.run("verify", "--checkpoint", str(tmp_path / "missing"))
    assert (missing.exit_code, "was not verified: cannot read" in missing.stderr) == (2, True)
    assert published.run("verify", "--witness", "gopher://witness").exit_code == 2


def test_a_log_that_is_not_there_is_not_made(missing_log: CommandLine) -> None:
    """Verifying makes nothing."""
    assert missing_log.run("verify").exit_code == 2
    assert not Path(missing_log.url.removeprefix("sqlite:///")).exists()


def test_a_proof_holds_for_a_stranger(published: CommandLine, tmp_path: Path) -> None:
    """The offline verifier shows the event; it imports nothing of ours; and having proved it is recorded."""
    event = published.stored()[2]
    out = tmp_path / "evidence"
    result = published.run("prove", str(event.id), "--out", str(out))
    assert result.exit_code == 0, result.output
    names = {f"{event.id}.tlog-proof", f"{event.id}.entry", f"{event.id}.disclosures"}
    assert {p.name for p in out.iterdir()} == {*names, "policy", "VERIFY.txt", "verify_bundle.py"}
    checked = offline(out)
    assert checked.returncode == 0, checked.stderr
    assert '"user_id": "alice"' in checked.stdout
    assert SIGNER.key.public_key.hex() in checked.stdout
    assert [e.action for e in published.stored() if e.event_type == "audit.read"] == ["prove"]


def test_the_commands_in_verify_txt_work(published: CommandLine, tmp_path: Path) -> None:
    """They run as they stand there: openssl believes the signature, and finds the digests of the disclosures."""
    event = published.stored()[2]
    out = tmp_path / "evidence"
    published.run("prove", str(event.id), "--out", str(out))
    lines = (out / "VERIFY.txt").read_text().splitlines()
    script = "\n".join(line for line in lines if line.startswith("    ") and "verify_bundle" not in line)
    ran = subprocess.run(["bash", "-euc", script], cwd=out, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Verified Successfully" in ran.stdout
    entry = json.loads((out / f"{event.id}.entry").read_text())
    assert event.leaf_hash is not None
    assert b64decode(ran.stdout.splitlines()[1]) == event.leaf_hash
    assert ran.stdout.splitlines()[2:] == [entry["actor"], entry["details"]]


@pytest.mark.parametrize("name", ["tlog-proof", "entry", "disclosures", "policy"])
def test_a_changed_file_is_refused_offline(published: CommandLine, tmp_path: Path, name: str) -> None:
    """One character is enough, in any of the files."""
    event = published.stored()[2]
    published.run("prove", str(event.id), "--out", str(tmp_path))
    path = tmp_path / (name if name == "policy" else f"{event.id}.{name}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert offline(tmp_path).returncode == 1


def test_without_disclosures_the_event_is_proved_but_not_shown(published: CommandLine, tmp_path: Path) -> None:
    """Personal data and details stay digests."""
    event = published.stored()[2]
    published.run("prove", str(event.id), "--out", str(tmp_path))
    (tmp_path / f"{event.id}.disclosures").unlink()
    checked = offline(tmp_path)
    assert (checked.returncode, "alice" in checked.stdout) == (0, False)


def test_what_cannot_be_proved_says_why(published: CommandLine, log: CommandLine, tmp_path: Path) -> None:
    """No such event; an event that no checkpoint covers yet; no checkpoint at all."""
    out = ("--out", str(tmp_path / "x"))
    assert published.run("prove", "01890a5d-ac96-774b-bcce-b302099a8057", *out).exit_code == 1
    newest = published.stored()[-1]
    result = published.run("prove", str(newest.id), *out)
    assert (result.exit_code, "no checkpoint covers this event" in result.stderr) == (1, True)


def test_before_the_first_checkpoint(log: CommandLine, tmp_path: Path) -> None:
    """Every command that needs one says how they come about."""
    event = log.stored()[0]
    for command in (["checkpoint"], ["prove", str(event.id), "--out", str(tmp_path)], ["export-tiles", str(tmp_path)]):
        result = log.run(*command)
        assert (result.exit_code, "no checkpoint has been published" in result.stderr) == (1, True)


def test_consistency_between_two_sizes(published: CommandLine) -> None:
    """The proof on standard output leads from root to root."""
    result = published.run("prove-consistency", "3", "4")
    assert result.exit_code == 0, result.output
    leaves = [row.leaf_hash or b"" for row in published.stored()][:4]
    proof = [b64decode(text) for text in json.loads(result.stdout)["proof"]]
    verify_consistency(3, 4, proof, root_hash(leaves[:3]), root_hash(leaves))
    assert published.run("prove-consistency", "4", "3").exit_code == 1


def test_tiles_are_a_log_that_others_read(published: CommandLine, tmp_path: Path) -> None:
    """The offline verifier recomputes all of it; a second run adds what is new; a changed file is refused."""
    out = tmp_path / "static"
    assert published.run("export-tiles", str(out)).exit_code == 0
    assert offline(out).returncode == 0
    published.seed([{"event_type": "login", "action": "login"}] * 300)
    size = publish(published)
    result = published.run("export-tiles", str(out))
    assert result.exit_code == 0, result.output
    checked = offline(out)
    assert (checked.returncode, f"all {size} entries" in checked.stdout) == (0, True)
    assert (out / "tile/0/000").stat().st_size == 8192
    assert [e.event_type for e in published.stored() if e.event_type.startswith("audit.")] == ["audit.exported"] * 2
    entries = out / "tile/entries/000"
    entries.write_bytes(entries.read_bytes().replace(b"login", b"logon", 1))
    assert offline(out).returncode == 1


def test_tiles_of_another_log_are_not_continued(published: CommandLine, tmp_path: Path) -> None:
    """The directory keeps what it has."""
    other = sign_checkpoint(Checkpoint(SIGNER.key.name, 3, bytes(32)), SIGNER)
    (tmp_path / "checkpoint").write_bytes(other)
    result = published.run("export-tiles", str(tmp_path))
    assert (result.exit_code, "another log" in result.stderr) == (1, True)
    assert (tmp_path / "checkpoint").read_bytes() == other


def offline(folder: Path) -> subprocess.CompletedProcess[str]:
    """What the verifier says, isolated from this installation's packages but cryptography's."""
    from indelible.bundles import VERIFIER

    guard = (
        "import runpy, sys; sys.modules['indelible'] = None; sys.argv = sys.argv[1:];"
        " runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", guard, str(VERIFIER), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def unguarded() -> Callable[[CommandLine, str], None]:
    """A function that does what no guard would let pass."""

    def execute(log: CommandLine, statement: str) -> None:
        if log.url.startswith("sqlite"):
            import sqlite3

            connection = sqlite3.connect(log.url.removeprefix("sqlite:///"))
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                connection.execute(f"DROP TRIGGER {name}")
            connection.execute(statement)
            connection.commit()
            connection.close()
        else:
            import psycopg

            with psycopg.connect(log.url) as postgres:
                postgres.execute("ALTER TABLE audit_logs DISABLE TRIGGER audit_guard_update")
                postgres.execute(statement.encode())

    return execute
