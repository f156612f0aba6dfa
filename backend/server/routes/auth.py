"""Registration, log-in, log-out."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, HTTPException, status
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from indelible import enrich

from ..database import reading, writing
from ..models import RevokedToken, User
from ..schemas import Credentials, Registration, SignedOut, Token, UserOut, problems
from ..security import CurrentUser, Principal, check_password, hash_password, issue_token

router = APIRouter(prefix="/api/auth", tags=["auth"])


@router.post("/register", status_code=status.HTTP_201_CREATED, response_model=UserOut, responses=problems(400, 409))
def register(body: Registration) -> User:
    """Make an account. User names differ by more than capitals."""
    enrich(resource_type="user", metadata={"username": body.username})
    user = add_user(body.username, body.email, body.password)
    enrich(user_id=user.id, resource_id=str(user.id), new_value=user.audited())
    return user


@router.post("/login", responses=problems(400, 401))
def login(body: Credentials) -> Token:
    """Exchange name and password for an access token."""
    return sign_in(body)


@router.post("/logout", responses=problems(401))
def logout(principal: CurrentUser) -> SignedOut:
    """End the token this request was made with."""
    sign_out(principal)
    return SignedOut()


def sign_in(body: Credentials) -> Token:
    """A new token for whoever knows the password; 401 for anybody else. The request's event is told who that is."""
    with reading() as session:
        user = session.scalar(select(User).where(User.login_name == _login_name(body.username)))
    if not check_password(user.password_hash if user else None, body.password) or user is None:
        enrich(metadata={"username": body.username})
        raise HTTPException(
            status.HTTP_401_UNAUTHORIZED, "wrong user name or password", headers={"WWW-Authenticate": "Bearer"}
        )
    token, seconds = issue_token(user)
    enrich(user_id=user.id, resource_type="user", resource_id=str(user.id))
    return Token(access_token=token, expires_in=seconds)


def sign_out(principal: Principal) -> None:
    """Revoke the principal's token."""
    with writing() as session:
        session.execute(delete(RevokedToken).where(RevokedToken.expires_at < datetime.now(UTC)))
        session.merge(RevokedToken(jti=principal.token_id, expires_at=principal.expires_at))


def add_user(username: str, email: str, password: str, *, role: str = "user") -> User:
    """Store a new user; 409 if the name or the address is taken."""
    user = User(
        username=username,
        login_name=_login_name(username),
        email=email.lower(),
        password_hash=hash_password(password),
        role=role,
    )
    try:
        with writing() as session:
            session.add(user)
    except IntegrityError:
        raise HTTPException(status.HTTP_409_CONFLICT, "the user name or the e-mail address is taken") from None
    return user


def _login_name(username: str) -> str:
    return username.lower()
