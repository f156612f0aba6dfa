"""How the log is: one word and its reasons, decided from what is known, without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

State = Literal["ok", "degraded", "failing"]

#: Seconds without a round after which a drainer counts as stuck, and waiting events as overdue.
SILENCE: Final = 15.0
#: The share of the journal's quota from which on somebody should look.
NEARLY_FULL: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What there is to know. Ages in seconds; ``drainer_silent`` is None if nobody drains the data directory."""

    accepting: bool
    shed: int
    journal_share: float
    waiting: int
    oldest: float
    drainer_silent: float | None
    store_failures: int
    restarts: int
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Health:
    """``ok``: all is well. ``degraded``: nothing is lost, but somebody should look. ``failing``: events are not kept."""

    state: State
    reasons: tuple[str, ...] = field(default=())


def assess(signs: Signs) -> Health:
    """The state, with a sentence for each thing that is not as it should be, the worst first."""
    failing: list[str] = []
    if not signs.accepting:
        failing.append("the journal takes no events")
    if signs.shed:
        failing.append(f"{signs.shed} events were shed and not recorded as a gap yet")
    degraded: list[str] = []
    if signs.drainer_silent is None:
        degraded.append("no process drains the data directory")
    elif signs.drainer_silent > SILENCE:
        degraded.append(f"the process that drains the data directory has been silent for {signs.drainer_silent:.0f} s")
    if signs.store_failures:
        degraded.append(f"the store has refused or missed {signs.store_failures} attempts in a row")
    if signs.waiting and signs.oldest > SILENCE:
        degraded.append(f"{signs.waiting} events wait to be stored, the oldest for {signs.oldest:.0f} s")
    if signs.journal_share >= NEARLY_FULL:
        degraded.append(f"the journal has used {signs.journal_share:.0%} of its quota")
    if signs.dead_letters:
        degraded.append(f"{signs.dead_letters} dead letters wait for a look: indelible journal list")
    if signs.restarts:
        degraded.append(f"the drainer died and was started again {signs.restarts} times")
    state: State = "failing" if failing else "degraded" if degraded else "ok"
    return Health(state, (*failing, *degraded))
