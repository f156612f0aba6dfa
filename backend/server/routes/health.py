"""For the people who run it: is it alive, and how is the process doing?"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, HTTPException, Response, status
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from indelible.metrics import PrometheusCollector

from ..database import reading
from ..schemas import problems
from ..services.audit_service import get_audit_service

router = APIRouter(tags=["operations"])
_audit = CollectorRegistry()
_audit.register(PrometheusCollector(get_audit_service))


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/health", responses=problems(503))
def health() -> Health:
    """Answers 200 when the process serves and its database answers."""
    try:
        with reading() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, "the database does not answer") from None
    return Health()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics() -> Response:
    """The metrics of this process and of its audit log, in the Prometheus text format."""
    return Response(generate_latest() + generate_latest(_audit), headers={"Content-Type": CONTENT_TYPE_LATEST})
