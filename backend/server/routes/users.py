"""Accounts: one's own, and what others may see of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, HTTPException, status
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from indelible import enrich

from ..database import reading, writing
from ..models import User
from ..schemas import Limit, Offset, Profile, UserChange, UserOut, problems
from ..security import CurrentUser, hash_password, must_own

router = APIRouter(prefix="/api/users", tags=["users"])


@router.get("", response_model=list[Profile], responses=problems(401))
def list_users(_: CurrentUser, limit: Limit = 50, offset: Offset = 0) -> list[User]:
    """Who is here, by name."""
    with reading() as session:
        return list(session.scalars(select(User).order_by(User.login_name).limit(limit).offset(offset)))


@router.get("/me", response_model=UserOut, responses=problems(401))
def read_me(principal: CurrentUser) -> User:
    """One's own account."""
    return principal.user


@router.get("/{user_id}", response_model=UserOut, responses=problems(401, 403, 404))
def read_user(user_id: UUID, principal: CurrentUser) -> User:
    """An account: one's own, or any for an admin."""
    must_own(principal, user_id)
    with reading() as session:
        return find_user(session, user_id)


@router.patch("/{user_id}", response_model=UserOut, responses=problems(400, 401, 403, 404, 409))
def change_user(user_id: UUID, body: UserChange, principal: CurrentUser) -> User:
    """Change address or password."""
    must_own(principal, user_id)
    new_hash = hash_password(body.password) if body.password else None
    try:
        with writing() as session:
            user = find_user(session, user_id)
            before = user.audited()
            if body.email:
                user.email = body.email.lower()
            if new_hash:
                user.password_hash = new_hash
    except IntegrityError:
        raise HTTPException(status.HTTP_409_CONFLICT, "the e-mail address is taken") from None
    changed: dict[str, Any] = {"metadata": {"credentials_changed": True}} if new_hash else {}
    enrich(old_value=before, new_value=user.audited(), **changed)
    return user


@router.delete("/{user_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(401, 403, 404, 409))
def delete_user(user_id: UUID, principal: CurrentUser) -> None:
    """Delete an account. What it owned stays, without an owner."""
    must_own(principal, user_id)
    with writing() as session:
        keep_one_admin(session, user_id)
        user = find_user(session, user_id)
        session.delete(user)
    enrich(old_value=user.audited())


def find_user(session: Session, user_id: UUID) -> User:
    """The user; 404 if there is none."""
    user = session.get(User, user_id)
    if user is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "no such user")
    return user


def keep_one_admin(session: Session, user_id: UUID) -> None:
    """409 if this user is the only admin. Holds the admins' rows until the transaction ends."""
    admins = session.scalars(select(User.id).where(User.role == "admin").with_for_update()).all()
    if list(admins) == [user_id]:
        raise HTTPException(status.HTTP_409_CONFLICT, "this is the only admin; appoint another first")
