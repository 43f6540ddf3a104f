"""`peerchat dht`: a persistent DHT node that others can bootstrap from."""

from __future__ import annotations

import errno

from peerchat.api import ApiError, ErrorCode
from peerchat.settings import Settings

from .output import Output
from .run import termination


async def run_dht(settings: Settings, out: Output) -> None:
    """Serve until SIGINT or SIGTERM; prints the address once the port is bound."""
    from peerchat.net import PUBLIC_BOOTSTRAP, DhtUnreachable, HyperDHT, system_env

    bootstrap = PUBLIC_BOOTSTRAP if settings.bootstrap is None else settings.bootstrap
    dht = HyperDHT(
        system_env(),
        bootstrap=bootstrap,
        host=settings.dht_host,
        port=settings.dht_port,
        ephemeral=False,
        firewalled=False,
    )
    async with termination() as stop:
        try:
            await dht.start()
        except OSError as error:
            raise _cannot_bind(settings, error) from error
        except DhtUnreachable as error:
            raise ApiError(
                ErrorCode.DHT_UNREACHABLE,
                "no bootstrap node answers: check the network and --bootstrap, or"
                " start a DHT of its own with --bootstrap none",
                status=503,
            ) from error
        try:
            address = dht.address
            out.line(
                f"listening: {address}",
                {"event": "listening", "host": address.host, "port": address.port},
            )
            await stop.wait()
        finally:
            await dht.close()


def _cannot_bind(settings: Settings, error: OSError) -> ApiError:
    where = f"{settings.dht_host}:{settings.dht_port}"
    if error.errno == errno.EADDRINUSE:
        message = f"UDP {where} is taken: choose another with --port (0 takes any)"
    else:
        message = f"cannot listen on UDP {where}: {error.strerror}; check --host"
    return ApiError(ErrorCode.INTERNAL, message)
