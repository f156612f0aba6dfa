"""``indelible key``: make, show, rotate, begin anew; each change of keys stands in the log."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from indelible.errors import ConfigurationError
from indelible.integrity.checkpoint import Checkpoint, open_checkpoint
from indelible.integrity.note import Ed25519Signer, Note, VerifierKey
from indelible.keys import KeyDirectory
from indelible.runtime import configure, install, open_store
from indelible.settings import load


@pytest.fixture
def keys(tmp_path: Path) -> KeyDirectory:
    """Where the commands keep keys."""
    return KeyDirectory(tmp_path / "data" / "keys")


@pytest.fixture
def lite(missing_log: Any) -> Any:
    """An empty log in a SQLite file."""
    missing_log.make()
    return missing_log


def _serve(log: Any, **settings: Any) -> list[bytes]:
    """Start the service, let it publish, stop it; the notes in the table after that."""
    service = configure(
        database_url=log.url, data_dir=log.data_dir, checkpoint_interval=0.05, flush_interval=0.05, **settings
    )
    try:
        service.open()
        follower: Any = service._followers[0]
        service.log(event_type="login", action="login")
        for _ in range(600):
            head = service.store.head()
            if head is not None and follower.cursor == head.size:
                break
            service._closing.wait(0.05)
    finally:
        service.close()
        install(None)
    store = open_store(load(database_url=log.url))
    store.open()
    try:
        return [each.note for each in store.checkpoints()]
    finally:
        store.close()


def _key_events(log: Any) -> list[tuple[str, str | None, dict[str, Any]]]:
    return [
        (event.action, event.resource_id, msgspec.json.decode(event.metadata or "{}"))
        for event in log.stored()
        if event.event_type == "audit.key"
    ]


def test_new_and_show(lite: Any, keys: KeyDirectory) -> None:
    """The public half is printed, the private one is not; a second key is refused; without one there is none to show."""
    assert lite.run("key", "show").exit_code == 1
    made = lite.run("key", "new", "--origin", "audit.example.com/prod")
    assert made.exit_code == 0, made.output
    vkey = VerifierKey.parse(made.stdout.strip())
    assert vkey.name == "audit.example.com/prod"
    assert "PRIVATE" not in made.output
    assert lite.run("key", "show").stdout == made.stdout
    again = lite.run("key", "new")
    assert again.exit_code == 1
    assert "key rotate" in again.stderr
    ring = keys.load()
    assert ring is not None
    assert ring.signing.key == vkey


def test_new_prints_a_key_for_the_environment(lite: Any, keys: KeyDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept; with the key in the environment the log is published, and ``show`` knows it."""
    made = lite.run("key", "new", "--print")
    signer = Ed25519Signer.parse(made.stdout.strip())
    assert str(signer.key) in made.stderr
    assert keys.load() is None
    monkeypatch.setenv("INDELIBLE_SIGNING_KEY", made.stdout.strip())
    assert lite.run("key", "show").stdout == f"{signer.key}\n"
    open_checkpoint(_serve(lite)[-1], logs=[signer.key])
    assert keys.load() is None
    assert keys.last_signed() is not None
    refused = lite.run("key", "rotate")
    assert refused.exit_code == 1
    assert "--print" in refused.stderr
    rotated = Ed25519Signer.parse(lite.run("key", "rotate", "--print").stdout.strip())
    monkeypatch.setenv("INDELIBLE_SIGNING_KEY", f"{rotated.encode()} {signer.encode()}")
    note = _serve(lite)[-1]
    open_checkpoint(note, logs=[signer.key])
    open_checkpoint(note, logs=[rotated.key])


def test_the_service_publishes_and_rotates(log: Any, keys: KeyDirectory) -> None:
    """From the first event to an overlap: who rotated stands in the log, and both keys sign."""
    assert log.run("key", "new").exit_code == 0
    first = VerifierKey.parse(log.run("key", "show").stdout.strip())
    notes = _serve(log)
    size = len(log.stored())
    assert open_checkpoint(notes[-1], logs=[first]).checkpoint.size == size, "everything is covered at shutdown"
    rotated = log.run("key", "rotate", "--overlap-days", "1")
    assert rotated.exit_code == 0, rotated.output
    second = VerifierKey.parse(rotated.stdout.strip())
    shown = log.run("key", "show")
    assert shown.stdout == f"{second}\n{first}\n"
    assert "signs along until" in shown.stderr
    note = _serve(log)[-1]
    assert len(open_checkpoint(note, logs=[first, second]).signatures) == 2
    assert [(action, vkey) for action, vkey, _ in _key_events(log)] == [
        ("register", str(first)),
        ("rotate", str(second)),
    ]
    assert _key_events(log)[1][2]["replaces"] == str(first)
    (event,) = [event for event in log.stored() if event.action == "rotate"]
    assert event.user_id
    assert event.source == "cli"


def test_a_restored_backup_and_a_new_epoch(lite: Any, keys: KeyDirectory, tmp_path: Path, caplog: Any) -> None:
    """A SQLite file put back: the service goes on storing, refuses to sign, says how to go on; that works."""
    file = Path(lite.url.removeprefix("sqlite:///"))
    _serve(lite)
    shutil.copy(file, tmp_path / "backup.db")
    before = _serve(lite)
    shutil.copy(tmp_path / "backup.db", file)
    for extra in ("-wal", "-shm"):
        Path(f"{file}{extra}").unlink(missing_ok=True)
    service = configure(database_url=lite.url, data_dir=lite.data_dir)
    service.open()
    service.close()
    install(None)
    assert "were signed: it was put back or cut" in caplog.text
    assert "indelible key new-epoch --reason" in caplog.text
    store = open_store(load(database_url=lite.url))
    store.open()
    assert [each.note for each in store.checkpoints()][-1] in before[:-1]
    store.close()
    assert lite.run("key", "new-epoch", "--reason", " ").exit_code == 1
    begun = lite.run("key", "new-epoch", "--reason", "restored after a disk failure")
    assert begun.exit_code == 0, begun.output
    vkey = VerifierKey.parse(begun.stdout.strip())
    assert vkey.name.endswith("/epoch-2")
    last = Checkpoint.parse(Note.parse(before[-1]).text)
    action, _, told = _key_events(lite)[-1]
    assert (action, told["reason"]) == ("new-epoch", "restored after a disk failure")
    assert told["last_signed"] == {"origin": last.origin, "size": last.size, "root": last.root.hex()}
    assert told["last_published"]["size"] < last.size
    note = _serve(lite)[-1]
    assert open_checkpoint(note, logs=[vkey]).checkpoint.size == len(lite.stored())


def test_origins_have_to_fit(lite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set in the environment, what is asked for, and what ends must agree."""
    monkeypatch.setenv("INDELIBLE_ORIGIN", "audit.example.com/prod")
    wrong = lite.run("key", "new", "--origin", "audit.example.com/test")
    assert wrong.exit_code == 1
    assert "INDELIBLE_ORIGIN" in wrong.stderr
    assert lite.run("key", "new").stdout.startswith("audit.example.com/prod+")
    _serve(lite)
    same = lite.run("key", "new-epoch", "--reason", "x", "--origin", "audit.example.com/prod")
    assert same.exit_code == 1
    assert "epoch that ends" in same.stderr
    named = lite.run("key", "new-epoch", "--reason", "x")
    assert named.stdout.startswith("audit.example.com/prod/epoch-2+")


def test_without_a_log_nothing_changes(missing_log: Any, keys: KeyDirectory) -> None:
    """A key may be made before the log is; it cannot be rotated where that cannot be recorded."""
    assert missing_log.run("key", "new").exit_code == 0
    ring = keys.load()
    assert ring is not None
    for command in (("rotate",), ("new-epoch", "--reason", "x")):
        refused = missing_log.run("key", *command)
        assert refused.exit_code == 1
        assert "there is no log" in refused.stderr
    assert keys.load() == ring or keys.load().signing.key == ring.signing.key  # type: ignore[union-attr]


def test_settings_refuse_a_wrong_key(lite: Any) -> None:
    """Found when the service is made, and not quoted."""
    with pytest.raises(ConfigurationError) as caught:
        configure(database_url=lite.url, data_dir=lite.data_dir, signing_key="s3cret")
    assert "s3cret" not in str(caught.value)
