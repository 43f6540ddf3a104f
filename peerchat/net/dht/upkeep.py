"""What a node does by itself every 5 s: pings, refreshes, checks, health.

Source: docs/PROTOCOL.md section 4.5; ``dht-rpc/index.js`` _ontick, _onwakeup.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from peerchat.net.env import Env, Random, Timer

from .health import Health, HealthMonitor
from .io import DhtIo
from .neighbours import OLD_TICKS, Neighbours
from .table import K

logger = logging.getLogger(__name__)

TICK_S = 5.0
SLEPT_S = 3 * TICK_S
"""A longer gap between two ticks means that the machine slept."""

STABLE_TICKS = 240
"""20 minutes up before a node becomes persistent by itself."""

STABLE_TICKS_AGAIN = 3 * STABLE_TICKS
FORCED_RETRY_TICKS = 12
"""A node that has to be persistent tries again each minute."""

REFRESH_TICKS = 60
"""5 minutes without a query before the table is refreshed by one."""

DOWN_HINTS_PER_TICK_MAX = 50
"""As the reference: a query through a dead neighbourhood must not flood the rest."""


def ticks_with_offset(chance: Random, ticks: int) -> int:
    """Up to half sooner, so that not all nodes of a network act at once."""
    return ticks - chance.randbelow(max(1, ticks // 2))


class Upkeep:
    """Ticks from `start` to `close`; does nothing before ``is_bootstrapped``."""

    def __init__(
        self,
        env: Env,
        io: DhtIo,
        neighbours: Neighbours,
        *,
        is_forced: bool,
        is_adaptive: bool,
        nat_host: Callable[[], str | None],
        become_persistent: Callable[[], object],
        refresh: Callable[[], None],
        on_wake_up: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        """What it decides to do.

        Args:
            env: clock and chance.
            io: its counters tell the health.
            neighbours: gets the ticks.
            is_forced: the node has to be persistent.
            is_adaptive: the node may become so.
            nat_host: our host as others see it.
            become_persistent: starts the check for it.
            refresh: starts a query to look around.
            on_wake_up: the machine slept.
            on_change: health, or being ephemeral, has changed.
        """
        self.is_bootstrapped = False
        self._env = env
        self._io = io
        self._neighbours = neighbours
        self._is_forced = is_forced
        self._is_adaptive = is_adaptive
        self._nat_host = nat_host
        self._become_persistent = become_persistent
        self._refresh = refresh
        self._on_wake_up = on_wake_up
        self._on_change = on_change
        self._monitor = HealthMonitor()
        self._down_hints_sent = 0
        self._stable_ticks = FORCED_RETRY_TICKS if is_forced else STABLE_TICKS
        self._refresh_ticks = ticks_with_offset(env.random, REFRESH_TICKS)
        self._last_checked_host: str | None = None
        self._last_tick_unix_ms = 0
        self._timer: Timer | None = None

    @property
    def health(self) -> Health:
        return self._monitor.state

    def start(self) -> None:
        self._last_tick_unix_ms = self._env.clock.unix_ms()
        when_s = self._env.clock.now() + TICK_S
        self._timer = self._env.clock.call_at(when_s, self._on_tick)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def query_started(self) -> None:
        """A query of the user refreshes the table as well as ours would."""
        self._refresh_ticks = REFRESH_TICKS

    def may_send_down_hint(self) -> bool:
        """Count one down hint, unless there were enough in this tick."""
        if self._down_hints_sent >= DOWN_HINTS_PER_TICK_MAX:
            return False
        self._down_hints_sent += 1
        return True

    def _on_tick(self) -> None:
        # Monotonic clocks may stand still while the machine sleeps.
        gap_s = (self._env.clock.unix_ms() - self._last_tick_unix_ms) / 1000
        self.start()
        if gap_s > SLEPT_S:
            self._woke_up()
        else:
            self._neighbours.tick += 1
        self._down_hints_sent = 0
        if self.is_bootstrapped:
            self._tend_id()
            self._tend_table()
            self._tend_health()

    def _woke_up(self) -> None:
        """All that we knew is old; the network may be another one."""
        tick = self._neighbours.tick + 2 * OLD_TICKS
        # Pings follow in two ticks, when the network is up again.
        self._neighbours.tick = tick + 8 - (tick & 7) - 2
        self._stable_ticks = STABLE_TICKS_AGAIN
        self._refresh_ticks = 1
        self._last_checked_host = None
        self._monitor = HealthMonitor()
        if self._is_adaptive:
            self._io.is_ephemeral = True
        self._on_wake_up()
        self._on_change()

    def _tend_id(self) -> None:
        if not self._io.is_ephemeral or not (self._is_adaptive or self._is_forced):
            return
        self._stable_ticks -= 1
        if self._stable_ticks > 0:
            return
        self._stable_ticks = STABLE_TICKS_AGAIN
        if self._is_forced:
            self._stable_ticks = FORCED_RETRY_TICKS
        host = self._nat_host()
        if self._is_forced or host != self._last_checked_host:
            self._last_checked_host = host
            self._become_persistent()

    def _tend_table(self) -> None:
        tick, table = self._neighbours.tick, self._io.table
        if tick & 7 == 0:
            if len(table):
                self._neighbours.ping_some()
            else:
                self._refresh()
        self._refresh_ticks -= 1
        is_small = tick & 63 == 0 and len(table) < K
        if is_small or self._refresh_ticks <= 0:
            self._refresh_ticks = REFRESH_TICKS
            self._refresh()

    def _tend_health(self) -> None:
        before = self.health
        counters = self._io.counters
        if self._monitor.update(counters.responses, counters.timeouts) is not before:
            logger.info("the DHT is %s", self.health.value)
            self._on_change()
