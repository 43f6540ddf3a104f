"""What services need of a DHT: `HyperDHT`, or the one in memory of the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.driver.connection import Connection
from peerchat.net.hyperdht.firewall import FirewallHook
from peerchat.net.hyperdht.messages import PeerRecord
from peerchat.net.hyperdht.mutable import MutableRecord
from peerchat.net.hyperdht.storage import MutablePutResult
from peerchat.net.identity import Address, PublicKey, Target
from peerchat.net.rpc.server import ListeningServer


class Dht(Protocol):
    """Finds, announces, connects, listens, keeps records."""

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
        self,
        on_connection: Callable[[Connection], None],
        *,
        firewall: FirewallHook | None = None,
    ) -> ListeningServer: ...

    async def immutable_put(self, value: bytes) -> Target: ...

    async def immutable_get(self, target: Target) -> bytes | None: ...

    async def mutable_put(
        self, key_pair: KeyPair, value: bytes, seq: int = 0
    ) -> MutablePutResult: ...

    async def mutable_put_signed(
        self, public_key: PublicKey, record: MutableRecord
    ) -> MutablePutResult: ...

    async def mutable_get(
        self, public_key: PublicKey, seq: int = 0, latest: bool = True
    ) -> MutableRecord | None: ...

    def statistics(self) -> object: ...
