"""Where a request comes from."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.capture.client import TrustedProxies, correlation_id, parse_address

PROXIES = TrustedProxies(("10.0.0.0/8", "192.168.1.1", "2001:db8:f::/48"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.7", ["203.0.113.9"], "192.0.2.7"),  # not a proxy: not believed
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),  # the client's own claim stands to the left
        ("10.0.0.1", ["6.6.6.6", "203.0.113.9", "10.2.2.2"], "203.0.113.9"),  # several headers are one list
        ("10.0.0.1", ["10.1.1.1, 192.168.1.1"], "10.1.1.1"),  # all ours: the farthest
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("10.0.0.1", ['"[2001:db8::1]"'], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("2001:db8:f::5", ["2001:db8:f:1::1 , 10.0.0.9"], "2001:db8:f:1::1"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),  # garbage: the last hop that can be believed
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [", ,"], "10.0.0.1"),
        ("10.0.0.1", ["fe80::1%<script>"], "10.0.0.1"),
        ("10.0.0.1", ["<script>alert(1)</script>"], "10.0.0.1"),
        ("10.0.0.1", ["1" * 1_000_000], "10.0.0.1"),
        ("10.0.0.1", [", ".join(["10.0.0.3"] * 500)], "10.0.0.3"),
        ("testclient", ["203.0.113.9"], "testclient"),
        ("unix", [], "unix"),
        (None, ["203.0.113.9"], None),
        ("", [], None),
    ],
)
def test_the_client_behind_proxies(peer: str | None, forwarded: list[str], client: str | None) -> None:
    """Right to left, the first address that is no trusted proxy; what is no address ends the walk."""
    assert PROXIES.client(peer, [header.encode("latin-1") for header in forwarded]) == client


def test_by_default_nobody_is_trusted() -> None:
    """Without trusted networks the peer is the client."""
    assert TrustedProxies().client("10.0.0.1", [b"203.0.113.9"]) == "10.0.0.1"


@given(st.text(max_size=80))
def test_addresses_are_parsed_or_refused(text: str) -> None:
    """No text makes the parser raise, and what it accepts is an address without a zone."""
    address = parse_address(text)
    assert address is None or "%" not in str(address)


@given(st.ip_addresses())
def test_addresses_round_trip(address: object) -> None:
    """Every address is read back from its own text, but for IPv4 in IPv6's clothes."""
    parsed = parse_address(str(address))
    assert parsed == address or parsed == getattr(address, "ipv4_mapped", None)


@given(st.from_regex(rb"[A-Za-z0-9._:-]{1,128}", fullmatch=True))
def test_valid_correlation_ids_are_kept(given_id: bytes) -> None:
    """An id of the right form goes through unchanged."""
    assert correlation_id(given_id).encode() == given_id


@given(st.binary(max_size=200))
def test_other_correlation_ids_are_replaced(given_id: bytes) -> None:
    """Whatever comes in, what goes out is a harmless header value."""
    got = correlation_id(given_id)
    assert got.encode() == given_id or str(uuid.UUID(got)) == got
    assert got.isascii()
    assert got.isprintable()
    assert 1 <= len(got) <= 128
