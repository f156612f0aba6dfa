"""The Merkle tree against the recursive definition of RFC 9162, and against its own mutations."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.errors import ProofInvalid
from indelible.integrity import merkle
from indelible.integrity.merkle import (
    EMPTY_ROOT,
    CompactRange,
    NodeReader,
    consistency_proof,
    hash_leaf,
    hash_node,
    inclusion_proof,
    inclusion_steps,
    root_hash,
    verify_consistency,
    verify_inclusion,
)

ReadNodes = Callable[[Sequence[bytes]], NodeReader]

#: The largest tree that the random tests use.
LARGE = 5_000
LEAVES = [hash_leaf(b"%d" % i) for i in range(LARGE)]


@functools.cache
def mth(start: int, end: int) -> bytes:
    """MTH(D[start:end]) as RFC 9162 §2.1.1 defines it, over LEAVES."""
    if start == end:
        return hashlib.sha256(b"").digest()
    if end - start == 1:
        return LEAVES[start]
    k = split(end - start)
    return hashlib.sha256(b"\x01" + mth(start, start + k) + mth(start + k, end)).digest()


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    return next(1 << bit for bit in itertools.count() if 1 << (bit + 1) >= n)


def path(m: int, start: int, end: int) -> list[bytes]:
    """PATH(m, D[start:end]) as RFC 9162 §2.1.3.1 defines it."""
    if end - start == 1:
        return []
    k = split(end - start)
    if m < k:
        return [*path(m, start, start + k), mth(start + k, end)]
    return [*path(m - k, start + k, end), mth(start, start + k)]


def subproof(m: int, start: int, end: int, complete: bool) -> list[bytes]:
    """SUBPROOF(m, D[start:end], complete) as RFC 9162 §2.1.4.1 defines it."""
    if m == end - start:
        return [] if complete else [mth(start, end)]
    k = split(end - start)
    if m <= k:
        return [*subproof(m, start, start + k, complete), mth(start + k, end)]
    return [*subproof(m - k, start + k, end, complete=False), mth(start, start + k)]


@pytest.fixture(scope="module")
def node(read_nodes: ReadNodes) -> NodeReader:
    """The nodes over LEAVES."""
    return read_nodes(LEAVES)


def test_constants() -> None:
    """The hashes of nothing, of the empty entry, of an entry and of a node are the published ones."""
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert hash_leaf(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert hash_leaf(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    node = hash_node(b"N123", b"N456")
    assert node.hex() == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"
    assert CompactRange().root == root_hash([]) == EMPTY_ROOT


def test_every_proof_up_to_300_leaves(node: NodeReader) -> None:
    """Each root, inclusion proof and consistency proof equals the RFC's recursion, and verifies."""
    tree = CompactRange()
    for size in range(1, 301):
        tree = tree.append(LEAVES[size - 1])
        root = mth(0, size)
        assert tree.root == root
        assert tree == CompactRange.read(size, node)
        for index in range(size):
            proof = inclusion_proof(index, size, node)
            assert proof == path(index, 0, size)
            verify_inclusion(index, size, LEAVES[index], proof, root)
        for first in range(1, size + 1):
            proof = consistency_proof(first, size, node)
            assert proof == subproof(first, 0, size, complete=True)
            verify_consistency(first, size, proof, mth(0, first), root)


@given(st.data())
def test_each_step_of_a_path_can_be_followed(node: NodeReader, data: st.DataObject) -> None:
    """Every step hashes the one before it with its sibling, on the side it names; the last one is the root."""
    size = data.draw(st.integers(1, LARGE))
    index = data.draw(st.integers(0, size - 1))
    at = LEAVES[index]
    for step in inclusion_steps(index, size, at, inclusion_proof(index, size, node)):
        assert step.hash == (hash_node(step.sibling, at) if step.left else hash_node(at, step.sibling))
        at = step.hash
    assert at == mth(0, size)


@given(st.data())
def test_random_proofs_up_to_5000_leaves(node: NodeReader, data: st.DataObject) -> None:
    """Proofs in larger trees equal the RFC's recursion too."""
    size = data.draw(st.integers(300, LARGE))
    index = data.draw(st.integers(0, size - 1))
    assert CompactRange.read(size, node).root == mth(0, size)
    proof = inclusion_proof(index, size, node)
    assert proof == path(index, 0, size)
    verify_inclusion(index, size, LEAVES[index], proof, mth(0, size))
    proof = consistency_proof(index + 1, size, node)
    assert proof == subproof(index + 1, 0, size, complete=True)
    verify_consistency(index + 1, size, proof, mth(0, index + 1), mth(0, size))


@given(st.lists(st.integers(0, 40), max_size=12))
def test_extending_in_any_steps_is_appending_one_by_one(node: NodeReader, steps: list[int]) -> None:
    """However a tree is cut into batches, the range is the same, and each node is completed exactly once."""
    tree = CompactRange()
    seen: dict[tuple[int, int], bytes] = {}
    for step in steps:
        before = tree.size
        tree, completed = tree.extend(LEAVES[before : before + step])
        for level, row in enumerate(completed):
            for offset, value in enumerate(row):
                assert seen.setdefault((level, (before >> level) + offset), value) is value
    singly = CompactRange()
    for leaf in LEAVES[: sum(steps)]:
        singly = singly.append(leaf)
    assert tree == singly
    assert seen == {(level, index): node(level, index) for level in range(9) for index in range(tree.size >> level)}


@given(st.integers(0, 6), st.integers(0, 5), st.integers(0, 70))
def test_extending_with_subtrees(node: NodeReader, level: int, before: int, count: int) -> None:
    """Roots of perfect subtrees, as they come from ranges hashed in parallel, extend a tree like their leaves do."""
    start = CompactRange.read(before << level, node)
    tree, _ = start.extend([node(level, before + i) for i in range(count)], level=level)
    assert tree == CompactRange.read((before + count) << level, node)


def test_a_subtree_needs_an_aligned_tree(node: NodeReader) -> None:
    """A subtree cannot be added in the middle of another."""
    with pytest.raises(ValueError, match="does not end at a node"):
        CompactRange.read(3, node).extend([bytes(32)], level=1)
    with pytest.raises(ValueError, match="perfect subtree"):
        merkle.perfect_root(LEAVES[:3])
    assert merkle.perfect_root(LEAVES[:4]) == mth(0, 4)


@pytest.mark.parametrize(
    ("size", "nodes"), [(1, ()), (2, (bytes(32),) * 2), (-1, ()), (1, (b"short",)), (2**63, (bytes(32),))]
)
def test_an_impossible_range_is_refused(size: int, nodes: tuple[bytes, ...]) -> None:
    """A range has one node of 32 bytes for each bit of its size."""
    with pytest.raises(ValueError, match=r"."):
        CompactRange(size, nodes)


@given(st.data())
def test_any_change_to_a_proof_is_refused(node: NodeReader, data: st.DataObject) -> None:
    """A changed byte anywhere, a hash more, less or elsewhere, another index or size: none of it verifies."""
    size = data.draw(st.integers(1, 600))
    index = data.draw(st.integers(0, size - 1))
    proof, root, leaf = inclusion_proof(index, size, node), mth(0, size), LEAVES[index]
    for bad_proof, bad_root, bad_leaf in _changes(data, proof, root, leaf):
        with pytest.raises(ProofInvalid):
            verify_inclusion(index, size, bad_leaf, bad_proof, bad_root)
    other = data.draw(st.integers(-1, size + 1).filter(lambda i: i != index))
    with pytest.raises(ProofInvalid):
        verify_inclusion(other, size, leaf, proof, root)

    first = index + 1
    proof, root1 = consistency_proof(first, size, node), mth(0, first)
    for bad_proof, bad_root, bad_root1 in _changes(data, proof, root, root1):
        with pytest.raises(ProofInvalid):
            verify_consistency(first, size, bad_proof, bad_root1, bad_root)


def _changes(
    data: st.DataObject, proof: list[bytes], root: bytes, other: bytes
) -> list[tuple[list[bytes], bytes, bytes]]:
    def flip(value: bytes) -> bytes:
        at = data.draw(st.integers(0, len(value) - 1))
        return value[:at] + bytes((value[at] ^ data.draw(st.integers(1, 255)),)) + value[at + 1 :]

    found = [
        (proof, flip(root), other),
        (proof, root, flip(other)),
        ([*proof, root], root, other),
        ([root, *proof], root, other),
        ([*proof, bytes(31)], root, other),
        (proof, root[:31], other),
        (proof, root, other + b"\0"),
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        found += [
            ([*proof[:at], flip(proof[at]), *proof[at + 1 :]], root, other),
            (proof[:at] + proof[at + 1 :], root, other),
            ([*proof[:at], proof[at][:31], *proof[at + 1 :]], root, other),
        ]
    return found


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 5), (5, 4), (-1, 5), (1, 2**63)])
def test_sizes_that_prove_nothing(node: NodeReader, first: int, second: int) -> None:
    """Size 0 is a prefix of everything; a shrinking tree and one beyond 63 bits cannot be."""
    with pytest.raises(ProofInvalid):
        consistency_proof(first, second, node)
    with pytest.raises(ProofInvalid):
        verify_consistency(first, second, [], EMPTY_ROOT, EMPTY_ROOT)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 4), (0, 2**63)])
def test_leaves_outside_the_tree(node: NodeReader, index: int, size: int) -> None:
    """There is no proof of a leaf that the tree does not have."""
    with pytest.raises(ProofInvalid):
        inclusion_proof(index, size, node)
    with pytest.raises(ProofInvalid):
        verify_inclusion(index, size, bytes(32), [], bytes(32))


def test_the_shape_of_a_proof_follows_from_the_sizes(node: NodeReader) -> None:
    """A path that leads to the right root, but from another level or for another size, is no proof."""
    path_of_8 = inclusion_proof(0, 8, node)
    with pytest.raises(ProofInvalid, match="too short"):
        verify_inclusion(0, 8, mth(0, 2), path_of_8[1:], mth(0, 8))
    with pytest.raises(ProofInvalid, match="too long"):
        verify_inclusion(0, 4, LEAVES[0], path_of_8, mth(0, 8))
    with pytest.raises(ProofInvalid, match="too short"):
        verify_consistency(2, 8, consistency_proof(2, 4, node), mth(0, 2), mth(0, 4))
    with pytest.raises(ProofInvalid, match="too long"):
        verify_consistency(2, 4, consistency_proof(2, 8, node), mth(0, 2), mth(0, 8))


def test_hashes_of_other_lengths_cannot_share_their_bytes(node: NodeReader) -> None:
    """Moving a byte from one child to its sibling keeps what is hashed; only the length gives it away."""
    left, right = LEAVES[0], LEAVES[1]
    with pytest.raises(ProofInvalid, match="32 bytes"):
        verify_inclusion(0, 2, left[:31], [left[31:] + right], mth(0, 2))
    with pytest.raises(ProofInvalid, match="32 bytes"):
        verify_consistency(1, 2, [left[31:] + right], left[:31], mth(0, 2))
