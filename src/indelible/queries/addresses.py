"""IP addresses and networks as the log's filters mean them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_GROUP: Final = "[0-9A-Fa-f]{1,4}"
_GROUPS: Final = f"({_GROUP}(:{_GROUP})*)?"
#: Which stored texts are addresses that can lie in a network: dotted IPv4, and IPv6 without zone or dotted part. It means
#: the same to Python, which matches it in full, and to PostgreSQL, whose ``inet`` reads every text that matches.
ADDRESS: Final = f"^({_OCTET}([.]{_OCTET}){{3}}|({_GROUP}:){{7}}{_GROUP}|(?!(.*:){{8}}){_GROUPS}::{_GROUPS})$"
_ADDRESS: Final = re.compile(ADDRESS)


def canonical_address(text: str) -> str:
    """An address or network in its one shortest form (RFC 5952), IPv4 inside IPv6 as IPv4; any other text as it is.

    Bits behind a network's prefix are cleared, and a network of one address is that address.
    """
    if (found := network(text)) is not None:
        return str(found.network_address if found.num_addresses == 1 else found)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    return str(getattr(address, "ipv4_mapped", None) or address)


@lru_cache(maxsize=1024)
def network(text: str) -> Network | None:
    """The network that ``text`` means in CIDR notation, as ``10.0.0.0/8``; None for everything else."""
    if "/" not in text or "%" in text:
        return None
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, found.prefixlen - 96))
    return found


def within(text: str | None, networks: Iterable[Network]) -> bool:
    """Whether ``text``, as it stands in the log, is an address in one of ``networks``."""
    address = None if text is None else _address(text)
    return address is not None and any(address in one for one in networks)


def text_prefix(one: Network) -> str | None:
    """How every address of ``one`` begins, ending with a dot; None where the text does not say.

    That is for IPv6, which has several texts for one address, and for prefixes shorter than an octet.
    """
    octets = one.prefixlen // 8
    if isinstance(one, ipaddress.IPv6Network) or octets == 0:
        return None
    return ".".join(str(one.network_address).split(".")[: min(octets, 3)]) + "."


@lru_cache(maxsize=65_536)
def _address(text: str) -> Address | None:
    return ipaddress.ip_address(text) if _ADDRESS.fullmatch(text) else None
