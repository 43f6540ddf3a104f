"""Figures of this process over the last minute, as numbers and sparklines."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Sparkline

from peerchat.api import NodeState

from .inert import Inert

SAMPLES_MAX = 60
"""One a second: a minute, and two samples for each column of the panel."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One second: increments of the counters, values of the gauges."""

    requests: float
    failures: float
    tokens_per_s: float
    limit_left: float


class History:
    """The newest samples; kept also while nobody looks, for it is cheap."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self._previous = NodeState()

    def add(self, state: NodeState, *, is_answering: bool) -> None:
        """Take one sample.

        Args:
            is_answering: an answer runs; the rate of one that is over counts as 0.
        """
        before = self._previous
        limit = state.rate_limit
        new_tokens = state.answer_tokens - before.answer_tokens
        is_live = is_answering or new_tokens > 0
        self.samples.append(
            Sample(
                requests=max(0, state.requests - before.requests),
                failures=max(0, state.failures - before.failures),
                tokens_per_s=state.tokens_per_s if is_live else 0.0,
                limit_left=limit.remaining if limit else 0,
            )
        )
        self._previous = state

    def column(self, name: str) -> Sequence[float]:
        """One figure over time, oldest first, as many values as `SAMPLES_MAX`."""
        values = [float(getattr(sample, name)) for sample in self.samples]
        return [0.0] * (SAMPLES_MAX - len(values)) + values


class Metric(Vertical):
    """A label, a number, a sparkline."""

    def __init__(self, label: str, name: str) -> None:
        super().__init__(id=f"metric-{name.replace('_', '-')}", classes="metric")
        self._label = label
        self._number = Inert("–", classes="metric-number")
        self._spark = Sparkline([0.0] * SAMPLES_MAX)
        self.column_name = name

    def compose(self) -> ComposeResult:
        with Horizontal(classes="metric-head"):
            yield Inert(self._label, classes="metric-label")
            yield self._number
        yield self._spark

    def show(self, number: str, values: Sequence[float]) -> None:
        self._number.update(number)
        self._spark.data = list(values)


class MetricsPanel(Vertical):
    """Requests, failures, tokens a second and what is left of the limit."""

    BORDER_TITLE = "Metrics"

    def __init__(self) -> None:
        super().__init__(id="metrics")
        self._metrics = (
            Metric("requests", "requests"),
            Metric("failures", "failures"),
            Metric("tokens/s", "tokens_per_s"),
            Metric("limit left", "limit_left"),
        )

    def compose(self) -> ComposeResult:
        yield from self._metrics

    def show_state(self, state: NodeState, history: History) -> None:
        """Draw the newest figures."""
        numbers = metric_numbers(state)
        for metric, number in zip(self._metrics, numbers, strict=True):
            metric.show(number, history.column(metric.column_name))


def metric_numbers(state: NodeState) -> tuple[str, str, str, str]:
    """The four numbers as text, in the panel's order."""
    limit = state.rate_limit
    left = f"{limit.remaining} of {limit.max_requests}" if limit else "no limit known"
    rate = f"{state.tokens_per_s:.1f}" if state.tokens_per_s else "–"
    return str(state.requests), str(state.failures), rate, left
