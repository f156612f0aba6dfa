"""What proves one event to a stranger, as files: the proof, the entry, what opens it, whom to believe, and how to check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import UUID

from indelible import verification
from indelible.integrity.policy import Policy
from indelible.proving import Evidence


def bundle(log_id: UUID, evidence: Evidence, policy: Policy) -> Mapping[str, bytes]:
    """The files by their names; ``verify_bundle.py`` among them checks the others without Indelible."""
    return {
        f"{log_id}.tlog-proof": evidence.proof.encode(),
        f"{log_id}.entry": evidence.entry,
        f"{log_id}.disclosures": "".join(f"{text}\n" for text in evidence.disclosures).encode(),
        "policy": policy.encode(),
        "VERIFY.txt": _VERIFY.format(id=log_id, origin=policy.logs[0].name).encode(),
        VERIFIER.name: VERIFIER.read_bytes(),
    }


#: The offline verifier.
VERIFIER: Final = Path(verification.__file__).with_name("verify_bundle.py")

_VERIFY: Final = """\
How to check that this event is in the log, without trusting who sent it to you
================================================================================

{id}.entry        the event as it was sealed: JSON; digests stand for personal data and details
{id}.disclosures  what opens those digests, one a line (RFC 9901 disclosures); may be left out
{id}.tlog-proof   its place in the log, the audit path and the signed checkpoint (C2SP tlog-proof)
policy            whose signatures to believe (C2SP tlog-policy)

First compare the keys in `policy` with those that you have from somewhere else: who could forge the proof could
also have put other keys there.

With Python and its package cryptography (take verify_bundle.py from the package indelible if you doubt this copy):

    python3 verify_bundle.py .

By hand, with openssl and coreutils, in a shell in this directory.

1. The log has signed the checkpoint:

    sed '1,/^$/d' {id}.tlog-proof > checkpoint
    sed '/^$/,$d' checkpoint > text
    grep -m1 '^log ' policy | cut -d' ' -f2 | cut -d+ -f3- | base64 -d | tail -c 32 > key.raw
    (printf '\\060\\052\\060\\005\\006\\003\\053\\145\\160\\003\\041\\000'; cat key.raw) > key.der
    grep -m1 -F ' {origin} ' checkpoint | cut -d' ' -f3 | base64 -d | tail -c 64 > signature
    openssl pkeyutl -verify -pubin -keyform DER -inkey key.der -rawin -in text -sigfile signature

2. The hash of the entry, from which the audit path leads to the root in line 3 of `text` (RFC 9162, 2.1.3.2; any
   library for RFC 6962 or RFC 9162 trees computes it from index, size, this hash and the path):

    (printf '\\000'; cat {id}.entry) | openssl dgst -sha256 -binary | base64

3. Each disclosure has the digest that stands in the entry under the group's name:

    while read -r D; do printf %s "$D" | openssl dgst -sha256 -binary | basenc --base64url | tr -d =; done < {id}.disclosures
"""
