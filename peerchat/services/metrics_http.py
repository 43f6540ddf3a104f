"""Serves roles' figures to Prometheus: each role on its own port, or all on one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from peerchat.api import Role
from peerchat.settings import Settings

from .metrics import RoleMetrics

logger = logging.getLogger(__name__)

ROLE_PORTS: Mapping[Role, int] = {
    Role.GATEWAY: 9100,
    Role.AUTH: 9101,
    Role.PROCESSOR: 9102,
    Role.BRIDGE: 9103,
}


class _Merged(CollectorRegistry):
    """Several roles' registries as one, each family once."""

    def __init__(self, registries: Sequence[CollectorRegistry]) -> None:
        super().__init__()
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for registry in self._registries:
            for family in registry.collect():
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                seen = {(s.name, frozenset(s.labels.items())) for s in merged.samples}
                merged.samples += [
                    sample
                    for sample in family.samples
                    if (sample.name, frozenset(sample.labels.items())) not in seen
                ]
        yield from families.values()


def exposition(metrics: Sequence[RoleMetrics], accept: str = "") -> tuple[bytes, str]:
    """The text that Prometheus reads, and its content type."""
    encode, content_type = choose_encoder(accept)
    registry = _Merged([role_metrics.registry for role_metrics in metrics])
    return encode(registry), content_type


def metrics_response(
    request: web.Request, metrics: Sequence[RoleMetrics]
) -> web.Response:
    """Answer ``GET /metrics``."""
    body, content_type = exposition(metrics, request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


class MetricsEndpoints:
    """The HTTP endpoints that Prometheus scrapes.

    A port that is taken is a warning: the roles go on without it.
    """

    def __init__(self, settings: Settings) -> None:
        self._host = settings.metrics_host
        self._port = settings.metrics_port
        self._runners: list[web.AppRunner] = []
        self.urls: list[str] = []
        """Where the figures can be read, once `start` is done."""

    async def start(self, metrics: Sequence[RoleMetrics]) -> list[str]:
        """Serve these roles' figures; returns the addresses that could be bound."""
        if self._port is not None and metrics:
            await self._serve(self._port, metrics)
        elif self._port is None:
            for role_metrics in metrics:
                await self._serve(ROLE_PORTS[role_metrics.role], [role_metrics])
        return self.urls

    async def close(self) -> None:
        """Stop serving; idempotent."""
        runners, self._runners = self._runners, []
        for runner in runners:
            await runner.cleanup()
        self.urls.clear()

    async def _serve(self, port: int, metrics: Sequence[RoleMetrics]) -> None:
        async def answer(request: web.Request) -> web.Response:
            return metrics_response(request, metrics)

        app = web.Application()
        app.router.add_get("/metrics", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, port).start()
        except OSError as error:
            await runner.cleanup()
            logger.warning(
                "no metrics on %s:%d: %s; choose another port with --metrics-port",
                self._host,
                port,
                os.strerror(error.errno).lower() if error.errno else str(error),
            )
            return
        self._runners.append(runner)
        host, bound_port = runner.addresses[0][:2]
        shown = f"[{host}]" if ":" in host else host
        self.urls.append(f"http://{shown}:{bound_port}/metrics")
