"""A dht-rpc node: answers others, keeps a routing table, and asks for its user.

Source: docs/PROTOCOL.md section 4; ``dht-rpc/index.js``. HyperDHT's commands are not
known here: they come in through ``on_request`` and go out through `request` and
`query`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Literal, Self

from peerchat.net.encoding import Writer
from peerchat.net.env import Datagrams, DatagramSocket, Env
from peerchat.net.errors import DhtUnreachable, NetError
from peerchat.net.identity import KEY_BYTES, Address, NodeId, Target

from .addresses import parse_bootstrap
from .bootstrap import BootstrapResolver, Resolve, resolve_ipv4
from .health import Health
from .internal import InternalCommands
from .io import DhtIo
from .messages import Command, ErrorCode
from .neighbours import Neighbours
from .pending import RETRIES, TRY_TIMEOUT_S, PendingRequest, Response
from .query import CONCURRENCY, QUERY_RETRIES, Commit, Query
from .reachability import Reachability
from .request import IncomingRequest
from .statistics import CommandStatistics, DhtStatistics
from .table import Table
from .upkeep import Upkeep, ticks_with_offset

logger = logging.getLogger(__name__)

BACKGROUND_CONCURRENCY = 2
FIREWALL_PROBE_WAIT_S = 1.0
"""How long starting waits at most for the first sign that we are not firewalled."""

_WILDCARD = "0.0.0.0"

OnRequest = Callable[[IncomingRequest], bool]


class DhtNode:
    """One node of a DHT; `start` it, then `close` it, or use ``async with``."""

    def __init__(
        self,
        env: Env,
        *,
        bootstrap: Iterable[str | tuple[str, int]] = (),
        host: str = _WILDCARD,
        port: int = 0,
        any_port: bool = False,
        public_host: str | None = None,
        ephemeral: bool | None = None,
        firewalled: bool | None = None,
        nodes: Sequence[tuple[str, int]] = (),
        datagrams: Datagrams | None = None,
        on_request: OnRequest | None = None,
        on_network_update: Callable[[], None] | None = None,
        resolve: Resolve = resolve_ipv4,
    ) -> None:
        """Nothing is opened before `start`.

        Args:
            env: clock, chance and datagrams.
            bootstrap: ``[ip@]host:port`` or addresses; none makes this a first node.
            host: where to bind; an IPv4 address.
            port: of the server socket; 0 for any.
            any_port: when ``port`` is taken, try the four after it and then any.
            public_host: the IPv4 address that others reach this node at, for a first
                node that is bound to the wildcard address; found out when left out.
            ephemeral: True never shows an id; False becomes persistent as soon as
                others confirm the address; None after 20 stable minutes.
            firewalled: False claims to be reachable; else others are asked.
            nodes: of an earlier `nodes()`, to start from besides the bootstrap nodes.
            datagrams: binds the two sockets; default ``env.datagrams``.
            on_request: gets every request that is not internal; False (not known)
                makes the node answer UNKNOWN_COMMAND. True when it was dealt with,
                be it later or never.
            on_network_update: called when the public address, the id, reachability
                or health have changed.
            resolve: host name to IPv4 address.

        Raises:
            ValueError: a bootstrap node is not ``[ip@]host:port``.
        """
        self._env = env
        self._host = host
        self._public_host = public_host
        self._on_request = on_request or _unknown
        self._on_network_update = on_network_update or _nothing
        self._is_forced = ephemeral is False
        self._is_started = False
        self._is_closed = False
        self._is_telling = False
        self._queries = 0
        self._queries_active = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._refreshing: asyncio.Task[None] | None = None
        bootstrap_nodes = [parse_bootstrap(node) for node in bootstrap]
        self._io = DhtIo(
            env,
            Table(NodeId(env.random.token_bytes(KEY_BYTES))),
            host=host,
            port=port,
            any_port=any_port,
            datagrams=datagrams or env.datagrams,
            is_firewalled=firewalled is not False,
            on_request=self._request_received,
            on_response=self._response_received,
            on_timeout=self._request_timed_out,
        )
        self._bootstrap = BootstrapResolver(
            bootstrap_nodes, env.clock, self.ping, resolve
        )
        self._reachability = Reachability(
            self._io,
            len(bootstrap_nodes),
            self.resolve_bootstrap,
            self._network_changed,
        )
        self._neighbours = Neighbours(
            self._io, ticks_with_offset(env.random, 100), self._reachability.sample
        )
        self._reachability.neighbours = self._neighbours
        self._internal = InternalCommands(env.clock, self._neighbours)
        self._upkeep = Upkeep(
            env,
            self._io,
            self._neighbours,
            is_forced=self._is_forced,
            is_adaptive=ephemeral is None,
            nat_host=lambda: self.nat_host,
            become_persistent=lambda: self._spawn(self._become_persistent),
            refresh=self.refresh,
            on_wake_up=self._bootstrap.forget,
            on_change=self._network_changed,
        )
        for address in reversed(nodes):
            self._neighbours.add(Address(*address))
        self._has_nodes = len(nodes) > 0

    # Life

    async def start(self) -> None:
        """Bind, join through the bootstrap nodes, fill the table.

        Raises:
            DhtUnreachable: there are bootstrap nodes, and nobody answers; the node
                is closed then.
            OSError: the asked port is taken.
        """
        if self._is_started:
            raise DhtUnreachable("a DHT node starts only once")
        self._is_started = True
        try:
            await self._io.bind()
            self._claim_own_address()
            self._upkeep.start()
            await self._join()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Fail what is under way, close the sockets, leave nothing; idempotent."""
        self._is_closed = True
        self._upkeep.close()
        self._internal.close()
        self._io.close()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # What it is

    @property
    def io(self) -> DhtIo:
        """The sockets and requests, for queries and for statistics."""
        return self._io

    @property
    def id(self) -> NodeId | None:
        """What others know this node by; None while it is ephemeral."""
        return None if self._io.is_ephemeral else self._io.table.id

    @property
    def table(self) -> Table:
        return self._io.table

    @property
    def is_ephemeral(self) -> bool:
        return self._io.is_ephemeral

    @property
    def is_firewalled(self) -> bool:
        return self._io.is_firewalled

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def health(self) -> Health:
        return self._upkeep.health

    @property
    def socket(self) -> DatagramSocket:
        """Where requests leave from: the client socket while firewalled."""
        return self._io.socket

    @property
    def server_socket(self) -> DatagramSocket:
        return self._io.server_socket

    @property
    def client_socket(self) -> DatagramSocket:
        return self._io.client_socket

    @property
    def address(self) -> Address:
        """The local address of the server socket."""
        return self._io.server_socket.address

    @property
    def nat_host(self) -> str | None:
        """Our host as others see it, once they agree."""
        return self._reachability.nat.host

    @property
    def nat_port(self) -> int:
        """Our port as others see it; 0 while they do not agree."""
        return self._reachability.nat.port

    @property
    def public_address(self) -> Address | None:
        """Where anyone reaches the server socket; None if not known to be so."""
        host, port = self.nat_host, self.nat_port
        is_open = not self._io.is_firewalled and port == self.address.port
        return Address(host, port) if host is not None and is_open else None

    def nodes(self, limit: int | None = None) -> list[Address]:
        """The nodes known, latest first: to be given to the next start."""
        count = len(self.table) if limit is None else limit
        return [entry.address for entry in self.table.latest(count)]

    def statistics(self) -> DhtStatistics:
        """A frozen picture of now."""
        counters, sent = self._io.counters, self._io.command_tx
        return DhtStatistics(
            nodes=len(self.table),
            requests_active=counters.active,
            requests=counters.total,
            responses=counters.responses,
            timeouts=counters.timeouts,
            retries=counters.retries,
            malformed=counters.malformed,
            unmatched=counters.unmatched,
            queries_active=self._queries_active,
            queries=self._queries,
            commands=CommandStatistics(*sent),
            is_ephemeral=self.is_ephemeral,
            is_firewalled=self.is_firewalled,
            health=self.health,
        )

    # Asking

    async def request(
        self,
        address: Address,
        command: int,
        *,
        target: Target | None = None,
        value: bytes | None = None,
        token: bytes | None = None,
        internal: bool = False,
        retries: int = RETRIES,
        try_timeout_s: float = TRY_TIMEOUT_S,
        socket: DatagramSocket | None = None,
        force: bool = False,
        any_sender: bool = False,
    ) -> Response:
        """Ask one node.

        Args:
            address: of the node.
            command: of the layer above, or internal if so said.
            target: what the command is about; the answer then has closer nodes.
            value: the command's own bytes.
            token: of an earlier answer of this node.
            internal: the command is one of `messages.Command`.
            retries: tries after the first.
            try_timeout_s: how long each try waits.
            socket: where to send from, default `socket`.
            force: do not wait for room in the congestion window.
            any_sender: take an answer with our tid from any address. For requests
                that others relay, when whoever answers is not whom we asked; the
                caller has to check the answer by other means, such as a signature.

        Raises:
            RequestTimeout: no try was answered.
            DhtUnreachable: the node is closed.
        """
        return await self._io.request(
            Address(*address),
            command,
            is_internal=internal,
            target=target,
            value=value,
            token=token,
            retries=retries,
            try_timeout_s=try_timeout_s,
            socket=socket,
            force=force,
            any_sender=any_sender,
        )

    async def ping(
        self,
        address: Address,
        *,
        socket: DatagramSocket | None = None,
        retries: int = RETRIES,
    ) -> Response:
        """Ask a node for a sign of life; raises as `request` does."""
        return await self.request(
            address, Command.PING, internal=True, socket=socket, retries=retries
        )

    async def delayed_ping(self, address: Address, delay_s: float) -> Response:
        """Have a node answer after a while, at most 10 s; raises as `request` does."""
        return await self.request(
            address,
            Command.DELAYED_PING,
            internal=True,
            value=round(delay_s * 1000).to_bytes(4, "little"),
            try_timeout_s=delay_s + TRY_TIMEOUT_S,
        )

    def query(
        self,
        command: int,
        target: Target,
        value: bytes | None = None,
        *,
        commit: Commit | Literal[True] | None = None,
        nodes: Iterable[Address] | None = None,
        only_given_nodes: bool = False,
        concurrency: int = CONCURRENCY,
        retries: int = QUERY_RETRIES,
        internal: bool = False,
    ) -> Query:
        """Ask ever closer nodes; iterate over what is returned.

        Args:
            command: see `request`.
            target: what to get closer to.
            value: the same for every node.
            commit: run for each of the k closest at the end; True repeats the
                request with the node's token.
            nodes: start from these, such as an earlier query's `closest_nodes`.
            only_given_nodes: ask no others.
            concurrency: nodes asked at once.
            retries: tries after the first, for each node.
            internal: see `request`.
        """
        self._upkeep.query_started()
        return Query(
            self,
            target,
            command,
            value,
            is_internal=internal,
            commit=commit,
            nodes=nodes,
            only_given_nodes=only_given_nodes,
            concurrency=concurrency,
            retries=retries,
        )

    def find_node(self, target: Target, *, concurrency: int = CONCURRENCY) -> Query:
        """Look for the nodes closest to a target; see `query`."""
        return self.query(
            Command.FIND_NODE, target, internal=True, concurrency=concurrency
        )

    # What queries need

    async def resolve_bootstrap(self) -> Sequence[Address]:
        return await self._bootstrap.addresses()

    def send_down_hint(self, to: Address, down: Address) -> None:
        if not self._upkeep.may_send_down_hint():
            return
        value = Writer().ipv4(down).getvalue()
        with contextlib.suppress(DhtUnreachable):
            self._io.start_request(to, Command.DOWN_HINT, is_internal=True, value=value)

    def query_started(self) -> None:
        self._queries += 1
        self._queries_active += 1

    def query_ended(self) -> None:
        self._queries_active -= 1

    # Joining

    @property
    def _is_first_node(self) -> bool:
        return not self._bootstrap.nodes

    def _claim_own_address(self) -> None:
        """A first node has nobody to ask; it is where it is bound."""
        host = self._public_host or (self._host if self._host != _WILDCARD else None)
        if host is None or self._io.is_firewalled or not self._is_first_node:
            return
        address = Address(host, self.address.port)
        self._reachability.sample(address)
        if self._is_forced:
            self._reachability.settle(address, is_ephemeral=False)

    async def _join(self) -> None:
        only_firewall = not self._is_forced
        for _ in range(2):
            is_reached = await self._look_around()
            if not is_reached and not self._is_forced:
                break
            if not await self._reachability.update(only_firewall=only_firewall):
                break
        self._upkeep.is_bootstrapped = True
        self._neighbours.can_test_full_rows = True

    async def _look_around(self) -> bool:
        """Find the nodes near us; True when one of them reached the server socket."""
        probe: asyncio.Task[bool] | None = None
        want_probe = self._io.is_firewalled and not self._is_forced
        try:
            async with self._background_query(self._io.table.id) as query:
                async for reply in query:
                    self._pace(query)
                    if want_probe and probe is None:
                        probe = asyncio.ensure_future(self._probe(reply.from_address))
            if not query.responses and self._bootstrap.nodes:
                raise DhtUnreachable("no bootstrap node has an address")
            return probe is not None and await probe
        except DhtUnreachable as error:
            raise DhtUnreachable(self._why_unreachable()) from error
        finally:
            if probe is not None:
                probe.cancel()
                await asyncio.gather(probe, return_exceptions=True)

    def _why_unreachable(self) -> str:
        names = ", ".join(str(node) for node in self._bootstrap.nodes)
        return (
            f"no DHT node answers; asked {names or 'the known nodes'}. "
            "Check the network, and that a bootstrap node runs there"
        )

    async def _probe(self, node: Address) -> bool:
        """Whether one node reaches the server socket, as a quick first check."""
        port = self.address.port.to_bytes(2, "little")
        try:
            response = await self.request(
                node,
                Command.PING_NAT,
                value=port,
                internal=True,
                retries=0,
                try_timeout_s=FIREWALL_PROBE_WAIT_S,
            )
        except NetError:
            return False
        return response.is_on_server_socket

    def _background_query(self, target: bytes) -> Query:
        return self.find_node(Target(target), concurrency=BACKGROUND_CONCURRENCY)

    def _pace(self, query: Query) -> None:
        """Yield to other traffic."""
        is_idle = self._io.in_flight < 3
        query.concurrency = CONCURRENCY if is_idle else BACKGROUND_CONCURRENCY

    def refresh(self) -> None:
        """Look around a known node in the background; one at a time."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = self._spawn(self._refresh)

    async def _refresh(self) -> None:
        target: bytes = self._io.table.id
        if len(self.table):
            index = self._env.random.randbelow(len(self.table))
            target = self.table.at(index).id
        async with self._background_query(target) as query:
            async for _ in query:
                self._pace(query)

    # What comes in

    def _request_received(self, request: IncomingRequest) -> None:
        if request.id is not None:
            self._neighbours.heard_from(
                request.id, request.from_address, request.to, not request.is_external
            )
        elif self._is_first_node and self._is_forced:
            self._learn_as_first_node(request)
        if request.is_internal:
            is_known = self._internal.handle(request)
        else:
            is_known = self._on_request(request)
        if not is_known:
            request.error(ErrorCode.UNKNOWN_COMMAND)

    def _learn_as_first_node(self, request: IncomingRequest) -> None:
        if self._public_host is not None or self._host != _WILDCARD:
            return
        if self._io.is_firewalled or request.socket is not self._io.server_socket:
            return
        if self._reachability.sample_of_first_node(request.from_address, request.to):
            nat = self._reachability.nat
            if nat.host is not None and nat.port:
                address = Address(nat.host, nat.port)
                self._reachability.settle(address, is_ephemeral=False)

    def _response_received(self, response: Response) -> None:
        is_external = response.is_on_server_socket == self._io.is_firewalled
        sender = response.from_address
        if response.id is None:
            self._reachability.sample_without_id(sender, response.to)
        else:
            self._neighbours.heard_from(
                response.id, sender, response.to, not is_external
            )

    def _request_timed_out(self, pending: PendingRequest) -> None:
        if pending.to_id is not None:
            self._neighbours.timed_out(pending.to_id)

    # In the background

    async def _become_persistent(self) -> None:
        if await self._reachability.update(only_firewall=False):
            self.refresh()

    def _network_changed(self) -> None:
        """Tell it once for all that this turn of the loop changes."""
        if not self._is_telling:
            self._is_telling = True
            self._env.clock.call_soon(self._tell_network_update)

    def _tell_network_update(self) -> None:
        self._is_telling = False
        if not self._is_closed:
            self._on_network_update()

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run in the background until `close`; failures are logged."""

        async def run() -> None:
            try:
                await work()
            except NetError as error:
                logger.debug("background work of the DHT node failed: %s", error)
            except Exception:
                logger.exception("background work of the DHT node failed")

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _unknown(_: IncomingRequest) -> bool:
    return False


def _nothing() -> None:
    pass
