"""Model files from peers: offers, pieces, resume, dead peers and hostile ones."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.net.driver.connection import Connection
from peerchat.net.errors import RequestTimeout
from peerchat.net.identity import PublicKey
from peerchat.net.rpc.session import RpcSession
from peerchat.services.identity import Identity
from peerchat.services.models import file_peer as peer_module
from peerchat.services.models import file_server as server_module
from peerchat.services.models import file_wire as wire
from peerchat.services.models import pull_peers as pull_module
from peerchat.services.models.file_peer import Lies, PeerFailed, open_peer
from peerchat.services.models.file_server import FileServer
from peerchat.services.models.file_wire import PIECE_BYTES, MessageType, Offer
from peerchat.services.models.pull import PullProgress
from peerchat.services.models.pull_peers import (
    PeerOffers,
    ask_offers,
    choose_offer,
    pull_from_peers,
)
from peerchat.services.models.shelf import Shelf
from peerchat.services.models.store import ModelStore
from peerchat.services.swarm import Swarm
from peerchat.testing.memory_network import MemoryNetwork
from tests.tiny_gguf import tiny_model
from tests.unit.test_gate import until
from tests.unit.trust_world import SERVING, PrivateWorld

HEAD = tiny_model().read_bytes()
MODEL = HEAD + bytes(range(251)) * ((5 * PIECE_BYTES - len(HEAD)) // 251 + 3)
PIECES = [MODEL[at : at + PIECE_BYTES] for at in range(0, len(MODEL), PIECE_BYTES)]
HASHES = [wire.hash_piece(piece) for piece in PIECES]
OFFER = Offer(
    "tiny",
    len(MODEL),
    hashlib.sha256(MODEL).digest(),
    wire.root_of(len(MODEL), HASHES),
)


async def ping(_body: bytes, _peer: str) -> object:
    return {"status": "healthy", "service": "processor"}


@dataclass
class Giver:
    """A processor that gives one file, and what it was asked."""

    swarm: Swarm
    store: ModelStore
    server: FileServer
    key: PublicKey
    read: list[int] = field(default_factory=list)

    def watch(self, on_read: Callable[[int], None] = lambda _index: None) -> None:
        whole = self.server.shelf.read

        def read(one, index: int) -> bytes:
            self.read.append(index)
            on_read(index)
            return whole(one, index)

        self.server.shelf.read = read  # type: ignore[method-assign]


class World:
    """Processors that give files in an open swarm, and one who wants them."""

    def __init__(self, folder: Path) -> None:
        self.network = MemoryNetwork("files")
        self.folder = folder
        self.store = ModelStore(folder / "mine")
        self.client = Swarm(self.network.node(), Identity(b"c" * 32))
        self.closing: list[Callable[[], object]] = [self.client.close]
        self.progress: list[int] = []
        self._numbers = itertools.count(1)

    async def giver(self, name: str = "tiny", data: bytes = MODEL) -> Giver:
        number = next(self._numbers)
        store = ModelStore(self.folder / f"theirs{number}")
        store.prepare()
        store.path(name).write_bytes(data)
        server = FileServer(Shelf(store.files, store))
        server.shelf.refresh()
        swarm, key = await self.processor(server.attach)
        self.closing.insert(0, server.close)
        giver = Giver(swarm, store, server, key)
        giver.watch()
        return giver

    async def processor(
        self,
        attach: Callable[[Connection], None] | None,
        ping: Callable[[bytes, str], Awaitable[object]] = ping,
    ) -> tuple[Swarm, PublicKey]:
        number = next(self._numbers)
        swarm = Swarm(self.network.node(), Identity(bytes([number]) * 32))
        if attach is not None:
            swarm.attach_members(Role.PROCESSOR, attach)
        service = await swarm.serve(Role.PROCESSOR, {"ping": ping})
        self.closing.insert(0, swarm.close)
        return swarm, service.public_key

    async def pull(self, *keys: PublicKey, offer: Offer = OFFER, **more: object):
        def tell(progress: PullProgress) -> None:
            self.progress.append(progress.completed)

        more.setdefault("on_progress", tell)
        return await pull_from_peers(self.store, self.client, offer, keys, **more)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    for close in made.closing:
        await close()  # type: ignore[misc]


# What is given


async def test_a_peer_lists_what_it_gives(world: World) -> None:
    giver = await world.giver()
    told = await ask_offers(world.client, [giver.key])
    assert told == [PeerOffers(giver.key, (OFFER,))]


async def test_hashes_are_made_once(world: World) -> None:
    giver = await world.giver()
    kept = giver.store.hashes_path("tiny")
    before = kept.stat().st_mtime_ns
    again = Shelf(giver.store.files, giver.store)
    again.refresh()
    assert again.offers() == [OFFER]
    assert kept.stat().st_mtime_ns == before
    giver.store.remove("tiny")
    assert not kept.exists()
    again.refresh()
    assert again.offers() == []


async def test_only_what_the_owner_offers_and_what_is_a_model_is_given(
    tmp_path: Path,
) -> None:
    store = ModelStore(tmp_path)
    for name in ("yes", "no"):
        (tmp_path / f"{name}.gguf").write_bytes(MODEL)
    (tmp_path / "secret.gguf").write_bytes(b"-----BEGIN PRIVATE KEY-----")
    (tmp_path / "half.gguf.part").write_bytes(MODEL)
    shelf = Shelf(store.files, store, lambda name: name != "no")
    shelf.refresh()
    assert [offer.name for offer in shelf.offers()] == ["yes"]


async def test_a_file_that_changed_is_not_given(world: World) -> None:
    giver = await world.giver()
    path = giver.store.path("tiny")
    path.write_bytes(MODEL[:-1] + b"x")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ApiError, match="cannot read the file any more"):
        await world.pull(giver.key)


# Pulling


async def test_a_file_is_pulled_whole(world: World) -> None:
    giver = await world.giver()
    pulled = await world.pull(giver.key)
    assert pulled.path.read_bytes() == MODEL
    assert pulled.sha256 == OFFER.sha256.hex()
    assert world.store.files() == {"tiny": pulled.path}
    assert giver.read == list(range(len(PIECES)))
    assert world.progress[0] == 0
    assert world.progress[-1] == len(MODEL)


async def test_it_may_be_called_otherwise_here(world: World) -> None:
    giver = await world.giver()
    assert (await world.pull(giver.key, name="mine")).name == "mine"
    assert set(world.store.files()) == {"mine"}


@pytest.mark.parametrize(
    ("part", "first"),
    [
        (MODEL[: 2 * PIECE_BYTES], 2),
        (MODEL[: 2 * PIECE_BYTES + 77], 2),
        (PIECES[0] + b"x" * PIECE_BYTES + PIECES[2], 1),
        (b"another file" * 1000, 0),
        (MODEL + b"more", len(PIECES)),
    ],
    ids=["two", "two-and-a-bit", "wrong-second", "another", "too-long"],
)
async def test_it_goes_on_after_the_pieces_that_are_right(
    world: World, part: bytes, first: int
) -> None:
    giver = await world.giver()
    world.store.prepare()
    path = world.store.part_path("tiny")
    path.write_bytes(part)
    tag = path.with_name(path.name + ".etag")
    tag.write_text('"of a URL"')
    pulled = await world.pull(giver.key)
    assert pulled.path.read_bytes() == MODEL
    assert giver.read == list(range(first, len(PIECES)))
    assert not tag.exists()


async def test_when_a_peer_dies_the_next_one_goes_on(world: World) -> None:
    first, second = await world.giver(), await world.giver()
    loop = asyncio.get_running_loop()

    def die(index: int) -> None:
        if index == 2:
            loop.call_soon_threadsafe(
                lambda: [one.close() for one in list(first.server.channels)]
            )
            raise OSError("the disk is gone")

    first.watch(die)
    pulled = await world.pull(first.key, second.key)
    assert pulled.path.read_bytes() == MODEL
    assert second.read[-1] == len(PIECES) - 1
    assert second.read[0] > 0


async def test_a_pull_that_is_cancelled_keeps_what_came(world: World) -> None:
    giver = await world.giver()
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(
        world.pull(
            giver.key,
            on_progress=lambda progress: (
                progress.completed >= 2 * PIECE_BYTES and loop.call_soon(running.cancel)
            ),
        )
    )
    with pytest.raises(asyncio.CancelledError):
        await running
    kept = world.store.part_path("tiny").read_bytes()
    assert len(kept) >= 2 * PIECE_BYTES
    assert MODEL.startswith(kept)
    await until(lambda: not giver.server.channels)
    giver.read.clear()
    assert (await world.pull(giver.key)).path.read_bytes() == MODEL
    assert giver.read[0] == len(kept) // PIECE_BYTES


async def test_nobody_left_says_why_and_what_to_do(world: World) -> None:
    _, key = await world.processor(None)
    with pytest.raises(ApiError) as caught:
        await world.pull(key)
    assert caught.value.code is ErrorCode.PEER_LOST
    assert "gives no files" in caught.value.message
    assert "run the same command again" in caught.value.message


async def test_what_most_peers_give_is_chosen() -> None:
    keys = [PublicKey(bytes([number]) * 32) for number in range(4)]
    other = msgspec.structs.replace(OFFER, sha256=b"o" * 32)
    told = [PeerOffers(keys[0], (other,))]
    told += [PeerOffers(key, (OFFER, OFFER)) for key in keys[1:3]]
    assert choose_offer(told, "tiny") == (OFFER, keys[1:3])
    assert choose_offer(told, "tiny", other.sha256.hex()) == (other, keys[:1])
    assert choose_offer(told, "large") is None


# Hostile peers


class Hostile:
    """Answers on the channel as a test wants."""

    def __init__(self, answer: Callable[..., None]) -> None:
        self.answer = answer
        self.asked: list[int] = []
        self.channel: object = None

    def attach(self, connection: Connection) -> None:
        def notify(_id: bytes | None) -> None:
            self.channel = connection.mux.create_channel(
                wire.PROTOCOL, bytes(connection.public_key), on_message=self.heard
            )
            self.channel.open(wire.encode_handshake())

        connection.mux.pair(wire.PROTOCOL, bytes(connection.public_key), notify)

    def heard(self, kind: int, payload: bytes) -> None:
        number, data = wire.decode_number_untrusted(payload)
        self.asked.append(kind)
        if kind == MessageType.HASHES:
            body = wire.decode_untrusted(data, wire.HashesBody)
            page = b"".join(HASHES[body.first : body.first + body.count])
            self.say(MessageType.HASH_PAGE, number, wire.HashPageBody(page))
        else:
            self.answer(self, number, data)

    def say(self, kind: int, number: int, body: wire.Body) -> None:
        if not self.channel.is_closed:
            self.channel.send(kind, wire.encode(number, body))

    def say_piece(self, number: int, data: bytes) -> None:
        for at in range(0, len(data), wire.DATA_BYTES_MAX):
            part = wire.DataBody(at, data[at : at + wire.DATA_BYTES_MAX])
            self.say(MessageType.DATA, number, part)


def wrong_piece(hostile: Hostile, number: int, data: bytes) -> None:
    index = wire.decode_untrusted(data, wire.PieceBody).index
    right = PIECES[index]
    hostile.say_piece(number, right if index < 2 else b"\0" * len(right))


def endless(hostile: Hostile, number: int, _data: bytes) -> None:
    hostile.say_piece(number, b"x" * PIECE_BYTES * 2)


def overlapping(hostile: Hostile, number: int, _data: bytes) -> None:
    for _ in range(3):
        hostile.say(MessageType.DATA, number, wire.DataBody(0, b"x" * 100))


def unasked(hostile: Hostile, number: int, _data: bytes) -> None:
    hostile.say(MessageType.DATA, number + 1000, wire.DataBody(0, b"x"))


def other_kind(hostile: Hostile, number: int, _data: bytes) -> None:
    hostile.say(MessageType.HASH_PAGE, number, wire.HashPageBody(b"h" * 32))


def garbage(hostile: Hostile, number: int, _data: bytes) -> None:
    hostile.channel.send(MessageType.DATA, bytes([number]) + b"\xc1\xff" * 50)


def huge(hostile: Hostile, number: int, _data: bytes) -> None:
    hostile.channel.send(MessageType.DATA, bytes([number]) + b"x" * 2**20)


@pytest.mark.parametrize(
    "answer", [wrong_piece, endless, overlapping, unasked, other_kind, garbage, huge]
)
async def test_a_hostile_peer_is_left_for_an_honest_one(
    world: World, answer: Callable[..., None]
) -> None:
    hostile = Hostile(answer)
    _, key = await world.processor(hostile.attach)
    honest = await world.giver()
    pulled = await world.pull(key, honest.key)
    assert pulled.path.read_bytes() == MODEL
    assert hostile.asked.count(MessageType.HASHES) == 1
    assert hostile.asked.count(MessageType.PIECE) <= wire.WINDOW + 2


async def test_a_peer_that_says_nothing_more_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "ANSWER_TIMEOUT_S", 0.2)

    def one_part(hostile: Hostile, number: int, _data: bytes) -> None:
        hostile.say(MessageType.DATA, number, wire.DataBody(0, PIECES[0][:1]))

    hostile = Hostile(one_part)
    _, key = await world.processor(hostile.attach)
    honest = await world.giver()
    monkeypatch.setattr(pull_module, "TRIES_MAX", 1)
    assert (await world.pull(key, honest.key)).path.read_bytes() == MODEL
    assert hostile.asked.count(MessageType.PIECE) == wire.WINDOW


async def never(_body: bytes, _peer: str) -> object:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_peer_that_vanished_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "SILENCE_S", 0.01)
    monkeypatch.setattr(peer_module, "PING_TIMEOUT_S", 0.01)
    hostile = Hostile(lambda *_request: None)
    _, key = await world.processor(hostile.attach, never)
    honest = await world.giver()
    assert (await world.pull(key, honest.key)).path.read_bytes() == MODEL
    with pytest.raises(ApiError, match="does not answer any more"):
        await world.pull(key, name="other")


async def test_a_peer_that_is_slow_and_there_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "SILENCE_S", 0.01)
    giver = await world.giver()
    is_asked, request = threading.Event(), RpcSession.request

    async def noted(session, method: str, *args, **more):
        is_asked.set()
        return await request(session, method, *args, **more)

    monkeypatch.setattr(RpcSession, "request", noted)
    giver.watch(lambda _index: is_asked.wait() and None)
    assert (await world.pull(giver.key)).path.read_bytes() == MODEL
    assert is_asked.is_set()


async def test_a_slow_way_is_no_silence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "SILENCE_S", 0.01)
    giver = await world.giver()
    may_come, pings = threading.Event(), itertools.count(1)

    async def late(session: RpcSession, method: str, *_args, **_more) -> None:
        assert method == "ping"
        session.connection.times_heard += 1  # some more of the piece came
        if next(pings) == 3:
            may_come.set()
        raise RequestTimeout("the reply stands behind the piece")

    monkeypatch.setattr(RpcSession, "request", late)
    giver.watch(lambda _index: may_come.wait(20) and None)
    assert (await world.pull(giver.key)).path.read_bytes() == MODEL
    assert may_come.is_set()


async def test_hashes_that_are_not_of_the_file_are_refused(world: World) -> None:
    giver = await world.giver()
    async with open_peer(world.client, giver.key) as peer:
        with pytest.raises(PeerFailed, match="no such file"):
            await peer.hashes(msgspec.structs.replace(OFFER, root=b"r" * 32))
    hostile = Hostile(wrong_piece)
    _, key = await world.processor(hostile.attach)
    async with open_peer(world.client, key) as peer:
        with pytest.raises(Lies, match="not those of the file"):
            await peer.hashes(msgspec.structs.replace(OFFER, root=b"r" * 32))


async def test_a_peer_that_lies_about_the_whole_leaves_nothing(world: World) -> None:
    giver = await world.giver()
    offer = msgspec.structs.replace(OFFER, sha256=b"l" * 32)
    with pytest.raises(ApiError, match="has the hash"):
        await world.pull(giver.key, offer=offer)
    assert world.store.list() == []


async def test_what_is_no_model_leaves_nothing(world: World) -> None:
    giver = await world.giver()
    bad = b"no model at all"
    offer = Offer(
        "tiny",
        len(bad),
        hashlib.sha256(bad).digest(),
        wire.root_of(len(bad), [wire.hash_piece(bad)]),
    )
    hostile = Hostile(lambda one, number, _data: one.say_piece(number, bad))

    def heard(kind: int, payload: bytes) -> None:
        number, _ = wire.decode_number_untrusted(payload)
        if kind == MessageType.HASHES:
            page = wire.HashPageBody(wire.hash_piece(bad))
            hostile.say(MessageType.HASH_PAGE, number, page)
        else:
            hostile.say_piece(number, bad)

    hostile.heard = heard  # type: ignore[method-assign]
    _, key = await world.processor(hostile.attach)
    with pytest.raises(ApiError, match="no GGUF file"):
        await world.pull(key, offer=offer)
    assert world.store.list() == []
    assert giver.read == []


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "..", ".hidden", "a/b", "a\\b", "a\0b", "", "x" * 128],
)
async def test_names_that_lead_elsewhere_are_not_seen(world: World, name: str) -> None:
    is_fine = name == "x" * 128
    offers = [msgspec.structs.replace(OFFER, name=name), OFFER]
    hostile = Hostile(
        lambda one, number, _data: one.say(
            MessageType.OFFERS, number, wire.OffersBody(offers)
        )
    )
    _, key = await world.processor(hostile.attach)
    (told,) = await ask_offers(world.client, [key])
    assert [one.name for one in told.offers] == [name] * is_fine + ["tiny"]
    if not is_fine:
        with pytest.raises(ApiError, match="cannot name a model file"):
            await world.pull(key, offer=offers[0])
    assert not any(world.folder.glob("x*"))


async def test_a_peer_that_asks_too_much_at_once_loses_the_channel(
    world: World,
) -> None:
    giver = await world.giver()
    async with open_peer(world.client, giver.key) as peer:
        asked = [peer.ask_piece(OFFER, 0) for _ in range(wire.REQUESTS_MAX + 3)]
        with pytest.raises(PeerFailed):
            await asyncio.gather(*asked)
    assert giver.server.channels == set()


async def test_only_so_many_are_given_files_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CHANNELS_MAX", 1)
    giver = await world.giver()
    other = Swarm(world.network.node(), Identity(b"d" * 32))
    async with open_peer(world.client, giver.key):
        (told,) = await ask_offers(other, [giver.key])
        assert told.problem == "gives files to others already"
    await until(lambda: not giver.server.channels)
    (told,) = await ask_offers(other, [giver.key])
    assert told.offers == (OFFER,)
    await other.close()


async def test_all_together_get_no_more_than_the_rate(world: World) -> None:
    giver = await world.giver()
    giver.server._rate_bytes_s = 10 * len(MODEL)
    began_s = asyncio.get_running_loop().time()
    await world.pull(giver.key)
    assert asyncio.get_running_loop().time() - began_s >= 0.09


# Private swarms


async def test_members_that_are_no_gateways_are_given_files_and_others_are_not(
    tmp_path: Path,
) -> None:
    store = ModelStore(tmp_path / "theirs")
    store.prepare()
    store.path("tiny").write_bytes(MODEL)
    async with PrivateWorld(tmp_path) as world:
        serving, member, bad = world.member(SERVING), world.member(), world.member()
        server = FileServer(Shelf(store.files, store))
        server.shelf.refresh()
        serving.swarm.attach_members(Role.PROCESSOR, server.attach)
        await serving.serve(Role.PROCESSOR)
        key = serving.key(Role.PROCESSOR)
        (told,) = await ask_offers(member.swarm, [key])
        assert told.offers == (OFFER,)
        mine = ModelStore(tmp_path / "mine")
        pulled = await pull_from_peers(mine, member.swarm, OFFER, [key])
        assert pulled.path.read_bytes() == MODEL
        await world.revoke(bad)
        await serving.trust.refresh()
        (told,) = await ask_offers(bad.swarm, [key])
        assert told.offers == ()
        # Nothing is taken from who is not certified as a processor either.
        (told,) = await ask_offers(member.swarm, [bad.key(Role.PROCESSOR)])
        assert told.problem == "cannot be reached"
        await server.close()
