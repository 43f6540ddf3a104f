"""A DHT and its connections inside one process, for tests of services.

`MemoryNetwork.node` gives what `HyperDHT` gives to services: announcements are a
dictionary, and so are records, under the rules of real nodes; connections are real ones
(secretstream, Protomux) over in-memory streams.
Nodes can be killed, which announces nothing and ends connections as a power cut does,
and cut off, which keeps them alive but alone. Or they fall silent, and nobody is told.
"""

# ruff: noqa: SLF001 -- a test network reaches into its connections.

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from peerchat.net.crypto.primitives import KeyPair, hash_target
from peerchat.net.driver.connection import Connection
from peerchat.net.errors import (
    ConnectionLost,
    DhtUnreachable,
    LocalProtocolError,
    PeerNotFound,
    PeerRefused,
)
from peerchat.net.errors import PeerUnreachable as Unreachable
from peerchat.net.hyperdht.firewall import FirewallHook
from peerchat.net.hyperdht.messages import NoisePayload, PeerRecord
from peerchat.net.hyperdht.mutable import (
    MutableRecord,
    check_value,
    put_error,
    refusal,
    sign_mutable,
)
from peerchat.net.hyperdht.storage import MutablePutResult
from peerchat.net.identity import Address, PublicKey, Target

from .network import SeededRandom
from .streams import MemoryStream, memory_connection_pair


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """What `HyperDHT.statistics` would count."""

    lookups: int
    announces: int


class MemoryNetwork:
    """All nodes of one test.

    Args:
        seed: of key pairs and handshakes.
    """

    def __init__(self, seed: int | str = 0) -> None:
        self.random = SeededRandom(f"memory network {seed}")
        self.topics: dict[Target, dict[PublicKey, MemoryDht]] = {}
        self.records: dict[PublicKey, MutableRecord] = {}
        """Mutable records, by their owners."""
        self.values: dict[Target, bytes] = {}
        """Immutable records, by their hashes."""
        self.servers: dict[PublicKey, MemoryServer] = {}
        self.lookups = 0
        self.is_down = False
        """Every lookup and announcement fails with `DhtUnreachable`."""
        self._nodes = 0

    def node(self) -> MemoryDht:
        """A new node, ready for use."""
        self._nodes += 1
        return MemoryDht(self, Address("127.0.0.1", 40_000 + self._nodes))

    def keys(self, target: Target) -> list[PublicKey]:
        """Who is announced under a topic."""
        return list(self.topics.get(target, {}))


@dataclass(eq=False)
class MemoryDht:
    """One node; stands in for `HyperDHT`."""

    network: MemoryNetwork
    address: Address
    is_dead: bool = False
    is_cut_off: bool = False
    is_silent: bool = False
    announces: int = 0
    connections: set[Connection] = field(default_factory=set)

    def __post_init__(self) -> None:
        seed = self.network.random.token_bytes(32)
        self.default_key_pair = KeyPair.from_seed(seed)

    async def start(self) -> None:
        self._check()

    async def close(self) -> None:
        """Leave; whoever stops this way has withdrawn before."""
        if not self.is_dead:
            self.kill()

    def kill(self) -> None:
        """Vanish without a word; its announcements stay."""
        self.is_dead = True
        self._lose_connections()

    def cut_off(self) -> None:
        """Lose everybody until `mend`; connections end."""
        self.is_cut_off = True
        self._lose_connections()

    def mend(self) -> None:
        self.is_cut_off = False

    def be_silent(self, is_silent: bool = True) -> None:
        """Neither hear nor be heard for a while; connections do not end."""
        self.is_silent = is_silent
        self._hold(is_silent)

    def oversleep(self) -> None:
        """Wake up so late that the others have given every connection up.

        This end knows nothing of it yet; new connections are as good as ever.
        """
        self._hold(True)

    def _hold(self, is_held: bool) -> None:
        for connection in self.connections:
            stream = connection._stream
            assert isinstance(stream, MemoryStream)
            stream.hold(is_held)

    async def lookup(self, target: Target) -> list[PeerRecord]:
        self._check()
        self.network.lookups += 1
        return [PeerRecord(key) for key in self.network.keys(target)]

    async def announce(
        self,
        target: Target,
        key_pair: KeyPair,
        relay_addresses: Iterable[Address] = (),
    ) -> int:
        self._check()
        self.announces += 1
        self.network.topics.setdefault(target, {})[key_pair.public_key] = self
        return 1

    async def unannounce(self, target: Target, key_pair: KeyPair) -> None:
        self._check()
        self.network.topics.get(target, {}).pop(key_pair.public_key, None)

    async def immutable_put(self, value: bytes) -> Target:
        """As `HyperDHT.immutable_put`."""
        check_value(value)
        self._check()
        target = hash_target(value)
        self.network.values[target] = value
        return target

    async def immutable_get(self, target: Target) -> bytes | None:
        """As `HyperDHT.immutable_get`."""
        self._check()
        return self.network.values.get(target)

    async def mutable_put(
        self, key_pair: KeyPair, value: bytes, seq: int = 0
    ) -> MutablePutResult:
        """As `HyperDHT.mutable_put`, refusals included."""
        record = sign_mutable(key_pair, value, seq)
        return await self.mutable_put_signed(key_pair.public_key, record)

    async def mutable_put_signed(
        self, public_key: PublicKey, record: MutableRecord
    ) -> MutablePutResult:
        """As `HyperDHT.mutable_put_signed`."""
        self._check()
        if not record.is_signed_by(public_key):
            raise LocalProtocolError("the record is not signed by the key's holder")
        error = put_error(self.network.records.get(public_key), record)
        if error is not None:
            raise refusal(error, "the network", record.seq)
        self.network.records[public_key] = record
        return MutablePutResult(record.seq, record.signature, stored=1)

    async def mutable_get(
        self, public_key: PublicKey, seq: int = 0, latest: bool = True
    ) -> MutableRecord | None:
        """As `HyperDHT.mutable_get`; there is one version, so it is the latest."""
        self._check()
        record = self.network.records.get(public_key)
        return record if record is not None and record.seq >= seq else None

    async def connect(
        self,
        public_key: PublicKey,
        *,
        key_pair: KeyPair | None = None,
        relay_addresses: Iterable[Address] = (),
    ) -> Connection:
        self._check()
        server = self.network.servers.get(public_key)
        if server is None or server.key_pair is None:
            raise PeerNotFound(f"nobody listens under {public_key.hex()}")
        if server.dht.is_dead or server.dht.is_cut_off or server.dht.is_silent:
            raise Unreachable(f"{public_key.hex()} does not answer")
        if await server.refuses((key_pair or self.default_key_pair).public_key):
            raise PeerRefused(f"{public_key.hex()} declined")
        own, remote = memory_connection_pair(
            key_pair or self.default_key_pair,
            server.key_pair,
            random=self.network.random,
        )
        self.own(own)
        server.dht.own(remote)
        server.on_connection(remote)
        return own

    def create_server(
        self,
        on_connection: Callable[[Connection], None],
        *,
        firewall: FirewallHook | None = None,
    ) -> MemoryServer:
        return MemoryServer(self, on_connection, firewall)

    def statistics(self) -> MemoryStatistics:
        return MemoryStatistics(self.network.lookups, self.announces)

    def _check(self) -> None:
        if self.network.is_down or self.is_dead or self.is_cut_off:
            raise DhtUnreachable("no node answers")

    def own(self, connection: Connection) -> None:
        """End the connection when this node is lost."""
        self.connections.add(connection)
        connection.add_close_callback(lambda: self.connections.discard(connection))

    def _lose_connections(self) -> None:
        for connection in list(self.connections):
            connection.destroy(ConnectionLost("timed out"))


@dataclass(eq=False)
class MemoryServer:
    """Accepts connections to one key."""

    dht: MemoryDht
    on_connection: Callable[[Connection], None]
    firewall: FirewallHook | None = None
    key_pair: KeyPair | None = None

    async def refuses(self, client_key: PublicKey) -> bool:
        """What the server's own hook says to a client."""
        verdict = self.firewall is not None and self.firewall(
            client_key, NoisePayload()
        )
        return verdict if isinstance(verdict, bool) else await verdict

    async def listen(self, key_pair: KeyPair) -> None:
        self.key_pair = key_pair
        self.dht.network.servers[key_pair.public_key] = self

    async def close(self) -> None:
        if self.key_pair is not None:
            self.dht.network.servers.pop(self.key_pair.public_key, None)
