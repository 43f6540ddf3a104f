"""Puts and gets of mutable and immutable records on the nodes of the DHT.

A put finds the nodes closest to the record's target by gets, which bring tokens, and
writes to them. Nothing is believed that the target or the owner's key does not prove.
Source: hyperdht/index.js `mutablePut` and its neighbours; docs/PROTOCOL.md section 5.8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from peerchat.net.crypto.primitives import KeyPair, hash_target
from peerchat.net.dht.messages import ErrorCode
from peerchat.net.dht.node import DhtNode
from peerchat.net.dht.pending import Response
from peerchat.net.dht.table import K
from peerchat.net.encoding import encode_uint
from peerchat.net.env import Clock
from peerchat.net.errors import (
    DecodeError,
    DhtUnreachable,
    LocalProtocolError,
    NetError,
    RecordRefused,
    SeqTooLow,
)
from peerchat.net.identity import PublicKey, Target

from .constants import Command, PutError
from .mutable import (
    MutablePut,
    MutableRecord,
    check_value,
    decode_mutable_record_untrusted,
    refusal,
    sign_mutable,
)
from .record_store import RecordStore


@dataclass(frozen=True, slots=True)
class MutablePutResult:
    """A version that at least one node stored."""

    seq: int
    signature: bytes
    stored: int
    """Nodes that keep it now: 20 in a large network."""
    refused: int = 0
    """Nodes that keep a later version, or another one with this seq; if there are any,
    readers get theirs."""


@dataclass(slots=True)
class _Put:
    """One record on its way to the nodes closest to its target."""

    target: Target
    get: Command
    get_value: bytes | None
    put: Command
    value: bytes
    seq: int = 0
    """For messages."""
    stored: int = 0
    refusals: list[RecordRefused] = field(default_factory=list)


class Storage:
    """Records in the DHT, as one node reads and writes them.

    Args:
        clock: ages what this node keeps for others.
        node: asks the others.
        is_first: this node began the network, and stores even while nobody else does.
    """

    def __init__(self, clock: Clock, node: DhtNode, *, is_first: bool) -> None:
        self.store = RecordStore(clock)
        self._node = node
        self._is_first = is_first

    async def immutable_put(self, value: bytes) -> Target:
        """Store a value under its hash; nodes keep it for about two days.

        Returns:
            What `immutable_get` finds it by.

        Raises:
            LocalProtocolError: it is longer than `RECORD_VALUE_BYTES_MAX`.
            DhtUnreachable: there is no node to store it.
            NetError: none of the nodes took it.
        """
        check_value(value)
        target = hash_target(value)
        put = _Put(target, Command.IMMUTABLE_GET, None, Command.IMMUTABLE_PUT, value)

        def keep() -> None:
            self.store.put_immutable(target, value)

        await self._run(put, keep)
        return target

    async def immutable_get(self, target: Target) -> bytes | None:
        """The value that hashes to ``target``; None when nobody has it.

        Raises:
            DhtUnreachable: no DHT node answers.
        """
        own = self.store.immutable(target)
        if own is not None:
            return own
        async with self._node.query(Command.IMMUTABLE_GET, target) as query:
            async for reply in query:
                if reply.value is not None and hash_target(reply.value) == target:
                    return reply.value
        return None

    async def mutable_put(
        self, key_pair: KeyPair, value: bytes, seq: int = 0
    ) -> MutablePutResult:
        """Store a version under a key of ours; nodes keep it for about two days.

        Args:
            key_pair: the owner's.
            value: at most `RECORD_VALUE_BYTES_MAX` bytes.
            seq: above that of any other version; the same version may be put again.

        Raises:
            LocalProtocolError: the value is too long or the seq out of range.
            SeqTooLow: no node took it, because later versions are there.
            SeqReused: no node took it, because of another value with this seq.
            DhtUnreachable: there is no node to store it.
            NetError: none of the nodes took it.
        """
        return await self._put_mutable(
            key_pair.public_key, sign_mutable(key_pair, value, seq)
        )

    async def mutable_put_signed(
        self, public_key: PublicKey, record: MutableRecord
    ) -> MutablePutResult:
        """Store again what another key's holder signed, so that it lasts longer.

        Raises:
            LocalProtocolError: that key did not sign it, or it is too long.
            SeqTooLow, SeqReused, DhtUnreachable, NetError: as `mutable_put`.
        """
        check_value(record.value)
        if not record.is_signed_by(public_key):
            raise LocalProtocolError("the record is not signed by the key's holder")
        return await self._put_mutable(public_key, record)

    async def _put_mutable(
        self, public_key: PublicKey, record: MutableRecord
    ) -> MutablePutResult:
        target = hash_target(public_key)
        put = _Put(
            target,
            Command.MUTABLE_GET,
            encode_uint(0),
            Command.MUTABLE_PUT,
            MutablePut(public_key, record).encode(),
            record.seq,
        )

        def keep() -> None:
            error = self.store.put_mutable(target, record)
            if error is not None:
                raise refusal(error, "this node", record.seq)

        await self._run(put, keep)
        return MutablePutResult(
            record.seq, record.signature, put.stored, len(put.refusals)
        )

    async def mutable_get(
        self, public_key: PublicKey, seq: int = 0, latest: bool = True
    ) -> MutableRecord | None:
        """What a key's holder stored, signature checked; None when nobody has it.

        Args:
            public_key: the owner's.
            seq: versions before this one are not wanted.
            latest: hear all nodes and give the highest seq; False gives the first
                valid version that comes.

        Raises:
            DhtUnreachable: no DHT node answers.
        """
        target = hash_target(public_key)
        best = self.store.mutable(target)
        if best is not None and best.seq < seq:
            best = None
        if best is not None and not latest:
            return best
        wanted = encode_uint(seq)
        async with self._node.query(Command.MUTABLE_GET, target, wanted) as query:
            async for reply in query:
                seq_min = seq if best is None else best.seq + 1
                record = _valid_record(reply, public_key, seq_min)
                if record is not None and not latest:
                    return record
                best = record or best
        return best

    async def _run(self, put: _Put, keep: Callable[[], None]) -> None:
        """Write to the closest nodes, of which this may be one.

        Args:
            put: what to write; its counts are filled in.
            keep: stores at home.

        Raises:
            NetError: nobody stored it.
        """

        async def commit(reply: Response) -> None:
            try:
                await self._put_at(reply, put)
            except RecordRefused as error:
                put.refusals.append(error)
                raise

        failure: NetError = DhtUnreachable("there is no DHT node to store the record")
        query = self._node.query(put.get, put.target, put.get_value, commit=commit)
        try:
            await query.finished()
        except NetError as error:
            failure = error
        put.stored = query.committed
        is_storing = self._is_first or not self._node.is_ephemeral
        if is_storing and len(query.closest_replies) < K:
            # Every node there is stores it, and this is one, or will be with the next.
            try:
                keep()
                put.stored += 1
            except RecordRefused as error:
                put.refusals.append(error)
        if not put.stored:
            raise _worst(put.refusals) or failure

    async def _put_at(self, reply: Response, put: _Put) -> None:
        token = reply.token
        for _ in range(2):
            if token is None:
                raise NetError(f"{reply.from_address} gives no token to write with")
            answer = await self._node.request(
                reply.from_address,
                put.put,
                target=put.target,
                token=token,
                value=put.value,
            )
            if answer.error != ErrorCode.INVALID_TOKEN:
                break
            # The query took longer than its first tokens live; here is a new one.
            token = answer.token
        who = str(reply.from_address)
        if answer.error in (PutError.SEQ_REUSED, PutError.SEQ_TOO_LOW):
            raise refusal(PutError(answer.error), who, put.seq)
        if answer.error:
            raise NetError(f"{who} refused with error {answer.error}")


def _valid_record(
    reply: Response, public_key: PublicKey, seq_min: int
) -> MutableRecord | None:
    """The version in a reply if it is one that is wanted and its owner's."""
    if reply.value is None:
        return None
    try:
        record = decode_mutable_record_untrusted(reply.value)
    except DecodeError:
        return None
    is_wanted = record.seq >= seq_min
    return record if is_wanted and record.is_signed_by(public_key) else None


def _worst(refusals: list[RecordRefused]) -> RecordRefused | None:
    """The refusal that asks most of the caller: a seq above what others wrote."""
    for error in refusals:
        if isinstance(error, SeqTooLow):
            return error
    return refusals[0] if refusals else None
