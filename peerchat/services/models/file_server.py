"""The serving end of ``peerchat/file``: gives pieces of the files on a `Shelf`.

A channel's requests wait in a short queue and are answered one after the other, each
message only once the connection has room, and all channels together no faster than
a limit: prompts come first.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from peerchat.net.driver.connection import Connection
from peerchat.net.errors import DecodeError, NetError
from peerchat.services.tasks import Tasks

from .file_wire import (
    DATA_BYTES_MAX,
    HASH_BYTES,
    PROTOCOL,
    REQUESTS_MAX,
    Body,
    DataBody,
    ErrorBody,
    HashesBody,
    HashPageBody,
    ListBody,
    MessageType,
    OffersBody,
    PieceBody,
    check_handshake_untrusted,
    decode_number_untrusted,
    decode_untrusted,
    encode,
    encode_handshake,
)
from .shelf import Shelf, Shelved, Stopped

CHANNELS_MAX = 16
"""Peers that are given files at once; each holds a piece in memory."""

RATE_BYTES_S = 64 * 1024 * 1024
"""All channels together: half of a gigabit is left to prompts."""

REFRESH_S = 15.0
DRAIN_TIMEOUT_S = 60.0
"""A peer that takes nothing for so long loses the channel."""

_REQUESTS: dict[int, type[Body]] = {
    MessageType.LIST: ListBody,
    MessageType.HASHES: HashesBody,
    MessageType.PIECE: PieceBody,
}

logger = logging.getLogger(__name__)


class FileServer:
    """Gives files on any number of admitted connections.

    Args:
        shelf: what is given.
        rate_bytes_s: of all channels together.
    """

    def __init__(self, shelf: Shelf, *, rate_bytes_s: float = RATE_BYTES_S) -> None:
        self.shelf = shelf
        self.channels: set[_Giving] = set()
        self.tasks = Tasks()
        self._rate_bytes_s = rate_bytes_s
        self._free_at_s = 0.0

    def start(self) -> None:
        """Hash what there is, and look again from time to time."""
        self.tasks.start(self._refresh())

    def attach(self, connection: Connection) -> None:
        """Let the peer open the channel from now on."""

        def notify(_id: bytes | None) -> None:
            _Giving(self, connection)

        connection.mux.pair(PROTOCOL, bytes(connection.public_key), notify)

    async def close(self) -> None:
        """Give no more; the connections are others' to close."""
        self.shelf.close()
        for one in list(self.channels):
            one.close()
        await self.tasks.close()

    async def pace(self, size: int) -> None:
        """Wait until so much may be sent."""
        now_s = asyncio.get_running_loop().time()
        wait_s = max(0.0, self._free_at_s - now_s)
        self._free_at_s = max(self._free_at_s, now_s) + size / self._rate_bytes_s
        if wait_s:
            await asyncio.sleep(wait_s)

    async def _refresh(self) -> None:
        try:
            while True:
                try:
                    await asyncio.to_thread(self.shelf.refresh)
                except OSError as error:
                    logger.warning("model files cannot be read: %s", error)
                await asyncio.sleep(REFRESH_S)
        except Stopped:
            return


class _Giving:
    """One peer's channel."""

    def __init__(self, server: FileServer, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._peer = bytes(connection.remote_public_key).hex()
        self._requests: deque[tuple[int, Body]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._channel = connection.mux.create_channel(
            PROTOCOL,
            bytes(connection.public_key),
            on_open=self._on_open,
            on_message=self._on_message,
            on_close=self._on_close,
        )
        if self._channel is not None:
            self._channel.open(encode_handshake())

    def close(self) -> None:
        if self._channel is not None and not self._channel.is_closed:
            self._channel.close()

    def _on_open(self, handshake: bytes) -> None:
        try:
            check_handshake_untrusted(handshake)
        except DecodeError as error:
            self._refuse(error)
            return
        if len(self._server.channels) >= CHANNELS_MAX:
            self._send(MessageType.ERROR, 0, ErrorBody("gives files to others already"))
            self.close()
            return
        self._server.channels.add(self)

    def _on_close(self, _is_remote: bool) -> None:
        self._server.channels.discard(self)
        self._requests.clear()
        if self._task is not None:
            self._task.cancel()

    def _on_message(self, kind: int, payload: bytes) -> None:
        expected = _REQUESTS.get(kind)
        if expected is None or self not in self._server.channels:
            return
        try:
            number, data = decode_number_untrusted(payload)
            body = decode_untrusted(data, expected)
            if len(self._requests) >= REQUESTS_MAX:
                raise DecodeError(f"more than {REQUESTS_MAX} requests at once")
        except DecodeError as error:
            self._refuse(error)
            return
        self._requests.append((number, body))
        if self._task is None or self._task.done():
            self._task = self._server.tasks.start(self._give())

    def _refuse(self, error: DecodeError) -> None:
        logger.warning("%s…: bad message on %s: %s", self._peer[:8], PROTOCOL, error)
        self.close()

    async def _give(self) -> None:
        """Answer what is queued; a request leaves the queue once it is answered."""
        try:
            while self._requests:
                number, body = self._requests[0]
                await self._answer(number, body)
                if self._requests:
                    self._requests.popleft()
        except (NetError, TimeoutError):
            self.close()

    async def _answer(self, number: int, body: Body) -> None:
        shelf = self._server.shelf
        if isinstance(body, ListBody):
            offers = OffersBody(shelf.offers())
            await self._put(MessageType.OFFERS, number, offers)
        elif isinstance(body, HashesBody | PieceBody):
            one = shelf.find(body.root)
            if one is None:
                self._fail(number, "has no such file any more")
            elif isinstance(body, HashesBody):
                begin = body.first * HASH_BYTES
                page = one.hashes[begin : begin + body.count * HASH_BYTES]
                await self._put(MessageType.HASH_PAGE, number, HashPageBody(page))
            else:
                await self._give_piece(number, one, body.index)

    async def _give_piece(self, number: int, one: Shelved, index: int) -> None:
        if index >= one.offer.pieces:
            self._fail(number, "has no such piece")
            return
        try:
            data = await asyncio.to_thread(self._server.shelf.read, one, index)
        except OSError as error:
            logger.warning("a piece of %s: %s", one.offer.name, error)
            self._fail(number, "cannot read the file any more")
            return
        for offset in range(0, len(data), DATA_BYTES_MAX):
            part = DataBody(offset, data[offset : offset + DATA_BYTES_MAX])
            await self._put(MessageType.DATA, number, part)

    def _fail(self, number: int, why: str) -> None:
        self._send(MessageType.ERROR, number, ErrorBody(why))

    async def _put(self, kind: MessageType, number: int, body: Body) -> None:
        payload = encode(number, body)
        await self._server.pace(len(payload))
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            await self._connection.drain()
        if self._channel is not None and not self._channel.is_closed:
            self._channel.send(kind, payload)

    def _send(self, kind: MessageType, number: int, body: Body) -> None:
        if self._channel is not None and not self._channel.is_closed:
            self._channel.send(kind, encode(number, body))
