"""The values of HyperDHT commands, and the payload inside the Noise handshake.

Bytes only: nothing here is sent, signed or stored. Parsers of foreign bytes end in
``_untrusted`` and raise only `DecodeError`.
Source: hyperdht/lib/messages.js; docs/PROTOCOL.md section 5.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from peerchat.net.encoding import Reader, Writer
from peerchat.net.errors import DecodeError
from peerchat.net.identity import Address, PublicKey

from .constants import Firewall, Mode

ADDRESSES_MAX = 340
"""More addresses of 6 bytes than this do not fit the 2048 bytes a node reads."""

RECORDS_MAX = 62
"""More peer records of at least 33 bytes do not fit 2048 bytes either."""

NOISE_PAYLOAD_VERSION = 1

_HAS_PEER_ADDRESS = 1
_HAS_RELAY_ADDRESS = 2

_HAS_PEER = 1
_HAS_REFRESH = 2
_HAS_SIGNATURE = 4
_HAS_BUMP = 8

_HAS_HOLEPUNCH = 1
_HAS_ADDRESSES4 = 2
_HAS_ADDRESSES6 = 4
_HAS_UDX = 8
_HAS_SECRET_STREAM = 16
_HAS_RELAY_THROUGH = 32
_HAS_RELAY_ADDRESSES = 64


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Who announced, and nodes that pass a handshake on to it."""

    public_key: PublicKey
    relay_addresses: tuple[Address, ...] = ()

    def write(self, writer: Writer) -> None:
        writer.fixed(self.public_key)
        writer.array(list(self.relay_addresses), Writer.ipv4)

    def encode(self) -> bytes:
        writer = Writer()
        self.write(writer)
        return writer.getvalue()


def _read_addresses(reader: Reader) -> tuple[Address, ...]:
    return tuple(reader.array(Reader.ipv4, ADDRESSES_MAX))


def _read_peer(reader: Reader) -> PeerRecord:
    return PeerRecord(PublicKey(reader.fixed(32)), _read_addresses(reader))


def decode_peer_untrusted(data: bytes) -> PeerRecord:
    """The value of a FIND_PEER reply."""
    return _read_peer(Reader(data))


@dataclass(frozen=True, slots=True)
class LookupReply:
    """What one node stores under a topic."""

    peers: tuple[PeerRecord, ...]
    bump: int = 0
    """Unix milliseconds; a peer's way to say that the topic has news."""


def encode_lookup_reply(records: list[bytes], bump: int) -> bytes:
    """A LOOKUP reply of records that are kept encoded."""
    writer = Writer().array(records, Writer.fixed)
    return writer.uint(bump).getvalue()


def decode_lookup_reply_untrusted(data: bytes) -> LookupReply:
    reader = Reader(data)
    peers = tuple(reader.array(_read_peer, RECORDS_MAX))
    return LookupReply(peers, reader.uint() if reader.remaining else 0)


@dataclass(frozen=True, slots=True)
class Announce:
    """The value of ANNOUNCE and UNANNOUNCE."""

    peer: PeerRecord | None = None
    refresh: bytes | None = None
    """Hash of a secret; showing the secret later renews the record unsigned."""
    signature: bytes | None = None
    bump: int = 0

    def encode(self) -> bytes:
        writer = Writer()
        writer.uint(
            (_HAS_PEER if self.peer else 0)
            | (_HAS_REFRESH if self.refresh else 0)
            | (_HAS_SIGNATURE if self.signature else 0)
            | (_HAS_BUMP if self.bump else 0)
        )
        if self.peer:
            self.peer.write(writer)
        if self.refresh:
            writer.fixed(self.refresh)
        if self.signature:
            writer.fixed(self.signature)
        if self.bump:
            writer.uint(self.bump)
        return writer.getvalue()


def decode_announce_untrusted(data: bytes) -> Announce:
    reader = Reader(data)
    flags = reader.uint()
    return Announce(
        _read_peer(reader) if flags & _HAS_PEER else None,
        reader.fixed(32) if flags & _HAS_REFRESH else None,
        reader.fixed(64) if flags & _HAS_SIGNATURE else None,
        reader.uint() if flags & _HAS_BUMP else 0,
    )


def _read_mode(reader: Reader) -> Mode:
    value = reader.uint()
    if value > Mode.REPLY:
        raise DecodeError(f"unknown routing mode {value}")
    return Mode(value)


@dataclass(frozen=True, slots=True)
class Handshake:
    """The value of PEER_HANDSHAKE: a Noise message and where it goes."""

    mode: Mode
    noise: bytes
    peer_address: Address | None = None
    """The other end of the handshake, as the last relay saw it."""
    relay_address: Address | None = None

    def encode(self) -> bytes:
        writer = Writer()
        writer.uint(
            (_HAS_PEER_ADDRESS if self.peer_address else 0)
            | (_HAS_RELAY_ADDRESS if self.relay_address else 0)
        )
        writer.uint(self.mode).buffer(self.noise)
        if self.peer_address:
            writer.ipv4(self.peer_address)
        if self.relay_address:
            writer.ipv4(self.relay_address)
        return writer.getvalue()


def decode_handshake_untrusted(data: bytes) -> Handshake:
    reader = Reader(data)
    flags = reader.uint()
    return Handshake(
        _read_mode(reader),
        reader.buffer(),
        reader.ipv4() if flags & _HAS_PEER_ADDRESS else None,
        reader.ipv4() if flags & _HAS_RELAY_ADDRESS else None,
    )


@dataclass(frozen=True, slots=True)
class Holepunch:
    """The value of PEER_HOLEPUNCH; the payload is sealed for the two ends."""

    mode: Mode
    id: int
    payload: bytes
    peer_address: Address | None = None

    def encode(self) -> bytes:
        writer = Writer().uint(_HAS_PEER_ADDRESS if self.peer_address else 0)
        writer.uint(self.mode).uint(self.id).buffer(self.payload)
        if self.peer_address:
            writer.ipv4(self.peer_address)
        return writer.getvalue()


def decode_holepunch_untrusted(data: bytes) -> Holepunch:
    reader = Reader(data)
    flags = reader.uint()
    return Holepunch(
        _read_mode(reader),
        reader.uint(),
        reader.buffer(),
        reader.ipv4() if flags & _HAS_PEER_ADDRESS else None,
    )


@dataclass(frozen=True, slots=True)
class RelayInfo:
    """A relay of a server, and the server's address as that relay sees it."""

    relay_address: Address
    peer_address: Address

    def write(self, writer: Writer) -> None:
        writer.ipv4(self.relay_address).ipv4(self.peer_address)


@dataclass(frozen=True, slots=True)
class HolepunchInfo:
    """Through whom a server can be asked to punch."""

    id: int
    relays: tuple[RelayInfo, ...]


@dataclass(frozen=True, slots=True)
class UdxInfo:
    """The sender's UDX stream."""

    id: int
    seq: int = 0
    reusable_socket: bool = False
    version: int = 1


@dataclass(frozen=True, slots=True)
class RelayThrough:
    """A blind relay that the sender wants the connection to go through."""

    public_key: PublicKey
    token: bytes
    version: int = 1


@dataclass(frozen=True, slots=True)
class NoisePayload:
    """What client and server tell each other inside the encrypted handshake."""

    error: int = 0
    firewall: int = Firewall.UNKNOWN
    """Kept as a number: classes that later versions add are not an error."""
    holepunch: HolepunchInfo | None = None
    addresses4: tuple[Address, ...] = ()
    addresses6: tuple[Address, ...] = ()
    udx: UdxInfo | None = None
    secret_stream: int | None = None
    """Version of secretstream."""
    relay_through: RelayThrough | None = None
    relay_addresses: tuple[Address, ...] = ()
    version: int = NOISE_PAYLOAD_VERSION
    """With any other version than 1 the rest is unknown and left at its defaults."""

    def encode(self) -> bytes:
        writer = Writer().uint(NOISE_PAYLOAD_VERSION)
        writer.uint(self._flags()).uint(self.error).uint(self.firewall)
        if self.holepunch:
            writer.uint(self.holepunch.id)
            writer.array(list(self.holepunch.relays), _write_relay_info)
        if self.addresses4:
            writer.array(list(self.addresses4), Writer.ipv4)
        if self.addresses6:
            writer.array(list(self.addresses6), Writer.ipv6)
        if self.udx:
            writer.uint(1).uint(1 if self.udx.reusable_socket else 0)
            writer.uint(self.udx.id).uint(self.udx.seq)
        if self.secret_stream is not None:
            writer.uint(self.secret_stream)
        if self.relay_through:
            writer.uint(1).uint(0)
            writer.fixed(self.relay_through.public_key)
            writer.fixed(self.relay_through.token)
        if self.relay_addresses:
            writer.array(list(self.relay_addresses), Writer.ipv4)
        return writer.getvalue()

    def _flags(self) -> int:
        return (
            (_HAS_HOLEPUNCH if self.holepunch else 0)
            | (_HAS_ADDRESSES4 if self.addresses4 else 0)
            | (_HAS_ADDRESSES6 if self.addresses6 else 0)
            | (_HAS_UDX if self.udx else 0)
            | (_HAS_SECRET_STREAM if self.secret_stream is not None else 0)
            | (_HAS_RELAY_THROUGH if self.relay_through else 0)
            | (_HAS_RELAY_ADDRESSES if self.relay_addresses else 0)
        )


def _write_relay_info(writer: Writer, relay: RelayInfo) -> None:
    relay.write(writer)


def _read_relay_info(reader: Reader) -> RelayInfo:
    return RelayInfo(reader.ipv4(), reader.ipv4())


def _read_holepunch_info(reader: Reader) -> HolepunchInfo:
    punch_id = reader.uint()
    return HolepunchInfo(punch_id, tuple(reader.array(_read_relay_info, ADDRESSES_MAX)))


def _read_udx(reader: Reader) -> UdxInfo:
    version = reader.uint()
    features = reader.uint()
    return UdxInfo(reader.uint(), reader.uint(), bool(features & 1), version)


def _read_relay_through(reader: Reader) -> RelayThrough:
    version = reader.uint()
    reader.uint()
    return RelayThrough(PublicKey(reader.fixed(32)), reader.fixed(32), version)


def decode_noise_payload_untrusted(data: bytes) -> NoisePayload:
    reader = Reader(data)
    version = reader.uint()
    if version != NOISE_PAYLOAD_VERSION:
        return NoisePayload(version=version)
    flags = reader.uint()
    return NoisePayload(
        reader.uint(),
        reader.uint(),
        _read_holepunch_info(reader) if flags & _HAS_HOLEPUNCH else None,
        _read_addresses(reader) if flags & _HAS_ADDRESSES4 else (),
        tuple(reader.array(Reader.ipv6, ADDRESSES_MAX))
        if flags & _HAS_ADDRESSES6
        else (),
        _read_udx(reader) if flags & _HAS_UDX else None,
        reader.uint() if flags & _HAS_SECRET_STREAM else None,
        _read_relay_through(reader) if flags & _HAS_RELAY_THROUGH else None,
        _read_addresses(reader) if flags & _HAS_RELAY_ADDRESSES else (),
    )
