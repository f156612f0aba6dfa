"""Roots and proofs against two implementations written by others: pymerkle, and the verifier inside sigstore."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore.errors import VerificationError

from indelible.integrity.merkle import (
    NodeReader,
    consistency_proof,
    hash_leaf,
    inclusion_proof,
    root_hash,
    verify_consistency,
)

ReadNodes = Callable[[Sequence[bytes]], NodeReader]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=300), st.data())
def test_pymerkle_agrees(read_nodes: ReadNodes, entries: list[bytes], data: st.DataObject) -> None:
    """Same root, same audit path; each side's consistency proof holds between the other side's roots.

    pymerkle's consistency proofs are not those of the RFC (it sends the parts of the old root singly), so they are
    compared by what they prove.
    """
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in entries:
        tree.append_entry(entry)
    hashes = [hash_leaf(entry) for entry in entries]
    node, size = read_nodes(hashes), len(hashes)
    root = root_hash(hashes)
    assert tree.get_root() == root

    index = data.draw(st.integers(0, size - 1))
    theirs = tree.prove_inclusion(index + 1, size)
    # pymerkle counts leaves from one, and its path begins with the leaf itself.
    assert theirs.path == [hashes[index], *inclusion_proof(index, size, node)]
    pymerkle.verify_inclusion(hashes[index], root, theirs)

    first = index + 1
    verify_consistency(first, size, consistency_proof(first, size, node), tree.get_root(first), tree.get_root())
    pymerkle.verify_consistency(root_hash(hashes[:first]), root, tree.prove_consistency(first, size))


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=300), st.data())
def test_sigstore_accepts_inclusion_proofs(read_nodes: ReadNodes, entries: list[bytes], data: st.DataObject) -> None:
    """The verifier that checks Rekor entries accepts our audit paths, and refuses them for another entry."""
    hashes = [hash_leaf(entry) for entry in entries]
    size = len(hashes)
    index = data.draw(st.integers(0, size - 1))
    proof = SimpleNamespace(
        log_index=index,
        tree_size=size,
        hashes=inclusion_proof(index, size, read_nodes(hashes)),
        root_hash=root_hash(hashes),
    )

    def rekor_entry(body: bytes) -> Any:
        return cast("Any", SimpleNamespace(_inner=SimpleNamespace(inclusion_proof=proof, canonicalized_body=body)))

    verify_merkle_inclusion(rekor_entry(entries[index]))
    with pytest.raises(VerificationError):
        verify_merkle_inclusion(rekor_entry(entries[index] + b"?"))
