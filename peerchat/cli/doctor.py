"""`peerchat doctor`: what works, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from peerchat.api import ApiError
from peerchat.config import explain_settings
from peerchat.settings import Settings

from .options import Invocation

CLOCK_EARLIEST_S = 1_735_689_600
"""2025-01-01: a clock before it was never set."""
CHECK_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; ``is_ok`` None: nothing is wrong, but worth knowing."""

    name: str
    is_ok: bool | None
    detail: str

    def line(self) -> str:
        mark = {True: "ok  ", None: "note", False: "FAIL"}[self.is_ok]
        return f"{mark} {self.name:<8} {self.detail}"


async def run_doctor(settings: Settings, call: Invocation) -> None:
    """Run every check; ends with 1 when one fails."""
    checks: dict[str, Callable[[Settings], Awaitable[Finding]]] = {
        "engine": check_engine,
        "http": check_http_port,
        "store": check_store,
        "dht": check_dht,
        "clock": check_clock,
    }
    has_failed = False
    for name, check in checks.items():
        finding = await _guarded(name, check, settings)
        fields = {"check": name, "ok": finding.is_ok, "detail": finding.detail}
        call.out.line(finding.line(), fields)
        has_failed |= finding.is_ok is False
    if not call.out.is_json:
        call.out.line("\nsettings:")
        for line in explain_settings(call.overrides).lines():
            call.out.line(f"  {line}")
    if has_failed:
        raise SystemExit(1)


async def _guarded(
    name: str, check: Callable[[Settings], Awaitable[Finding]], settings: Settings
) -> Finding:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check(settings)
    except ApiError as error:
        return Finding(name, False, error.message)
    except TimeoutError:
        return Finding(name, False, f"no result within {CHECK_TIMEOUT_S} s")


async def check_engine(settings: Settings) -> Finding:
    from peerchat.services.engines.choose import choose_engine

    choice = await choose_engine(settings)
    try:
        health = await choice.engine.health()
    finally:
        await choice.engine.close()
    if not health.is_up:
        return Finding("engine", False, health.detail)
    is_guide = choice.engine.name == "guide"
    return Finding("engine", None if is_guide else True, choice.reason)


async def check_http_port(settings: Settings) -> Finding:
    where = f"{settings.http_host}:{settings.http_port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.http_host, settings.http_port))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            return Finding(
                "http",
                None,
                f"TCP {where}: {reason}. Fine if it is a running peerchat serve;"
                " else choose another with --http-port",
            )
    return Finding("http", True, f"TCP {where} is free for the bridge")


async def check_store(settings: Settings) -> Finding:
    from peerchat.services.store import open_store

    path = settings.home.store_path
    if not settings.database_url and not path.exists():
        return Finding("store", True, f"{path} will be made at first start")
    store = await open_store(path, settings.database_url)
    await store.close()
    return Finding("store", True, f"{store.place} can be read and written")


async def check_dht(settings: Settings) -> Finding:
    from peerchat.net import PUBLIC_BOOTSTRAP, DhtUnreachable, HyperDHT, system_env

    if settings.is_solo or settings.bootstrap == ():
        return Finding("dht", True, "solo: a DHT of its own on 127.0.0.1")
    bootstrap = settings.bootstrap or PUBLIC_BOOTSTRAP
    dht = HyperDHT(system_env(), bootstrap=bootstrap, ephemeral=True)
    try:
        await dht.start()
        nat = "behind a NAT or firewall" if dht.is_firewalled else "reachable"
        nodes = dht.statistics().dht.nodes
        return Finding("dht", True, f"{nodes} nodes known; this machine is {nat}")
    except DhtUnreachable:
        names = ", ".join(bootstrap)
        return Finding(
            "dht",
            False,
            f"none of {names} answers: check that UDP may leave this network, and"
            " --bootstrap HOST:PORT",
        )
    finally:
        await dht.close()


async def check_clock(_: Settings) -> Finding:
    now_s = time.time()
    if now_s < CLOCK_EARLIEST_S:
        return Finding(
            "clock", False, "the clock is years behind: set it, or tokens look expired"
        )
    return Finding("clock", True, time.strftime("%Y-%m-%d %H:%M:%S %z"))
