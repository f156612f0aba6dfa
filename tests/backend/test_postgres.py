"""The reference host on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.demo import traffic
from backend.demo.serving import Server, StartError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def env(postgres_url: str, tmp_path: Path) -> dict[str, str]:
    """The host's environment, with the URL as an asynchronous application would write it."""
    return {
        "DATABASE_URL": postgres_url.replace("postgresql://", "postgresql+asyncpg://"),
        "JWT_SECRET": "s" * 48,
        "INDELIBLE_DATA_DIR": str(tmp_path / "indelible"),
        "INDELIBLE_FLUSH_INTERVAL": "0.05",
        "INDELIBLE_TRUSTED_PROXIES": "127.0.0.1/32",
    }


def run(*command: str, env: dict[str, str], cwd: Path = ROOT, stdin: str = "") -> None:
    """Run one of the venv's programs; it must succeed."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_old_schema_is_not_touched(env: dict[str, str]) -> None:
    """On PostgreSQL the server does not migrate by itself: it ends, and names the command."""
    with pytest.raises(StartError, match="alembic upgrade head"), Server("backend.server.main:app", env=env):
        pass


def test_the_demos_traffic_is_recorded(env: dict[str, str]) -> None:
    """Two workers answer a minute's traffic as on SQLite, and every request that must leave an event has exactly one."""
    run(str(Path(sys.executable).with_name("alembic")), "upgrade", "head", env=env, cwd=ROOT / "backend")
    admin = (traffic.ADMIN, traffic.password_of(traffic.ADMIN))
    run(sys.executable, "-m", "backend.server.create_admin", admin[0], env=env, stdin=admin[1] + "\n")
    with Server("backend.server.main:app", env=env, workers=2) as server:
        outcome, logs = asyncio.run(_play(server.url, admin))
    assert outcome.surprises == []
    recorded = [entry["correlation_id"] for entry in logs if entry["correlation_id"] is not None]
    assert len(recorded) == len(set(recorded))
    assert sorted(entry["seq"] for entry in logs) == list(range(len(logs)))
    kinds = {entry["event_type"] for entry in logs}
    assert kinds >= {
        "login",
        "login_failed",
        "user_created",
        "data_create",
        "permission_denied",
        "admin_action",
        "audit.read",
    }


async def _play(url: str, admin: tuple[str, str]) -> tuple[traffic.Outcome, list[dict[str, Any]]]:
    # The supervisor says it is running before its workers listen.
    transport = httpx.AsyncHTTPTransport(retries=6)
    async with httpx.AsyncClient(base_url=url, timeout=30, transport=transport) as client:
        outcome = await traffic.play(traffic.script(calls=120), client)
        answer = await client.post("/api/auth/login", json=dict(zip(("username", "password"), admin, strict=True)))
        client.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['access_token']}"
        last = (await client.patch("/api/nodes/0", json={})).headers["X-Correlation-ID"]
        async with asyncio.timeout(30):
            while not (await client.get("/api/audit/logs", params={"correlation_id": last})).json()["logs"]:
                await asyncio.sleep(0.05)
        exported = await client.get("/api/audit/export")
    return outcome, [json.loads(line) for line in exported.text.splitlines()]
