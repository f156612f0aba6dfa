"""Trust policies (C2SP tlog-policy): which logs and witnesses a verifier believes, and how many witnesses it wants.

log audit.example.com/prod+8f3a...+AT...
witness w1 witness.example.org+1c2d...+BF...
witness w2 witness.example.net+77aa...+BA...
group both all w1 w2
quorum both
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from indelible.errors import CheckpointInvalid, NoteInvalid, PolicyInvalid
from indelible.integrity._text import parse_decimal
from indelible.integrity.checkpoint import OpenCheckpoint, open_checkpoint
from indelible.integrity.note import COSIGNATURE, ED25519, VerifierKey

#: Bytes of a policy file at most.
MAX_POLICY: Final = 65_536
#: The quorum that asks for no witness.
NONE: Final = "none"

_BLANK: Final = re.compile(r"[ \t]+")
_CONTROL: Final = re.compile(r"[^\t\n\x20-\x7e\x80-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Group:
    """So many of these members, which are witnesses or groups, must have cosigned."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a verifier trusts. ``quorum`` names a witness, a group, or "none"; a group stands behind its members."""

    logs: tuple[VerifierKey, ...]
    witnesses: Mapping[str, VerifierKey] = field(default_factory=lambda: MappingProxyType({}))
    groups: Mapping[str, Group] = field(default_factory=lambda: MappingProxyType({}))
    quorum: str = NONE

    @classmethod
    def parse(cls, data: bytes) -> Policy:
        """Read a policy file. Raises PolicyInvalid, which names the line."""
        if len(data) > MAX_POLICY:
            raise PolicyInvalid(f"the policy is longer than {MAX_POLICY:,} bytes")
        # Bytes beyond ASCII are opaque to a policy: this keeps every one of them apart, valid UTF-8 or not.
        text = data.decode(errors="surrogateescape")
        if _CONTROL.search(text) or (text and not text.endswith("\n")):
            raise PolicyInvalid("the policy has a control character, or does not end in a newline")
        reader = _Reader()
        for number, line in enumerate(text.split("\n"), start=1):
            words = _BLANK.split(line.strip(" \t"))
            if words != [""] and not words[0].startswith("#"):
                try:
                    reader.read(words)
                except (NoteInvalid, PolicyInvalid) as error:
                    raise PolicyInvalid(f"line {number} of the policy: {error.message}") from error
        if reader.quorum is None:
            raise PolicyInvalid("the policy has no quorum line", hint="without witnesses it is: quorum none")
        return cls(tuple(reader.logs), dict(reader.witnesses), dict(reader.groups), reader.quorum)

    def encode(self) -> bytes:
        """The policy as a file."""
        lines = [f"log {key}" for key in self.logs]
        lines += [f"witness {name} {key}" for name, key in self.witnesses.items()]
        lines += [f"group {name} {g.threshold} {' '.join(g.members)}" for name, g in self.groups.items()]
        lines.append(f"quorum {self.quorum}")
        return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")

    def open(self, checkpoint: bytes) -> OpenCheckpoint:
        """Verify a signed checkpoint: a log's signature and the quorum of cosignatures.

        Raises NoteInvalid as ``open_checkpoint`` does, and CheckpointInvalid when too few witnesses cosigned.
        """
        opened = open_checkpoint(checkpoint, logs=self.logs, witnesses=self.witnesses.values())
        keys = {cosignature.key for cosignature in opened.cosignatures}
        seen = {name for name, key in self.witnesses.items() if key in keys}
        for name, group in self.groups.items():
            if sum(member in seen for member in group.members) >= group.threshold:
                seen.add(name)
        if self.quorum != NONE and self.quorum not in seen:
            raise CheckpointInvalid(f"the cosignatures do not make the quorum {self.quorum}")
        return opened


class _Reader:
    """Collects the lines of a policy; a name can only be used below the line that defines it."""

    def __init__(self) -> None:
        self.logs: list[VerifierKey] = []
        self.witnesses: dict[str, VerifierKey] = {}
        self.groups: dict[str, Group] = {}
        self.quorum: str | None = None
        self._grouped: set[str] = set()

    def read(self, words: list[str]) -> None:
        match words:
            case ["log", key] | ["log", key, _]:
                self.logs.append(self._key(key, ED25519, self.logs))
            case ["witness", name, key] | ["witness", name, key, _]:
                self._define(name)
                self.witnesses[name] = self._key(key, COSIGNATURE, list(self.witnesses.values()))
            case ["group", name, threshold, *members] if members:
                self._define(name)
                self._member(members)
                at_least = {"any": 1, "all": len(members)}.get(threshold, parse_decimal(threshold))
                if at_least is None or not 1 <= at_least <= len(members):
                    raise PolicyInvalid(f"{threshold!r} of {len(members)} members cannot be")
                self.groups[name] = Group(at_least, tuple(members))
            case ["quorum", name] if self.quorum is None:
                if name != NONE and name not in self.witnesses and name not in self.groups:
                    raise PolicyInvalid(f"{name!r} is not defined above")
                self.quorum = name
            case _:
                raise PolicyInvalid("not a line of a policy, or a second quorum")

    def _define(self, name: str) -> None:
        if name == NONE or name in self.witnesses or name in self.groups:
            raise PolicyInvalid(f"the name {name!r} is taken")

    def _member(self, members: list[str]) -> None:
        for member in members:
            if member not in self.witnesses and member not in self.groups:
                raise PolicyInvalid(f"{member!r} is not defined above")
            if member in self._grouped:
                raise PolicyInvalid(f"{member!r} is already a member of a group")
            self._grouped.add(member)

    @staticmethod
    def _key(text: str, kind: int, others: list[VerifierKey]) -> VerifierKey:
        key = VerifierKey.parse(text)
        if key.kind != kind:
            raise PolicyInvalid(f"the key is of type {key.kind:02x}, not {kind:02x}")
        if any(key.public_key == other.public_key for other in others):
            raise PolicyInvalid("the same public key stands here twice")
        return key
