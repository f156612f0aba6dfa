"""The published vectors of transparency-dev/merkle, read from the folder that TLOG_VECTORS names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import pytest

from indelible.errors import ProofInvalid
from indelible.integrity.merkle import verify_consistency, verify_inclusion

#: Its roots are 12 bytes long, and nothing here takes such a hash: the one vector that a strict verifier must fail.
LOOSE = "sizes-are-equal-one-and-proof-is-empty.json"


def test_inclusion_vectors(published_vectors: Path) -> None:
    """Verification succeeds exactly where the vector says so."""
    files = sorted((published_vectors / "inclusion").rglob("*.json"))
    assert len(files) > 50
    for file in files:
        v = json.loads(file.read_text())
        proof = [b64decode(value) for value in v["proof"] or []]
        try:
            verify_inclusion(v["leafIdx"], v["treeSize"], b64decode(v["leafHash"]), proof, b64decode(v["root"]))
        except ProofInvalid:
            assert v["wantErr"], file
        else:
            assert not v["wantErr"], file


def test_consistency_vectors(published_vectors: Path) -> None:
    """Verification succeeds exactly where the vector says so, but for the one with hashes of 12 bytes."""
    files = sorted((published_vectors / "consistency").rglob("*.json"))
    assert len(files) > 50
    assert LOOSE in {file.name for file in files}
    for file in files:
        v = json.loads(file.read_text())
        proof = [b64decode(value) for value in v["proof"] or []]
        try:
            verify_consistency(v["size1"], v["size2"], proof, b64decode(v["root1"]), b64decode(v["root2"]))
        except ProofInvalid:
            assert v["wantErr"] or file.name == LOOSE, file
        else:
            assert not v["wantErr"], file


@pytest.mark.parametrize(("ci", "outcome"), [("true", "1 error"), ("", "1 skipped")])
def test_absent_vectors_are_never_passed_over_in_silence(tmp_path: Path, ci: str, outcome: str) -> None:
    """With CI=true an absent folder is an error; elsewhere it is a skip that says what was not run."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", f"{__file__}::test_inclusion_vectors"],
        env={**os.environ, "CI": ci, "TLOG_VECTORS": str(tmp_path / "absent")},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in run.stdout
    assert "NOT RUN: the published Merkle vectors" in run.stdout
