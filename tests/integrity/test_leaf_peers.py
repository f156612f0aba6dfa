"""Leaf bytes and disclosures against tools written by others: RFC 8785, SD-JWT, and the OpenSSL command line."""

from __future__ import annotations

import base64
import json
import subprocess
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS
from sd_jwt.verifier import SDJWTVerifier

from indelible.events import ACTOR, DETAILS, AuditEvent, StoredEvent
from indelible.integrity.leaf import disclosure, disclosure_digest, leaf_bytes, parse_leaf

Store = Callable[..., list[StoredEvent]]
Events = st.SearchStrategy[AuditEvent]

large = settings(suppress_health_check=[HealthCheck.data_too_large])
CLEAR = (
    "action", "duration_us", "event_type", "request_method", "resource_type", "response_status", "source", "status",
    "tenant_id", "writer_seq",
)  # fmt: skip


def expected_leaf(row: StoredEvent) -> dict[str, Any]:
    """The leaf as the specification words it, put together without our codec."""

    def time(us: int) -> str:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
        return at.isoformat(timespec="microseconds").replace("+00:00", "Z")

    leaf: dict[str, Any] = {name: value for name in CLEAR if (value := getattr(row, name)) is not None}
    leaf |= {"v": 1, "id": str(row.id), "writer_id": str(row.writer_id)}
    leaf |= {"timestamp": time(row.timestamp), "recorded_at": time(row.recorded_at)}
    for group, salt, names in (("actor", row.actor_salt, ACTOR), ("details", row.details_salt, DETAILS)):
        fields = {name: value for name in names if (value := getattr(row, name)) is not None}
        if fields:
            assert salt is not None
            text = unpadded(rfc8785.dumps([unpadded(salt), group, fields]))
            assert disclosure(row, group) == text  # type: ignore[arg-type]
            leaf[group] = unpadded(disclosure_digest(text))
    return leaf


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@large
@given(st.data())
def test_leaf_bytes_are_rfc8785(store: Store, events: Events, data: st.DataObject) -> None:
    """An RFC 8785 library and the standard library's JSON give the same bytes, whatever is in the texts."""
    for row in store(data.draw(st.lists(events, min_size=1, max_size=3))):
        expected = expected_leaf(row)
        assert leaf_bytes(row) == rfc8785.dumps(expected)
        plain = json.dumps(expected, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert leaf_bytes(row) == plain.encode()


@large
@given(st.data())
def test_an_sd_jwt_library_accepts_the_disclosures(store: Store, events: Events, data: st.DataObject) -> None:
    """A JWT that carries a leaf's digests, with our disclosures behind it, unpacks to the row's fields."""
    row = store([data.draw(events)])[0]
    leaf = parse_leaf(leaf_bytes(row))
    digests = [leaf.pop(group) for group in ("actor", "details") if group in leaf]
    texts = [text for group in ("actor", "details") if (text := disclosure(row, group))]
    verifier = SDJWTVerifier(
        "~".join([signed({**leaf, "_sd": digests, "_sd_alg": "sha-256"}), *texts, ""]), lambda *_: KEY
    )
    expected: dict[str, Any] = dict(leaf)
    for group, names in (("actor", ACTOR), ("details", DETAILS)):
        fields = {name: value for name in names if (value := getattr(row, name)) is not None}
        if fields:
            expected[group] = fields
    assert verifier.get_verified_payload() == expected


KEY = JWK.generate(kty="EC", crv="P-256")


def signed(payload: dict[str, Any]) -> str:
    jws = JWS(json.dumps(payload))
    jws.add_signature(KEY, alg="ES256", protected=json.dumps({"alg": "ES256"}))
    return str(jws.serialize(compact=True))


@pytest.mark.parametrize("user", ["42", "Žofie\u2028", "?>~~~"])
def test_openssl_prints_the_digest(store: Store, user: str) -> None:
    """The command line of the specification prints what stands in the leaf."""
    event = AuditEvent(
        id=uuid.UUID(int=1), timestamp=0, event_type="login", action="log_in", status="success", user_id=user
    )
    row = store([event])[0]
    run = subprocess.run(
        ["sh", "-c", "printf %s \"$D\" | openssl dgst -sha256 -binary | basenc --base64url | tr -d ='\\n'"],
        env={"D": disclosure(row, "actor") or "", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    assert run.stdout.decode() == parse_leaf(leaf_bytes(row))["actor"]
