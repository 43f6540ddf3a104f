"""The swarm record in the DHT: fetching the newest one, and keeping it alive.

The root key signs a head (a mutable value); what does not fit in it are chunks
(immutable values). Any member can put both again. What the record says is
`peerchat.trust.record`'s, what follows from it `services.trust`'s.
"""

from __future__ import annotations

import asyncio

from peerchat.net.errors import DecodeError
from peerchat.net.hyperdht.mutable import MutableRecord
from peerchat.net.identity import PublicKey, Target
from peerchat.trust.blob import Joiner, split
from peerchat.trust.record import RecordBody, decode_body_untrusted

from .dht_face import Dht
from .membership import StoredRecord

CHUNKS_AT_ONCE = 8
"""Each is a query of some twenty nodes."""


class ChunksMissing(Exception):
    """The head is there, and not all of the body; a later try may find it."""


class RecordSource:
    """One swarm's record, as a member reads it.

    Args:
        dht: started.
        root: the swarm's root key.
        record_key: opens the body.
    """

    def __init__(self, dht: Dht, root: PublicKey, record_key: bytes) -> None:
        self._dht = dht
        self._root = root
        self._record_key = record_key

    async def newest_head(self) -> MutableRecord | None:
        """The newest version that the DHT knows, signed by the root; None: none.

        Raises:
            DhtUnreachable: no node answers.
        """
        return await self._dht.mutable_get(self._root)

    async def fetch(self, head: MutableRecord) -> StoredRecord:
        """The record with its body.

        Raises:
            DecodeError: the owner published what cannot be read.
            ChunksMissing: some of it is not to be had now.
            DhtUnreachable: no node answers.
        """
        joiner = Joiner(head.value, self._record_key)
        while not joiner.is_complete:
            for chunk in await self._get_chunks(joiner.wanted):
                joiner.feed_untrusted(chunk)
        body = joiner.body_untrusted()
        return StoredRecord(head.seq, head.value, head.signature, body)

    def read_untrusted(self, record: StoredRecord) -> RecordBody:
        """What a kept record says, once its signature and its body are proven.

        Raises:
            DecodeError: it is not this swarm's, or damaged.
        """
        if not _head(record).is_signed_by(self._root):
            raise DecodeError("the swarm record is not signed by the swarm's root")
        if split(record.body, self._record_key).head != record.value:
            raise DecodeError("the swarm record's body is another one's")
        return decode_body_untrusted(record.body)

    async def put(self, record: StoredRecord) -> None:
        """Have the DHT keep it for two more days.

        Raises:
            NetError: nobody took it, or a newer one is there.
        """
        for chunk in split(record.body, self._record_key).chunks:
            await self._dht.immutable_put(chunk)
        await self._dht.mutable_put_signed(self._root, _head(record))

    async def _get_chunks(self, wanted: tuple[Target, ...]) -> list[bytes]:
        room = asyncio.Semaphore(CHUNKS_AT_ONCE)

        async def get(target: Target) -> bytes | None:
            async with room:
                return await self._dht.immutable_get(target)

        found = await asyncio.gather(*(get(target) for target in wanted))
        chunks = [chunk for chunk in found if chunk is not None]
        if len(chunks) < len(wanted):
            raise ChunksMissing(f"{len(wanted) - len(chunks)} chunks are missing")
        return chunks


def _head(record: StoredRecord) -> MutableRecord:
    return MutableRecord(record.seq, record.value, record.signature)
