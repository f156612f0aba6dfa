"""Counting: cheap on the request path, and right whatever the threads do."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from indelible.metrics import METRICS, Tally

ROOT = Path(__file__).parents[1]
OPERATIONS = ("grafana-dashboard.json", "prometheus-rules.yaml", "README.md")
#: What Prometheus appends to the names, by the kind of metric.
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def test_ticks_are_counted_from_any_thread_and_looking_is_free() -> None:
    """Four threads tick while another looks: nothing is lost, and looking does not count."""
    tally = Tally()
    looks: list[int] = []

    def work() -> None:
        for _ in range(5000):
            tally.offered.tick()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        looks.append(tally.counter("events_offered"))
    for thread in threads:
        thread.join()
    assert looks == sorted(looks)
    assert tally.counter("events_offered") == tally.counter("events_offered") == 20_000


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_operators_watch_exists(name: str) -> None:
    """Each metric that the dashboard, an alert rule or the page names is one, with the suffix of its kind."""
    shown = {f"{metric.name}{end}" for metric in METRICS.values() for end in SUFFIXES[metric.kind]}
    if name.endswith(".md"):
        shown |= {metric.name for metric in METRICS.values()}
    named = set(re.findall(r"\bindelible_[a-z_]+", (ROOT / "docs" / "operations" / name).read_text()))
    assert named
    assert named <= shown


def test_the_dashboard_shows_every_metric_of_delivery() -> None:
    """But for those of the checkpoints, which have a page of their own."""
    text = (ROOT / "docs" / "operations" / "grafana-dashboard.json").read_text()
    elsewhere = {"checkpoints_published", "checkpoint_failures", "anchor_failures"}
    assert [m.name for key, m in METRICS.items() if key not in elsewhere and m.name not in text] == []
