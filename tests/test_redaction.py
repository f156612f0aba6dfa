"""What is stored of a value: which names and forms are secrets, and what becomes of every type."""

from __future__ import annotations

import base64
import enum
import json
import threading
import time
import uuid
from collections import OrderedDict, UserDict, deque, namedtuple
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock_time
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address, ip_network
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
import uuid_utils
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from indelible.redaction import JSON_LIMIT, LIMITS, Redactor, clean_text

REDACTOR = Redactor()
CANARY = "canary-7f3a"


def stored(value: object, **more: Any) -> Any:
    text = REDACTOR.json_text(value, **more)
    assert text is not None
    assert len(text.encode()) <= JSON_LIMIT
    return json.loads(text)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Holds if what is inside takes no more of the processor's time; how long it had to wait for it does not count."""
    began = time.thread_time()
    yield
    assert time.thread_time() - began < seconds


# --- names ------------------------------------------------------------------------------------------------------------

SECRET_NAMES = [
    "password", "PASSWORD", "Password", "passWord", "userPassword", "user_password", "USER-PASSWORD", "new_password",
    "password2", "password_confirmation", "passwordHash", "hashed_password", "passwd", "pwd", "db_pwd", "pass",
    "db_pass", "passphrase", "passcode", "pw", "secret", "client_secret", "clientSecret", "SECRET_KEY", "secrets",
    "jwt_secret", "token", "tokens", "access_token", "accessToken", "refresh-token", "id_token", "csrf", "csrf_token",
    "csrfmiddlewaretoken", "X-XSRF-TOKEN", "authtoken", "devicetoken", "api_key", "apiKey", "API-KEY", "apikey",
    "X-Api-Key", "authorization", "Authorization", "Proxy-Authorization", "cookie", "Cookie", "Set-Cookie",
    "set_cookie", "cookies", "session", "session_id", "sessionid", "JSESSIONID", "PHPSESSID", "sid", "session_key",
    "credential", "credentials", "creditCard", "credit_card_number", "card_number", "cardNumber", "cvv", "CVV2",
    "cvc", "pan", "ssn", "social_security_number", "private_key", "privateKey", "ssh_key", "encryption_key",
    "signing_key", "access_key", "AWS_SECRET_ACCESS_KEY", "otp", "otp_code", "totp_secret", "pin", "pin_code",
    "pinCode", "recovery_codes", "backup_code", "verification_code", "signature", "X-Amz-Signature", "sig", "jwt",
    "bearer", "user[password]", "user.password", "p-a-s-s-w-o-r-d", "ｐａｓｓｗｏｒｄ", "pässword", "password_hint", "tOkEn",
    "one_time_code", "contraseña",
]  # fmt: skip

PLAIN_NAMES = [
    "token_type", "tokenType", "max_tokens", "total_tokens", "prompt_tokens", "tokens_used", "tokenizer", "pinned",
    "spin", "shipping", "opinion", "pinning", "session_count", "session_duration", "sessions", "password_expires_at",
    "password_policy", "password_length", "password_age", "secretary", "secretariat", "cookie_consent", "company",
    "panel", "span", "expand", "design", "signed", "key", "public_key", "keyboard", "author", "authority",
    "auth_method", "author_id", "passenger", "passport", "passed", "compass", "bypass", "username", "email", "name",
    "id", "role", "code", "state", "card_brand", "cards", "status", "description", "event_type", "reason", "monkey",
    "donkey", "pinterest", "tokens_limit", "secret_name", "sidebar", "inside",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_names_of_secrets(name: str) -> None:
    """A value under such a name is not stored, in whatever spelling and at whatever depth."""
    assert stored({name: CANARY}) == {name: "[redacted]"}
    assert stored([{"a": ({name: CANARY},)}]) == [{"a": [{name: "[redacted]"}]}]


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_names_that_only_look_like_it(name: str) -> None:
    """Descriptions of secrets, and words that merely contain one, keep their values."""
    assert stored({name: "kept"}) == {name: "kept"}


def test_containers_of_secrets() -> None:
    """A container under a secret name goes as a whole; words that also name records mask plain values only."""
    assert stored({"cookies": {"a": CANARY}, "tokens": [CANARY]}) == {"cookies": "[redacted]", "tokens": "[redacted]"}
    assert stored({"session": {"room": 4, "token": CANARY}}) == {"session": {"room": 4, "token": "[redacted]"}}


def test_no_value_and_yes_or_no_are_no_secrets() -> None:
    """That there is no password, or that it was changed, may be told."""
    assert stored({"password": None, "secret": True}) == {"password": None, "secret": True}


def test_pairs_and_named_values() -> None:
    """Header lists, and records that tell a name beside its value, are secrets in another shape."""
    assert stored([(b"cookie", CANARY), ["Authorization", CANARY], ("a", "b")]) == [
        ["cookie", "[redacted]"],
        ["Authorization", "[redacted]"],
        ["a", "b"],
    ]
    assert stored({"field": "password", "old": CANARY, "new": CANARY, "by": "x"}) == {
        "field": "password", "old": "[redacted]", "new": "[redacted]", "by": "x",
    }  # fmt: skip
    assert stored({"name": "colour", "value": "red"}) == {"name": "colour", "value": "red"}


def test_names_are_looked_at_in_every_kind_of_record() -> None:
    """Dataclasses, msgspec, pydantic, named tuples, enums as keys, bytes as keys: a field is a name."""

    @dataclass
    class Login:
        user: str
        password: str = field(repr=True)

    class Row(msgspec.Struct):
        user: str
        password: str

    class Model(BaseModel):
        user: str
        password: SecretStr

    Pair = namedtuple("Pair", "user password")

    class Key(enum.Enum):
        PASSWORD = "password"

    for record in (
        Login("a", CANARY),
        Row("a", CANARY),
        Model(user="a", password=SecretStr(CANARY)),
        Pair("a", CANARY),
    ):
        assert stored(record) == {"user": "a", "password": "[redacted]"}
    assert stored({Key.PASSWORD: CANARY, b"token": CANARY}) == {"password": "[redacted]", "token": "[redacted]"}


def test_a_hosts_own_names() -> None:
    """``extra_keys`` are whole words in any spelling; built-in names stay."""
    redactor = Redactor(extra_keys=["maiden_name", "IBAN"])
    text = redactor.json_text({"mothersMaidenName": CANARY, "iban": CANARY, "ibanez": "guitar", "pwd": CANARY})
    assert json.loads(str(text)) == {
        "mothersMaidenName": "[redacted]", "iban": "[redacted]", "ibanez": "guitar", "pwd": "[redacted]",
    }  # fmt: skip


def test_rules_by_path() -> None:
    """``path_rules`` add names for a path and what lies below it; ``*`` masks every value there."""
    redactor = Redactor(path_rules={"/api/patients/": ["diagnosis"], "/api/keys": ["*"]})

    def at(path: str | None) -> object:
        return json.loads(str(redactor.json_text({"diagnosis": "x", "a": "b"}, path=path)))

    plain = {"diagnosis": "x", "a": "b"}
    assert (
        at("/api/patients") == at("/api/patients/7") == at("/api/patients?q=1") == {**plain, "diagnosis": "[redacted]"}
    )
    assert at("/api/patientsX") == at(None) == at("/") == plain
    assert at("/api/keys/1") == dict.fromkeys(plain, "[redacted]")


# --- forms ------------------------------------------------------------------------------------------------------------

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"
BASIC = base64.b64encode(f"user:{CANARY}".encode()).decode()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"got {JWT}.", "got [redacted]"),
        (f"x_{JWT}", "x_[redacted]"),
        (f"Authorization: Bearer {CANARY}", "Authorization: Bearer [redacted]"),
        (f"BEARER  {CANARY}!", "BEARER [redacted]!"),
        (f"Basic {BASIC}", "Basic [redacted]"),
        ("a basic subscription", "a basic subscription"),
        (f"https://user:{CANARY}@host/x", "https://[redacted]@host/x"),
        (f"https://host/x?a=1&token={CANARY}#f", "https://host/x?a=1&token=[redacted]#f"),
        (f"login failed password={CANARY} user=ada", "login failed password=[redacted] user=ada"),
        (f'body: {{"a": 1, "password": "{CANARY}"}}', 'body: {"a": 1, "password": "[redacted]"}'),
        (f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY----- x", "[redacted] x"),
        (f"-----BEGIN PRIVATE KEY-----\n{CANARY}", "[redacted]"),
        ("ghp_" + "a" * 36, "[redacted]"),
        ("sk_live_" + "a" * 24, "[redacted]"),
        ("a=b, c = d, e==f", "a=b, c = d, e==f"),
        ("https://host:8080/a@b?page=2", "https://host:8080/a@b?page=2"),
        ("eyJust a word. eyJ", "eyJust a word. eyJ"),
        ("4111 1111", "4111 1111"),
    ],
)
def test_secrets_that_show_by_their_form(text: str, kept: str) -> None:
    """Tokens, credentials, private keys and named values are masked inside texts, and in keys' neighbours too."""
    assert stored({"note": text}) == {"note": kept}
    assert stored(text) == kept
    assert REDACTOR.text(text, 4096) == kept


@pytest.mark.parametrize(
    "text",
    [
        "a" * 65_000 + "=", "eyJ" * 21_000, "eyJaaaaa." * 7_000, "://" * 20_000, "bearer " * 9_000, '"a" ' * 16_000,
        "a=b&" * 16_000,
        "-----BEGIN PRIVATE KEY-----" * 2_400, '"' + "\\" * 60_000, "basic " * 10_000,
        "-----BEGIN " * 6_000 + "PRIVATE KEY", "=a" * 30_000,
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_hostile_texts_cost_little(text: str) -> None:
    """No text of 64 KiB keeps the pattern matching busy: the cost is linear, far below a second."""
    with at_most(1.0):
        REDACTOR.json_text({"x": text})


# --- types ------------------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Opaque:
    """Its repr and its str hold a secret."""

    def __repr__(self) -> str:
        return CANARY


UID = uuid.UUID("0193d5a0-7c2e-7000-8000-000000000001")
OPAQUE = f"[object: {Opaque.__module__}.Opaque]"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Decimal("1.10"), "1.10"),
        (Decimal("1E+3"), "1E+3"),
        (Decimal("NaN"), "NaN"),
        (Fraction(1, 3), "1/3"),
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (1.5, 1.5),
        (True, True),
        (datetime(2024, 5, 1, 12, 30, 0, 5, tzinfo=UTC), "2024-05-01T12:30:00.000005Z"),
        (datetime(2024, 5, 1, 12, 30, tzinfo=timezone(timedelta(hours=2))), "2024-05-01T10:30:00.000000Z"),
        (datetime(2024, 5, 1, 12, 30), "2024-05-01T12:30:00.000000Z"),  # noqa: DTZ001 - without a zone: taken as UTC
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "9999-12-31T23:59:59.999999-01:00"),
        (date(2024, 5, 1), "2024-05-01"),
        (clock_time(12, 30), "12:30:00"),
        (timedelta(days=1, seconds=2), "P1DT2S"),
        (UID, str(UID)),
        (uuid_utils.UUID(str(UID)), str(UID)),
        (b"\x00\xff", "[bytes: 2]"),
        (bytearray(3), "[bytes: 3]"),
        (memoryview(b"abcd"), "[bytes: 4]"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset(("b", "a")), ["a", "b"]),
        ((1, "a"), [1, "a"]),
        (deque((1, 2)), [1, 2]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (UserDict(a=1), {"a": 1}),
        (ip_address("192.0.2.1"), "192.0.2.1"),
        (ip_network("2001:db8::/32"), "2001:db8::/32"),
        (PurePosixPath("/a/b"), "/a/b"),
        (Opaque(), OPAQUE),
        (Opaque, "[object: type]"),
        (ValueError(CANARY), "[object: ValueError]"),
        ((n for n in range(3)), "[object: generator]"),
        (len, "[object: builtin_function_or_method]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_types(value: object, kept: object) -> None:
    """What becomes of each type; objects of unknown types are told by their type's name, never by their text."""
    assert stored({"v": value}) == {"v": kept}
    assert stored(value) == kept


def test_an_integer_too_long_to_print() -> None:
    """Python refuses to print thousands of digits; the size is stored."""
    assert stored([10**5000]) == ["[integer: 16610 bits]"]


def test_keys_that_are_no_text() -> None:
    """Keys become text; those that become the same text are numbered; their order stays."""
    value = {1: "a", "1": "b", None: "c", 1.5: "d", (1, 2): "e", UID: "f", b"k": "g", Opaque(): "h", False: "i"}
    assert list(stored(value).items()) == [
        ("1", "a"), ("1#2", "b"), ("null", "c"), ("1.5", "d"), ("[object: tuple]", "e"), (str(UID), "f"), ("k", "g"),
        (OPAQUE, "h"), ("false", "i"),
    ]  # fmt: skip


def test_nul_and_lone_surrogates_become_replacement_characters() -> None:
    """What PostgreSQL or UTF-8 cannot hold is replaced, in keys and in values; keys that fall together are kept apart."""
    value = {"a\x00": "x\x00y", "a\ud800": "\udfff", "deep": ["\x00", {"\ud8ff": "\U0001f600"}]}
    assert stored(value) == {"a\ufffd": "x\ufffdy", "a\ufffd#2": "\ufffd", "deep": ["\ufffd", {"\ufffd": "\U0001f600"}]}
    assert stored("literal \\u0000 stays") == "literal \\u0000 stays"


def test_cycles_are_marked() -> None:
    """A value that holds itself is cut where it comes round; one that is merely used twice is not."""
    shared = {"a": 1}
    cyclic: dict[str, Any] = {"list": [1], "twice": [shared, shared]}
    cyclic["self"] = cyclic
    cyclic["list"].append(cyclic["list"])
    assert stored(cyclic) == {"list": [1, "[cycle]"], "twice": [{"a": 1}, {"a": 1}], "self": "[cycle]"}


def test_depth_is_cut_at_64() -> None:
    """Containers down to the 64th level are stored, deeper ones marked."""
    value: Any = "leaf"
    for _ in range(64):
        value = [value]
    assert stored(value) == value
    text = REDACTOR.json_text([value])
    assert text == "[" * 64 + '"[deeper than 64 levels]"' + "]" * 64
    for _ in range(100_000):
        value = {"a": value}
    assert "deeper" in str(REDACTOR.json_text(value))


def test_none_is_nothing() -> None:
    """No value is no text, not the text ``null``."""
    assert REDACTOR.json_text(None) is None


def test_text_is_compact_json_in_order_of_insertion() -> None:
    """No white space, keys as they were put in, letters as themselves."""
    assert REDACTOR.json_text({"b": 1, "a": ["ü", 2]}) == '{"b":1,"a":["ü",2]}'


class Hostile:
    """Everything it has raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(CANARY)

    def __str__(self) -> str:
        raise RuntimeError(CANARY)

    __repr__ = __str__

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError(CANARY)


class HostileMapping(Mapping[str, Any]):
    """A mapping that raises in the middle."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(CANARY)

    def __iter__(self) -> Iterator[str]:
        yield "a"

    def __len__(self) -> int:
        return -1


class HostileText(str):
    def __str__(self) -> str:
        raise RuntimeError(CANARY)

    def __len__(self) -> int:
        raise RuntimeError(CANARY)


class HostileInt(int):
    def __str__(self) -> str:
        raise RuntimeError(CANARY)

    __index__ = __int__ = __repr__ = __str__  # type: ignore[assignment]


class HostileDict(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError(CANARY)

    __iter__ = keys = items


class Endless(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield 1


@dataclass
class HostileField:
    good: int = 1

    @property
    def bad(self) -> Any:
        raise RuntimeError(CANARY)

    def __getattribute__(self, name: str) -> Any:
        if name == "good":
            raise RuntimeError(CANARY)
        return object.__getattribute__(self, name)


def test_hostile_objects_do_not_raise() -> None:
    """Objects whose own code raises become markers; everything beside them is stored."""
    value = {
        "a": Hostile(), "b": HostileMapping(), "c": HostileText("text"), "d": HostileInt(4), "e": HostileDict(x=1),
        "f": Endless([1, 2]), "g": HostileField(), "h": 1,
    }  # fmt: skip
    name = Hostile.__module__
    assert stored(value) == {
        "a": f"[object: {name}.Hostile]", "b": f"[object: {name}.HostileMapping]", "c": "text", "d": 4, "e": {"x": 1},
        "f": [1, 2], "g": {"good": f"[object: {name}.HostileField]"}, "h": 1,
    }  # fmt: skip
    assert clean_text(Hostile(), 100) == f"[object: {name}.Hostile]"


def test_a_container_that_another_thread_changes() -> None:
    """A dict that grows while it is read is stored as it was at some moment, without an error."""
    shared = {str(n): n for n in range(1000)}
    stop = threading.Event()

    def change() -> None:
        n = 0
        while not stop.is_set():
            shared[f"x{n % 500}"] = n
            shared.pop(f"x{(n + 250) % 500}", None)
            n += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(50):
            assert stored(shared)["0"] == 0
    finally:
        stop.set()
        thread.join()


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_long_texts_are_shortened_first() -> None:
    """A value larger than 64 KiB keeps all its members when shortening its long texts is enough."""
    kept = stored({"big": "x" * 100_000, "small": 1})
    assert kept["small"] == 1
    assert kept["big"].startswith("xxx")
    assert "more characters]" in kept["big"]
    assert kept["[truncated]"] == {"limit": JSON_LIMIT, "left_out": 0}


def test_what_does_not_fit_is_counted() -> None:
    """Members that do not fit are left out, the others kept in order, the number told."""
    kept = stored({f"k{n}": "y" * 100 for n in range(2000)})
    assert list(kept)[:2] == ["k0", "k1"]
    assert kept["[truncated]"]["left_out"] + len(kept) - 1 == 2000
    listed = stored(["y" * 100] * 2000)
    assert listed["[truncated]"]["left_out"] + len(listed["kept"]) == 2000
    assert stored("z" * 200_000)["kept"].startswith("zzz")


@pytest.mark.parametrize(
    "value", [["\U0001f600" * 50] * 3000, {"é" * 255 + str(n): None for n in range(3000)}, "\x01" * 60_000]
)
def test_the_bound_is_in_bytes(value: object) -> None:
    """64 KiB are bytes of UTF-8, escapes included."""
    assert "[truncated]" in stored(value)


def test_a_billion_laughs() -> None:
    """Shared references that would unfold into millions of values are cut, in bounded time."""
    value: list[Any] = ["lol"]
    for _ in range(30):
        value = [value] * 10
    with at_most(5.0):
        stored(value)


def test_a_huge_value_costs_no_more_than_what_is_kept() -> None:
    """A million members, or many megabytes of text, are not walked to their end."""
    with at_most(5.0):
        assert "[truncated]" in stored({str(n): n for n in range(1_000_000)})
        assert "[truncated]" in stored(["a=b " * 250_000] * 20)


TEXTS = st.text(st.characters())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary() | st.decimals() | st.uuids()


@given(
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner) | st.dictionaries(TEXTS | st.integers(), inner) | st.tuples(inner, inner),
        max_leaves=30,
    )
)
def test_any_value_becomes_storable_json(value: object) -> None:
    """Whatever is given, the result is JSON that every engine can hold, and giving it again changes nothing."""
    text = REDACTOR.json_text(value)
    if value is None:
        assert text is None
        return
    assert text is not None
    text.encode()
    again = json.loads(text, parse_constant=pytest.fail)
    assert "\x00" not in json.dumps(again, ensure_ascii=False)
    assert "\\u0000" not in text.replace("\\\\", "")
    second = REDACTOR.json_text(again)
    assert second is None or json.loads(second) == again


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("plain", "plain"), ("a\x00b\ud800", "a\ufffdb\ufffd"), (42, "42"), (None, ""), (True, "true"), (UID, str(UID)),
        (1.5, "1.5"), (Colour.RED, "red"), (Decimal("1.0"), "1.0"), ({"password": CANARY}, "[object: dict]"),
        (Opaque(), OPAQUE), (b"ab", "[bytes: 2]"), (ValueError(CANARY), "[object: ValueError]"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_clean_text(value: object, kept: str) -> None:
    """Any object as text: scalars by their value, other objects by their type unless they have a text of their own."""
    assert clean_text(value, 100) == kept


def test_clean_text_of_an_objects_own_text() -> None:
    """A class with its own ``__str__``, such as another library's key type, is known by it."""

    class ObjectId:
        def __str__(self) -> str:
            return "507f1f77bcf86cd799439011"

    assert clean_text(ObjectId(), 100) == "507f1f77bcf86cd799439011"


@given(st.text(st.characters(), max_size=200), st.integers(1, 120))
def test_clean_text_is_bounded(text: str, limit: int) -> None:
    """Never longer than the limit, always storable; what is within it and clean stays as it is."""
    kept = clean_text(text, limit)
    assert len(kept) <= limit
    kept.encode()
    assert "\x00" not in kept
    if len(text) <= limit and text.isascii() and "\x00" not in text:
        assert kept == text


def test_a_cut_says_how_much_was_cut() -> None:
    """The marker counts the characters that are gone."""
    assert clean_text("x" * 150, 100) == "x" * 79 + "…[71 more characters]"


def test_limits_cover_every_text_field() -> None:
    """Each text field of an event has its limit, small enough for an index where there is one."""
    from indelible.events import AuditEvent

    numbers = {"id", "timestamp", "response_status", "duration_us"}
    assert set(LIMITS) == set(AuditEvent.__struct_fields__) - numbers
    indexed = ("user_id", "event_type", "correlation_id", "ip_address", "status", "action")
    assert all(LIMITS[name] * 4 < 2704 for name in indexed)
    assert (LIMITS["resource_type"] + LIMITS["resource_id"]) * 4 < 2704


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "query", "kept"),
    [
        ("/a/b", "", "/a/b"),
        ("/a", "page=2&q=x%20y", "/a?page=2&q=x%20y"),
        ("/a", f"token={CANARY}&b=1", "/a?token=[redacted]&b=1"),
        ("/a", f"Access%5FToken={CANARY}", "/a?Access%5FToken=[redacted]"),
        ("/a", f"user[password]={CANARY}&user[name]=x", "/a?user[password]=[redacted]&user[name]=x"),
        ("/cb", f"code={CANARY}&state=s", "/cb?code=[redacted]&state=s"),
        ("/a", f"key={CANARY}&keyword=k", "/a?key=[redacted]&keyword=k"),
        ("/a", f"x={JWT}", "/a?x=[redacted]"),
        ("/a", f"x=Bearer%20{CANARY}", "/a?x=[redacted]"),
        ("/a", JWT, "/a?[redacted]"),
        ("/a", "password=&b", "/a?password=&b"),
        (f"/reset/{JWT}", "", "/reset/[redacted]"),
        ("/a\x00\ud800", "b=\x00", "/a\ufffd\ufffd?b=\ufffd"),
        ("/a", f"next=https%3A%2F%2Fu%3A{CANARY}%40h", "/a?next=[redacted]"),
    ],
)
def test_targets(path: str, query: str, kept: str) -> None:
    """Path and query are stored without the values of secret parameters."""
    assert REDACTOR.target(path, query) == kept


def test_target_is_bounded() -> None:
    """However long the request line, 2,048 characters are kept at most."""
    assert len(REDACTOR.target("/" + "a" * 1_000_000, "b" * 1_000_000)) <= LIMITS["request_path"]


@given(st.text(max_size=100), st.text(max_size=100))
def test_no_target_makes_it_raise(path: str, query: str) -> None:
    """Any texts are a target, and it can be stored."""
    REDACTOR.target(path, query).encode()


def test_names_from_clients_take_no_memory() -> None:
    """The memory of names is bounded."""
    redactor = Redactor()
    for n in range(20_000):
        redactor.json_text({f"key-{n}": 1})
    assert len(redactor._rules._cache) <= 4096
