"""The Noise IK handshake of HyperDHT, one object for each side of each connection.

Joins the Noise machine with the payload; draws the ephemeral key, sends nothing.
Source: hyperdht/lib/noise-wrap.js; docs/PROTOCOL.md sections 5.5 and 7.
"""

from __future__ import annotations

import copy

from peerchat.net.crypto.noise import HandshakeResult, HandshakeState, Pattern
from peerchat.net.crypto.primitives import (
    DHT_NAMESPACES,
    SEED_BYTES,
    DhtCommand,
    KeyPair,
)
from peerchat.net.env import Random
from peerchat.net.errors import RemoteProtocolError
from peerchat.net.identity import PublicKey

from .messages import NoisePayload, decode_noise_payload_untrusted

PROLOGUE = DHT_NAMESPACES[DhtCommand.PEER_HANDSHAKE]


class NoiseWrap:
    """Call `send` and `receive_untrusted` in turn, then take `result`.

    Args:
        key_pair: this side's identity.
        chance: where the ephemeral key comes from.
        remote_public_key: whom to reach; given by the client only.
    """

    def __init__(
        self,
        key_pair: KeyPair,
        chance: Random,
        remote_public_key: PublicKey | None = None,
    ) -> None:
        self._noise = HandshakeState(
            Pattern.IK,
            is_initiator=remote_public_key is not None,
            static=key_pair,
            ephemeral=KeyPair.generate(chance.token_bytes(SEED_BYTES)),
            prologue=PROLOGUE,
            remote_static=remote_public_key,
        )

    def send(self, payload: NoisePayload) -> bytes:
        return self._noise.write_message(payload.encode())

    def receive_untrusted(self, message: bytes) -> NoisePayload:
        """The peer's payload; raises `RemoteProtocolError`.

        To a client a message that fails leaves no trace: a relay that forges an answer
        must not spoil the one that comes through another relay.
        """
        is_client = self._noise.is_initiator
        attempt = copy.deepcopy(self._noise) if is_client else self._noise
        payload = decode_noise_payload_untrusted(
            attempt.read_message_untrusted(message)
        )
        self._noise = attempt
        return payload

    @property
    def remote_public_key(self) -> PublicKey:
        """Proved to the server by the first message's last step."""
        key = self._noise.remote_public_key
        if key is None:
            raise RemoteProtocolError("the peer has not said who it is")
        return key

    def result(self) -> HandshakeResult:
        return self._noise.result()
