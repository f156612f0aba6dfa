"""Schemathesis reads the reference host's OpenAPI document and tries what its authors did not think of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backend.demo import traffic
from backend.demo.__main__ import environment, prepare
from backend.demo.serving import Server

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
#: Not asked for: that one URL answers all methods (a fixed path beside one with a parameter), and that every value the
#: schema allows means something (a start after the end does not).
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,negative_data_rejection,ignored_auth"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The reference host on a SQLite file, with an admin."""
    env = environment(tmp_path)
    prepare(tmp_path, env)
    with Server("backend.server.main:app", env=env, log=tmp_path / "server.log") as running:
        yield running


@pytest.mark.timeout(400)
@pytest.mark.parametrize("signed_in", [True, False], ids=["admin", "stranger"])
def test_no_input_makes_the_host_fail(server: Server, tmp_path: Path, signed_in: bool) -> None:
    """Nothing is answered 5xx or otherwise than documented, nothing invalid is taken, nothing is open by mistake."""
    command = [str(SCHEMATHESIS), "run", f"{server.url}/openapi.json", "--checks", CHECKS, "--seed", "1"]
    command += ["--workers", "2", "--continue-on-failure"]
    if signed_in:
        credentials = {"username": traffic.ADMIN, "password": traffic.password_of(traffic.ADMIN)}
        token = httpx.post(f"{server.url}/api/auth/login", json=credentials, timeout=30).json()["access_token"]
        # Logging out would end the run's own token.
        command += ["--header", f"Authorization: Bearer {token}", "--exclude-path", "/api/auth/logout"]
    # A stranger gets no further than the door: a few tries at each do.
    command += ["--phases", "examples,coverage,fuzzing" if signed_in else "examples,fuzzing", "--max-examples", "10"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert "Traceback" not in (tmp_path / "server.log").read_text()
