"""`peerchat doctor`: what works, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from peerchat.api import ApiError
from peerchat.config import explain_settings
from peerchat.settings import Settings

from .doctor_swarm import check_swarm
from .finding import Finding
from .options import Invocation
from .session import log_stream

if TYPE_CHECKING:
    from peerchat.net import HyperDHT

CLOCK_EARLIEST_S = 1_735_689_600
"""2025-01-01: a clock before it was never set."""
CHECK_TIMEOUT_S = 20


Check = Callable[[Settings], Awaitable[Sequence[Finding]]]


async def run_doctor(settings: Settings, call: Invocation) -> None:
    """Run every check; ends with 1 when one fails."""
    from peerchat.logs import Logs

    checks: dict[str, Check] = {
        "engine": check_engine,
        "ports": check_ports,
        "store": check_store,
        "dht": check_network,
        "swarm": check_swarm,
        "clock": check_clock,
    }
    has_failed = False
    with Logs(settings, verbosity=call.verbosity - 2, stream=log_stream(call)):
        for name, check in checks.items():
            for found in await _guarded(name, check, settings):
                fields = {"check": found.name, "ok": found.is_ok}
                call.out.line(found.line(), {**fields, "detail": found.detail})
                has_failed |= found.is_ok is False
    if not call.out.is_json:
        call.out.line("\nsettings:")
        for line in explain_settings(call.overrides).lines():
            call.out.line(f"  {line}")
    if has_failed:
        raise SystemExit(1)


async def _guarded(name: str, check: Check, settings: Settings) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check(settings)
    except ApiError as error:
        return [Finding(name, False, error.message)]
    except TimeoutError:
        return [Finding(name, False, f"no result within {CHECK_TIMEOUT_S} s")]


async def check_engine(settings: Settings) -> Sequence[Finding]:
    from peerchat.services.engines.choose import choose_engine

    choice = await choose_engine(settings)
    try:
        health = await choice.engine.health()
    finally:
        await choice.engine.close()
    if not health.is_up:
        return [Finding("engine", False, health.detail)]
    is_guide = choice.engine.name == "guide"
    return [Finding("engine", None if is_guide else True, choice.reason)]


async def check_ports(settings: Settings) -> Sequence[Finding]:
    """The TCP ports that `peerchat serve --role all` would take."""
    from peerchat.services.metrics_http import ROLE_PORTS

    one = settings.metrics_port
    ports = sorted(ROLE_PORTS.values()) if one is None else [one]
    found = [_port("http", settings.http_host, settings.http_port, "--http-port")]
    if (port := settings.ollama_port) is not None:
        found.append(_port("ollama api", settings.http_host, port, "--ollama-port"))
    host = settings.metrics_host
    found += [_port("metrics", host, port, "--metrics-port") for port in ports]
    return found


def _port(name: str, host: str, port: int, flag: str) -> Finding:
    where = f"TCP {host}:{port}"
    try:
        family, kind, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        advice = f"Fine if it is a running peerchat serve; else choose another: {flag}"
        return Finding(name, None, f"{where}: {reason}. {advice}")
    return Finding(name, True, f"{where} is free")


async def check_store(settings: Settings) -> Sequence[Finding]:
    from peerchat.services.store import open_store

    path = settings.home.store_path
    if not settings.database_url and not path.exists():
        return [Finding("store", True, f"{path} will be made at first start")]
    store = await open_store(path, settings.database_url)
    await store.close()
    return [Finding("store", True, f"{store.place} can be read and written")]


async def check_network(settings: Settings) -> Sequence[Finding]:
    """Whether DHT nodes answer, and how they see this machine."""
    from peerchat.net import PUBLIC_BOOTSTRAP, DhtUnreachable, HyperDHT, system_env

    if settings.is_solo or settings.bootstrap == ():
        return [Finding("dht", True, "solo: a DHT of its own on 127.0.0.1")]
    bootstrap = settings.bootstrap or PUBLIC_BOOTSTRAP
    if settings.swarm:
        from peerchat.services.membership import SwarmHomes
        from peerchat.services.swarm_network import bootstrap_of

        hints = SwarmHomes(settings.home).load(settings.swarm).bootstrap
        bootstrap = tuple(bootstrap_of(settings, hints))
    dht = HyperDHT(system_env(), bootstrap=bootstrap, ephemeral=True)
    try:
        await dht.start()
        nodes = dht.statistics().dht.nodes
        return [Finding("dht", True, f"{nodes} nodes known"), _nat(dht)]
    except DhtUnreachable:
        names = ", ".join(bootstrap)
        detail = (
            f"none of {names} answers: check that UDP may leave this network, and"
            " --bootstrap HOST:PORT"
        )
        return [Finding("dht", False, detail)]
    finally:
        await dht.close()


def _nat(dht: HyperDHT) -> Finding:
    """What the nodes' answers say of the way to this machine."""
    host, port = dht.node.nat_host, dht.node.nat_port
    if host is None:
        return Finding("nat", None, "unknown: the nodes that answer do not agree yet")
    if not port:
        detail = (
            f"{host} shows every peer another port: only peers that are reachable"
            " from outside can be met; forward a UDP port to be one"
        )
        return Finding("nat", None, detail)
    if port == dht.address.port:
        return Finding("nat", True, f"others see this machine as {host}:{port}")
    return Finding("nat", True, f"a NAT shows this machine to all as {host}:{port}")


async def check_clock(_: Settings) -> Sequence[Finding]:
    if time.time() < CLOCK_EARLIEST_S:
        detail = "the clock is years behind: set it, or tokens look expired"
        return [Finding("clock", False, detail)]
    return [Finding("clock", True, time.strftime("%Y-%m-%d %H:%M:%S %z"))]
