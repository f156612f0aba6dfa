"""What only admins do."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy import select

from indelible import enrich

from ..database import reading, writing
from ..models import User
from ..schemas import Limit, Offset, RoleChange, UserOut, problems
from ..security import Admin
from .users import find_user, keep_one_admin

router = APIRouter(prefix="/api/admin", tags=["admin"])


@router.get("/users", response_model=list[UserOut], responses=problems(401, 403))
def list_accounts(_: Admin, limit: Limit = 50, offset: Offset = 0) -> list[User]:
    """Every account in full, by name."""
    with reading() as session:
        return list(session.scalars(select(User).order_by(User.login_name).limit(limit).offset(offset)))


@router.patch("/users/{user_id}", response_model=UserOut, responses=problems(400, 401, 403, 404, 409))
def change_role(user_id: UUID, body: RoleChange, _: Admin) -> User:
    """Make a user an admin, or an admin a user."""
    with writing() as session:
        if body.role != "admin":
            keep_one_admin(session, user_id)
        user = find_user(session, user_id)
        before = user.role
        user.role = body.role
    enrich(
        resource_type="user",
        resource_id=str(user_id),
        old_value={"role": before},
        new_value={"role": user.role},
    )
    return user
