"""How a service is doing: its metrics and its health, from what the journals' headers and the tally say."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from indelible.directory import drainer_status, oldest_waiting
from indelible.health import Health, Signs, assess
from indelible.journal import Journal
from indelible.metrics import METRICS, Histogram, Tally
from indelible.settings import Settings


@dataclass(slots=True)
class Sums:
    """What became of accepted events; ``left`` are still in a journal."""

    accepted: int = 0
    stored: int = 0
    dead: int = 0
    lost: int = 0
    left: int = 0

    def add(self, journal: Journal, *, given_up: bool = False) -> None:
        """Add a journal's positions as they are now; with ``given_up``, what is left in it is lost."""
        done, dead, lost, appended = journal.stored, journal.dead, journal.lost, journal.appended
        # A frame whose append failed half-way may have been read back and stored without having been accepted.
        done = min(done, appended)
        self.accepted += appended
        self.stored += done - dead - lost
        self.dead += dead
        self.lost += lost + (appended - done if given_up else 0)
        self.left += 0 if given_up else appended - done


class Past:
    """A service's earlier journals: those that are still being drained, and the sums of the others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = Sums()
        self._leaving: list[Journal] = []

    @property
    def leaving(self) -> Sequence[Journal]:
        """Journals that take no more events and are not drained yet."""
        return tuple(self._leaving)

    def leave(self, journal: Journal) -> None:
        """The journal takes no more events."""
        with self._lock:
            self._leaving.append(journal)

    def bury(self, journal: Journal, *, given_up: bool = False) -> None:
        """The journal's positions will not change any more, or nobody will hear of it: keep its sums and let go."""
        with self._lock:
            self._sums.add(journal, given_up=given_up)
            self._leaving.remove(journal)
        journal.abandon()

    def sums(self, present: Journal | None) -> Sums:
        """The sums over all of them and the ``present`` one."""
        with self._lock:
            sums = dataclasses.replace(self._sums)
            for journal in self._leaving:
                sums.add(journal)
            if present is not None and present not in self._leaving:
                sums.add(present)
        return sums


def measure(journal: Journal | None, past: Past, tally: Tally, settings: Settings) -> Mapping[str, float | Histogram]:
    """Every metric of METRICS that is known now, by its name without the prefix. ``journal`` is the open one."""
    values: dict[str, float | Histogram] = {}
    for name, metric in METRICS.items():
        if metric.kind == "histogram":
            values[name] = tally.histogram(name)
        elif metric.kind == "counter":
            values[name] = tally.counter(name)
    sums = past.sums(journal)
    if journal is not None:
        values["journal_bytes"] = journal.bytes_held()
    status, waiting = drainer_status(settings.data_dir), oldest_waiting(settings.data_dir)
    return values | {
        "events_accepted": sums.accepted,
        "events_stored": sums.stored,
        "events_dead_lettered": sums.dead,
        "events_lost": sums.lost,
        "events_journaled": sums.left,
        "journal_quota_bytes": settings.journal_quota,
        "journal_age_seconds": waiting.age,
        "journals": waiting.journals,
        "journals_waiting_events": waiting.events,
        "writer_alive": int(status is not None),
        "writer_owned": int(status is not None and status.pid == os.getpid()),
    }


def examine(
    journal: Journal | None, settings: Settings, *, accepting: bool, shed: int, store_failures: int, restarts: int
) -> Health:
    """The health of a service: ``shed`` events not yet confessed, failures in a row and restarts of its drainer."""
    status, waiting = drainer_status(settings.data_dir), oldest_waiting(settings.data_dir)
    letters = settings.data_dir / "dead-letters"
    return assess(
        Signs(
            accepting=accepting,
            shed=shed,
            journal_share=0.0 if journal is None else journal.bytes_held() / settings.journal_quota,
            waiting=waiting.events,
            oldest=waiting.age,
            drainer_silent=None if status is None else status.silent,
            store_failures=store_failures,
            restarts=restarts,
            dead_letters=sum(1 for _ in letters.glob("*.msgpack")),
        )
    )
