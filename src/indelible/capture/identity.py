"""Who sent a request: a token that verifies, or the principal that the host's own authentication found."""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from indelible.errors import ConfigurationError
from indelible.native import native

if TYPE_CHECKING:
    from indelible.settings import Settings

_MAX_TOKEN: Final = 16_384
_CACHE_SIZE: Final = 4096
_HMAC: Final = ("HS256", "HS384", "HS512")
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512", "secp256k1": "ES256K"}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who: ``user_id``, or None for an anonymous actor; then ``reason`` says what was wrong with the token, if one came."""

    user_id: str | None = None
    reason: str | None = None


ANONYMOUS: Final = Identity()


def _hashed(authorization: bytes) -> bytes:
    # Not SHA-256, which costs half as much again: OpenSSL looks an algorithm up for every digest it makes.
    return hashlib.blake2b(authorization).digest()


#: What a header is remembered by. In C it is SipHash with 128 bits under a key that this process has drawn: half a
#: microsecond instead of two, and nobody who does not know the key can find two headers of one value.
_fingerprint: Final[Callable[[bytes], bytes]] = _hashed if native is None else native.fingerprint
if native is not None:
    native.key(os.urandom(16))


class TokenVerifier:
    """Verifies ``Authorization: Bearer`` tokens (RFC 7519) and remembers, within bounds, those it has verified.

    Each algorithm is pinned to the one key of its kind, so ``none`` and a public key used as a shared secret never
    verify. The memory is keyed by a digest of the header, so no token is kept, and a remembered token is held to its
    ``exp`` and ``nbf`` at each use. ``now`` is the clock, Unix time in seconds.
    Raises ConfigurationError for a key that is none, and for algorithms that no key can serve.
    """

    __slots__ = ("_audience", "_cache", "_claim", "_issuer", "_keys", "_lock", "_now")

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.time) -> None:
        self._keys = _keys(settings)
        self._audience = list(settings.jwt_audience) or None
        self._issuer = settings.jwt_issuer
        self._claim = settings.jwt_user_claim
        self._now = now
        self._cache: dict[bytes, tuple[Identity, float, float]] = {}
        self._lock = threading.Lock()

    @property
    def remembered(self) -> Mapping[bytes, tuple[Identity, float, float]]:
        """Headers that have named somebody, by fingerprint: whom, not before when, and until when (Unix time).

        Always the same mapping.
        """
        return self._cache

    def identify(self, authorization: bytes | None) -> Identity:
        """Who the header names. Never raises; without a key no token is looked at."""
        if authorization is None or not self._keys:
            return ANONYMOUS
        digest = _fingerprint(authorization)
        known = self._cache.get(digest)
        if known is None:
            scheme, _, token = authorization.partition(b" ")
            if scheme.lower() != b"bearer":
                return ANONYMOUS
            token = token.strip()
            if not token or len(token) > _MAX_TOKEN:
                return Identity(reason="malformed")
            known = self._verify(token)
            if known[0].user_id is None:
                return known[0]
            self._keep(digest, known)
        identity, not_before, expires = known
        now = self._now()
        if now >= expires:
            return Identity(reason="expired")
        if now < not_before:
            return Identity(reason="not yet valid")
        return identity

    def _keep(self, digest: bytes, known: tuple[Identity, float, float]) -> None:
        # The oldest goes, used or not: to note each use would cost every request more than this costs one in thousands.
        with self._lock:
            self._cache[digest] = known
            if len(self._cache) > _CACHE_SIZE:
                del self._cache[next(iter(self._cache))]

    def _verify(self, token: bytes) -> tuple[Identity, float, float]:
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
            key = self._keys.get(algorithm) if isinstance(algorithm, str) else None
            if key is None or algorithm is None:
                return Identity(reason="algorithm not allowed"), 0, 0
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                # Times are ours to check, against one clock, for new and for remembered tokens alike. Number or text
                # as the user's name is the host's business.
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_sub": False},
            )
            user = claims.get(self._claim)
            if isinstance(user, bool) or not isinstance(user, str | int) or user == "":
                return Identity(reason=f"no claim {self._claim}"), 0, 0
            return Identity(user_id=str(user)), _time(claims, "nbf", -math.inf), _time(claims, "exp", math.inf)
        except jwt.InvalidSignatureError:
            return Identity(reason="wrong signature"), 0, 0
        except (jwt.InvalidAudienceError, jwt.MissingRequiredClaimError):
            return Identity(reason="wrong audience or issuer"), 0, 0
        except jwt.InvalidIssuerError:
            return Identity(reason="wrong audience or issuer"), 0, 0
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # ValueError and its kin: what a hostile token makes the JSON and number parsers raise.
            return Identity(reason="malformed"), 0, 0


def _time(claims: Mapping[str, Any], name: str, absent: float) -> float:
    value = claims.get(name)
    if value is None:
        return absent
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is not a number")
    if not math.isfinite(value):  # JSON as Python reads it has NaN, which no time is ever past
        raise ValueError(f"{name} is not a time")
    return float(value)


def _keys(settings: Settings) -> dict[str, Any]:
    """Algorithm → the key it is pinned to."""
    able: dict[str, Any] = {}
    default: list[str] = []
    secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret is not None else ""
    if secret:
        if "-----BEGIN" in secret:
            raise ConfigurationError("jwt_secret is a PEM key", hint="a public key belongs in INDELIBLE_JWT_PUBLIC_KEY")
        able |= dict.fromkeys(_HMAC, secret)
        default.append("HS256")
    if settings.jwt_public_key:
        key, kinds = _public_key(settings.jwt_public_key)
        able |= dict.fromkeys(kinds, key)
        default.append(kinds[0])
    wanted = settings.jwt_algorithms or default
    unable = [algorithm for algorithm in wanted if algorithm not in able]
    # With both kinds of key in the list, one that is not there yet is a mistake only if nothing is left.
    if wanted and len(unable) == len(wanted):
        raise ConfigurationError(f"no key for {', '.join(unable)}", hint="jwt_algorithms must fit the key")
    return {algorithm: able[algorithm] for algorithm in wanted if algorithm in able}


def _public_key(pem: str) -> tuple[Any, tuple[str, ...]]:
    try:
        # An environment variable or a .env file often holds the line ends as two characters.
        key = load_pem_public_key(pem.replace("\\n", "\n").encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError("jwt_public_key is not a PEM public key") from None
    if isinstance(key, RSAPublicKey):
        return key, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key, (_CURVES[key.curve.name],)
    if isinstance(key, Ed25519PublicKey):
        return key, ("EdDSA",)
    raise ConfigurationError("jwt_public_key is of a kind that no algorithm here takes", hint="use RSA, EC or Ed25519")


#: Where a principal's id is looked for, in this order.
_ID_NAMES: Final = ("id", "user_id", "identity", "sub", "username")


def principal_id(principal: object) -> object:
    """The id of what the host's authentication left in ``scope["user"]`` or ``request.state.user``; None for nobody.

    Taken from the first of ``id``, ``user_id``, ``identity``, ``sub``, ``username`` that has a value, as attribute or, in
    a mapping, as key; a text, number or UUID is the id itself; otherwise the object's own ``str``. For an ORM object it
    is the primary key, without touching the database: its session may be closed by now.
    """
    if principal is None or isinstance(principal, bool | bytes) or principal == "":
        return None
    if isinstance(principal, str | int) or hasattr(principal, "hex"):
        return principal
    if isinstance(principal, Mapping):
        return next((principal[name] for name in _ID_NAMES if principal.get(name) not in (None, "")), None)
    if getattr(principal, "is_authenticated", True) is False:
        return None
    identity = getattr(getattr(principal, "_sa_instance_state", None), "identity", None)
    if isinstance(identity, tuple) and len(identity) == 1:
        return identity[0]
    for name in _ID_NAMES:
        try:
            value = getattr(principal, name, None)
        except Exception:  # noqa: BLE001, S112 - a property of the host's may raise anything (Starlette's identity does)
            continue
        if value not in (None, "") and not callable(value):
            return value
    kind = type(principal)
    # A pydantic model's text is all of its fields.
    return None if kind.__str__ is object.__str__ or hasattr(kind, "__pydantic_fields__") else principal
