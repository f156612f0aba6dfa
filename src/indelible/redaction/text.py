"""Text: what is replaced in it, where it is cut, and the secrets that show by their form."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from indelible.redaction.keys import KeyRules

PLACEHOLDER: Final = "[redacted]"
#: The name of the member that tells what was left out of a value, and the text in place of a text left out.
MARKER: Final = "[truncated]"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Every pattern below is linear in the text: one attempt for each run of characters, none inside it.
_DOTTED = re.compile(r"(?<![\w-])[\w-]{8,}+(?:\.[\w-]*+){1,4}")
_JWT = re.compile(r"eyJ[\w-]{5,}\.[\w-]{5,}")
_TOKENS = re.compile(r"\b(?:gh[pousr]_\w{30,}|github_pat_\w{30,}|xox[abeprs]-[\w-]{10,}|[rs]k_(?:live|test)_\w{10,})")
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)")
_BEARER = re.compile(r"\b(bearer)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_BASIC = re.compile(r"\b(basic)\s+([A-Za-z0-9+/_-]{4,}={0,2})", re.IGNORECASE)
_USERINFO = re.compile(r"(://)[^/?#\s@]+@")
_PAIR = re.compile(r"(?<![^\s?&;=#,\"'<>{}])([^\s?&;=#,\"'<>{}]{1,128})=([^\s&;#,\"'<>{}]+)")
# What every one of them needs, in a form that is searched for quickly: each branch begins with a character of its own.
_SUSPICIOUS = re.compile(
    r"=|\x00|://|\\(?:u0000|\")|yJ|PRIVATE KEY|gh[opusr]_|github_pat_|xox|k_(?:live|test)_"
    r"|b(?:[eE][aA][rR][eE][rR]|[aA][sS][iI][cC])|B(?:[eE][aA][rR][eE][rR]|[aA][sS][iI][cC])"
).search
_MEMBER = re.compile(r'("([^"\\]{1,128})"\s*:\s*)("(?:[^"\\]|\\.)*"?|-?\d[\w.+-]*)')


def clean(text: str) -> str:
    """Replace what PostgreSQL and UTF-8 cannot hold (NUL, lone surrogates) by U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def cut(text: str, limit: int) -> str:
    """At most ``limit`` characters; what is cut off is counted at the end of what is kept."""
    if len(text) <= limit:
        return text
    mark = ""
    # The mark takes room itself: what it takes the place of is left out too, and may need one digit more.
    while len(mark) != len(longer := f"…[{len(text) - limit + len(mark)} more characters]"):
        mark = longer
    kept = limit - len(longer)
    return f"{text[:kept]}{longer}" if kept > 0 else text[:limit]


def suspicious(text: str) -> bool:
    """Whether ``scrub`` might change something in a JSON text or a path, or there is a NUL; wrong on the safe side only."""
    return _SUSPICIOUS(text) is not None


def scrub(text: str, rules: KeyRules) -> str:
    """Mask the secrets that show by their form or stand beside their name.

    Tokens (JWT, GitHub, Slack, Stripe), private keys, Bearer and Basic credentials, the user part of a URL,
    ``name=value`` pairs and ``"name": "value"`` members whose name is secret.
    """
    if "PRIVATE KEY" in text:
        text = _PEM.sub(PLACEHOLDER, text)
    if "eyJ" in text:
        text = _DOTTED.sub(_jwt, text)
    text = _TOKENS.sub(PLACEHOLDER, text)
    text = _BEARER.sub(rf"\1 {PLACEHOLDER}", text)
    text = _BASIC.sub(_basic, text)
    if "://" in text:
        text = _USERINFO.sub(rf"\1{PLACEHOLDER}@", text)
    if "=" in text:
        text = _PAIR.sub(lambda m: f"{m[1]}={PLACEHOLDER}" if rules.in_query(unquote_plus(m[1])) else m[0], text)
    if '"' in text:
        text = _MEMBER.sub(lambda m: f'{m[1]}"{PLACEHOLDER}"' if rules.verdict(m[2]) else m[0], text)
    return text


def _jwt(match: re.Match[str]) -> str:
    found = match[0].find("eyJ")
    return match[0][:found] + PLACEHOLDER if found >= 0 and _JWT.match(match[0], found) else match[0]


def _basic(match: re.Match[str]) -> str:
    # "basic" is an ordinary word: only what decodes to name:password is a credential.
    try:
        plain = base64.b64decode(match[2] + "=" * (-len(match[2]) % 4), altchars=b"-_")
    except (binascii.Error, ValueError):
        return match[0]
    return f"{match[1]} {PLACEHOLDER}" if b":" in plain else match[0]


def scrub_query(query: str, rules: KeyRules) -> str:
    """A query string with the values of secret parameters, and values that show themselves as secrets, masked."""
    parts = []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        plain = unquote_plus(value if equals else name)
        if value and rules.in_query(unquote_plus(name)):
            parts.append(f"{name}={PLACEHOLDER}")
        elif scrub(plain, rules) != plain:
            parts.append(f"{name}={PLACEHOLDER}" if equals else PLACEHOLDER)
        else:
            parts.append(part)
    return "&".join(parts)
