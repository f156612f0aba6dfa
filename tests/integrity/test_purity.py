"""The package is usable alone: an auditor's tool that imports it gets no database driver, web framework or setting."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = ("merkle", "leaf", "note", "checkpoint", "policy", "proof", "tiles", "edge")


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (MODULES, ("sqlalchemy", "pydantic", "fastapi", "typer", "psycopg", "sqlite3", "indelible.service")),
        (("merkle", "leaf", "tiles", "edge"), ("cryptography",)),
    ],
)
def test_importing_it_loads_little(modules: tuple[str, ...], absent: tuple[str, ...]) -> None:
    """Only msgspec, and cryptography where something is signed."""
    imports = ", ".join(f"indelible.integrity.{name}" for name in modules)
    code = f"import sys, {imports}; print(*(set({absent!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
