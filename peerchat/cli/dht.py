"""`peerchat dht`: a persistent DHT node that others can bootstrap from."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from peerchat.api import ApiError, ErrorCode
from peerchat.settings import Settings

from .output import Output
from .run import termination

if TYPE_CHECKING:
    from peerchat.net import HyperDHT


async def run_dht(settings: Settings, out: Output) -> None:
    """Serve until SIGINT or SIGTERM; prints the address once the port is bound."""
    async with termination() as stop:
        dht = await _started(settings, out)
        try:
            address = dht.address
            out.line(
                f"listening: {address}",
                {"event": "listening", "host": address.host, "port": address.port},
            )
            await stop.wait()
        finally:
            await dht.close()


async def _started(settings: Settings, out: Output) -> HyperDHT:
    """A node of the network that was named; else of the public one, else of its own.

    Raises:
        ApiError: the port cannot be had, or no named node answers.
    """
    from peerchat.net import PUBLIC_BOOTSTRAP, DhtUnreachable

    if settings.bootstrap is not None:
        try:
            return await _listening(settings, settings.bootstrap)
        except DhtUnreachable as error:
            raise ApiError(
                ErrorCode.DHT_UNREACHABLE,
                "no bootstrap node answers: check the network and --bootstrap, or"
                " start a DHT of its own with --bootstrap none",
                status=503,
            ) from error
    try:
        return await _listening(settings, PUBLIC_BOOTSTRAP)
    except DhtUnreachable:
        out.note(
            "peerchat: no public DHT node answers: this node begins a DHT of its own;"
            " give its address to the others as --bootstrap"
        )
        return await _listening(settings, ())


async def _listening(settings: Settings, bootstrap: Sequence[str]) -> HyperDHT:
    from peerchat.net import HyperDHT, system_env

    dht = HyperDHT(
        system_env(),
        bootstrap=bootstrap,
        host=settings.dht_host,
        port=settings.dht_port,
        ephemeral=False,
        firewalled=False,
    )
    try:
        await dht.start()
    except BaseException as error:
        await dht.close()
        if isinstance(error, OSError):
            raise _cannot_bind(settings, error) from error
        raise
    return dht


def _cannot_bind(settings: Settings, error: OSError) -> ApiError:
    where = f"{settings.dht_host}:{settings.dht_port}"
    if error.errno == errno.EADDRINUSE:
        message = f"UDP {where} is taken: choose another with --port (0 takes any)"
    else:
        message = f"cannot listen on UDP {where}: {error.strerror}; check --host"
    return ApiError(ErrorCode.INTERNAL, message)
