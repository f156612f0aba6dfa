"""Strict text forms that the formats share: each value has exactly one spelling, and the parsers take no other."""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from typing import Final

_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")


def parse_decimal(text: str) -> int | None:
    """A number from 0 to 2**63 - 1 in ASCII digits without leading zeroes, or None for anything else."""
    if not _DECIMAL.fullmatch(text) or (value := int(text)) >= 2**63:
        return None
    return value


def base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 §4)."""
    return b2a_base64(data, newline=False).decode()


def parse_base64(text: str) -> bytes | None:
    """What ``base64`` gave the text for, or None: other alphabets, loose padding and stray bits are refused."""
    try:
        data = a2b_base64(text.encode("ascii"), strict_mode=True)
    except (Base64Error, UnicodeEncodeError):
        return None
    return data if base64(data) == text else None
