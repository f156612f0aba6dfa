"""Whom a token names, and who it does not."""

from __future__ import annotations

import base64
import hmac
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from indelible.capture import identity
from indelible.capture.asgi import AuditMiddleware
from indelible.capture.identity import ANONYMOUS, Identity, TokenVerifier, principal_id
from indelible.errors import ConfigurationError
from indelible.settings import load
from indelible.testing import CapturedEvents, capture_events

SECRET = "a-secret-of-thirty-two-characters"
NOW = 1_800_000_000.0
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def bearer(token: str) -> bytes:
    return b"Bearer " + token.encode()


def signed(claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256") -> bytes:
    return bearer(jwt.encode(claims, key, algorithm))


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def verifier(clock: Clock | None = None, **settings: object) -> TokenVerifier:
    return TokenVerifier(load(**(settings or {"jwt_secret": SECRET})), now=clock or Clock())


def test_a_good_token_names_its_user() -> None:
    """A token signed with the secret names the user of its ``sub`` claim; a number becomes text."""
    assert verifier().identify(signed({"sub": "u-1"})) == Identity("u-1")
    assert verifier().identify(signed({"sub": 17})) == Identity("17")


@pytest.mark.parametrize("scheme", [b"bearer ", b"BEARER  ", b"Bearer "])
def test_the_scheme_is_a_word_in_any_case(scheme: bytes) -> None:
    """RFC 9110: authentication schemes are case-insensitive."""
    token = signed({"sub": "u"}).removeprefix(b"Bearer ")
    assert verifier().identify(scheme + token).user_id == "u"


def test_no_token_is_anonymous_without_a_reason() -> None:
    """No header, another scheme, or no key to verify with: nobody, and nothing to complain about."""
    assert verifier().identify(None) is ANONYMOUS
    assert verifier().identify(b"Basic dXNlcjpwdw==") is ANONYMOUS
    assert TokenVerifier(load()).identify(signed({"sub": "u"})) is ANONYMOUS


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_unsigned_token_is_refused(algorithm: str) -> None:
    """``alg=none`` in any spelling names nobody."""
    token = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part({'sub': 'admin'})}."
    assert verifier().identify(bearer(token)) == Identity(reason="algorithm not allowed")
    assert verifier(jwt_secret=SECRET, jwt_algorithms=["none", "HS256"]).identify(bearer(token)).user_id is None


def test_token_of_another_key_is_refused() -> None:
    """A signature by another secret, or none that fits, names nobody."""
    other = signed({"sub": "admin"}, "another-secret-of-thirty-two-chars")
    assert verifier().identify(other) == Identity(reason="wrong signature")
    good = signed({"sub": "u"})
    assert verifier().identify(good[:-4] + b"AAAA").user_id is None


def test_public_key_is_no_shared_secret() -> None:
    """Key confusion: a token MACed with the public key's text is refused, whatever is configured."""
    public = pem(RSA_KEY)
    head, body = part({"alg": "HS256", "typ": "JWT"}), part({"sub": "admin"})
    mac = hmac.new(public.encode(), f"{head}.{body}".encode(), "sha256").digest()
    forged = bearer(f"{head}.{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}")
    assert verifier(jwt_public_key=public).identify(forged) == Identity(reason="algorithm not allowed")
    both = verifier(jwt_public_key=public, jwt_secret=SECRET)
    assert both.identify(forged) == Identity(reason="wrong signature")
    with pytest.raises(ConfigurationError):
        verifier(jwt_secret=public)


def test_public_keys_of_each_kind() -> None:
    """RSA and EC keys verify their own algorithm, beside a secret too; ``\\n`` in the environment is a line end."""
    for key, algorithm in ((RSA_KEY, "RS256"), (EC_KEY, "ES256"), (ed25519.Ed25519PrivateKey.generate(), "EdDSA")):
        token = signed({"sub": "u"}, key, algorithm)
        for settings in (
            {"jwt_public_key": pem(key)},
            {"jwt_public_key": pem(key).replace("\n", "\\n")},
            {"jwt_public_key": pem(key), "jwt_secret": SECRET},
            {"jwt_public_key": pem(key), "jwt_algorithms": [algorithm]},
        ):
            assert verifier(**settings).identify(token) == Identity("u")
    assert verifier(jwt_public_key=pem(EC_KEY)).identify(signed({"sub": "u"}, RSA_KEY, "RS256")).user_id is None


def test_wrong_keys_are_found_at_once() -> None:
    """A key that is none, or algorithms that no key serves, are errors of configuration."""
    for settings in ({"jwt_public_key": "nonsense"}, {"jwt_secret": SECRET, "jwt_algorithms": ["RS256"]}):
        with pytest.raises(ConfigurationError):
            verifier(**settings)


def test_expiry_and_not_before_hold_for_remembered_tokens() -> None:
    """A token is verified once and held to ``nbf`` and ``exp`` at each use, by the clock given."""
    clock = Clock()
    tokens = verifier(clock)
    token = signed({"sub": "u", "nbf": int(NOW) - 10, "exp": int(NOW) + 10})
    assert tokens.identify(token).user_id == "u"
    clock.now = NOW + 9.9
    assert tokens.identify(token).user_id == "u"
    clock.now = NOW + 10
    assert tokens.identify(token) == Identity(reason="expired")
    clock.now = NOW - 11
    assert tokens.identify(token) == Identity(reason="not yet valid")


def test_a_remembered_token_is_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second use of a token costs no signature check; refused tokens are not remembered."""
    calls: list[str] = []
    real = jwt.decode

    def counting(token: Any, *args: Any, **options: Any) -> Any:
        calls.append(token)
        return real(token, *args, **options)

    monkeypatch.setattr(jwt, "decode", counting)
    tokens = verifier()
    good, bad = signed({"sub": "u"}), signed({"sub": "u"}, "another-secret-of-thirty-two-chars")
    for _ in range(3):
        tokens.identify(good)
        tokens.identify(bad)
    assert len(calls) == 1 + 3


def test_memory_is_bounded_and_holds_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten; what is kept is a hash."""
    monkeypatch.setattr(identity, "_CACHE_SIZE", 3)
    tokens = verifier()
    for token in (signed({"sub": str(n)}) for n in range(5)):
        tokens.identify(token)
    assert [entry[0].user_id for entry in tokens._cache.values()] == ["2", "3", "4"]
    assert {len(key) for key in tokens._cache} <= {16, 64}


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": "u", "exp": "soon"}, "malformed"), ({"sub": "u", "exp": float("nan")}, "malformed"),
        ({"sub": "u", "exp": True}, "malformed"), ({"sub": "u", "nbf": 10**400}, "malformed"),
        ({"sub": True}, "no claim sub"),
        ({"sub": ""}, "no claim sub"), ({"sub": {"a": 1}}, "no claim sub"), ({}, "no claim sub"),
        ({"sub": "u", "aud": "other"}, "wrong audience or issuer"), ({"sub": "u", "exp": 1}, "expired"),
    ],
)  # fmt: skip
def test_claims_that_do_not_hold(claims: dict[str, Any], reason: str) -> None:
    """Each way in which a well-signed token can still be none, with the reason recorded."""
    head, body = part({"alg": "HS256", "typ": "JWT"}), part(claims)
    mac = hmac.new(SECRET.encode(), f"{head}.{body}".encode(), "sha256").digest()
    token = f"{head}.{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    assert verifier().identify(bearer(token)) == Identity(reason=reason)


def test_audience_issuer_and_claim_are_the_settings() -> None:
    """``jwt_audience`` (any of), ``jwt_issuer`` and ``jwt_user_claim`` are held to."""
    tokens = verifier(jwt_secret=SECRET, jwt_audience=["a", "b"], jwt_issuer="me", jwt_user_claim="uid")
    assert tokens.identify(signed({"uid": "u", "aud": "b", "iss": "me"})).user_id == "u"
    for claims in ({"uid": "u", "iss": "me"}, {"uid": "u", "aud": "c", "iss": "me"}, {"uid": "u", "aud": "a"}):
        assert tokens.identify(signed(claims)) == Identity(reason="wrong audience or issuer")
    assert tokens.identify(signed({"sub": "u", "aud": "a", "iss": "me"})) == Identity(reason="no claim uid")


@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=60).map(lambda t: b"Bearer " + t.encode("utf-8", "replace")))
)
def test_no_header_makes_it_raise(header: bytes) -> None:
    """Whatever stands in the header, the answer is an identity without a user."""
    assert TOKENS.identify(header).user_id is None


TOKENS = verifier()


@pytest.mark.parametrize("token", [b"", b"x", b"a.b.c", b"a" * 20_000, b"eyJhbGciOiJIUzI1NiJ9..", b".." + b"\xff" * 9])
def test_malformed_tokens(token: bytes) -> None:
    """What is no token, or longer than 16 KiB, is not looked at further."""
    assert verifier().identify(b"Bearer " + token).reason in ("malformed", "wrong signature")


# --- the host's principal ---------------------------------------------------------------------------------------------


@dataclass
class Plain:
    id: object = None
    username: str = ""


class Raising:
    @property
    def identity(self) -> str:
        raise NotImplementedError

    username = "ada"


class Spoken:
    def __str__(self) -> str:
        return "spoken"


UID = uuid.uuid4()


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        ("ada", "ada"), (7, 7), (UID, UID), (Plain(id=3), 3), (Plain(username="ada"), "ada"), ({"user_id": 5}, 5),
        ({"id": None, "sub": "s"}, "s"), (Raising(), "ada"), (None, None), ("", None), (True, None),
        (object(), None), ({}, None),
        (SimpleNamespace(is_authenticated=False, username="anonymous"), None), (Plain(), None),
        (SimpleNamespace(is_authenticated=True, user_id=9), 9),
    ],
)  # fmt: skip
def test_where_a_principals_id_is_found(principal: object, expected: object) -> None:
    """``id``, ``user_id``, ``identity``, ``sub``, ``username`` as attribute or key; an unauthenticated user is nobody."""
    assert principal_id(principal) == expected


def test_an_object_that_speaks_for_itself() -> None:
    """Without any of these names, an object's own ``str`` is its id."""
    spoken = Spoken()
    assert principal_id(spoken) is spoken


def test_an_orm_object_is_read_without_its_session() -> None:
    """The primary key of an expired object is known without asking a database that may be closed by now."""

    class Base(DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)

    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        user = User(id=12)
        session.add(user)
        session.commit()
    engine.dispose()
    assert principal_id(user) == 12


# --- in a request -----------------------------------------------------------------------------------------------------

Talk = Callable[..., Awaitable[Any]]


async def test_reason_is_recorded_for_a_token_that_does_not_verify(
    events: CapturedEvents, talk: Talk, answer: Any
) -> None:
    """A bad token is an anonymous actor with a reason, and the request goes on."""
    unsigned = f"{part({'alg': 'none'})}.{part({'sub': 'admin'})}."
    for token, reason in ((signed({"sub": "u", "exp": 1}), "expired"), (bearer(unsigned), "algorithm not allowed")):
        got = await talk(AuditMiddleware(answer(201)), "POST", headers=[(b"authorization", token)])
        event = events.pop()
        assert (got.status, event.user_id, event.metadata) == (201, None, f'{{"auth":"{reason}"}}')


async def test_actor_of_a_request(events: CapturedEvents, talk: Talk, answer: Any) -> None:
    """The host's principal goes before a token, ``identify`` before both, ``enrich`` before all; then no reason is told."""
    token = [(b"authorization", signed({"sub": "token"}))]
    bad = [(b"authorization", signed({"sub": "token", "exp": 1}))]

    def sets_user(scope: Any) -> None:
        scope["state"]["user"] = Plain(id="principal")

    def sets_scope(scope: Any) -> None:
        scope["user"] = Plain(id="scope")

    def enriches(scope: Any) -> None:
        from indelible.context import enrich

        enrich(user_id="enriched")

    await talk(AuditMiddleware(answer()), "POST", headers=token)
    await talk(AuditMiddleware(answer(inside=sets_user)), "POST", headers=token)
    await talk(AuditMiddleware(answer(inside=sets_scope)), "POST", headers=bad)
    await talk(AuditMiddleware(answer(inside=sets_user), identify=lambda scope: "hook"), "POST", headers=token)
    await talk(AuditMiddleware(answer(inside=enriches), identify=lambda scope: "hook"), "POST", headers=bad)
    assert [e.user_id for e in events] == ["token", "principal", "scope", "hook", "enriched"]
    assert [e.metadata for e in events] == [None] * 5


async def test_of_two_authorization_headers_the_first_counts(events: CapturedEvents, talk: Talk, answer: Any) -> None:
    """As it does for the frameworks: the log names whom the application saw."""
    headers = [(b"authorization", signed({"sub": "first"})), (b"authorization", signed({"sub": "second"}))]
    await talk(AuditMiddleware(answer()), "POST", headers=headers)
    assert events.only().user_id == "first"


async def test_a_wrong_key_costs_no_event(talk: Talk, answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """With a key that is none, requests are recorded without actors, and the log says why, once."""
    with capture_events(jwt_public_key="nonsense") as events:
        app = AuditMiddleware(answer())
        for _ in range(2):
            await talk(app, "POST", headers=[(b"authorization", b"Bearer x")])
    assert len(events) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "no token is believed: jwt_public_key is not a PEM public key"
    ]
