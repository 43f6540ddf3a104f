"""A request that came in, with the ways to answer it.

Source: docs/PROTOCOL.md section 4; ``dht-rpc/lib/io.js`` class Request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from peerchat.net.env import DatagramSocket
from peerchat.net.identity import Address, NodeId, Target

from .messages import ErrorCode, RequestMessage, ResponseMessage


class Replier(Protocol):
    """What `IncomingRequest` needs of `io.DhtIo`."""

    def closest_addresses(self, target: Target) -> tuple[Address, ...]: ...

    def issue_token(self, host: str) -> bytes: ...

    def send_request(
        self, message: RequestMessage, socket: DatagramSocket, to: Address
    ) -> None: ...

    def send_response(
        self, message: ResponseMessage, socket: DatagramSocket, to: Address
    ) -> None: ...


@dataclass(slots=True, eq=False)
class IncomingRequest:
    """A request of another node; answered at most once by whoever handles it.

    Answers leave by the socket that received the request unless another is named.
    """

    io: Replier
    socket: DatagramSocket
    """Where it arrived."""
    from_address: Address
    id: NodeId | None
    """The sender's id if it claims one and its address proves it."""
    message: RequestMessage
    is_external: bool
    """It came to the socket that we do not send requests from at present."""

    @property
    def tid(self) -> int:
        return self.message.tid

    @property
    def to(self) -> Address:
        """Our own address as the sender wrote it; not to be trusted."""
        return self.message.to

    @property
    def command(self) -> int:
        return self.message.command

    @property
    def is_internal(self) -> bool:
        return self.message.is_internal

    @property
    def target(self) -> Target | None:
        return self.message.target

    @property
    def value(self) -> bytes | None:
        return self.message.value

    @property
    def token(self) -> bytes | None:
        """The token sent along; a bad one never gets here, so this one is valid."""
        return self.message.token

    @property
    def has_valid_token(self) -> bool:
        """The sender proved, within 15 s, that it receives at its host."""
        return self.message.token is not None

    def reply(
        self,
        value: bytes | None,
        *,
        closer_nodes: bool = True,
        token: bool = True,
        to: Address | None = None,
        socket: DatagramSocket | None = None,
    ) -> None:
        """Answer without error.

        Args:
            value: the command's own bytes, or None for no value.
            closer_nodes: add the nodes closest to the target, if it has one.
            token: issue a token to the receiver's host.
            to: who gets the answer, if not the sender; the tid stays.
            socket: where it leaves from, if not where the request arrived.
        """
        self._answer(0, value, closer_nodes, token, to, socket)

    def error(
        self,
        code: int,
        *,
        closer_nodes: bool = True,
        token: bool = False,
        to: Address | None = None,
        socket: DatagramSocket | None = None,
    ) -> None:
        """Answer with an error code above 0; see `reply`."""
        self._answer(code, None, closer_nodes, token, to, socket)

    def relay(
        self, value: bytes | None, to: Address, *, socket: DatagramSocket | None = None
    ) -> None:
        """Send the request on to another node with a new value and without token.

        The tid stays, so that whoever answers can answer the first sender.
        """
        message = RequestMessage(
            tid=self.tid,
            to=to,
            command=self.command,
            is_internal=self.is_internal,
            target=self.target,
            value=value,
        )
        self.io.send_request(message, socket or self.socket, to)

    def refuse_token(self) -> None:
        """Answer that the token is unknown, with one that is not."""
        self.error(ErrorCode.INVALID_TOKEN, token=True)

    def _answer(
        self,
        code: int,
        value: bytes | None,
        has_closer_nodes: bool,
        has_token: bool,
        to: Address | None,
        socket: DatagramSocket | None,
    ) -> None:
        to = to or self.from_address
        closer: tuple[Address, ...] = ()
        if has_closer_nodes and self.target is not None:
            closer = self.io.closest_addresses(self.target)
        message = ResponseMessage(
            tid=self.tid,
            to=to,
            token=self.io.issue_token(to.host) if has_token else None,
            closer_nodes=closer,
            error=code,
            value=value,
        )
        self.io.send_response(message, socket or self.socket, to)
