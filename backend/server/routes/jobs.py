"""Jobs: seen and changed by their owner and by admins."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, status
from sqlalchemy import select
from sqlalchemy.orm import Session

from indelible import enrich

from ..database import reading, writing
from ..models import Job, Node
from ..schemas import Id, JobChange, JobIn, JobOut, Limit, Offset, number, problems
from ..security import CurrentUser, Principal, must_own

router = APIRouter(prefix="/api/jobs", tags=["jobs"])


@router.get("", response_model=list[JobOut], responses=problems(401))
def list_jobs(principal: CurrentUser, limit: Limit = 50, offset: Offset = 0) -> list[Job]:
    """One's own jobs, oldest first; all of them for an admin."""
    query = select(Job).order_by(Job.id).limit(limit).offset(offset)
    if not principal.is_admin:
        query = query.where(Job.owner_id == principal.id)
    with reading() as session:
        return list(session.scalars(query))


@router.post("", status_code=status.HTTP_201_CREATED, response_model=JobOut, responses=problems(400, 401, 409))
def create_job(body: JobIn, principal: CurrentUser) -> Job:
    """Queue a job as one's own."""
    job = Job(owner_id=principal.id, **body.model_dump())
    with writing() as session:
        _check_node(session, body.node_id)
        session.add(job)
    enrich(resource_id=str(job.id), new_value=job.audited())
    return job


@router.get("/{job_id}", response_model=JobOut, responses=problems(401, 403, 404))
def read_job(job_id: Id, principal: CurrentUser) -> Job:
    """One job."""
    with reading() as session:
        return _find(session, job_id, principal)


@router.put("/{job_id}", response_model=JobOut, responses=problems(400, 401, 403, 404, 409))
def replace_job(job_id: Id, body: JobIn, principal: CurrentUser) -> Job:
    """Set every field of a job; what is left out gets its default."""
    return _change(job_id, body.model_dump(), principal)


@router.patch("/{job_id}", response_model=JobOut, responses=problems(400, 401, 403, 404, 409))
def change_job(job_id: Id, body: JobChange, principal: CurrentUser) -> Job:
    """Set some fields of a job."""
    return _change(job_id, body.values(), principal)


@router.delete("/{job_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(401, 403, 404))
def delete_job(job_id: Id, principal: CurrentUser) -> None:
    """Remove a job."""
    with writing() as session:
        job = _find(session, job_id, principal)
        session.delete(job)
    enrich(old_value=job.audited())


def _change(job_id: str, values: dict[str, Any], principal: Principal) -> Job:
    with writing() as session:
        job = _find(session, job_id, principal)
        _check_node(session, values.get("node_id"))
        before = job.audited()
        for name, value in values.items():
            setattr(job, name, value)
    enrich(old_value=before, new_value=job.audited())
    return job


def _find(session: Session, job_id: str, principal: Principal) -> Job:
    key = number(job_id)
    job = session.get(Job, key) if key else None
    if job is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "no such job")
    must_own(principal, job.owner_id)
    return job


def _check_node(session: Session, node_id: int | None) -> None:
    # Holds the node's row, so that it cannot go between this look and the commit.
    if node_id is not None and session.get(Node, node_id, with_for_update={"read": True, "key_share": True}) is None:
        raise HTTPException(status.HTTP_409_CONFLICT, "no such node")
