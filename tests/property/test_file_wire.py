"""Any bytes on `peerchat/file`: parsed or refused, at both ends, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peerchat.net.errors import DecodeError
from peerchat.services.models import file_wire as wire
from peerchat.services.models.file_peer import FilePeer, PeerFailed
from peerchat.services.models.file_server import FileServer
from peerchat.services.models.shelf import Shelf
from peerchat.services.models.store import ModelStore, is_name

KEY = b"k" * 32
hashes = st.binary(min_size=32, max_size=32)
offers = st.builds(
    wire.Offer,
    st.text(max_size=128),
    st.integers(1, wire.PIECES_MAX * wire.PIECE_BYTES),
    hashes,
    hashes,
)
indices = st.integers(0, wire.PIECES_MAX - 1)
bodies = st.one_of(
    st.just(wire.ListBody()),
    st.builds(wire.OffersBody, st.lists(offers, max_size=5)),
    st.builds(wire.HashesBody, hashes, indices, st.integers(1, 1024)),
    st.builds(wire.HashPageBody, st.binary(max_size=96)),
    st.builds(wire.PieceBody, hashes, indices),
    st.builds(
        wire.DataBody,
        st.integers(0, wire.PIECE_BYTES - 1),
        st.binary(min_size=1, max_size=100),
    ),
    st.builds(wire.ErrorBody, st.text(max_size=300)),
)
messages = st.one_of(
    st.binary(max_size=200), st.builds(wire.encode, st.integers(0, 9), bodies)
)
traffic = st.lists(st.tuples(st.integers(0, 8), messages), max_size=30)


class Channel:
    """One end alone; what it sends is kept."""

    def __init__(self, **calls: Callable[..., None]) -> None:
        self.calls = calls
        self.sent: list[tuple[int, bytes]] = []
        self.is_closed = False

    def open(self, _handshake: bytes = b"") -> None:
        self.calls["on_open"](wire.encode_handshake())

    def send(self, kind: int, payload: bytes) -> bool:
        self.sent.append((kind, payload))
        return True

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.calls["on_close"](False)


class Fake:
    """Session, connection and Protomux in one."""

    def __init__(self) -> None:
        self.public_key = self.remote_public_key = KEY
        self.connection = self.mux = self
        self.channel: Channel | None = None
        self.notify: Callable[[bytes], None] = lambda _id: None

    def create_channel(self, _protocol: str, _id: bytes, **calls) -> Channel:
        self.channel = Channel(**calls)
        return self.channel

    def pair(self, _protocol: str, _id: bytes, notify) -> None:
        self.notify = notify

    async def drain(self) -> None:
        pass


@given(bodies, st.integers(0, 2**53))
def test_what_is_sent_is_read(body: wire.Body, number: int) -> None:
    got, data = wire.decode_number_untrusted(wire.encode(number, body))
    assert got == number
    assert wire.decode_untrusted(data, type(body)) == body


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_plainly(data: bytes) -> None:
    for kind in wire.Body.__subclasses__():
        try:
            wire.decode_untrusted(data, kind)
        except DecodeError:
            continue
    for decode in (wire.decode_number_untrusted, wire.check_handshake_untrusted):
        try:
            decode(data)
        except DecodeError:
            continue


@given(st.lists(offers, max_size=8))
def test_names_can_be_those_of_files(given_: list[wire.Offer]) -> None:
    _, data = wire.decode_number_untrusted(wire.encode(1, wire.OffersBody(given_)))
    for offer in wire.decode_offers_untrusted(data):
        assert is_name(offer.name)
        assert not set(offer.name) & set("/\\\0:")
        assert not offer.name.startswith(".")
        assert 0 < offer.piece_bytes(offer.pieces - 1) <= wire.PIECE_BYTES


@pytest.mark.parametrize("size", [1, wire.PIECE_BYTES, wire.PIECE_BYTES + 1])
def test_pieces_make_up_the_file(size: int) -> None:
    offer = wire.Offer("a", size, KEY, KEY)
    assert sum(offer.piece_bytes(index) for index in range(offer.pieces)) == size


@settings(max_examples=200)
@given(traffic, st.integers(1, 3 * wire.PIECE_BYTES))
def test_whatever_a_giver_sends_the_asker_stays_within_bounds(
    heard: list[tuple[int, bytes]], size: int
) -> None:
    async def run() -> None:
        fake = Fake()
        peer = FilePeer(fake)
        await peer.open()
        offer = wire.Offer("a", size, KEY, KEY)
        listing = peer._ask(wire.MessageType.LIST, wire.ListBody(), 0)
        asked = [peer.ask_piece(offer, index) for index in range(offer.pieces)]
        assert fake.channel is not None
        for kind, payload in heard:
            if not fake.channel.is_closed:
                fake.channel.calls["on_message"](kind, payload)
            for one in peer._asked.values():
                assert len(one.data) <= one.size_bytes
        for index, one in enumerate(asked):
            if one.done() and one.exception() is None:
                assert len(one.result()) == offer.piece_bytes(index)
            elif one.done():
                assert isinstance(one.exception(), PeerFailed)
        assert listing.done() or not fake.channel.is_closed

    asyncio.run(run())


@settings(max_examples=200)
@given(traffic)
def test_whatever_an_asker_sends_the_giver_stays_within_bounds(
    tmp_path_factory: pytest.TempPathFactory, heard: list[tuple[int, bytes]]
) -> None:
    async def run() -> None:
        store = ModelStore(tmp_path_factory.getbasetemp() / "no-such-folder")
        server = FileServer(Shelf(store.files, store))
        fake = Fake()
        server.attach(fake)
        fake.notify(KEY)
        assert fake.channel is not None
        for kind, payload in heard:
            fake.channel.calls["on_message"](kind, payload)
            for one in server.channels:
                assert len(one._requests) <= wire.REQUESTS_MAX
        for _ in range(3):
            await asyncio.sleep(0)
        for kind, payload in fake.channel.sent:
            assert kind in (wire.MessageType.OFFERS, wire.MessageType.ERROR)
            assert len(payload) <= wire.MESSAGE_BYTES_MAX
        await server.close()
        assert server.channels == set()

    asyncio.run(run())
