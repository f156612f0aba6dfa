"""The Merkle tree of RFC 9162 §2.1 (the same as RFC 6962 §2.1) over SHA-256.

A *node* is named by ``(level, index)``: it is the root of the perfect subtree over the leaves
``index * 2**level`` up to ``(index + 1) * 2**level``. Nodes that are not complete have no name; where a
proof needs one, it is folded from its complete parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from indelible.errors import ProofInvalid

#: Bytes of every hash.
HASH_SIZE: Final = 32
#: The root of the tree without leaves: SHA-256 of nothing.
EMPTY_ROOT: Final = sha256(b"").digest()
#: No tree is larger: sizes are signed 64-bit integers everywhere they are stored.
MAX_SIZE: Final = 2**63 - 1

#: Gives the hash of a complete node. Raises whatever it likes for one it does not have.
NodeReader = Callable[[int, int], bytes]

# Copying a hash object that has eaten the prefix is a fifth faster than hashing a concatenation of three.
_leaf_prefix: Final = sha256(b"\x00").copy
_node_prefix: Final = sha256(b"\x01").copy


def hash_leaf(entry: bytes) -> bytes:
    """The leaf hash of an entry: SHA-256 of 0x00 and the entry."""
    digest = _leaf_prefix()
    digest.update(entry)
    return digest.digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256 of 0x01 and its two children."""
    digest = _node_prefix()
    digest.update(left + right)
    return digest.digest()


def hash_pairs(row: Sequence[bytes]) -> list[bytes]:
    """The parents of nodes taken two by two; an odd last one is left over."""
    nodes = iter(row)
    parents = []
    for left, right in zip(nodes, nodes, strict=False):
        digest = _node_prefix()
        digest.update(left + right)
        parents.append(digest.digest())
    return parents


def perfect_root(row: Sequence[bytes]) -> bytes:
    """The root of a perfect subtree, given all its nodes of one level. Raises ValueError unless they are 2**n."""
    if not row or len(row) & (len(row) - 1):
        raise ValueError(f"{len(row)} nodes are not a perfect subtree")
    while len(row) > 1:
        row = hash_pairs(row)
    return row[0]


@dataclass(frozen=True, slots=True)
class CompactRange:
    """What must be kept of a tree to go on appending: its size and the roots of its perfect subtrees.

    ``nodes`` are largest first, one for every bit that is set in ``size``. A value: extending it makes another, so a
    transaction that fails leaves the old one good.
    """

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE or len(self.nodes) != self.size.bit_count():
            raise ValueError(f"{len(self.nodes)} nodes do not make a tree of size {self.size}")
        if any(len(node) != HASH_SIZE for node in self.nodes):
            raise ValueError(f"a node is not {HASH_SIZE} bytes")

    @classmethod
    def read(cls, size: int, node: NodeReader) -> CompactRange:
        """The compact range of the first ``size`` leaves of a tree whose complete nodes can be read."""
        return cls(size, tuple(node(level, (size >> level) - 1) for level in _set_bits(size)[::-1]))

    @property
    def root(self) -> bytes:
        """The root hash of the tree."""
        return fold(self.nodes) if self.nodes else EMPTY_ROOT

    def append(self, leaf_hash: bytes) -> CompactRange:
        """The range with one more leaf."""
        nodes, size = list(self.nodes), self.size
        while size & 1:
            leaf_hash = hash_node(nodes.pop(), leaf_hash)
            size >>= 1
        return CompactRange(self.size + 1, (*nodes, leaf_hash))

    def extend(self, hashes: Sequence[bytes], *, level: int = 0) -> tuple[CompactRange, list[list[bytes]]]:
        """The range with more leaves, and the nodes that this completed.

        ``completed[n]`` are the nodes of level ``level + n`` from index ``size >> (level + n)`` on, in order: exactly
        those that are complete now and were not before; the list ends before the first level without any. With
        ``level``, ``hashes`` are roots of perfect subtrees of 2**level leaves; the size must then be a multiple of it.
        """
        if self.size & ((1 << level) - 1):
            raise ValueError(f"a tree of size {self.size} does not end at a node of level {level}")
        size = self.size + (len(hashes) << level)
        stack = dict(zip(_set_bits(self.size)[::-1], self.nodes, strict=True))
        completed: list[list[bytes]] = []
        row = list(hashes)
        while row:
            completed.append(row)
            if (self.size >> level) & 1:
                row = [stack.pop(level), *row]
            if (size >> level) & 1:
                stack[level] = row[-1]
            row = hash_pairs(row)
            level += 1
        return CompactRange(size, tuple(stack[at] for at in sorted(stack, reverse=True))), completed


def root_hash(leaf_hashes: Sequence[bytes]) -> bytes:
    """The root hash of the tree over these leaf hashes."""
    return CompactRange().extend(leaf_hashes)[0].root


def inclusion_proof(index: int, size: int, node: NodeReader) -> list[bytes]:
    """The audit path of leaf ``index`` in the tree of the first ``size`` leaves (RFC 9162 §2.1.3.1), bottom up.

    Raises ProofInvalid when there is no such leaf in a tree of that size.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise ProofInvalid(f"there is no leaf {index} in a tree of size {size}")
    return _siblings(0, index, size, node)


def consistency_proof(first: int, second: int, node: NodeReader) -> list[bytes]:
    """The proof that the tree of size ``first`` is a prefix of that of size ``second`` (RFC 9162 §2.1.4.1).

    Empty when both sizes are the same. Raises ProofInvalid for size 0, which is a prefix of everything and so proves
    nothing, and when ``first`` is the larger.
    """
    if not 0 < first <= second <= MAX_SIZE:
        raise ProofInvalid(f"there is no consistency proof from size {first} to {second}")
    if first == second:
        return []
    level = (first & -first).bit_length() - 1
    index = (first >> level) - 1
    start = [node(level, index)] if index else []
    return start + _siblings(level, index, second, node)


@dataclass(frozen=True, slots=True)
class Step:
    """One step up an audit path: the sibling, whether it stands on the left, and the hash of both."""

    sibling: bytes
    left: bool
    hash: bytes


def inclusion_steps(index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes]) -> Iterator[Step]:
    """The way from a leaf to the root, step by step (RFC 9162 §2.1.3.2); the last step's hash is the root.

    The shape of the path follows from ``index`` and ``size``, never from the proof. Raises ProofInvalid, at the latest
    when it ends, for a path of another length, a leaf outside the tree, or a hash that is not 32 bytes.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise ProofInvalid(f"there is no leaf {index} in a tree of size {size}")
    _check_hashes((leaf_hash, *proof))
    fn, sn, root = index, size - 1, leaf_hash
    for sibling in proof:
        if sn == 0:
            raise ProofInvalid("the inclusion proof is too long")
        left = bool(fn & 1) or fn == sn
        if left:
            root = hash_node(sibling, root)
            fn, sn = _skip_zeros(fn, sn)
        else:
            root = hash_node(root, sibling)
        yield Step(sibling, left, root)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise ProofInvalid("the inclusion proof is too short")


def root_from_inclusion(index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes]) -> bytes:
    """The root hash that an audit path leads to. The caller compares it with one it trusts.

    Raises ProofInvalid as ``inclusion_steps`` does.
    """
    root = leaf_hash
    for step in inclusion_steps(index, size, leaf_hash, proof):
        root = step.hash
    return root


def verify_inclusion(index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Raise ProofInvalid unless ``proof`` shows the leaf at ``index`` of the tree with this size and root."""
    _check_hashes((root,))
    if root_from_inclusion(index, size, leaf_hash, proof) != root:
        raise ProofInvalid(f"the inclusion proof of leaf {index} does not lead to the root of size {size}")


def verify_consistency(first: int, second: int, proof: Sequence[bytes], root1: bytes, root2: bytes) -> None:
    """Raise ProofInvalid unless ``proof`` shows the tree (first, root1) to be a prefix of (second, root2).

    RFC 9162 §2.1.4.2. Size 0 is refused: any tree begins with the empty one.
    """
    if not 0 < first <= second <= MAX_SIZE:
        raise ProofInvalid(f"there is no consistency proof from size {first} to {second}")
    _check_hashes((root1, root2, *proof))
    if first == second:
        if proof or root1 != root2:
            raise ProofInvalid(f"two different roots, or a needless proof, for the one size {first}")
        return
    if not proof:
        raise ProofInvalid("the consistency proof is empty")
    path = [root1, *proof] if first & (first - 1) == 0 else list(proof)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if sn == 0:
            raise ProofInvalid("the consistency proof is too long")
        if fn & 1 or fn == sn:
            old, new = hash_node(sibling, old), hash_node(sibling, new)
            fn, sn = _skip_zeros(fn, sn)
        else:
            new = hash_node(new, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise ProofInvalid("the consistency proof is too short")
    if old != root1:
        raise ProofInvalid(f"the consistency proof does not lead to the root of size {first}")
    if new != root2:
        raise ProofInvalid(f"the consistency proof does not lead to the root of size {second}")


def _siblings(level: int, index: int, size: int, node: NodeReader) -> list[bytes]:
    """The siblings of node (level, index) from itself up to the root of the tree of this size."""
    path = []
    # While a right sibling can exist, one hash a level; beyond, only the left siblings of the right edge.
    inner = level + (index ^ ((size - 1) >> level)).bit_length()
    while level < inner:
        path.append(node(level, index - 1) if index & 1 else _right_node(level, index + 1, size, node))
        level, index = level + 1, index >> 1
    path += [node(level + up, (index >> up) - 1) for up in _set_bits(index)]
    return path


def _right_node(level: int, index: int, size: int, node: NodeReader) -> bytes:
    """The subtree over the leaves from ``index << level`` on, which at the right edge need not be full."""
    start, end = index << level, (index + 1) << level
    if end <= size:
        return node(level, index)
    return fold([node(at, (size >> at) - 1) for at in _set_bits(size - start)[::-1]])


def fold(nodes: Sequence[bytes]) -> bytes:
    """The root over the perfect subtrees of a compact range, largest first. Raises IndexError for none."""
    root = nodes[-1]
    for left in nodes[-2::-1]:
        root = hash_node(left, root)
    return root


def _set_bits(number: int) -> list[int]:
    return [bit for bit in range(number.bit_length()) if number >> bit & 1]


def _skip_zeros(fn: int, sn: int) -> tuple[int, int]:
    while fn and not fn & 1:
        fn, sn = fn >> 1, sn >> 1
    return fn, sn


def _check_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(value) != HASH_SIZE for value in hashes):
        raise ProofInvalid(f"a hash is not {HASH_SIZE} bytes")
