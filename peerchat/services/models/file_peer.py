"""The asking end of ``peerchat/file``: one peer that gives files.

What comes is bounded by what was asked for: an answer that nobody waits for, that is
too long or out of order breaks the channel. Whether a piece is right is for
`peerchat.services.models.pull_peers` to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from peerchat.api import Role
from peerchat.net.errors import ConnectionLost, DecodeError, NetError, RpcRemoteError
from peerchat.net.identity import PublicKey
from peerchat.net.rpc.session import RpcSession
from peerchat.sanitize import display_line

from .file_wire import (
    HASH_BYTES,
    PAGE_HASHES_MAX,
    PROTOCOL,
    Body,
    DataBody,
    ErrorBody,
    HashesBody,
    HashPageBody,
    ListBody,
    MessageType,
    Offer,
    PieceBody,
    check_handshake_untrusted,
    decode_number_untrusted,
    decode_offers_untrusted,
    decode_untrusted,
    encode,
    encode_handshake,
    root_of,
)

CONNECT_TIMEOUT_S = 5.0
OPEN_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
"""For a piece or a list, from when it is waited for: below 18 KiB/s nobody wants it."""

SILENCE_S = 1.0
"""A peer that says nothing for so long is asked whether it is there: its connection is
given up much later."""

PING_TIMEOUT_S = 2.0
"""A processor looks at its engine before it answers."""


class PeerFailed(Exception):
    """A peer that gives files cannot go on; its text is one line, without its name."""


class Lies(PeerFailed):
    """A peer sent what it must not; it is asked no more."""


class FilesSwarm(Protocol):
    """What is needed of the `Swarm`."""

    async def session(self, key: PublicKey, *, role: Role) -> RpcSession: ...


@dataclass(slots=True)
class _Asked:
    """A request whose answer is on its way."""

    kind: MessageType
    size_bytes: int
    answer: asyncio.Future[bytes]
    data: bytearray = field(default_factory=bytearray)


@asynccontextmanager
async def open_peer(
    swarm: FilesSwarm, key: PublicKey
) -> AsyncGenerator[FilePeer, None]:
    """The channel to a certified processor; raises `PeerFailed` when it gives none."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            session = await swarm.session(key, role=Role.PROCESSOR)
    except (NetError, TimeoutError):
        raise PeerFailed("cannot be reached") from None
    peer = FilePeer(session)
    try:
        await peer.open()
        yield peer
    finally:
        peer.close()
        session.release()


class FilePeer:
    """Requests to one peer; every failure is `PeerFailed`."""

    def __init__(self, session: RpcSession) -> None:
        connection = session.connection
        self._session = session
        self._asked: dict[int, _Asked] = {}
        self._newest = 0
        self._failure: PeerFailed | None = None
        self._is_open = asyncio.Event()
        self._channel = connection.mux.create_channel(
            PROTOCOL,
            bytes(connection.remote_public_key),
            on_open=self._on_open,
            on_message=self._on_message,
            on_close=lambda _is_remote: self._fail(PeerFailed("was lost")),
        )

    async def open(self) -> None:
        """Wait for the peer to open its end."""
        if self._channel is None:
            raise PeerFailed("is asked already")
        self._channel.open(encode_handshake())
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._is_open.wait()
        except TimeoutError:
            raise PeerFailed("gives no files") from None
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Ask no more."""
        if self._channel is not None and not self._channel.is_closed:
            self._channel.close()

    async def offers(self) -> list[Offer]:
        """What it gives; only names that can be files of a store."""
        data = await self.wait(self._ask(MessageType.LIST, ListBody(), 0))
        return decode_offers_untrusted(data)

    async def hashes(self, offer: Offer) -> list[bytes]:
        """The hashes of all pieces, which fit the root."""
        found: list[bytes] = []
        while len(found) < offer.pieces:
            count = min(PAGE_HASHES_MAX, offer.pieces - len(found))
            body = HashesBody(offer.root, len(found), count)
            asked = self._ask(MessageType.HASHES, body, count * HASH_BYTES)
            page = await self.wait(asked)
            found += [page[at : at + HASH_BYTES] for at in range(0, len(page), 32)]
        if root_of(offer.size_bytes, found) != offer.root:
            raise Lies("sent hashes that are not those of the file")
        return found

    def ask_piece(self, offer: Offer, index: int) -> asyncio.Future[bytes]:
        """Ask for a piece; `wait` for it."""
        body = PieceBody(offer.root, index)
        return self._ask(MessageType.PIECE, body, offer.piece_bytes(index))

    async def wait(self, answer: asyncio.Future[bytes]) -> bytes:
        """An answer, in time, from a peer that is there."""
        connection = self._session.connection
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while not answer.done():
                    heard = connection.times_heard
                    await asyncio.wait((answer,), timeout=SILENCE_S)
                    if connection.times_heard == heard and not answer.done():
                        await self._look_whether_it_is_there()
        except TimeoutError:
            raise PeerFailed("is too slow") from None
        return answer.result()

    async def _look_whether_it_is_there(self) -> None:
        connection = self._session.connection
        heard = connection.times_heard
        try:
            await self._session.request("ping", b"", timeout_s=PING_TIMEOUT_S)
        except RpcRemoteError:
            return  # it is, and says what it does not like
        except NetError:
            if connection.times_heard > heard:
                return  # on a slow way the reply stands behind pieces
            # Whoever tries it again is to connect anew.
            connection.destroy(ConnectionLost("the peer is silent"))
            raise PeerFailed("does not answer any more") from None

    def _ask(self, kind: MessageType, body: Body, size: int) -> asyncio.Future[bytes]:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        # Several may fail at once, and only the first one is waited for.
        answer.add_done_callback(lambda one: one.cancelled() or one.exception())
        if self._failure is not None or self._channel is None:
            answer.set_exception(self._failure or PeerFailed("was lost"))
            return answer
        self._newest += 1
        self._asked[self._newest] = _Asked(kind, size, answer)
        self._channel.send(kind, encode(self._newest, body))
        return answer

    def _on_open(self, handshake: bytes) -> None:
        try:
            check_handshake_untrusted(handshake)
        except DecodeError as error:
            self._break(error)
        self._is_open.set()

    def _fail(self, failure: PeerFailed) -> None:
        if self._failure is None:
            is_new = not self._is_open.is_set()
            self._failure = PeerFailed("gives no files") if is_new else failure
        self._is_open.set()
        asked, self._asked = self._asked, {}
        for one in asked.values():
            if not one.answer.done():
                one.answer.set_exception(self._failure)

    def _break(self, error: DecodeError) -> None:
        self._is_open.set()
        self._fail(Lies(f"does not keep to the protocol ({display_line(str(error))})"))
        self.close()

    def _on_message(self, kind: int, payload: bytes) -> None:
        try:
            self._take_untrusted(kind, payload)
        except DecodeError as error:
            self._break(error)

    def _take_untrusted(self, kind: int, payload: bytes) -> None:
        if kind not in (
            MessageType.OFFERS,
            MessageType.HASH_PAGE,
            MessageType.DATA,
            MessageType.ERROR,
        ):
            return  # of a later version
        number, data = decode_number_untrusted(payload)
        if kind == MessageType.ERROR:
            said = display_line(decode_untrusted(data, ErrorBody).message)
            self._fail(PeerFailed(said or "failed"))
            return
        asked = self._asked.get(number)
        if asked is None or kind != asked.kind + 1:
            raise DecodeError("an answer that nobody asked for")
        self._take_answer(asked, data)
        if asked.answer.done():
            del self._asked[number]

    def _take_answer(self, asked: _Asked, data: bytes) -> None:
        if asked.kind == MessageType.LIST:
            decode_offers_untrusted(data)
            whole = data
        elif asked.kind == MessageType.HASHES:
            whole = decode_untrusted(data, HashPageBody).hashes
            if len(whole) != asked.size_bytes:
                raise DecodeError("a page of another length")
        else:
            part = decode_untrusted(data, DataBody)
            is_next = part.offset == len(asked.data)
            if not is_next or part.offset + len(part.data) > asked.size_bytes:
                raise DecodeError("a part of a piece that does not fit")
            asked.data += part.data
            if len(asked.data) < asked.size_bytes:
                return
            whole = bytes(asked.data)
        if not asked.answer.done():
            asked.answer.set_result(whole)
