"""What a gateway counts of the ways that its requests take: `docs/FAILURES.md`."""

from __future__ import annotations

from .metrics import RoleMetrics


class RoutingCounts:
    """Call what happened, each time."""

    def __init__(self, metrics: RoleMetrics) -> None:
        count = metrics.counter
        self.failed_over = count(
            "failovers",
            "Requests that were given to another processor before their first byte.",
        )
        self.continued = count(
            "continuations",
            "Begun answers that were given to another processor to go on with.",
        )
        self.bounced = count(
            "bounces", "Requests that a processor with a free slot refused as busy."
        )
        self.breaker_opened = count(
            "breaker_openings",
            "Times that a model of a processor was kept out because it failed.",
        )
