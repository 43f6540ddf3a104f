"""The role ``bridge``: binds its ports, serves until cancelled."""

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

from .application import MAIN, Listener, make_application
from .body import NoCallersFaults
from .callers import Account, is_loopback
from .operation import Api
from .running import Running

_server_log = logging.getLogger(f"{__name__}.http")
_server_log.addFilter(NoCallersFaults())

END_S = 1.0
"""How long callers may take to read that they were cut off."""


class BridgeRole:
    """Serves HTTP in front of a swarm's gateways.

    Args:
        settings: host, ports and who may call.
        gateways: stay open at the end; they belong to the caller.
        metrics: what `GET /metrics` shows.
        own: the account of callers without a token on the Ollama port, as long as it
            is bound to loopback.
    """

    def __init__(
        self,
        settings: Settings,
        gateways: Gateways,
        metrics: RoleMetrics | None = None,
        own: Account | None = None,
    ) -> None:
        self._settings = settings
        self._gateways = gateways
        self._metrics = metrics or RoleMetrics(Role.BRIDGE)
        gateways.on_gateway_change = self._metrics.counter(
            "gateway_changes", "Answers that were asked for at another gateway."
        )
        self._own = own if is_loopback(settings.http_host) else None
        self._running = Running()
        self._runners: list[web.AppRunner] = []
        self.url = ""
        """Where it serves, once ready: ``http://127.0.0.1:3000``."""
        self.ollama_url = ""
        """Where Ollama's clients are served; empty without ``ollama_port``."""

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled; what runs then is cut off, and its callers told.

        Whoever stops the process calls `drain` first, so that answers can end.

        Raises:
            ApiError: a port cannot be bound; the message names it.
        """
        settings = self._settings
        self._running = Running()
        runners = self._runners = []
        try:
            port = settings.http_port
            self.url = await self._serve(runners, port, "--http-port", MAIN)
            if settings.ollama_port is not None:
                apis = frozenset({Api.OLLAMA, Api.OPENAI})
                own_port = Listener(apis, self._own, Api.OLLAMA)
                port = settings.ollama_port
                self.ollama_url = await self._serve(
                    runners, port, "--ollama-port", own_port
                )
            ready()
            await asyncio.Event().wait()
        finally:
            self.url = self.ollama_url = ""
            self._running.cut_off()
            await asyncio.gather(*(runner.cleanup() for runner in runners))

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, wait for what runs, at most so long, and cut off the rest.

        Ports are free at once, for who comes after; connections that are there already
        get 503.
        """
        sites = [site for runner in self._runners for site in runner.sites]
        await asyncio.gather(*(site.stop() for site in sites))
        await self._running.drain(timeout_s)
        self._running.cut_off()
        await self._running.drain(END_S)

    async def _serve(
        self,
        runners: list[web.AppRunner],
        port: int,
        flag: str,
        listener: Listener,
    ) -> str:
        """Open one port and keep its runner; gives its URL."""
        runner = web.AppRunner(
            make_application(
                self._settings, self._gateways, self._metrics, self._running, listener
            ),
            handler_cancellation=True,
            access_log=None,
            logger=_server_log,
            shutdown_timeout=END_S,
        )
        await runner.setup()
        runners.append(runner)
        host = self._settings.http_host
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise _cannot_bind(host, port, flag, error) from error
        bound_host, bound_port = runner.addresses[0][:2]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        return f"http://{shown}:{bound_port}"


def _cannot_bind(host: str, port: int, flag: str, error: OSError) -> ApiError:
    if error.errno == errno.EADDRINUSE:
        message = (
            f"HTTP port {port} on {host} is taken: choose another with {flag} "
            "(0 takes any)."
        )
    else:
        # asyncio's own strerror repeats the address in Python's words.
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        message = (
            f"Cannot serve HTTP on {host} port {port}: {reason}; check --http-host and "
            f"{flag}."
        )
    return ApiError(ErrorCode.INTERNAL, message)
