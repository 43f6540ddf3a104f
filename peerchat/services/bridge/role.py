"""The role ``bridge``: binds the port, serves until cancelled."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable

from aiohttp import web

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.gateways import Gateways
from peerchat.services.metrics import RoleMetrics
from peerchat.settings import Settings

from .application import make_application
from .body import NoCallersFaults

_server_log = logging.getLogger(f"{__name__}.http")
_server_log.addFilter(NoCallersFaults())

DRAIN_S = 10.0
"""How long running answers may go on after the role is told to stop."""


class BridgeRole:
    """Serves HTTP in front of a swarm's gateways.

    Args:
        settings: host, port and who may call.
        gateways: stay open at the end; they belong to the caller.
        metrics: what `GET /metrics` shows.
    """

    def __init__(
        self, settings: Settings, gateways: Gateways, metrics: RoleMetrics | None = None
    ) -> None:
        self._settings = settings
        self._gateways = gateways
        self._metrics = metrics or RoleMetrics(Role.BRIDGE)
        self.url = ""
        """Where it serves, once ready: ``http://127.0.0.1:3000``."""

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled, then let running answers end for up to 10 s.

        Raises:
            ApiError: the port cannot be bound; the message names it.
        """
        app = make_application(self._settings, self._gateways, self._metrics)
        runner = web.AppRunner(
            app,
            handler_cancellation=True,
            access_log=None,
            logger=_server_log,
            shutdown_timeout=DRAIN_S,
        )
        await runner.setup()
        try:
            await self._bind(runner)
            ready()
            await asyncio.Event().wait()
        finally:
            self.url = ""
            await runner.cleanup()

    async def _bind(self, runner: web.AppRunner) -> None:
        host, port = self._settings.http_host, self._settings.http_port
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise _cannot_bind(host, port, error) from error
        bound_host, bound_port = runner.addresses[0][:2]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        self.url = f"http://{shown}:{bound_port}"


def _cannot_bind(host: str, port: int, error: OSError) -> ApiError:
    if error.errno == errno.EADDRINUSE:
        message = (
            f"HTTP port {port} on {host} is taken: choose another with --http-port "
            "(0 takes any)."
        )
    else:
        # asyncio's own strerror repeats the address in Python's words.
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        message = (
            f"Cannot serve HTTP on {host} port {port}: {reason}; check --http-host and "
            "--http-port."
        )
    return ApiError(ErrorCode.INTERNAL, message)
