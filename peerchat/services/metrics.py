"""Figures for Prometheus: one registry for each role, all names begin ``peerchat_``.

A role makes a `RoleMetrics` and tells it what happens; `metrics_http` serves them.
Labels never hold anything that a peer or a user can choose, so that the number of
series is bounded.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Protocol, Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

from peerchat.api import ApiError, Role

logger = logging.getLogger(__name__)

PREFIX = "peerchat"

LATENCY_BUCKETS_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)
"""From a ping on loopback to a long answer of a slow model."""

# Each counter and histogram would have a second series that nobody asked for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class HasStatistics(Protocol):
    """A `HyperDHT`, or anything that counts: gives a frozen dataclass of numbers."""

    def statistics(self) -> object: ...


class RequestMetric:
    """One request being counted; a context manager.

    Its outcome is ``ok``, the code of the `ApiError` that left it, ``cancelled`` or
    ``error``; set `outcome` where a failure is answered rather than raised.
    """

    def __init__(self, metrics: RoleMetrics, method: str) -> None:
        self._metrics = metrics
        self._method = method
        self.outcome = ""

    def __enter__(self) -> Self:
        self._started_s = time.monotonic()
        self._metrics.begin_request(self._method)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        outcome = self.outcome or outcome_of(error)
        elapsed_s = time.monotonic() - self._started_s
        self._metrics.end_request(self._method, outcome, elapsed_s)


def outcome_of(error: BaseException | None) -> str:
    """The word that an error is counted under."""
    if error is None:
        return "ok"
    if isinstance(error, ApiError):
        return error.code.value
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return "error"


class RoleMetrics:
    """What one role counts."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.registry = CollectorRegistry()
        ProcessCollector(namespace=PREFIX, registry=self.registry)
        self._requests = self._counter(
            "requests",
            "Requests that ended, by method and outcome.",
            "method",
            "outcome",
        )
        self._in_flight = Gauge(
            f"{PREFIX}_requests_in_flight",
            "Requests being worked on.",
            ("role", "method"),
            registry=self.registry,
        )
        self._latency = self._histogram(
            "request_seconds", "Time from request to end of answer.", "method"
        )
        self._first_fragment = self._histogram(
            "first_fragment_seconds", "Time from prompt to first fragment."
        )
        self._tokens = self._counter("tokens", "Tokens, by kind.", "kind")
        self._limited = self._counter(
            "rate_limited", "Requests refused because a user's limit was reached."
        )
        self._restarts = self._counter("restarts", "Restarts after a crash.")
        self._refused = self._counter(
            "refused_peers",
            "Peers of a private swarm that were not admitted, by reason; rollback: an "
            "older swarm record was shown; invite_…: an invite was refused.",
            "reason",
        )
        # A series that is there from the start can be alerted on.
        self._limited.labels(role.value)
        self._restarts.labels(role.value)

    def request(self, method: str) -> RequestMetric:
        """Count a request: ``with metrics.request("login"): …``.

        ``method`` is one of ours, never a name that a peer sent.
        """
        return RequestMetric(self, method)

    def begin_request(self, method: str) -> None:
        """Note that a request began; `request` does both."""
        self._in_flight.labels(self.role.value, method).inc()

    def end_request(self, method: str, outcome: str, elapsed_s: float) -> None:
        """Note how a request ended; `request` does both."""
        role = self.role.value
        self._in_flight.labels(role, method).dec()
        self._requests.labels(role, method, outcome).inc()
        self._latency.labels(role, method).observe(elapsed_s)

    def tokens(self, count: int | None, *, kind: str = "answer") -> None:
        """Count tokens of an answer, or of a prompt (``kind="prompt"``)."""
        if count is not None and count > 0:
            self._tokens.labels(self.role.value, kind).inc(count)

    def first_fragment(self, elapsed_s: float) -> None:
        """Note how long a prompt waited for its first fragment."""
        self._first_fragment.labels(self.role.value).observe(elapsed_s)

    def limited(self) -> None:
        """Count a refusal because a user's limit was reached."""
        self._limited.labels(self.role.value).inc()

    def refused_peer(self, reason: str) -> None:
        """Count a peer that was not admitted; ``reason`` is one of ours."""
        self._refused.labels(self.role.value, reason).inc()

    def restarted(self) -> None:
        """Count a restart of the role after a crash."""
        self._restarts.labels(self.role.value).inc()

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Show a value that is read when it is asked for, such as a queue's length.

        Args:
            name: without the prefix; once for each role.
            read: called on the thread of the endpoint; what it raises shows as NaN.
        """
        gauge = Gauge(
            f"{PREFIX}_{name}", documentation, ("role",), registry=self.registry
        )
        gauge.labels(self.role.value).set_function(lambda: _read(name, read))

    def counter(self, name: str, documentation: str) -> Callable[[], None]:
        """Count what only this role does.

        Args:
            name: without the prefix and ``_total``; once for each role.
            documentation: of what.

        Returns:
            To be called each time.
        """
        # A series that is there from the start can be alerted on.
        return self._counter(name, documentation).labels(self.role.value).inc

    def watch(self, source: HasStatistics, name: str = "dht") -> None:
        """Show what ``source.statistics()`` counts as ``peerchat_<name>_<field>``."""
        self.registry.register(_StatisticsCollector(self.role, source, name))

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(
            f"{PREFIX}_{name}",
            documentation,
            ("role", *labels),
            registry=self.registry,
        )

    def _histogram(self, name: str, documentation: str, *labels: str) -> Histogram:
        return Histogram(
            f"{PREFIX}_{name}",
            documentation,
            ("role", *labels),
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )


def _read(name: str, read: Callable[[], float]) -> float:
    try:
        return read()
    except Exception:
        logger.exception("cannot read the gauge %s", name)
        return math.nan


class _StatisticsCollector(Collector):
    """Reads a frozen record of numbers whenever Prometheus asks."""

    def __init__(self, role: Role, source: HasStatistics, name: str) -> None:
        self._role = role
        self._source = source
        self._name = name

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: the source may not run yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        try:
            numbers = dict(_numbers(self._name, self._source.statistics()))
        except Exception:
            logger.exception("cannot read the statistics of %s", self._name)
            return
        for name, value in numbers.items():
            family = UnknownMetricFamily(
                f"{PREFIX}_{name}", f"Of {self._name}.", labels=["role"]
            )
            family.add_metric([self._role.value], value)
            yield family


def _numbers(name: str, value: object) -> Iterator[tuple[str, float]]:
    """Flatten dataclasses, named tuples and mappings into names and numbers."""
    if isinstance(value, int | float):  # bool is one of them, on purpose
        yield name, float(value)
        return
    pairs: Iterable[tuple[object, object]] = ()
    if dataclasses.is_dataclass(value):
        pairs = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        pairs = value.items()
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        pairs = value._asdict().items()
    for key, part in pairs:
        yield from _numbers(f"{name}_{key}", part)
