"""Two sizes of every proof, and where their figures go."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Report = Callable[..., None]


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether this is the long size, which ``make soak`` asks for."""
    return os.environ.get("INDELIBLE_SOAK") == "1"


@pytest.fixture
def report(soak: bool, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Report:
    """A function that prints a proof's figures, and in the long size keeps them for docs/explanation/reliability.md."""

    def tell(name: str, **figures: object) -> None:
        with capsys.disabled() if soak else contextlib.nullcontext():
            print(f"\n{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))
        if soak:
            folder = ROOT / ".artifacts" / "soak"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name.replace('/', '-').replace(' ', '-')}.json").write_text(
                json.dumps({"name": name, **figures}, default=str)
            )

    return tell


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Randomness with a seed that is printed when the test fails; ``RELIABILITY_SEED`` repeats a run."""
    seed = int(os.environ.get("RELIABILITY_SEED", random.SystemRandom().randrange(2**32)))
    request.node.add_report_section("setup", "seed", f"RELIABILITY_SEED={seed}")
    return random.Random(seed)
