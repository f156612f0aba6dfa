"""Passwords, access tokens, and the two questions routes ask: who is this, and is it an admin?"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID, uuid4

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from fastapi import Depends, HTTPException, Request, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from indelible import enrich

from .database import reading
from .models import RevokedToken, User
from .returning import to_the_login_page
from .settings import get_settings

ALGORITHM: Final = "HS256"
#: The cookie that keeps a browser signed in.
SESSION_COOKIE: Final = "fog_session"
_hasher: Final = PasswordHasher()
# One hash takes 64 MiB and a core: a burst of log-ins waits its turn instead of taking the machine down.
_turn: Final = threading.BoundedSemaphore(os.cpu_count() or 1)
# Compared against when there is no such user, so that the answer takes as long either way.
_NOBODY: Final = _hasher.hash(uuid4().hex)
_bearer: Final = HTTPBearer(auto_error=False, description="The access token from /api/auth/login.")


def hash_password(password: str) -> str:
    """Argon2id with the library's current defaults."""
    with _turn:
        return _hasher.hash(password.encode("utf-8", "surrogatepass"))


def check_password(stored: str | None, password: str) -> bool:
    """Whether ``password`` is the one behind ``stored``; takes as long when there is nothing stored."""
    with _turn:
        try:
            return _hasher.verify(stored or _NOBODY, password.encode("utf-8", "surrogatepass")) and stored is not None
        except (VerificationError, InvalidHashError):
            return False


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes the request: the user, and the token that says so."""

    user: User
    token_id: UUID
    expires_at: datetime

    @property
    def id(self) -> UUID:
        """The user's id."""
        return self.user.id

    @property
    def is_admin(self) -> bool:
        """Whether the user is an admin now, whatever was the case when the token was made."""
        return self.user.role == "admin"


def issue_token(user: User) -> tuple[str, int]:
    """A signed token for ``user`` and the seconds it lives."""
    settings = get_settings()
    lifetime = timedelta(minutes=settings.access_token_minutes)
    now = datetime.now(UTC)
    claims = {"sub": str(user.id), "jti": str(uuid4()), "iat": now, "exp": now + lifetime}
    return jwt.encode(claims, settings.signing_key(), ALGORITHM), int(lifetime.total_seconds())


Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def current_user(credentials: Bearer) -> Principal:
    """The signed-in user; 401 for no token, a wrong one, one logged out, or one whose user is gone."""
    if credentials is None:
        raise _unauthorized("not signed in")
    return _principal(credentials.credentials)


def _principal(token: str) -> Principal:
    try:
        claims = jwt.decode(
            token,
            get_settings().signing_key(),
            algorithms=[ALGORITHM],
            options={"require": ["sub", "jti", "exp"]},
        )
        user_id, token_id = UUID(claims["sub"]), UUID(claims["jti"])
    except (jwt.InvalidTokenError, ValueError, AttributeError, TypeError):
        raise _unauthorized("the token is not valid") from None
    with reading() as session:
        user = session.get(User, user_id)
        if user is None or session.get(RevokedToken, token_id) is not None:
            raise _unauthorized("the token is not valid any more")
    return Principal(user, token_id, datetime.fromtimestamp(claims["exp"], UTC))


CurrentUser = Annotated[Principal, Depends(current_user)]


def require_admin(principal: CurrentUser) -> Principal:
    """The signed-in admin; 403 for anybody else."""
    if not principal.is_admin:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "admins only")
    return principal


Admin = Annotated[Principal, Depends(require_admin)]


def browser_user(request: Request) -> Principal | None:
    """Who the browser is signed in as, by its session cookie, which holds an access token; None for nobody."""
    try:
        return _principal(request.cookies.get(SESSION_COOKIE, ""))
    except HTTPException:
        return None


BrowserUser = Annotated[Principal | None, Depends(browser_user)]


def require_admin_at_a_page(request: Request, credentials: Bearer, browser: BrowserUser) -> Principal:
    """The admin signed in by cookie or token: nobody at all is sent to the login page, anybody else gets 403."""
    if credentials is None and browser is None:
        # Not a read of the log, though the answer is below 400.
        enrich(status="denied")
        raise to_the_login_page(request)
    principal = browser or current_user(credentials)
    enrich(user_id=principal.id)
    return require_admin(principal)


def must_own(principal: Principal, owner_id: UUID | None) -> None:
    """403 unless the thing is the user's own, or the user is an admin."""
    if not principal.is_admin and owner_id != principal.id:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "only its owner or an admin may do that")


def _unauthorized(why: str) -> HTTPException:
    return HTTPException(status.HTTP_401_UNAUTHORIZED, why, headers={"WWW-Authenticate": "Bearer"})
