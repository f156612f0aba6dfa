"""A secret goes in by every door, and is nowhere afterwards: raw bytes of everything that was written are searched."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backend.demo import traffic
from backend.demo.__main__ import environment, prepare
from backend.demo.serving import Server

CANARY = "canary7f3a9c51e2d8"
#: Is kept, and so shows that the search finds what is there.
PLAIN = "plainword5b1e"
FORMS = [CANARY.encode(), base64.b64encode(f"ann:{CANARY}".encode()), CANARY.encode().hex().encode()]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The reference host with a careless route, on a SQLite file below ``tmp_path``, where its log is, too."""
    env = environment(tmp_path)
    prepare(tmp_path, env)
    with Server("tests.backend.canary:app", env=env, log=tmp_path / "server.log") as running:
        yield running


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_secret_is_nowhere(server: Server, tmp_path: Path) -> None:
    """Not in database, WAL, data directory, server log or exports; while the server runs, and after it."""
    with httpx.Client(base_url=server.url, cookies={"session": CANARY}, timeout=30) as client:
        account = {"username": "ann", "email": "ann@example.org", "password": CANARY}
        assert client.post("/api/auth/register", json=account).status_code == 201
        login = client.post(
            "/api/auth/login", params={"password": CANARY}, json={"username": "ann", "password": CANARY}
        )
        token = login.json()["access_token"]
        basic = base64.b64encode(f"ann:{CANARY}".encode()).decode()
        for authorization in (f"Bearer {CANARY}", f"Basic {basic}", f"Bearer {token}"):
            nested = {"note": PLAIN, "password": CANARY, "list": [{"apiKey": CANARY, "tokens": [CANARY, token]}]}
            answer = client.post(
                f"/api/careless?access_token={CANARY}&api%5Fkey={CANARY}&page=1",
                json=nested,
                headers={"Authorization": authorization},
            )
            assert answer.status_code == 200
            client.get(f"/api/nodes/1?token={token}&code={CANARY}", headers={"Authorization": authorization})
        # What is refused is an event as well.
        assert client.post("/api/auth/login", json={"username": "ann", "password": [CANARY]}).status_code == 422

        admin = {"username": traffic.ADMIN, "password": traffic.password_of(traffic.ADMIN)}
        admin_token = client.post("/api/auth/login", json=admin).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {admin_token}"
        exports = {form: client.get(f"/api/audit/export?format={form}").content for form in ("jsonl", "csv")}
    running = everything(tmp_path)
    server.stop()
    command = [sys.executable, "-c", "from indelible.cli import main; main()", "export"]
    url = {"INDELIBLE_DATABASE_URL": f"sqlite:///{tmp_path / 'fog.db'}", "INDELIBLE_DATA_DIR": str(tmp_path / "cli")}
    exports["cli"] = subprocess.run(command, env=url, capture_output=True, check=True, timeout=60).stdout

    assert any(name.endswith("-wal") for name in running)
    written = {**{f"{name} (running)": data for name, data in running.items()}, **everything(tmp_path), **exports}
    for secret in (*FORMS, token.encode(), admin_token.encode()):
        assert [name for name, data in written.items() if secret in data] == []
    for place in (*exports, "fog.db"):
        assert PLAIN.encode() in written[place], place
    assert any(PLAIN.encode() in data for name, data in running.items() if "journal" in name)
    assert b"/api/careless?access_token=[redacted]" in written["server.log"]
