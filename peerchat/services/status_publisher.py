"""Tells gateways how a processor is: at each change, and at least once a second.

What models are made of is told when a gateway comes, and when it changed.

Whoever opens ``peerchat/status`` hears of it until the channel closes. While answers
run the beat is faster: a gateway notices within a second that a processor is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from peerchat.net.driver.connection import Connection
from peerchat.net.errors import DecodeError
from peerchat.net.mux.protomux import Channel

from .details_wire import DETAILS
from .status_wire import (
    PROTOCOL,
    STATUS,
    Status,
    check_handshake_untrusted,
    encode_handshake,
    encode_status,
)

BEAT_S = 1.0
BUSY_BEAT_S = 0.25
GAP_S = 0.05
"""Between two messages: a burst of changes is told once."""

logger = logging.getLogger(__name__)


class StatusPublisher:
    """The serving side; `attach` it to connections that were admitted.

    Args:
        snapshot: how the processor is now.
        details: what its models are, as `encode_details` has it; empty: nothing.
    """

    def __init__(
        self,
        snapshot: Callable[[], Status],
        details: Callable[[], bytes] = lambda: b"",
    ) -> None:
        self._snapshot = snapshot
        self._details = details
        self._channels: set[_Subscriber] = set()
        self._peers: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._told_s = 0.0

    @property
    def subscribers(self) -> int:
        """Connections that are told."""
        return len(self._channels)

    def is_told(self, peer: str) -> bool:
        """Whether a peer hears of each change; such a peer keeps its own queue."""
        return self._peers[peer] > 0

    def attach(self, connection: Connection) -> None:
        """Let the peer open the channel from now on."""
        key = bytes(connection.public_key)

        def notify(_id: bytes | None) -> None:
            _Subscriber(self, connection)

        connection.mux.pair(PROTOCOL, key, notify)

    def changed(self) -> None:
        """Tell everybody soon."""
        if self._channels:
            now_s = asyncio.get_running_loop().time()
            self._arm(max(now_s, self._told_s + GAP_S))

    def tell_details(self) -> None:
        """Tell everybody what the models are."""
        if payload := self._details():
            for one in list(self._channels):
                one.send(payload, DETAILS)

    def close(self) -> None:
        """Say no more; the connections are others' to close."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for one in list(self._channels):
            one.close()

    def greet(self, subscriber: _Subscriber) -> None:
        """Tell one that came everything."""
        subscriber.send(encode_status(self._snapshot()))
        if payload := self._details():
            subscriber.send(payload, DETAILS)

    def add(self, subscriber: _Subscriber, peer: str) -> None:
        """A channel opened; it was told just now."""
        self._channels.add(subscriber)
        self._peers[peer] += 1
        self._arm(asyncio.get_running_loop().time() + self._beat_s())

    def remove(self, subscriber: _Subscriber, peer: str) -> None:
        """A channel closed."""
        if subscriber in self._channels:
            self._channels.discard(subscriber)
            self._peers[peer] -= 1
            self._peers += Counter()  # forgets those at zero

    def _tell(self) -> None:
        self._timer = None
        if not self._channels:
            return
        loop = asyncio.get_running_loop()
        self._told_s = loop.time()
        payload = encode_status(self._snapshot())
        for one in list(self._channels):
            one.send(payload)
        self._arm(self._told_s + self._beat_s())

    def _beat_s(self) -> float:
        return BUSY_BEAT_S if self._snapshot().busy else BEAT_S

    def _arm(self, at_s: float) -> None:
        if self._timer is not None:
            if self._timer_at_s <= at_s:
                return
            self._timer.cancel()
        self._timer_at_s = at_s
        self._timer = asyncio.get_running_loop().call_at(at_s, self._tell)


class _Subscriber:
    """One gateway's channel."""

    def __init__(self, publisher: StatusPublisher, connection: Connection) -> None:
        self._publisher = publisher
        self._peer = bytes(connection.remote_public_key).hex()
        self._channel: Channel | None = connection.mux.create_channel(
            PROTOCOL,
            bytes(connection.public_key),
            on_open=self._on_open,
            on_close=self._on_close,
        )
        if self._channel is not None:
            self._channel.open(encode_handshake())

    def send(self, payload: bytes, kind: int = STATUS) -> None:
        if self._channel is not None and not self._channel.is_closed:
            self._channel.send(kind, payload)

    def close(self) -> None:
        if self._channel is not None and not self._channel.is_closed:
            self._channel.close()
        self._on_close(False)

    def _on_open(self, handshake: bytes) -> None:
        try:
            check_handshake_untrusted(handshake)
        except DecodeError as error:
            logger.info("%s…: %s", self._peer[:8], error)
            self.close()
            return
        self._publisher.add(self, self._peer)
        self._publisher.greet(self)

    def _on_close(self, _is_remote: bool) -> None:
        self._publisher.remove(self, self._peer)
