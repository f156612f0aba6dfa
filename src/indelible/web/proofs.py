"""The API's proofs: what a stranger needs to check the log, and one event in it, without trusting this host."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from fastapi import APIRouter, HTTPException, Path, Response
from pydantic import BaseModel, Field

from indelible import proving
from indelible.errors import InvalidQuery, ProofInvalid
from indelible.queries import MAX_SEQ, parse_filter
from indelible.web.openapi import Problem
from indelible.web.reading import RETRY_AFTER, Reading

_NO_STORE: Final = {"Cache-Control": "no-store"}
_DECIMAL: Final = re.compile(r"[1-9][0-9]{0,18}")


class Proof(BaseModel):
    """An event as it was sealed, and the proof that it is in the log."""

    proof: str = Field(description="The C2SP tlog-proof file: index, audit path and signed checkpoint.")
    entry: str = Field(description="The leaf bytes (UTF-8): JSON of the clear fields and digests of the others.")
    disclosures: list[str] = Field(description="What opens the digests (RFC 9901), for groups that were not erased.")


class Consistency(BaseModel):
    """That the log only grew between two sizes."""

    proof: list[str] = Field(description="The hashes of the consistency proof (RFC 9162 §2.1.4), base64.")


def add_proofs(router: APIRouter, reading: Any) -> None:
    """Add ``/checkpoint``, ``/logs/{log_id}/proof`` and ``/consistency`` to the router. ``reading`` is its dependency."""

    @router.get(
        "/checkpoint",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "A signed note."},
            404: {"model": Problem, "description": "No checkpoint has been published."},
        },
    )
    async def get_checkpoint(reading: Reading = reading) -> Response:
        """The newest signed checkpoint (C2SP tlog-checkpoint)."""
        return await _checkpoint(reading)

    @router.get(
        "/logs/{log_id}/proof",
        response_model=Proof,
        responses={404: {"model": Problem, "description": "No such event, or no checkpoint that covers it yet."}},
    )
    async def get_proof(
        log_id: Annotated[UUID, Path(description="The event's id.")], reading: Reading = reading
    ) -> Response:
        """The proof that one event is in the log. 404 until a checkpoint covers it, seconds after it was stored."""
        return await _proof(reading, log_id)

    @router.get(
        "/consistency",
        response_model=Consistency,
        responses={404: {"model": Problem, "description": "The log is smaller, or the sizes are the wrong way round."}},
        openapi_extra={"parameters": [_size("first", "The smaller size."), _size("second", "The larger size.")]},
    )
    async def get_consistency(reading: Reading = reading) -> Response:
        """The proof that the log of size ``first`` is a prefix of that of size ``second``."""
        return await _consistency(reading)


async def _checkpoint(reading: Reading) -> Response:
    reading.parsed(partial(parse_filter, allowed=()))
    newest = await reading.ask(reading.store.newest_checkpoint)
    if newest is None:
        raise HTTPException(404, "no checkpoint has been published", headers=_NO_STORE)
    reading.record("audit.read", "checkpoint", filters={}, rows=0)
    return Response(newest.note, media_type="text/plain", headers=_NO_STORE)


async def _proof(reading: Reading, log_id: UUID) -> Response:
    reading.parsed(partial(parse_filter, allowed=()))
    event = await reading.ask(reading.store.get, log_id)
    if event is None:
        raise HTTPException(404, "no such event", headers=_NO_STORE)
    newest = await reading.ask(reading.store.newest_checkpoint)
    if newest is None:
        raise HTTPException(404, "no checkpoint has been published", headers=_NO_STORE)
    if newest.size <= event.seq:
        # Nobody's fault: the proof is not there yet, as the next checkpoint is seconds away.
        headers = {**_NO_STORE, "Retry-After": RETRY_AFTER}
        raise HTTPException(404, "no checkpoint covers this event yet", headers=headers)
    evidence = await reading.ask(proving.prove, reading.store, event, newest)
    reading.record("audit.read", "prove", filters={}, rows=1, resource_id=log_id)
    return _json(
        {
            "proof": evidence.proof.encode().decode(),
            "entry": evidence.entry.decode(),
            "disclosures": list(evidence.disclosures),
        }
    )


async def _consistency(reading: Reading) -> Response:
    first, second = reading.parsed(_sizes)
    try:
        hashes = await reading.ask(proving.prove_consistency, reading.store, first, second)
    except ProofInvalid as error:
        raise HTTPException(404, error.message, headers=_NO_STORE) from None
    reading.record("audit.read", "consistency", filters={"first": first, "second": second}, rows=0)
    return _json({"proof": [b64encode(value).decode() for value in hashes]})


def _sizes(params: list[tuple[str, str]]) -> tuple[int, int]:
    for name, _ in params:
        if name not in ("first", "second"):
            raise InvalidQuery(f"unknown parameter {name!r}", parameter=name)
    first, second = (
        _one_size(name, [value for given, value in params if given == name]) for name in ("first", "second")
    )
    return first, second


def _one_size(name: str, values: list[str]) -> int:
    # FastAPI would take 1.0 and 1_0 for sizes as well.
    if len(values) != 1 or not _DECIMAL.fullmatch(values[0]) or int(values[0]) > MAX_SEQ:
        raise InvalidQuery(f"{name} is one size: a number from 1 to {MAX_SEQ}", parameter=name)
    return int(values[0])


def _size(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1, "maximum": MAX_SEQ}
    return {"name": name, "in": "query", "required": True, "description": description, "schema": schema, "example": 1}


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json", headers=_NO_STORE)
