"""Trust policies: the file format, and how many witnesses make a quorum."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.errors import CheckpointInvalid, PolicyInvalid
from indelible.integrity.checkpoint import Checkpoint, add_cosignatures, cosign_checkpoint, sign_checkpoint
from indelible.integrity.note import COSIGNATURE, Ed25519Signer
from indelible.integrity.policy import MAX_POLICY, Group, Policy

LOG = Ed25519Signer("log.example", b"\1" * 32)
WITNESSES = [Ed25519Signer(f"w{i}.example", bytes((i + 2,)) * 32, kind=COSIGNATURE) for i in range(5)]
W = [str(witness.key) for witness in WITNESSES]
CHECKPOINT = Checkpoint("log.example", 5, bytes(32))
SIGNED = sign_checkpoint(CHECKPOINT, LOG)
HEAD = f"log {LOG.key}\n" + "".join(f"witness w{i} {key}\n" for i, key in enumerate(W))
NESTED = HEAD + "group x 2 w0 w1 w2\ngroup y any w3 w4\ngroup both all x y\nquorum both\n"


def cosigned_by(*numbers: int) -> bytes:
    return add_cosignatures(SIGNED, [cosign_checkpoint(CHECKPOINT, WITNESSES[n], time=9) for n in numbers])


def test_a_nested_quorum() -> None:
    """Two of the first three and one of the last two: exactly these sets of witnesses make the quorum."""
    policy = Policy.parse(NESTED.encode())
    for count in range(6):
        for numbers in itertools.combinations(range(5), count):
            enough = len({0, 1, 2} & set(numbers)) >= 2 and bool({3, 4} & set(numbers))
            if enough:
                assert policy.open(cosigned_by(*numbers)).checkpoint == CHECKPOINT
            else:
                with pytest.raises(CheckpointInvalid, match="quorum"):
                    policy.open(cosigned_by(*numbers))


def test_one_witness_counts_once() -> None:
    """Two cosignatures by one witness are one."""
    policy = Policy.parse(f"{HEAD}group g 2 w0 w1\nquorum g\n".encode())
    with pytest.raises(CheckpointInvalid):
        policy.open(cosigned_by(0, 0))


def test_quorums_of_none_and_of_one() -> None:
    """``quorum none`` needs only the log; a quorum may be a single witness."""
    assert Policy.parse(f"log {LOG.key}\nquorum none\n".encode()).open(SIGNED)
    assert Policy((LOG.key,)).open(SIGNED)
    one = Policy.parse(f"{HEAD}quorum w1\n".encode())
    assert one.open(cosigned_by(1))
    with pytest.raises(CheckpointInvalid):
        one.open(cosigned_by(0))


@given(st.integers(1, 5), st.booleans())
def test_policies_round_trip(threshold: int, grouped: bool) -> None:
    """What is written is what is read."""
    policy = Policy(
        (LOG.key,),
        {f"w{i}": witness.key for i, witness in enumerate(WITNESSES)},
        {"g": Group(threshold, tuple(f"w{i}" for i in range(5)))} if grouped else {},
        "g" if grouped else "w3",
    )
    assert Policy.parse(policy.encode()) == policy


def test_comments_blanks_and_urls() -> None:
    """Blank lines, comments, tabs and addresses are allowed, and bytes beyond ASCII are kept apart as they are."""
    text = f"# a\n\n \t\n\tlog  {LOG.key}\thttps://log.example/ \n  # b\nwitness \u212a {W[0]} https://w\n".encode()
    policy = Policy.parse(text + f"witness K {W[1]}\nwitness ".encode() + b"\xff " + W[2].encode() + b"\nquorum \xff\n")
    assert list(policy.witnesses) == ["\u212a", "K", "\udcff"]
    assert Policy.parse(policy.encode()) == policy


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEAD,
        f"{HEAD}quorum w9\n",
        f"{HEAD}quorum w0\nquorum w1\n",
        f"quorum w0\n{HEAD}",
        f"{HEAD}quorum w0",
        f"{HEAD}witness w0 {W[0]}\nquorum none\n",
        f"witness a {W[0]}\nwitness b {W[0]}\nquorum none\n",
        f"log {LOG.key}\nlog {LOG.key}\nquorum none\n",
        f"witness none {W[0]}\nquorum none\n",
        f"log {W[0]}\nquorum none\n",
        f"witness a {LOG.key}\nquorum none\n",
        "log nonsense\nquorum none\n",
        f"{HEAD}group g 0 w0\nquorum g\n",
        f"{HEAD}group g 3 w0 w1\nquorum g\n",
        f"{HEAD}group g 01 w0 w1\nquorum g\n",
        f"{HEAD}group g any\nquorum g\n",
        f"{HEAD}group g any w9\nquorum g\n",
        f"{HEAD}group g any g\nquorum g\n",
        f"{HEAD}group g any none\nquorum g\n",
        f"{HEAD}group g 2 w0 w0\nquorum g\n",
        f"{HEAD}group g any w0\ngroup h any w0\nquorum g\n",
        f"{HEAD}group w0 any w1\nquorum w0\n",
        f"{HEAD}sometimes w0\nquorum none\n",
        f"{HEAD}quorum none\r\n",
        "quorum none\n" + "#" * MAX_POLICY,
    ],
)
def test_bad_policies_are_refused(text: str) -> None:
    """No or two quorums, names undefined or taken, keys twice or of the wrong type, impossible thresholds."""
    with pytest.raises(PolicyInvalid):
        Policy.parse(text.encode())


def test_the_error_names_the_line() -> None:
    """Whoever wrote the file finds the mistake."""
    with pytest.raises(PolicyInvalid, match="line 7"):
        Policy.parse(f"{HEAD}group g 9 w0\nquorum g\n".encode())


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_with_a_typed_error(data: bytes) -> None:
    """Hostile input never raises anything else."""
    with pytest.raises(PolicyInvalid):
        Policy.parse(data)
