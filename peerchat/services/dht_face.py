"""What services need of a DHT: `HyperDHT`, or the one in memory of the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.driver.connection import Connection
from peerchat.net.hyperdht.messages import PeerRecord
from peerchat.net.identity import Address, PublicKey, Target
from peerchat.net.rpc.server import ListeningServer


class Dht(Protocol):
    """Finds, announces, connects, listens."""

    @property
    def address(self) -> Address: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def lookup(self, target: Target) -> Sequence[PeerRecord]: ...

    async def announce(
        self,
        target: Target,
        key_pair: KeyPair,
        relay_addresses: Iterable[Address] = (),
    ) -> int: ...

    async def unannounce(self, target: Target, key_pair: KeyPair) -> None: ...

    async def connect(
        self,
        public_key: PublicKey,
        *,
        key_pair: KeyPair | None = None,
        relay_addresses: Iterable[Address] = (),
    ) -> Connection: ...

    def create_server(
        self, on_connection: Callable[[Connection], None]
    ) -> ListeningServer: ...

    def statistics(self) -> object: ...
