"""Where a request comes from: correlation id and client address."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import uuid_utils

Address = IPv4Address | IPv6Address

_CORRELATION_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_WITH_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::\d{1,5})?")
#: Longer chains are cut: no honest request passes through so many proxies.
_MAX_HOPS: Final = 32
_MAX_TEXT: Final = 64


def correlation_id(given: bytes | None) -> str:
    """The id a request goes by: a valid incoming one (1 to 128 of ``A-Za-z0-9._:-``), else a new UUID."""
    if given is not None and _CORRELATION_ID.fullmatch(given):
        return given.decode("ascii")
    return str(uuid_utils.uuid7())


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """An address as it stands in ``X-Forwarded-For``: bare, with a port, in brackets, in quotes; None for the rest.

    An IPv4 address written as IPv6 (``::ffff:192.0.2.1``) is the IPv4 address. Zones (``%eth0``) are refused: they are
    free text.
    """
    text = text.strip(' \t"')
    if not text or len(text) > _MAX_TEXT or "%" in text:
        return None
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class TrustedProxies:
    """The networks whose ``X-Forwarded-For`` is believed. None given: none is."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(network, strict=False) for network in networks
        )

    def __bool__(self) -> bool:
        return bool(self._networks)

    def client(self, peer: str | None, forwarded: Sequence[bytes] = ()) -> str | None:
        """The client's address: read right to left, the first one that is not a trusted proxy.

        ``peer`` is the other end of the connection, a name where there is no address (``testclient``), None on a unix
        socket; ``forwarded`` the ``X-Forwarded-For`` headers in order. What is no address ends the walk at the hop that
        sent it: nothing to the left of it can be believed.
        """
        if not peer:
            return None
        if not self._networks:
            return peer
        at = parse_address(peer)
        if at is None or not forwarded or not self.trusts(at):
            return peer if at is None else str(at)
        hops = b",".join(forwarded).decode("latin-1").rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
        for hop in reversed(hops):
            address = parse_address(hop) if len(hop) <= _MAX_TEXT else None
            if address is None:
                break
            at = address
            if not self.trusts(at):
                break
        return str(at)

    def trusts(self, address: Address) -> bool:
        """Whether this is one of ours."""
        return any(address in network for network in self._networks)
