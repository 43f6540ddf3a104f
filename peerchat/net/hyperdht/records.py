"""Signed writes to one DHT node, and the token dance around them.

Source: hyperdht/index.js `_requestAnnounce`, `_requestUnannounce`;
docs/PROTOCOL.md section 5.3.
"""

from __future__ import annotations

from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.dht.messages import ErrorCode
from peerchat.net.dht.node import DhtNode
from peerchat.net.dht.pending import RETRIES, Response
from peerchat.net.errors import NetError
from peerchat.net.identity import Address, NodeId, Target

from .constants import Command
from .messages import Announce, PeerRecord
from .signatures import signed_announce

UNANNOUNCE_RETRIES = 1
"""Withdrawing is a courtesy: a closing program does not wait 8 s for a dead node."""


async def announce_at(
    node: DhtNode, reply: Response, target: Target, key_pair: KeyPair, item: Announce
) -> Response:
    """Have the node that gave ``reply`` store ``item``.

    Raises:
        NetError: it did not; says why.
    """
    return await _write(node, Command.ANNOUNCE, reply, target, key_pair, item, RETRIES)


async def unannounce_at(
    node: DhtNode, reply: Response, target: Target, key_pair: KeyPair
) -> None:
    """Have the node that gave ``reply`` forget what the key announced.

    Raises:
        NetError: it did not; says why.
    """
    item = Announce(PeerRecord(key_pair.public_key))
    command = Command.UNANNOUNCE
    await _write(node, command, reply, target, key_pair, item, UNANNOUNCE_RETRIES)


async def withdraw_from(
    node: DhtNode, address: Address, target: Target, key_pair: KeyPair
) -> None:
    """Ask one node whether it still knows the server, and have it forget.

    Raises:
        NetError: the node did not answer.
    """
    reply = await node.request(
        address, Command.FIND_PEER, target=target, retries=UNANNOUNCE_RETRIES
    )
    if reply.value and reply.token and reply.id:
        await unannounce_at(node, reply, target, key_pair)


async def _write(
    node: DhtNode,
    command: Command,
    reply: Response,
    target: Target,
    key_pair: KeyPair,
    item: Announce,
    retries: int,
) -> Response:
    node_id: NodeId | None = reply.id
    token = reply.token
    for _ in range(2):
        if token is None or node_id is None:
            raise NetError(f"{reply.from_address} gives no token to write with")
        signed = signed_announce(
            target,
            token,
            node_id,
            key_pair,
            item,
            is_removal=command is Command.UNANNOUNCE,
        )
        answer = await node.request(
            reply.from_address,
            command,
            target=target,
            token=token,
            value=signed.encode(),
            retries=retries,
        )
        if answer.error != ErrorCode.INVALID_TOKEN:
            break
        # The query took longer than its first tokens live; here is a new one.
        token = answer.token
    if answer.error:
        raise NetError(f"{reply.from_address} refused with error {answer.error}")
    return answer
