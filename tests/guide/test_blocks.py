"""The guide's code blocks, executed from the guide's text."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.demo.__main__ import environment
from backend.demo.serving import Server
from indelible import rendering
from indelible.queries import Query
from indelible.runtime import open_store
from indelible.settings import load
from scripts import guide

VENV_BIN = Path(sys.executable).parent


def blocks_below(heading: str) -> list[str]:
    """The code of every block below the heading that begins so."""
    return [block.code for block in guide.blocks(guide.GUIDE.read_text()) if block.heading.startswith(heading)]


def bash(script: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a bash block with nothing but the environment's own programs first on PATH."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "INDELIBLE"))
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        env={**clean, "PATH": f"{VENV_BIN}:{os.environ['PATH']}", **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_the_guide_is_the_original() -> None:
    """docs/guide.md is the guide this project grew from, byte for byte."""
    digest = hashlib.sha256(guide.GUIDE.read_bytes()).hexdigest()
    assert digest == "2f3c23d32a777fd039a5074f9d0735fcfee1d7355a6d3601dc328fa36a47d5b5"


@pytest.mark.parametrize(
    ("step", "file"),
    [
        ("Step 1", "backend/server/models/__init__.py"),
        ("Step 2", "backend/server/main.py"),
        ("Step 3", "backend/server/main.py"),
        ("Step 4", "backend/server/main.py"),
    ],
)
def test_the_reference_host_holds_the_blocks(step: str, file: str) -> None:
    """The blocks of steps 1 to 4 stand in the files they name, letter for letter."""
    source = (guide.ROOT / file).read_text()
    blocks = blocks_below(step)
    assert blocks
    for block in blocks:
        assert f"\n{block}" in f"\n{source}"


def test_an_app_made_of_the_blocks_is_audited(tmp_path: Path) -> None:
    """Steps 1 to 4 and the manual call, put together as the guide says, record a request and the call; stop flushes."""
    env = environment(tmp_path)
    with Server("tests.guide.assembled:app", env=env, log=tmp_path / "log") as server:
        answers = [
            httpx.get(f"{server.url}/health", timeout=30),
            httpx.get(f"{server.url}/api/nodes/7", timeout=30),
            httpx.put(f"{server.url}/api/admin/users/123", timeout=30),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert all(answer.headers["X-Correlation-ID"] for answer in answers)

    store = open_store(load(database_url=env["INDELIBLE_DATABASE_URL"], data_dir=env["INDELIBLE_DATA_DIR"]))
    store.open()
    try:
        rows = [rendering.as_json(row) for row in store.page(Query(descending=False)).rows]
    finally:
        store.close()
    # The reads are left out, as step 3 asks; what remains besides the log's own start and stop is the administration.
    manual, request = (row for row in rows if not row["event_type"].startswith("audit."))
    assert _subset(manual, "event_type", "action", "status", "resource_type", "resource_id", "ip_address") == {
        "event_type": "admin_action",
        "action": "update",
        "status": "success",
        "resource_type": "user",
        "resource_id": "123",
        "ip_address": "192.168.1.100",
    }
    assert manual["user_id"] == "5f0c1f5e-6d1c-4b7e-9a43-0f6f5b6a9d10"
    assert _subset(manual, "old_value", "new_value", "metadata") == {
        "old_value": {"role": "user"},
        "new_value": {"role": "admin"},
        "metadata": {"reason": "promotion"},
    }
    assert _subset(request, "event_type", "status", "request_method", "response_status") == {
        "event_type": "admin_action",
        "status": "success",
        "request_method": "PUT",
        "response_status": 200,
    }
    assert request["correlation_id"] == manual["correlation_id"] == answers[2].headers["X-Correlation-ID"]


def test_step_5_makes_the_log(engine_url: str, tmp_path: Path) -> None:
    """The migration commands, on a backend without its audit revision, make a guarded log and leave nothing to do."""
    copy = tmp_path / "backend"
    shutil.copytree(guide.ROOT / "backend", copy, ignore=shutil.ignore_patterns("__pycache__", ".env", "*.db*"))
    ours = [each for each in (copy / "alembic/versions").glob("*.py") if "indelible.migrations" in each.read_text()]
    assert len(ours) == 1
    ours[0].unlink()
    env = {"DATABASE_URL": engine_url, "JWT_SECRET": "s" * 48}
    before = bash("cd backend && alembic upgrade head", tmp_path, **env)
    assert before.returncode == 0, before.stderr

    (block,) = blocks_below("Step 5")
    done = bash(block, tmp_path, **env)
    assert done.returncode == 0, done.stderr
    (made,) = [each for each in (copy / "alembic/versions").glob("*.py") if "add_audit_logging_table" in each.name]
    assert "indelible.migrations.upgrade(op)" in made.read_text()
    again = bash("cd backend && alembic check", tmp_path, **env)
    assert again.returncode == 0, again.stdout + again.stderr

    store = open_store(load(database_url=engine_url, data_dir=tmp_path / "data"))
    store.open()
    try:
        assert list(store.check()) == []
    finally:
        store.close()


def test_the_curl_lines_answer(host: Any, tmp_path: Path) -> None:
    """Every curl line of the guide, its placeholders filled in, gets what its comment says from a real server."""
    host.sign_in("nadia")
    user_id = next(
        u["id"] for u in host.http.get("/api/admin/users", headers=host.admin).json() if u["username"] == "nadia"
    )
    wrong = host.http.post("/api/auth/login", json={"username": "nadia", "password": "not-this-one"})
    host.stored(wrong)

    (block,) = blocks_below("Query Audit Logs")
    token = host.admin["Authorization"].removeprefix("Bearer ")
    script = block.replace("<admin-token>", token).replace("<uuid>", user_id).replace("http://localhost:8000", host.url)
    (tmp_path / ".curlrc").write_text("silent\nshow-error\nfail\n")
    done = bash(script, tmp_path, CURL_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr

    failed, activity, stats = _documents(done.stdout)
    assert failed["page_size"] == 20
    assert {log["event_type"] for log in failed["logs"]} == {"login_failed"}
    assert {log["event_type"] for log in activity["logs"]} >= {"user_created", "login"}
    assert {log["user_id"] for log in activity["logs"]} == {user_id}
    assert stats["event_type_breakdown"]["login_failed"] >= 1


def test_the_test_command_passes() -> None:
    """The guide's pytest command runs one test, and it passes."""
    (block,) = blocks_below("Testing")
    done = bash(block, guide.ROOT, PYTEST_ADDOPTS="-p no:cacheprovider --color=no")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^=+ 1 passed in ", done.stdout, re.MULTILINE)


def _documents(text: str) -> list[Any]:
    decoder = json.JSONDecoder()
    found, rest = [], text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].strip()
    return found


def _subset(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}
