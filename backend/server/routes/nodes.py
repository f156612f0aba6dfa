"""Nodes: everybody sees them, their owner and admins change them."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, status
from sqlalchemy import select
from sqlalchemy.orm import Session

from indelible import enrich

from ..database import reading, writing
from ..models import Node
from ..schemas import Id, Limit, NodeChange, NodeIn, NodeOut, Offset, number, problems
from ..security import CurrentUser, Principal, must_own

router = APIRouter(prefix="/api/nodes", tags=["nodes"])


@router.get("", response_model=list[NodeOut], responses=problems(401))
def list_nodes(_: CurrentUser, limit: Limit = 50, offset: Offset = 0) -> list[Node]:
    """All nodes, oldest first."""
    with reading() as session:
        return list(session.scalars(select(Node).order_by(Node.id).limit(limit).offset(offset)))


@router.post("", status_code=status.HTTP_201_CREATED, response_model=NodeOut, responses=problems(400, 401))
def create_node(body: NodeIn, principal: CurrentUser) -> Node:
    """Register a node as one's own."""
    node = Node(owner_id=principal.id, **body.model_dump())
    with writing() as session:
        session.add(node)
    enrich(resource_id=str(node.id), new_value=node.audited())
    return node


@router.get("/{node_id}", response_model=NodeOut, responses=problems(401, 404))
def read_node(node_id: Id, _: CurrentUser) -> Node:
    """One node."""
    with reading() as session:
        return _find(session, node_id)


@router.put("/{node_id}", response_model=NodeOut, responses=problems(400, 401, 403, 404))
def replace_node(node_id: Id, body: NodeIn, principal: CurrentUser) -> Node:
    """Set every field of a node; what is left out gets its default."""
    return _change(node_id, body.model_dump(), principal)


@router.patch("/{node_id}", response_model=NodeOut, responses=problems(400, 401, 403, 404))
def change_node(node_id: Id, body: NodeChange, principal: CurrentUser) -> Node:
    """Set some fields of a node."""
    return _change(node_id, body.values(), principal)


@router.delete("/{node_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(401, 403, 404))
def delete_node(node_id: Id, principal: CurrentUser) -> None:
    """Remove a node. Its jobs stay, without a node."""
    with writing() as session:
        node = _find(session, node_id)
        must_own(principal, node.owner_id)
        session.delete(node)
    enrich(old_value=node.audited())


def _change(node_id: str, values: dict[str, object], principal: Principal) -> Node:
    with writing() as session:
        node = _find(session, node_id)
        must_own(principal, node.owner_id)
        before = node.audited()
        for name, value in values.items():
            setattr(node, name, value)
    enrich(old_value=before, new_value=node.audited())
    return node


def _find(session: Session, node_id: str) -> Node:
    key = number(node_id)
    node = session.get(Node, key) if key else None
    if node is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "no such node")
    return node
