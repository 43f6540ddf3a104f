"""The two sockets of a node: requests out, answers matched, requests handed up.

The client socket sends requests while the node believes that it is firewalled, so
that its server socket stays one which nobody was written to from; then others can be
asked whether they reach it. Source: docs/PROTOCOL.md section 4; ``dht-rpc/lib/io.js``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from peerchat.net.env import Clock, Datagram, Datagrams, DatagramSocket, Env, Timer
from peerchat.net.errors import DhtUnreachable, NetError, RemoteProtocolError
from peerchat.net.identity import Address, NodeId, Target

from .messages import (
    RequestMessage,
    ResponseMessage,
    believed_id,
    decode_untrusted,
    encode_request,
    encode_response,
)
from .pending import RETRIES, TRY_TIMEOUT_S, PendingRequest, Response
from .request import IncomingRequest
from .table import Table
from .tokens import Tokens
from .window import CongestionWindow

logger = logging.getLogger(__name__)

DRAIN_INTERVAL_S = 0.75
DRAINS_PER_ROTATION = 10
"""Secrets of tokens rotate every 7.5 s."""

REQUESTS_MAX = 16_384
"""In flight at once: a quarter of the tids, so that a free one is found at once."""

PORTS_TRIED = 5
"""As the reference: the asked port and the four after it, then any."""

COMMANDS_COUNTED = 4


@dataclass(slots=True)
class RequestCounters:
    """What `io` did so far."""

    active: int = 0
    total: int = 0
    responses: int = 0
    timeouts: int = 0
    retries: int = 0
    malformed: int = 0
    """Datagrams that are not dht-rpc."""
    unmatched: int = 0
    """Answers to no request of ours, late ones and forged ones."""


def _ignore(_: object) -> None:
    """For callers that do not care about an outcome."""


class DhtIo:
    """Owns the sockets, the requests in flight, the tokens and the window."""

    def __init__(
        self,
        env: Env,
        table: Table,
        *,
        host: str,
        port: int,
        any_port: bool,
        datagrams: Datagrams,
        is_firewalled: bool,
        on_request: Callable[[IncomingRequest], None],
        on_response: Callable[[Response], None],
        on_timeout: Callable[[PendingRequest], None],
    ) -> None:
        self.table = table
        self.is_firewalled = is_firewalled
        self.is_ephemeral = True
        self.counters = RequestCounters()
        self.command_tx = [0] * COMMANDS_COUNTED
        self.command_rx = [0] * COMMANDS_COUNTED
        self.window = CongestionWindow()
        self.is_closed = False
        self._env = env
        self._host = host
        self._port = port
        self._any_port = any_port
        self._datagrams = datagrams
        self._on_request = on_request
        self._on_response = on_response
        self._on_timeout = on_timeout
        self._server: DatagramSocket | None = None
        self._client: DatagramSocket | None = None
        self._in_flight: dict[int, PendingRequest] = {}
        self._waiting: deque[PendingRequest] = deque()
        self._tokens = Tokens(env.random.token_bytes(64))
        self._drains = 0
        self._drain_timer: Timer | None = None

    @property
    def clock(self) -> Clock:
        return self._env.clock

    # Sockets

    @property
    def server_socket(self) -> DatagramSocket:
        if self._server is None:
            raise DhtUnreachable("the DHT node is not started")
        return self._server

    @property
    def client_socket(self) -> DatagramSocket:
        if self._client is None:
            raise DhtUnreachable("the DHT node is not started")
        return self._client

    @property
    def socket(self) -> DatagramSocket:
        """Where our requests leave from at present."""
        return self.client_socket if self.is_firewalled else self.server_socket

    async def bind(self) -> None:
        """Open both sockets; raises OSError when the asked port is taken."""
        self._server = await self._bind_server()
        try:
            self._client = await self._datagrams.bind(self._host, 0, self._receive)
        except BaseException:
            self._server.close()
            raise
        if self.is_closed:
            self._close_sockets()
            raise DhtUnreachable("the DHT node was closed")
        self._schedule_drain()

    async def _bind_server(self) -> DatagramSocket:
        last = self._port + PORTS_TRIED if self._port and self._any_port else 0
        for port in range(self._port, last):
            with contextlib.suppress(OSError):
                return await self._datagrams.bind(self._host, port, self._receive)
        port = 0 if self._any_port else self._port
        return await self._datagrams.bind(self._host, port, self._receive)

    def close(self) -> None:
        """Close the sockets and fail what is in flight; idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        self._waiting.clear()
        for pending in list(self._in_flight.values()):
            pending.fail(DhtUnreachable("the DHT node was closed"))
        self._close_sockets()

    def _close_sockets(self) -> None:
        for socket in (self._server, self._client):
            if socket is not None:
                socket.close()

    # Requests of ours

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def start_request(
        self,
        to: Address,
        command: int,
        *,
        is_internal: bool,
        target: Target | None = None,
        value: bytes | None = None,
        token: bytes | None = None,
        to_id: NodeId | None = None,
        retries: int = RETRIES,
        try_timeout_s: float = TRY_TIMEOUT_S,
        socket: DatagramSocket | None = None,
        force: bool = False,
        any_sender: bool = False,
        on_response: Callable[[Response], None] = _ignore,
        on_error: Callable[[NetError], None] = _ignore,
        on_slow: Callable[[], None] | None = None,
    ) -> PendingRequest:
        """Send a request and call back once; see `node.DhtNode.request`.

        Raises:
            DhtUnreachable: the node is closed, or has far too many requests open.
        """
        if self.is_closed:
            raise DhtUnreachable("the DHT node was closed")
        if len(self._in_flight) >= REQUESTS_MAX:
            raise DhtUnreachable(f"{REQUESTS_MAX} requests wait for answers already")
        socket = socket or self.socket
        message = RequestMessage(
            tid=self._free_tid(),
            to=to,
            command=command,
            is_internal=is_internal,
            token=token,
            target=target,
            value=value,
        )
        pending = PendingRequest(
            tid=message.tid,
            to=to,
            data=encode_request(self._with_own_id(message, socket)),
            socket=socket,
            clock=self._env.clock,
            transmit=self._transmit,
            on_response=on_response,
            on_error=on_error,
            on_finished=self._on_finished,
            on_timed_out=self._on_timed_out,
            on_slow=on_slow,
            to_id=to_id,
            retries=retries,
            try_timeout_s=try_timeout_s,
            is_any_sender_fine=any_sender,
            is_forced=force,
        )
        self._count_started(pending, command if is_internal else None)
        self._transmit(pending)
        return pending

    async def request(
        self,
        to: Address,
        command: int,
        *,
        is_internal: bool = False,
        target: Target | None = None,
        value: bytes | None = None,
        token: bytes | None = None,
        retries: int = RETRIES,
        try_timeout_s: float = TRY_TIMEOUT_S,
        socket: DatagramSocket | None = None,
        force: bool = False,
        any_sender: bool = False,
    ) -> Response:
        """Send a request and wait; see `node.DhtNode.request`."""
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def on_response(response: Response) -> None:
            if not answer.done():
                answer.set_result(response)

        def on_error(error: NetError) -> None:
            if not answer.done():
                answer.set_exception(error)

        pending = self.start_request(
            to,
            command,
            is_internal=is_internal,
            target=target,
            value=value,
            token=token,
            retries=retries,
            try_timeout_s=try_timeout_s,
            socket=socket,
            force=force,
            any_sender=any_sender,
            on_response=on_response,
            on_error=on_error,
        )
        try:
            return await answer
        finally:
            pending.cancel()

    def _free_tid(self) -> int:
        """A random tid: one that counts up would tell others our next ones."""
        while True:
            tid = self._env.random.randbelow(1 << 16)
            if tid not in self._in_flight:
                return tid

    def _count_started(self, pending: PendingRequest, internal: int | None) -> None:
        self._in_flight[pending.tid] = pending
        self.counters.active += 1
        self.counters.total += 1
        if internal is not None and internal < COMMANDS_COUNTED:
            self.command_tx[internal] += 1

    def _transmit(self, pending: PendingRequest) -> None:
        if pending.sent > 0:
            self.counters.retries += 1
        if self.window.is_full and not pending.is_forced:
            self._waiting.append(pending)
            return
        self.window.sent()
        pending.send_now()

    def _send_waiting(self) -> None:
        while self._waiting and not self.window.is_full:
            pending = self._waiting.popleft()
            if not pending.is_done:
                self.window.sent()
                pending.send_now()

    def _on_finished(self, pending: PendingRequest) -> None:
        if self._in_flight.get(pending.tid) is not pending:
            return
        del self._in_flight[pending.tid]
        self.counters.active -= 1
        if pending.sent > 0:
            self.window.received()
            self._send_waiting()

    def _on_timed_out(self, pending: PendingRequest) -> None:
        self.counters.timeouts += 1
        self._on_timeout(pending)

    def _schedule_drain(self) -> None:
        when_s = self._env.clock.now() + DRAIN_INTERVAL_S
        self._drain_timer = self._env.clock.call_at(when_s, self._drain)

    def _drain(self) -> None:
        self._drains += 1
        if self._drains % DRAINS_PER_ROTATION == 0:
            self._tokens.rotate()
        self.window.drain()
        self._send_waiting()
        self._schedule_drain()

    # Datagrams that arrive

    def _receive(self, socket: DatagramSocket, batch: Sequence[Datagram]) -> None:
        for data, sender in batch:
            if self.is_closed:
                return
            if len(data) >= 2 and sender[1]:
                self._receive_one(socket, data, Address(*sender))

    def _receive_one(
        self, socket: DatagramSocket, data: bytes, sender: Address
    ) -> None:
        try:
            message = decode_untrusted(data)
        except RemoteProtocolError:
            self.counters.malformed += 1
            return
        try:
            if isinstance(message, RequestMessage):
                self._receive_request(socket, message, sender)
            else:
                self._receive_response(socket, message, sender)
        except Exception:
            # One handler's bug must not take the rest of the batch with it.
            logger.exception("a dht-rpc datagram of %s could not be handled", sender)

    def _receive_request(
        self, socket: DatagramSocket, message: RequestMessage, sender: Address
    ) -> None:
        request = IncomingRequest(
            io=self,
            socket=socket,
            from_address=sender,
            id=believed_id(message.id, sender),
            message=message,
            is_external=socket is not self.socket,
        )
        token = message.token
        if token is not None and not self._tokens.is_valid(token, sender.host):
            request.refuse_token()
            return
        self._on_request(request)

    def _receive_response(
        self, socket: DatagramSocket, message: ResponseMessage, sender: Address
    ) -> None:
        pending = self._in_flight.get(message.tid)
        if pending is None or not pending.accepts(sender):
            self.counters.unmatched += 1
            return
        self.counters.responses += 1
        response = Response(
            from_address=sender,
            to=message.to,
            id=believed_id(message.id, sender),
            token=message.token,
            closer_nodes=message.closer_nodes,
            error=message.error,
            value=message.value,
            rtt_s=self._env.clock.now() - pending.first_sent_at_s,
            is_on_server_socket=socket is self._server,
        )
        self._on_response(response)
        pending.resolve(response)

    # What IncomingRequest needs

    def closest_addresses(self, target: Target) -> tuple[Address, ...]:
        return tuple(entry.address for entry in self.table.closest(target))

    def issue_token(self, host: str) -> bytes:
        return self._tokens.issue(host)

    def send_request(
        self, message: RequestMessage, socket: DatagramSocket, to: Address
    ) -> None:
        if not self.is_closed:
            socket.send(encode_request(self._with_own_id(message, socket)), to)

    def send_response(
        self, message: ResponseMessage, socket: DatagramSocket, to: Address
    ) -> None:
        if self.is_closed:
            return
        if self._may_show_id(socket):
            message = replace(message, id=self.table.id)
        socket.send(encode_response(message), to)

    def _with_own_id(
        self, message: RequestMessage, socket: DatagramSocket
    ) -> RequestMessage:
        if self._may_show_id(socket):
            return replace(message, id=self.table.id)
        return message

    def _may_show_id(self, socket: DatagramSocket) -> bool:
        return not self.is_ephemeral and socket is self._server
