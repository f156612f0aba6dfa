#!/usr/bin/env python3
"""Check what `indelible prove` and `indelible export-tiles` write, without Indelible: python verify_bundle.py DIR.

Needs Python 3.9 or later and the package `cryptography`, nothing else; it is one file on purpose, to be read before it
is believed. The formats are public: C2SP signed-note, tlog-checkpoint, tlog-proof, tlog-tiles and tlog-policy, RFC 9162
section 2.1 (the tree) and RFC 9901 section 4.2 (disclosures).

DIR holds NAME.tlog-proof and NAME.entry (and NAME.disclosures), or `checkpoint` and `tile/`. Whom to believe is said by
a policy file: --policy FILE, else DIR/policy. The one in DIR came with the proof, so compare its keys with those that
you have from somewhere else. Exit code 0: everything holds. 1: something does not. 2: there is nothing to check.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Refused(Exception):
    """What was checked does not hold."""


def unbase64(text: str) -> bytes:
    """Standard base64 with padding, spelled as an encoder would."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Refused(f"not base64: {text[:60]!r}") from None
    if base64.b64encode(data).decode() != text:
        raise Refused(f"not canonical base64: {text[:60]!r}")
    return data


def number(text: str) -> int:
    """A decimal number without leading zeroes."""
    if not text.isascii() or not text.isdigit() or str(int(text)) != text:
        raise Refused(f"not a decimal number: {text[:60]!r}")
    return int(text)


# --- whom to believe: C2SP tlog-policy ---------------------------------------------------------------------------------


class Key:
    """A vkey: <name>+<key ID>+<base64 of a type and 32 bytes>."""

    def __init__(self, vkey: str) -> None:
        self.name, key_id, material = [*vkey.split("+", 2), "", ""][:3]
        blob = unbase64(material)
        self.kind, self.public = blob[:1], blob[1:]
        self.id = hashlib.sha256(self.name.encode() + b"\n" + blob).digest()[:4]
        if len(self.public) != 32 or self.id.hex() != key_id or self.kind not in (b"\x01", b"\x04"):
            raise Refused(f"not a key that can be checked: {vkey[:100]}")

    def verifies(self, text: bytes, value: bytes) -> None:
        """Refuse unless ``value`` is this key's signature of the text; a witness's begins with its time."""
        message = text
        if self.kind == b"\x04":
            message = b"cosignature/v1\ntime %d\n" % int.from_bytes(value[:8], "big") + text
            value = value[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(value, message)
        except InvalidSignature:
            raise Refused(f"the signature of {self.name} is wrong") from None


class Policy:
    """Logs, witnesses, groups of them, and the quorum of witnesses that must have cosigned."""

    def __init__(self, text: str) -> None:
        self.logs: list[Key] = []
        self.witnesses: dict[str, Key] = {}
        self.groups: dict[str, tuple[int, list[str]]] = {}
        self.quorum: str | None = None
        for line in text.splitlines():
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if words[0] == "log" and len(words) in (2, 3):
                self.logs.append(Key(words[1]))
            elif words[0] == "witness" and len(words) in (3, 4):
                self.witnesses[words[1]] = Key(words[2])
            elif words[0] == "group" and len(words) > 3:
                members = words[3:]
                need = {"any": 1, "all": len(members)}.get(words[2]) or number(words[2])
                self.groups[words[1]] = (need, members)
            elif words[0] == "quorum" and len(words) == 2 and self.quorum is None:
                self.quorum = words[1]
            else:
                raise Refused(f"not a line of a policy: {line[:100]!r}")
        if self.quorum is None or not self.logs:
            raise Refused("the policy names no log, or no quorum")

    def open(self, note: bytes) -> tuple[str, int, bytes]:
        """The origin, size and root of a checkpoint that a log of the policy signed and the quorum cosigned."""
        text, blank, lines = note.rpartition(b"\n\n")
        text += b"\n"
        if not blank or not lines.endswith(b"\n"):
            raise Refused("the checkpoint is not a signed note")
        body = text.decode().split("\n")
        if len(body) != 4 or body[3]:
            raise Refused("the checkpoint is not three lines")
        origin, size, root = body[0], number(body[1]), unbase64(body[2])
        if len(root) != 32:
            raise Refused("the checkpoint's root is not 32 bytes")
        seen = self.signers(text, lines.decode().split("\n")[:-1], origin)
        if not seen:
            raise Refused("the checkpoint is signed by no log of the policy")
        for name, (need, members) in self.groups.items():
            if sum(member in seen for member in members) >= need:
                seen.add(name)
        if self.quorum != "none" and self.quorum not in seen:
            raise Refused("too few witnesses of the policy have cosigned")
        return origin, size, root

    def signers(self, text: bytes, lines: list[str], origin: str) -> set[str]:
        """The witnesses that cosigned, and "" for the log; empty if the log did not sign."""
        seen: set[str] = set()
        for line in lines:
            dash, name, value = [*line.split(" "), "", ""][:3]
            if dash != "\u2014":
                raise Refused(f"not a signature line: {line[:100]!r}")
            blob = unbase64(value)
            known = [("", key) for key in self.logs if key.name == origin] + list(self.witnesses.items())
            for called, key in known:
                if (key.name, key.id) == (name, blob[:4]):
                    key.verifies(text, blob[4:])
                    seen.add(called)
        return seen if "" in seen else set()


# --- the tree: RFC 9162 section 2.1 ------------------------------------------------------------------------------------


def leaf(entry: bytes) -> bytes:
    """The leaf hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of_path(index: int, size: int, value: bytes, path: list[bytes]) -> bytes:
    """The root that an audit path leads to (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        raise Refused(f"there is no leaf {index} in a tree of {size}")
    fn, sn = index, size - 1
    for sibling in path:
        if sn == 0:
            raise Refused("the audit path is too long")
        if fn & 1 or fn == sn:
            value = node(sibling, value)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            value = node(value, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise Refused("the audit path is too short")
    return value


class Tree:
    """A tree that grows leaf by leaf: the roots of its perfect subtrees, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self.stack: list[bytes] = []

    def append(self, value: bytes) -> None:
        """Add a leaf hash."""
        at = self.size
        while at & 1:
            value = node(self.stack.pop(), value)
            at >>= 1
        self.stack.append(value)
        self.size += 1

    def root(self) -> bytes:
        """The root hash."""
        if not self.stack:
            return hashlib.sha256(b"").digest()
        value = self.stack[-1]
        for left in self.stack[-2::-1]:
            value = node(left, value)
        return value


# --- one event: C2SP tlog-proof and RFC 9901 disclosures ----------------------------------------------------------------


def check_proof(proof: bytes, entry: bytes, policy: Policy) -> tuple[str, int, int]:
    """Refuse unless the entry is in a log of the policy; its origin, size, and the entry's index."""
    head, blank, note = proof.partition(b"\n\n")
    lines = head.decode("ascii").split("\n")
    if not blank or lines.pop(0) != "c2sp.org/tlog-proof@v1":
        raise Refused("not a tlog-proof")
    if lines and lines[0].startswith("extra "):
        unbase64(lines.pop(0)[len("extra ") :])
    if not lines or not lines[0].startswith("index "):
        raise Refused("the proof has no index")
    index = number(lines.pop(0)[len("index ") :])
    path = [unbase64(line) for line in lines]
    if any(len(value) != 32 for value in path):
        raise Refused("a hash of the proof is not 32 bytes")
    origin, size, root = policy.open(note)
    if root_of_path(index, size, leaf(entry), path) != root:
        raise Refused("the entry is not in the log at this place: the audit path leads to another root")
    return origin, size, index


def open_entry(entry: bytes, disclosures: list[str]) -> dict[str, str | int]:
    """The fields of an entry, with those of its groups that the disclosures open."""
    fields: dict[str, str | int] = json.loads(entry)
    for text in disclosures:
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode("ascii")).digest()).decode().rstrip("=")
        _, group, opened = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if fields.get(group) != digest:
            raise Refused(f"the entry does not commit to its disclosure of {group}")
        if set(opened) & set(fields):
            raise Refused(f"a disclosure of {group} gives a field twice")
        del fields[group]
        fields.update(opened)
    return fields


def check_events(folder: Path, policy: Policy) -> int:
    """Check each event in the folder and show it; how many there were."""
    found = sorted(folder.glob("*.tlog-proof"))
    for path in found:
        entry = path.with_suffix(".entry").read_bytes()
        origin, size, index = check_proof(path.read_bytes(), entry, policy)
        beside = path.with_suffix(".disclosures")
        fields = open_entry(entry, beside.read_text("ascii").split() if beside.exists() else [])
        print(f"{path.stem}: verified: entry {index} of the {size} in {origin}")
        print(json.dumps(fields, indent=2, sort_keys=True))
    return len(found)


# --- a whole log: C2SP tlog-tiles ---------------------------------------------------------------------------------------


def tile_path(level: int | str, index: int, width: int) -> str:
    """Where a tile, or a bundle of entries, is kept."""
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = f"tile/{level}/" + "/".join(["x" + group for group in groups[:-1]] + groups[-1:])
    return path if width == 256 else f"{path}.p/{width}"


def check_tiles(folder: Path, policy: Policy) -> int:
    """Recompute every tile and the root from the entries."""
    origin, size, root = policy.open((folder / "checkpoint").read_bytes())
    tree = Tree()
    below: list[list[bytes]] = []
    for index in range(-(-size // 256)):
        width = min(256, size - 256 * index)
        bundle = (folder / tile_path("entries", index, width)).read_bytes()
        hashes: list[bytes] = []
        at = 0
        while at < len(bundle) and len(hashes) < width:
            end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
            if end > len(bundle):
                raise Refused(f"bundle {index} of entries is cut short")
            hashes.append(leaf(bundle[at + 2 : end]))
            at = end
        if at != len(bundle) or len(hashes) != width:
            raise Refused(f"bundle {index} of entries does not hold {width}")
        check_tile(folder, 0, index, hashes)
        for value in hashes:
            tree.append(value)
        add_to_levels(folder, below, hashes if width == 256 else None, index)
    for level, row in enumerate(below, start=1):
        if row:
            count = size >> (8 * level)
            check_tile(folder, level, count // 256, row)
    if tree.root() != root:
        raise Refused("the entries do not lead to the root of the checkpoint")
    print(f"verified: all {size} entries of {origin}")
    return 1


def add_to_levels(folder: Path, below: list[list[bytes]], hashes: list[bytes] | None, index: int) -> None:
    """Carry the root of a full tile into the tile above it; a tile that is full by that is checked, and carried on."""
    level = 1
    while hashes is not None:
        while len(hashes) > 1:
            hashes = [node(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
        if len(below) < level:
            below.append([])
        below[level - 1].append(hashes[0])
        index, hashes = index // 256, None
        if len(below[level - 1]) == 256:
            hashes, below[level - 1] = below[level - 1], []
            check_tile(folder, level, index, hashes)
        level += 1


def check_tile(folder: Path, level: int, index: int, hashes: list[bytes]) -> None:
    """Refuse unless the tile's file holds these hashes."""
    path = tile_path(level, index, len(hashes))
    if (folder / path).read_bytes() != b"".join(hashes):
        raise Refused(f"{path} does not hold the hashes of its entries")


def main(arguments: list[str] | None = None) -> int:
    """Check a folder; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--policy", metavar="FILE", type=Path, help="whom to believe; default: DIR/policy")
    given = parser.parse_args(arguments)
    given_policy = given.policy or given.folder / "policy"
    try:
        policy = Policy(given_policy.read_text())
        for key in [*policy.logs, *policy.witnesses.values()]:
            print(f"believing {key.name}, public key {key.public.hex()} (from {given_policy})")
        checked = check_events(given.folder, policy)
        if (given.folder / "checkpoint").exists():
            checked += check_tiles(given.folder, policy)
    except OSError as error:
        print(f"cannot read: {error}", file=sys.stderr)
        return 2
    except (Refused, ValueError, TypeError, KeyError) as error:
        print(f"REFUSED: {error}", file=sys.stderr)
        return 1
    if not checked:
        print(f"there is nothing to check in {given.folder}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
