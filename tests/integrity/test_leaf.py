"""Leaf bytes and disclosures: one form, rebuilt from the row, and no row that says one thing and proves another."""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indelible.errors import LeafInvalid
from indelible.events import ACTOR, DETAILS, AuditEvent, StoredEvent
from indelible.integrity.leaf import (
    MAX_LEAF,
    Disclosure,
    Group,
    disclosure,
    disclosure_digest,
    leaf_bytes,
    open_leaf,
    parse_disclosure,
    parse_leaf,
    seal,
)
from indelible.integrity.merkle import hash_leaf

Store = Callable[..., list[StoredEvent]]
Events = st.SearchStrategy[AuditEvent]

EVENT = AuditEvent(
    id=uuid.UUID("01999999-aaaa-7bbb-8ccc-dddddddddddd"),
    timestamp=1_760_000_000_000_000,
    event_type="data_modify",
    action="update_job",
    status="success",
    response_status=200,
    user_id="42",
    metadata='{"a": 1e2, "a": 2}',
)
GROUPS: list[Group] = ["actor", "details"]
large = settings(suppress_health_check=[HealthCheck.data_too_large])


@pytest.fixture
def row(store: Store) -> StoredEvent:
    """EVENT as it is stored, with both groups open."""
    return store([EVENT])[0]


def altered(row: StoredEvent, **changes: Any) -> StoredEvent:
    return msgspec.structs.replace(row, **changes)


def erased(row: StoredEvent, group: Group) -> StoredEvent:
    text = disclosure(row, group)
    blank: dict[str, Any] = dict.fromkeys(ACTOR if group == "actor" else DETAILS)
    digest = disclosure_digest(text) if text else None
    return altered(row, **blank, **{f"{group}_salt": None, f"{group}_digest": digest})


def test_the_form(row: StoredEvent) -> None:
    """Sorted keys, no white space, no nulls, times with six digits, groups as 43 characters, no seq."""
    leaf = leaf_bytes(row)
    fields = parse_leaf(leaf)
    assert list(fields) == sorted(fields)
    assert b" " not in leaf
    assert fields["timestamp"] == "2025-10-09T08:53:20.000000Z"
    assert len(str(fields["actor"])) == len(str(fields["details"])) == 43
    assert fields.keys() == {
        "action", "actor", "details", "event_type", "id", "recorded_at", "response_status", "status", "timestamp",
        "v", "writer_id", "writer_seq",
    }  # fmt: skip


@large
@given(st.data())
def test_sealing_and_rebuilding_agree(store: Store, events: Events, data: st.DataObject) -> None:
    """What a batch was sealed with is what each row gives back, and its disclosures open it to the event's fields."""
    batch = data.draw(st.lists(events, min_size=1, max_size=4))
    for row, event in zip(store(batch), batch, strict=True):
        leaf = leaf_bytes(row)
        assert row.leaf_hash == hash_leaf(leaf)
        opened = open_leaf(leaf, filter(None, (disclosure(row, group) for group in GROUPS)))
        for name in (*ACTOR, *DETAILS, "event_type", "action", "status", "tenant_id", "response_status"):
            assert opened.get(name) == getattr(event, name)
        assert not {"actor", "details"} & opened.keys()


@large
@given(st.data())
def test_erasure_changes_no_leaf(store: Store, events: Events, data: st.DataObject) -> None:
    """With fields and salt gone and the digest in their place, the leaf is the same."""
    row = store([data.draw(events)])[0]
    for group in GROUPS:
        blank = erased(row, group)
        assert leaf_bytes(blank) == leaf_bytes(row)
        assert disclosure(blank, group) is None


@large
@given(st.data())
def test_any_change_to_a_column_changes_the_leaf_or_is_refused(
    store: Store, events: Events, data: st.DataObject
) -> None:
    """No column but the position and the stored hash itself can be edited without it showing."""
    row = store([data.draw(events)])[0]
    other = store([data.draw(events)], first=1)[0]
    name = data.draw(st.sampled_from([n for n in StoredEvent.__struct_fields__ if n not in ("seq", "leaf_hash")]))
    if getattr(row, name) == getattr(other, name):
        return
    with contextlib.suppress(LeafInvalid):
        assert leaf_bytes(altered(row, **{name: getattr(other, name)})) != leaf_bytes(row)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_has_three_states(row: StoredEvent, group: Group) -> None:
    """Absent, open, erased; every mixture of them is refused, above all fields beside a digest."""
    text = disclosure(row, group)
    assert text is not None
    digest, salt = disclosure_digest(text), getattr(row, f"{group}_salt")
    blank = erased(row, group)
    for bad in (
        altered(row, **{f"{group}_digest": digest}),
        altered(row, **{f"{group}_digest": digest, f"{group}_salt": None}),
        altered(row, **{f"{group}_salt": None}),
        altered(row, **{f"{group}_salt": salt[:15]}),
        altered(blank, **{f"{group}_salt": salt}),
        altered(blank, **{f"{group}_digest": digest[:31]}),
        altered(blank, **{f"{group}_digest": None, f"{group}_salt": salt}),
    ):
        with pytest.raises(LeafInvalid):
            leaf_bytes(bad)
        with pytest.raises(LeafInvalid):
            disclosure(bad, group)


def test_an_absent_group_has_no_salt(store: Store) -> None:
    """Where every field of a group is null, nothing is committed and no salt is stored."""
    row = store([msgspec.structs.replace(EVENT, user_id=None, metadata=None)])[0]
    assert row.actor_salt is row.details_salt is None
    assert not {"actor", "details"} & parse_leaf(leaf_bytes(row)).keys()
    assert disclosure(row, "actor") is None


def test_salts_hide_equal_values(store: Store) -> None:
    """Two events of the same user cannot be linked by their digests."""
    one, two = store([EVENT, EVENT])
    assert parse_leaf(leaf_bytes(one))["actor"] != parse_leaf(leaf_bytes(two))["actor"]


def test_what_cannot_be_a_leaf_is_refused_with_its_index() -> None:
    """Too long, beyond 53 bits, outside the calendar, lone surrogates: an error that says which event it was."""
    for change in (
        {"resource_type": "x" * MAX_LEAF},
        {"duration_us": 2**53},
        {"response_status": -(2**53)},
        {"timestamp": 253_402_300_800_000_000},
        {"timestamp": -62_135_596_800_000_001},
        {"action": "\ud800"},
        {"user_agent": "\udfff"},
    ):
        batch = [EVENT, msgspec.structs.replace(EVENT, **change)]
        with pytest.raises(LeafInvalid) as caught:
            seal(batch, writer_id=EVENT.id, first=0, recorded_at=0, salts=bytes(64))
        assert caught.value.index == 1
    with pytest.raises(LeafInvalid):
        seal([EVENT], writer_id=EVENT.id, first=2**53, recorded_at=0, salts=bytes(32))
    with pytest.raises(ValueError, match="bytes of salt"):
        seal([EVENT], writer_id=EVENT.id, first=0, recorded_at=0, salts=bytes(31))


def test_a_forged_row_with_a_surrogate_is_refused(row: StoredEvent) -> None:
    """Verification meets whatever a database returns: it gets a typed error, never another."""
    for name in ("action", "user_id", "error"):
        with pytest.raises(LeafInvalid):
            leaf_bytes(altered(row, **{name: "\ud800"}))
    with pytest.raises(LeafInvalid):
        disclosure(altered(row, user_id="\ud800"), "actor")


def test_the_longest_leaf(store: Store) -> None:
    """65,535 bytes are a leaf, one more is none."""
    room = MAX_LEAF - len(leaf_bytes(store([msgspec.structs.replace(EVENT, source="")])[0]))
    assert len(leaf_bytes(store([msgspec.structs.replace(EVENT, source="x" * room)])[0])) == MAX_LEAF
    with pytest.raises(LeafInvalid):
        store([msgspec.structs.replace(EVENT, source="x" * (room + 1))])


@large
@given(st.data())
def test_a_leaf_has_one_spelling(store: Store, events: Events, data: st.DataObject) -> None:
    """A changed byte gives another leaf or none, never another spelling of the same."""
    leaf = leaf_bytes(store([data.draw(events)])[0])
    at = data.draw(st.integers(0, len(leaf) - 1))
    changed = leaf[:at] + bytes((data.draw(st.integers(0, 255)),)) + leaf[at + 1 :]
    with contextlib.suppress(LeafInvalid):
        assert (parse_leaf(changed) == parse_leaf(leaf)) == (changed == leaf)


@given(st.binary(max_size=200) | st.text(max_size=60).map(lambda text: text.encode(errors="replace")))
def test_parse_leaf_takes_any_bytes(data: bytes) -> None:
    """Hostile input is refused with a typed error."""
    with pytest.raises(LeafInvalid):
        parse_leaf(data)


def respelled(row: StoredEvent, old: str, new: str) -> bytes:
    leaf = leaf_bytes(row).decode()
    assert old in leaf
    return leaf.replace(old, new).encode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{", "{ "),
        ('"action"', '"\\u0061ction"'),
        ('"v":1', '"v":2'),
        ('"v":1', '"v":1.0'),
        ('"v":1', '"v":"1"'),
        ('"v":1', '"v":true'),
        ('"status":"success"', '"status":null'),
        ('"status":"success"', '"status":3'),
        ('"status":"success",', ""),
        ('"response_status":200', '"response_status":9007199254740992'),
        ('"response_status":200', '"response_status":99999999999999999999999'),
        ("20.000000Z", "20.00000Z"),
        ("20.000000Z", "20.000000z"),
        ("dddddddddddd", "DDDDDDDDDDDD"),
        ('"v":1', '"v":1,"é":1'),
        ('"v":1', '"v":1,"w":{}'),
        ('"v":1', '"v":1,"v":1'),
    ],
)
def test_other_spellings_are_refused(row: StoredEvent, old: str, new: str) -> None:
    """White space, escapes, floats, nulls, nesting, duplicates, wrong types and forms."""
    with pytest.raises(LeafInvalid):
        parse_leaf(respelled(row, old, new))


def test_a_column_of_a_later_version_is_let_through(row: StoredEvent) -> None:
    """A field added later does not stop an older reader."""
    assert parse_leaf(respelled(row, '"v":1', '"v":1,"vault":"x"'))["vault"] == "x"


def test_a_leaf_is_bounded_before_it_is_read() -> None:
    """Nothing longer than a leaf can be is parsed."""
    with pytest.raises(LeafInvalid, match="longer"):
        parse_leaf(b"{" * (MAX_LEAF + 1))


@large
@given(st.data())
def test_disclosures_round_trip(store: Store, events: Events, data: st.DataObject) -> None:
    """A disclosure is read back as the salt and fields of its row, and no changed character goes unnoticed."""
    row = store([data.draw(events)])[0]
    leaf = leaf_bytes(row)
    for group, names in (("actor", ACTOR), ("details", DETAILS)):
        text = disclosure(row, group)  # type: ignore[arg-type]
        fields = {name: getattr(row, name) for name in names if getattr(row, name) is not None}
        if text is None:
            assert not fields
            continue
        assert parse_disclosure(text) == Disclosure(getattr(row, f"{group}_salt"), group, fields)  # type: ignore[arg-type]
        at = data.draw(st.integers(0, len(text) - 1))
        letter = data.draw(st.characters(exclude_categories=["Cs"]))
        if letter == text[at]:
            continue
        with pytest.raises(LeafInvalid):
            open_leaf(leaf, [text[:at] + letter + text[at + 1 :]])


def test_foreign_disclosures_are_refused(store: Store, row: StoredEvent) -> None:
    """One of another row, one given twice, one that is padded, and one that names fields outside its group."""
    text = disclosure(row, "actor")
    other = disclosure(store([EVENT])[0], "actor")
    assert text
    assert other
    for bad in ([other], [text, text], [text + "="], [""], ["é"], ["A" * 5_000_000]):
        with pytest.raises(LeafInvalid):
            open_leaf(leaf_bytes(row), bad)
    with pytest.raises(LeafInvalid):
        parse_disclosure(reencoded(Disclosure(bytes(16), "actor", {"metadata": "x"})))
    with pytest.raises(LeafInvalid):
        parse_disclosure(reencoded(Disclosure(bytes(16), "actor", {})))
    with pytest.raises(LeafInvalid):
        parse_disclosure(reencoded(Disclosure(bytes(15), "actor", {"user_id": "x"})))


def test_a_disclosure_has_one_spelling() -> None:
    """White space, another order, stray bits, the other alphabet: each has another digest, and is refused."""
    fields = {"ip_address": "?>", "user_id": "1"}
    right = reencoded(Disclosure(bytes(16), "actor", fields))
    assert parse_disclosure(right).fields == fields
    spaced = json.dumps(["A" * 22, "actor", fields]).encode()
    stray = json.dumps(["A" * 21 + "B", "actor", fields], separators=(",", ":")).encode()
    turned = dict(reversed(fields.items()))
    for bad in (
        base64.urlsafe_b64encode(spaced).decode().rstrip("="),
        base64.urlsafe_b64encode(stray).decode().rstrip("="),
        reencoded(Disclosure(bytes(16), "actor", turned)),
        right[:-1] + chr(ord(right[-1]) + 1),
        right.replace("_", "/").replace("-", "+") + "\n",
    ):
        with pytest.raises(LeafInvalid):
            parse_disclosure(bad)


def reencoded(value: Disclosure) -> str:
    salt = base64.urlsafe_b64encode(value.salt).decode().rstrip("=")
    text = json.dumps([salt, value.group, dict(value.fields)], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
