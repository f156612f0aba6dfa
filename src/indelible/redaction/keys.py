"""Which names stand for secrets.

A name is split into words (``userPassword``, ``USER-PASSWORD`` and ``user password`` are the same two words) and judged
three ways: stems long enough to be certain count anywhere in it, short words only as whole words, and a few words that
also name harmless things only as the whole name of a plain value. A name that ends in a descriptor (``token_type``,
``password_expires_at``, ``session_count``) describes a secret and is not one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

CLEAR: Final = 0
#: Mask plain values; look inside mappings and lists.
SCALAR: Final = 1
#: Mask whatever it is.
MASK: Final = 2

#: Certain wherever they stand in the name, once separators are gone.
STEMS: Final = (
    "password", "passwd", "passphrase", "passcode", "passwort", "motdepasse", "contrasena",
    "secret", "credential", "authorization", "cookie", "csrf", "xsrf",
    "apikey", "accesskey", "privatekey", "signingkey", "encryptionkey", "masterkey", "sshkey",
    "accesstoken", "refreshtoken", "authtoken", "idtoken", "sessiontoken", "bearertoken",
    "sessionid", "sessionkey", "sessid",
    "creditcard", "cardnumber", "cardno", "securitycode", "socialsecurity",
    "recoverycode", "backupcode", "verificationcode", "authcode", "onetimecode", "codeverifier", "seedphrase",
)  # fmt: skip
#: Certain as a whole word of the name.
WORDS: Final = frozenset((
    "pwd", "pw", "psw", "token", "tokens", "jwt", "bearer", "otp", "totp", "hotp", "pin", "pan", "cvv", "cvc",
    "cvn", "ssn", "sig", "signature",
))  # fmt: skip
#: Secret when they are the name of a plain value; as the name of a record they are usually something else.
WHOLE: Final = frozenset(("session", "sid", "card", "cc", "pass"))
#: Secret only as the name of a query parameter (OAuth codes, map and API keys).
QUERY_ONLY: Final = frozenset(("code", "key", "auth"))
#: As the last word these make the name a description.
DESCRIPTORS: Final = frozenset((
    "type", "types", "count", "counts", "length", "len", "size", "limit", "limits", "policy", "strength",
    "attempts", "expiry", "expires", "expiration", "at", "in", "age", "days", "ttl", "duration", "algorithm",
    "alg", "name", "usage", "consent",
))  # fmt: skip
#: Beside ``tokens`` these make it a quantity, as language models count them.
_QUANTITIES: Final = frozenset((
    "max", "min", "total", "num", "used", "remaining", "prompt", "completion", "input", "output", "cached",
    "reasoning",
))  # fmt: skip

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BREAK = re.compile(r"[\W_]+")
_CACHE_SIZE = 4096
_CACHED_KEY = 128
#: Of longer names the beginning and the end are looked at.
_JUDGED_KEY = 512


def words(name: str) -> tuple[str, ...]:
    """The lower-case words of a name, without the digits they end in."""
    if not name.isascii():
        # Full-width letters and accents are a spelling, not another word.
        name = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    parts = _BREAK.split(_CAMEL.sub("_", name).lower())
    return tuple(word for part in parts if (word := part.rstrip("0123456789")))


def _judge(name: str) -> int:
    parts = words(name)
    if not parts or parts[-1] in DESCRIPTORS:
        return CLEAR
    whole = "".join(parts)
    if any(stem in whole for stem in STEMS) and "secretar" not in whole:
        return MASK
    if whole in WORDS or not WORDS.isdisjoint(parts):
        return CLEAR if "tokens" in parts and not _QUANTITIES.isdisjoint(parts) else MASK
    if whole.endswith("token"):
        return MASK
    return SCALAR if whole in WHOLE or parts[-1] == "pass" else CLEAR


class KeyRules:
    """The verdict on names: the built-in list and ``extra`` names, which count as whole words in any spelling."""

    __slots__ = ("_cache", "_extra", "_extra_whole")

    def __init__(self, extra: Iterable[str] = ()) -> None:
        split = [found for name in extra if (found := words(str(name)))]
        self._extra = tuple(f"_{'_'.join(found)}_" for found in split)
        self._extra_whole = frozenset("".join(found) for found in split)
        self._cache: dict[str, int] = {}

    def verdict(self, name: str) -> int:
        """CLEAR, SCALAR or MASK for one name."""
        known = self._cache.get(name)
        return self._decide(name) if known is None else known

    def in_query(self, name: str) -> bool:
        """Whether the query parameter of this name holds a secret."""
        return self.verdict(name) != CLEAR or name.lower() in QUERY_ONLY

    def in_path(self, name: str) -> bool:
        """Whether the path parameter of this name holds a secret. One that ends in ``id`` names a resource."""
        return self.verdict(name) == MASK and words(name)[-1] != "id"

    def _decide(self, name: str) -> int:
        if len(name) > _JUDGED_KEY:
            name = name[: _JUDGED_KEY // 2] + name[-_JUDGED_KEY // 2 :]
        verdict = MASK if self._named(name) else _judge(name)
        if len(name) <= _CACHED_KEY:
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()  # names may come from clients: the memory they take has to end somewhere
            self._cache[name] = verdict
        return verdict

    def _named(self, name: str) -> bool:
        if not self._extra:
            return False
        parts = words(name)
        if "".join(parts) in self._extra_whole:
            return True
        joined = f"_{'_'.join(parts)}_"
        return any(extra in joined for extra in self._extra)
