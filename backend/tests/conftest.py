"""The whole application, started as in production, on a SQLite file of its own for each test."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI

from backend.server import security
from backend.server.main import app as application
from backend.server.main import lifespan
from backend.server.models import User
from backend.server.routes.auth import add_user
from backend.server.services.audit_service import get_audit_service
from backend.server.settings import get_settings
from indelible.events import StoredEvent
from indelible.queries import Filter

PASSWORD = "correct horse battery staple"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment that names a database file, which is not there yet."""
    path = tmp_path / "fog.db"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    monkeypatch.setenv("JWT_SECRET", "tests only: " + "0123456789abcdef" * 2)
    monkeypatch.setenv("INDELIBLE_DATA_DIR", str(tmp_path / "indelible"))
    monkeypatch.delenv("INDELIBLE_DATABASE_URL", raising=False)
    _forget()
    yield path
    _forget()


def _forget() -> None:
    get_settings.cache_clear()
    get_audit_service.cache_clear()


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2's price is for whoever guesses passwords; a test that signs in three people does not pay it."""
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(security, "_hasher", cheap)
    monkeypatch.setattr(security, "_NOBODY", cheap.hash("nobody"))


@pytest.fixture
async def app(database: Path) -> AsyncIterator[FastAPI]:
    """The running application."""
    async with lifespan(application):
        yield application


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client nobody is signed in with. An error out of the application is answered, as a server would."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.7", 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://fog.test") as made:
        yield made


SignIn = Callable[..., Awaitable[dict[str, str]]]


@pytest.fixture
def sign_in(client: httpx.AsyncClient) -> SignIn:
    """A function that makes an account and gives the headers of a request by it: ``await sign_in("ann", role="admin")``."""

    async def sign_in(username: str, *, role: str = "user") -> dict[str, str]:
        add_user(username, f"{username}@example.org", PASSWORD, role=role)
        body = {"username": username, "password": PASSWORD}
        answer = await client.post("/api/auth/login", json=body)
        return {"Authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}

    return sign_in


@pytest.fixture
def stored(app: FastAPI) -> Callable[..., Awaitable[list[StoredEvent]]]:
    """A function that waits for the flush and gives the stored events of one type, oldest first."""

    async def stored(event_type: str) -> list[StoredEvent]:
        service = get_audit_service()
        await service.flush()
        return [row for rows in service.store.scan(Filter(event_type=(event_type,))) for row in rows]

    return stored


@pytest.fixture
def sql(database: Path) -> Callable[..., list[Any]]:
    """A function that runs one statement on the database, as somebody with the file would."""

    def sql(statement: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(database)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    return sql


@pytest.fixture
def user() -> Callable[[str], User]:
    """A function that makes an account without signing in."""
    return lambda username: add_user(username, f"{username}@example.org", PASSWORD)
