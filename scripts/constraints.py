"""Print the pins of everything the development install needs, as it stands in this environment.

Names and versions only. What is installed besides the project's own requirements is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

#: The Python versions the pins must suit.
PYTHONS = ("3.11", "3.12", "3.13")


def closure(roots: Iterable[str], python: str) -> dict[str, metadata.Distribution]:
    """Every distribution that ``roots`` need on this Python version, directly or not; name → distribution."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, metadata.Distribution] = {}
    visited: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, frozenset(wanted.extras)) in visited:
            continue
        visited.add((name, frozenset(wanted.extras)))
        found[name] = metadata.distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            contexts = [{**environment, "extra": extra} for extra in ("", *wanted.extras)]
            if requirement.marker is None or any(requirement.marker.evaluate(each) for each in contexts):
                waiting.append(requirement)
    return found


def pins(root: str = "indelible[dev]") -> list[str]:
    """``name==version`` for the closure over all of PYTHONS; ValueError for a pin that one of them cannot use."""
    lines: set[str] = set()
    for python in PYTHONS:
        for name, distribution in closure([root], python).items():
            suits = SpecifierSet(str(distribution.metadata.json.get("requires_python", "")))
            if not suits.contains(f"{python}.0"):
                raise ValueError(f"{name} {distribution.version} does not support Python {python}")
            lines.add(f"{name}=={distribution.version}")
    return sorted(line for line in lines if not line.startswith("indelible=="))


if __name__ == "__main__":
    sys.stdout.write("\n".join(pins()) + "\n")
