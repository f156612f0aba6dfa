"""What is measured: the metric names in one table, where they are counted, and how Prometheus gets them.

Nothing here costs the request path more than an addition. Positions (accepted, stored, dead-lettered) are not counted a
second time: they stand in the journals' headers, are read when somebody asks, and so hold across processes.
"""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    from prometheus_client.core import Metric as PrometheusMetric

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_EVENTS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name as Prometheus shows it (without ``_total``), kind, meaning and, for histograms, bounds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    buckets: tuple[float, ...] = ()


METRICS: Final[Mapping[str, Metric]] = {
    metric.name.removeprefix("indelible_"): metric
    for metric in (
        Metric("indelible_events_offered", "counter", "Events handed to this process's service"),
        Metric("indelible_events_accepted", "counter", "Events in the journal, and so kept"),
        Metric("indelible_events_raised", "counter", "Events that were not accepted; the caller got an exception"),
        Metric(
            "indelible_events_shed", "counter", "Events that were not accepted and are counted in an audit.gap event"
        ),
        Metric("indelible_events_stored", "counter", "Events of this process that are in the store"),
        Metric("indelible_events_dead_lettered", "counter", "Events of this process that the store refused for good"),
        Metric("indelible_events_lost", "counter", "Accepted events of this process that could not be read back"),
        Metric("indelible_events_journaled", "gauge", "Events of this process in the journal and not yet stored"),
        Metric("indelible_gaps", "counter", "audit.gap events recorded by this process"),
        Metric("indelible_journal_bytes", "gauge", "Bytes that this process's journal takes on disk"),
        Metric("indelible_journal_quota_bytes", "gauge", "Bytes that this process's journal may take on disk"),
        Metric(
            "indelible_journal_age_seconds", "gauge", "Age of the oldest event in the data directory that is not stored"
        ),
        Metric("indelible_journal_sync_seconds", "histogram", "Duration of an fdatasync of the journal", _SECONDS),
        Metric("indelible_journals", "gauge", "Journals in the data directory, those of dead processes included"),
        Metric(
            "indelible_journals_waiting_events", "gauge", "Events in all journals of the data directory, not stored"
        ),
        Metric("indelible_flush_seconds", "histogram", "Duration of a flush: read, decode, append, commit", _SECONDS),
        Metric("indelible_flush_events", "histogram", "Events in one flush", _EVENTS),
        Metric("indelible_store_append_seconds", "histogram", "Duration of one append in the store", _SECONDS),
        Metric("indelible_store_retries", "counter", "Attempts that failed because the store did not take events"),
        Metric("indelible_drainer_restarts", "counter", "Times the drainer died of an error and was started again"),
        Metric("indelible_checkpoints_published", "counter", "Checkpoints signed and published by this process"),
        Metric(
            "indelible_checkpoint_failures", "counter", "Attempts to publish a checkpoint that failed or were refused"
        ),
        Metric("indelible_anchor_failures", "counter", "Attempts to bring a checkpoint to a place outside that failed"),
        Metric("indelible_writer_alive", "gauge", "1 if some process drains the data directory, else 0"),
        Metric("indelible_writer_owned", "gauge", "1 if this process drains the data directory, else 0"),
    )
}


class Recorder(Protocol):
    """Where the working code counts. Both methods MUST be cheap, thread-safe and never raise."""

    def add(self, name: str, amount: int = 1) -> None:
        """Add to a counter of METRICS, by its name without the prefix."""
        ...

    def observe(self, name: str, value: float) -> None:
        """Put a value into a histogram of METRICS, by its name without the prefix."""
        ...


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts per bucket (bounds of the Metric, then everything above) and the sum of the values."""

    counts: tuple[int, ...]
    sum: float


class Ticker:
    """A counter for the request path: ``tick()`` adds one, without a lock, from any thread."""

    __slots__ = ("_lock", "_looks", "tick")

    def __init__(self) -> None:
        ticks = itertools.count()
        self.tick = ticks.__next__  # one call into C, which the interpreter does not interrupt
        self._looks = 0
        self._lock = threading.Lock()

    @property
    def value(self) -> int:
        """How often it has ticked."""
        with self._lock:
            self._looks += 1  # each look is a tick as well
            return self.tick() - self._looks + 1


class Tally:
    """The Recorder: integers and buckets in memory. ``offered`` counts events_offered."""

    def __init__(self) -> None:
        self.offered = Ticker()
        self._lock = threading.Lock()
        self._counters = {name: 0 for name, metric in METRICS.items() if metric.kind == "counter"}
        self._histograms = {
            name: [0] * (len(metric.buckets) + 1) for name, metric in METRICS.items() if metric.kind == "histogram"
        }
        self._sums = dict.fromkeys(self._histograms, 0.0)

    def add(self, name: str, amount: int = 1) -> None:
        """See Recorder."""
        with self._lock:
            self._counters[name] += amount

    def observe(self, name: str, value: float) -> None:
        """See Recorder."""
        with self._lock:
            self._histograms[name][bisect_left(METRICS[name].buckets, value)] += 1
            self._sums[name] += value

    def counter(self, name: str) -> int:
        """A counter's value now."""
        return self.offered.value if name == "events_offered" else self._counters[name]

    def histogram(self, name: str) -> Histogram:
        """A histogram's state now."""
        with self._lock:
            return Histogram(tuple(self._histograms[name]), self._sums[name])


class Snapshot(Protocol):
    """Whoever can say what all metrics are now: the service."""

    def metrics(self) -> Mapping[str, float | Histogram]:
        """Every name of METRICS with its value; one that is unknown just now is left out."""
        ...


class PrometheusCollector:
    """A collector for ``prometheus_client``: ``REGISTRY.register(PrometheusCollector(get_audit_service))``.

    Takes a function, so that a service configured later is found. Needs the package ``prometheus-client``.
    """

    def __init__(self, service: ServiceGetter) -> None:
        self._service = service

    def describe(self) -> Sequence[PrometheusMetric]:
        """Nothing: registering must not open a service."""
        return []

    def collect(self) -> Iterable[PrometheusMetric]:
        """All metrics of the service, as metric families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, value in self._service().metrics().items():
            metric = METRICS[name]
            if isinstance(value, Histogram):
                bounds = [*(str(float(bound)) for bound in metric.buckets), "+Inf"]
                running = [sum(value.counts[: i + 1]) for i in range(len(bounds))]
                yield HistogramMetricFamily(
                    metric.name, metric.help, buckets=list(zip(bounds, running, strict=True)), sum_value=value.sum
                )
            elif metric.kind == "counter":
                yield CounterMetricFamily(metric.name, metric.help, value=value)
            else:
                yield GaugeMetricFamily(metric.name, metric.help, value=value)


class ServiceGetter(Protocol):
    """A function that gives the service, for example ``get_audit_service``."""

    def __call__(self) -> Snapshot:
        """The service."""
        ...
