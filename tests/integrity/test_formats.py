"""The test vectors in ``docs/formats``, made by another implementation: the code does what the specifications say."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from indelible.events import AuditEvent, StoredEvent
from indelible.integrity.checkpoint import Checkpoint, add_cosignatures, cosign_checkpoint, sign_checkpoint
from indelible.integrity.leaf import disclosure, leaf_bytes, open_leaf, seal
from indelible.integrity.merkle import (
    CompactRange,
    consistency_proof,
    hash_leaf,
    inclusion_proof,
    root_hash,
    verify_consistency,
    verify_inclusion,
)
from indelible.integrity.note import COSIGNATURE, Ed25519Signer, Note, VerifierKey, cosign, sign
from indelible.integrity.policy import Policy
from indelible.integrity.proof import TlogProof
from indelible.integrity.tiles import Tile, decode_bundle, encode_bundle, encode_tile, tiles

Vectors = Callable[[str], dict[str, Any]]
Json = dict[str, Any]


def stored_event(row: Json) -> StoredEvent:
    values = dict(row)
    for name in ("actor_salt", "details_salt", "actor_digest", "details_digest"):
        if name in values:
            values[name] = bytes.fromhex(values[name])
    for name in ("id", "writer_id"):
        values[name] = uuid.UUID(values[name])
    return StoredEvent(**values)


def test_leaves(doc_vectors: Vectors) -> None:
    """Each row gives the leaf, its hash and the disclosures that open it; sealing the same event gives them too."""
    vectors = doc_vectors("leaf")["rows"]
    assert [v["name"] for v in vectors] == ["minimal", "full", "erased", "hostile"]
    for vector in vectors:
        row = stored_event(vector["row"])
        assert leaf_bytes(row).decode() == vector["leaf"]
        assert hash_leaf(leaf_bytes(row)).hex() == vector["leaf_hash"]
        texts = [text for group in ("actor", "details") if (text := disclosure(row, group))]
        assert texts == vector["disclosures"]
        assert open_leaf(vector["leaf"].encode(), texts)
        if vector["name"] != "erased":
            event = AuditEvent(**{name: getattr(row, name) for name in AuditEvent.__struct_fields__})
            salts = (row.actor_salt or bytes(16)) + (row.details_salt or bytes(16))
            sealed = seal(
                [event], writer_id=row.writer_id, first=row.writer_seq, recorded_at=row.recorded_at, salts=salts
            )
            assert sealed.leaf_hashes[0].hex() == vector["leaf_hash"]


def test_trees(doc_vectors: Vectors) -> None:
    """Roots, audit paths and consistency proofs are made and verified as they stand there."""
    page = doc_vectors("tree")
    (tree,) = page["trees"]
    hashes = [hash_leaf(bytes.fromhex(entry)) for entry in tree["entries"]]
    assert [root_hash(hashes[:size]).hex() for size in range(len(hashes) + 1)] == tree["roots"]
    _, nodes = CompactRange().extend(hashes)

    def node(level: int, index: int) -> bytes:
        return nodes[level][index]

    for v in page["inclusion"]:
        proof = [bytes.fromhex(value) for value in v["proof"]]
        assert inclusion_proof(v["index"], v["size"], node) == proof
        verify_inclusion(v["index"], v["size"], bytes.fromhex(v["leaf_hash"]), proof, bytes.fromhex(v["root"]))
    for v in page["consistency"]:
        proof = [bytes.fromhex(value) for value in v["proof"]]
        assert consistency_proof(v["first"], v["second"], node) == proof
        verify_consistency(v["first"], v["second"], proof, bytes.fromhex(v["root1"]), bytes.fromhex(v["root2"]))


def test_notes(doc_vectors: Vectors) -> None:
    """Keys are spelled so, sign so, and verify so (Ed25519 is deterministic)."""
    for vector in doc_vectors("note")["notes"]:
        text, lines = vector["text"], []
        for key in vector["keys"]:
            signer = Ed25519Signer.parse(key["secret"])
            assert signer.encode() == key["secret"]
            assert str(signer.key) == key["vkey"]
            cosigned = key["type"] == COSIGNATURE
            lines.append(cosign(text, signer, time=key["time"]) if cosigned else sign(text, signer))
        assert Note(text, tuple(lines)).encode().decode() == vector["note"]
        keys = [VerifierKey.parse(key["vkey"]) for key in vector["keys"]]
        verified = Note.parse(vector["note"].encode()).verify(keys)
        assert [v.time for v in verified] == [key.get("time") for key in vector["keys"]]


def test_checkpoints(doc_vectors: Vectors) -> None:
    """Each opens by its policy, and signing the same state gives the same bytes."""
    log, _, witness = (
        Ed25519Signer.parse(key["secret"])
        for key in (doc_vectors("note")["notes"][i]["keys"][j] for i, j in ((0, 0), (1, 1), (2, 1)))
    )
    for vector in doc_vectors("checkpoint")["checkpoints"]:
        checkpoint = Checkpoint(vector["origin"], vector["size"], bytes.fromhex(vector["root"]))
        cosignature = cosign_checkpoint(checkpoint, witness, time=vector["time"])
        data = add_cosignatures(sign_checkpoint(checkpoint, log), [cosignature])
        assert data.decode() == vector["checkpoint"]
        assert Policy.parse(vector["policy"].encode()).open(data).checkpoint == checkpoint


def test_proofs(doc_vectors: Vectors) -> None:
    """Each proof holds for its entry, and is written as it is read."""
    for vector in doc_vectors("proof")["proofs"]:
        data = vector["proof"].encode()
        proof = TlogProof.parse(data)
        assert proof.encode() == data
        proof.verify(vector["entry"].encode(), Policy.parse(vector["policy"].encode()))


def test_tiles(doc_vectors: Vectors) -> None:
    """Which tiles there are, where they are, and what is in them."""
    page = doc_vectors("tiles")
    for v in page["sizes"]:
        found = list(tiles(v["size"]))
        for level in range(4):
            full = [tile for tile in found if tile.level == level and tile.width == 256]
            partial = [tile for tile in found if tile.level == level and tile.width < 256]
            assert [tile.index for tile in full] == list(range(v["full"].get(str(level), 0)))
            assert [tile.width for tile in partial] == list(filter(None, [v["partial"].get(str(level))]))
    for v in page["paths"]:
        entries = v["level"] == "entries"
        tile = Tile(0 if entries else v["level"], v["index"], v["width"])
        assert (tile.bundle_path if entries else tile.path) == v["path"]
        assert Tile.parse(v["path"]) == tile
    _, nodes = CompactRange().extend([hash_leaf(b"%d" % i) for i in range(600)])
    for v in page["tiles"]:
        data = encode_tile(Tile(v["level"], v["index"], v["width"]), lambda level, index: nodes[level][index])
        assert hashlib.sha256(data).hexdigest() == v["sha256"]
    assert [(t.level, t.index, t.width) for t in tiles(600)] == [
        (v["level"], v["index"], v["width"]) for v in page["tiles"]
    ]
    for v in page["bundles"]:
        entries = [bytes.fromhex(entry) for entry in v["entries"]]
        assert encode_bundle(entries).hex() == v["bundle"]
        assert decode_bundle(bytes.fromhex(v["bundle"]), len(entries)) == entries


@pytest.mark.parametrize("page", ["leaf", "tree", "note", "checkpoint", "proof", "tiles"])
def test_every_page_has_vectors(doc_vectors: Vectors, page: str) -> None:
    """A page whose blocks were renamed would be tested by nothing."""
    assert all(doc_vectors(page).values())
    assert doc_vectors(page)
