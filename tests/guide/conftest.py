"""The reference host on a real uvicorn, and ways to ask its log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.demo import traffic
from backend.demo.__main__ import environment, prepare
from backend.demo.serving import Server


@dataclass(frozen=True, slots=True)
class Host:
    """A running reference host with an admin, and a client without credentials."""

    url: str
    env: dict[str, str]
    state: Path
    http: httpx.Client
    admin: dict[str, str]

    def sign_in(self, username: str, **headers: str) -> dict[str, str]:
        """The headers of a user, who is registered first if need be."""
        password = traffic.password_of(username)
        account = {"username": username, "email": f"{username}@example.org", "password": password}
        self.http.post("/api/auth/register", json=account)
        answer = self.http.post("/api/auth/login", json={"username": username, "password": password}, headers=headers)
        return {"Authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}

    def ask(self, path: str = "/api/audit/logs", **params: Any) -> Any:
        """The answer of the query API to the admin."""
        return self.http.get(path, params=params, headers=self.admin).raise_for_status().json()

    def stored(self, answer: httpx.Response) -> dict[str, Any]:
        """The event of the request that got this answer, once it is in the table."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            logs = self.ask(correlation_id=answer.headers["X-Correlation-ID"])["logs"]
            if logs:
                return dict(logs[0])
        raise AssertionError("the event did not reach the table within 20 s")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The reference host on SQLite; events reach the table at once instead of in batches."""
    state = tmp_path_factory.mktemp("host")
    env = {**environment(state), "INDELIBLE_FLUSH_INTERVAL": "0.02"}
    prepare(state, env)
    with (
        Server("backend.server.main:app", env=env, log=state / "server.log") as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        credentials = {"username": traffic.ADMIN, "password": traffic.password_of(traffic.ADMIN)}
        token = client.post("/api/auth/login", json=credentials).raise_for_status().json()["access_token"]
        yield Host(server.url, env, state, client, {"Authorization": f"Bearer {token}"})
