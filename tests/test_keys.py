"""The signing keys' files: their form and mode, what a crash leaves, what is refused."""

from __future__ import annotations

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indelible.errors import ConfigurationError, KeyUnavailable, NoteInvalid
from indelible.integrity.checkpoint import Checkpoint
from indelible.integrity.note import COSIGNATURE, Ed25519Signer
from indelible.keys import KeyDirectory, belongs_to, check_signers, default_origin, generate, next_origin, parse_keys

ORIGIN = "audit.example.com/prod"


@pytest.fixture
def keys(tmp_path: Path) -> KeyDirectory:
    """An empty directory that is not there yet."""
    return KeyDirectory(tmp_path / "data" / "keys")


def test_a_key_is_a_c2sp_file_for_its_owner_alone(keys: KeyDirectory) -> None:
    """One line, PRIVATE+KEY+..., mode 0600, in a directory of mode 0700; nothing else is left there."""
    assert keys.load() is None
    signer = generate(ORIGIN)
    keys.create(signer)
    ring = keys.load()
    assert ring is not None
    assert ring.signing.key == signer.key
    assert ring.retiring == ()
    (path,) = keys.path.iterdir()
    assert path.read_text() == signer.encode() + "\n"
    assert path.read_text().startswith(f"PRIVATE+KEY+{ORIGIN}+")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o700


def test_a_key_is_never_replaced_by_making_one(keys: KeyDirectory) -> None:
    """Of eight that try at once one succeeds; the others are told what to do."""
    barrier, hints = threading.Barrier(8), list[str]()

    def create(_: int) -> Ed25519Signer | None:
        signer = generate(ORIGIN)
        barrier.wait()
        try:
            keys.create(signer)
        except ConfigurationError as error:
            hints.append(error.hint)
            return None
        return signer

    with ThreadPoolExecutor(8) as pool:
        (made,) = [signer for signer in pool.map(create, range(8)) if signer]
    assert ["key rotate" in hint for hint in hints] == [True] * 7
    ring = keys.load()
    assert ring is not None
    assert ring.signing.key == made.key
    assert len(list(keys.path.iterdir())) == 1


def test_rotation_keeps_the_predecessor_for_a_while(keys: KeyDirectory) -> None:
    """Two files and a time; a rotation that was cut short is as good as not begun."""
    first, second = generate(ORIGIN), generate(ORIGIN)
    keys.create(first)
    (keys.path / "retiring-99.skey").hardlink_to(keys.path / "signing.skey")
    ring = keys.load()
    assert ring is not None
    assert ring.retiring == ()
    keys.rotate(second, until=99)
    ring = keys.load()
    assert ring is not None
    assert ring.signing.key == second.key
    (old,) = ring.retiring
    assert (old.signer.key, old.until) == (first.key, 99)
    keys.drop(old)
    keys.drop(old)
    ring = keys.load()
    assert ring is not None
    assert ring.retiring == ()


def test_an_epoch_ends_the_keys_of_the_one_before(keys: KeyDirectory) -> None:
    """They are kept aside, and so is what was signed last."""
    first, second, other = generate(ORIGIN), generate(ORIGIN), generate(next_origin(ORIGIN))
    keys.create(first)
    keys.remember(Checkpoint(ORIGIN, 3, bytes(32)))
    keys.rotate(second, until=99)
    keys.begin_epoch(other)
    keys.begin_epoch(other)
    ring = keys.load()
    assert ring is not None
    assert (ring.signing.key, ring.retiring) == (other.key, ())
    keys.remember(Checkpoint(other.key.name, 1, bytes(32)))
    assert keys.last_signed() == Checkpoint(other.key.name, 1, bytes(32))
    names = {path.name for path in keys.path.iterdir()}
    assert {f"ended-{s.key.key_id.hex()}.skey" for s in (first, second)} <= names
    (aside,) = keys.path.glob("ended-*.last-signed")
    assert Checkpoint.parse(aside.read_text()) == Checkpoint(ORIGIN, 3, bytes(32))


def test_what_was_signed_last_is_a_checkpoints_body(keys: KeyDirectory) -> None:
    """Readable by anybody; a damaged one is an error, never "nothing was signed"."""
    assert keys.last_signed() is None
    for size in (3, 4):
        keys.remember(Checkpoint(ORIGIN, size, bytes(32)))
    assert keys.last_signed() == Checkpoint(ORIGIN, 4, bytes(32))
    path = keys.path / "last-signed"
    assert path.read_text().startswith(f"{ORIGIN}\n4\n")
    for text in ("", "nonsense", f"{ORIGIN}\n4\n"):
        path.write_text(text)
        with pytest.raises(KeyUnavailable, match="damaged"):
            keys.last_signed()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_read_is_refused(keys: KeyDirectory, mode: int) -> None:
    """With the command that closes it."""
    keys.create(generate(ORIGIN))
    path = keys.path / "signing.skey"
    path.chmod(mode)
    with pytest.raises(KeyUnavailable, match="open to other users") as caught:
        keys.load()
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "PRIVATE+KEY+x", str(generate(ORIGIN).key), "\udcff"],
    ids=["nothing", "nonsense", "cut", "public", "bytes"],
)
def test_a_damaged_key_is_refused(keys: KeyDirectory, text: str) -> None:
    """And never quoted."""
    keys.create(generate(ORIGIN))
    (keys.path / "signing.skey").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(KeyUnavailable, match="holds no signing key") as caught:
        keys.load()
    assert not text or text not in str(caught.value)


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "keys").write_text("")
    keys = KeyDirectory(tmp_path / "keys")
    for action in (keys.load, keys.last_signed, lambda: keys.create(generate(ORIGIN))):
        with pytest.raises(KeyUnavailable, match="cannot be used"):
            action()


def test_keys_of_one_log_only(keys: KeyDirectory) -> None:
    """Two origins at once would sign two histories; a witness's key signs none."""
    keys.create(generate(ORIGIN))
    keys.rotate(generate("other.example.com"), until=99)
    with pytest.raises(ConfigurationError, match="different logs"):
        keys.load()
    with pytest.raises(ConfigurationError, match="witness"):
        check_signers([Ed25519Signer(ORIGIN, bytes(32), kind=COSIGNATURE)])


def test_keys_from_the_environment() -> None:
    """One, or two during a rotation, separated by white space; a wrong one is never quoted."""
    first, second = generate(ORIGIN), generate(ORIGIN)
    parsed = parse_keys(f" {first.encode()}\n{second.encode()} ")
    assert [signer.key for signer in parsed] == [first.key, second.key]
    wrong = first.encode()[:-2]
    with pytest.raises(ConfigurationError) as caught:
        parse_keys(wrong)
    *_, secret = wrong.split("+", 4)
    assert secret
    assert secret not in str(caught.value)


def test_origins() -> None:
    """The default is unique and has no owner; epochs are counted behind the name; the setting covers them all."""
    assert default_origin() != default_origin()
    assert default_origin().startswith("indelible.local/")
    assert next_origin("a/b") == "a/b/epoch-2"
    assert next_origin("a/b/epoch-2") == "a/b/epoch-3"
    assert next_origin("a/epoch-9") == "a/epoch-10"
    assert belongs_to("a/b", "a/b")
    assert belongs_to("a/b/epoch-7", "a/b")
    assert not belongs_to("a/b/epoch-x", "a/b")
    assert not belongs_to("a/c", "a/b")
    for name in ("", "a b", "a+b"):
        with pytest.raises(NoteInvalid):
            generate(name)
