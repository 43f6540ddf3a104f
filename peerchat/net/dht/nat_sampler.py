"""Our own address, as the nodes that we talk to see it, by agreement of most.

Pure. Source: npm nat-sampler 1.0.1; docs/PROTOCOL.md section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from peerchat.net.identity import Address

_SLOTS = 32
"""16 samples, each as a (host, port) and a (host, any port) entry."""

_LOOK_BACK = 4
"""A sample counts with an equal one among this many before it."""


@dataclass(slots=True, eq=False)
class _Hit:
    host: str
    port: int
    hits: int = 1


class NatSampler:
    """``host`` is None while samples disagree; ``port`` is 0 while only ports do."""

    def __init__(self) -> None:
        self.host: str | None = None
        self.port = 0
        self.size = 0
        self._samples: list[_Hit] = []
        self._top = 0
        self._threshold = 0
        self._best: _Hit | None = None
        self._best_host: _Hit | None = None

    def add(self, address: Address) -> None:
        """Take one more sight of us; the oldest of 16 is forgotten."""
        full = self._bump(address.host, address.port, 2)
        host_only = self._bump(address.host, 0, 1)
        self._store(full, host_only)
        if self._best is None or self._best.hits < full.hits:
            self._best = full
        if self._best_host is None or self._best_host.hits < host_only.hits:
            self._best_host = host_only
        self._decide(self._best, self._best_host)

    def _store(self, full: _Hit, host_only: _Hit) -> None:
        if len(self._samples) < _SLOTS:
            self.size += 1
            self._threshold = self.size - min(self.size // 4, 3)
            self._samples += (full, host_only)
            self._top += 2
            return
        self._top %= _SLOTS
        for hit in (full, host_only):
            self._samples[self._top].hits -= 1
            self._samples[self._top] = hit
            self._top += 1

    def _decide(self, best: _Hit, best_host: _Hit) -> None:
        if best.hits >= self._threshold:
            self.host, self.port = best.host, best.port
        elif best_host.hits >= self._threshold:
            self.host, self.port = best_host.host, 0
        else:
            self.host, self.port = None, 0

    def _bump(self, host: str, port: int, offset: int) -> _Hit:
        for step in range(_LOOK_BACK):
            index = (self._top - offset - 2 * step) % _SLOTS
            if index >= len(self._samples):
                break
            hit = self._samples[index]
            if hit.host == host and hit.port == port:
                hit.hits += 1
                return hit
        return _Hit(host, port)
