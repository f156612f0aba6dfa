"""Results as files: one for each experiment, readable by people and by programs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.figures import Result
from bench.machine import ROOT

FOLDER: Final = ROOT / "bench" / "results"


def write(result: Result, folder: Path) -> Path:
    """Keep one result under its experiment's name; an older one of that name is replaced. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / f"{result.experiment}.json", folder / f"{result.experiment}.part"
    rounded: Any = msgspec.to_builtins(result, enc_hook=None)
    rounded["samples"] = {
        way: {figure: [float(f"{value:.5g}") for value in values] for figure, values in figures.items()}
        for way, figures in result.samples.items()
    }
    part.write_bytes(msgspec.json.format(msgspec.json.encode(rounded), indent=1) + b"\n")
    part.replace(path)
    return path


def read(folder: Path) -> list[Result]:
    """Every result in a folder, by name."""
    return [one(path) for path in sorted(folder.glob("*.json"))]


def one(path: Path) -> Result:
    """One result."""
    return msgspec.json.decode(path.read_bytes(), type=Result)


def by_name(results: Iterable[Result]) -> dict[str, Result]:
    """Results by their experiments' names."""
    return {result.experiment: result for result in results}
