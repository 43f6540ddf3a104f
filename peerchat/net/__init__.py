"""A pure-Python HyperDHT, wire-compatible with npm hyperdht 6.34.

Knows nothing of peerchat and could be published alone. What is named here is the
public face; it is imported on first use, because cryptography and asyncio take a while
to load and not every command needs them.

    async with HyperDHT(system_env(), bootstrap=["127.0.0.1:49737"]) as dht:
        connection = await dht.connect(public_key)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .crypto.primitives import KeyPair
    from .driver.connection import Connection
    from .driver.env import system_env
    from .env import Env
    from .errors import (
        ConnectFailed,
        ConnectionLost,
        DhtUnreachable,
        LocalProtocolError,
        NetError,
        PeerNotFound,
        PeerRefused,
        PeerUnreachable,
        RecordRefused,
        RemoteProtocolError,
        RequestTimeout,
        RpcClosed,
        RpcError,
        RpcRemoteError,
        SeqReused,
        SeqTooLow,
    )
    from .hyperdht import (
        PUBLIC_BOOTSTRAP,
        RECORD_VALUE_BYTES_MAX,
        HyperDHT,
        HyperDhtStatistics,
        MutablePutResult,
        MutableRecord,
        NoisePayload,
        PeerRecord,
        Server,
        hash_topic,
    )
    from .identity import Address, PublicKey, Target
    from .mux.protomux import Channel, Protomux
    from .rpc.client import RpcClient
    from .rpc.server import RpcServer
    from .rpc.session import RpcSession

__all__ = [
    "PUBLIC_BOOTSTRAP",
    "RECORD_VALUE_BYTES_MAX",
    "Address",
    "Channel",
    "ConnectFailed",
    "Connection",
    "ConnectionLost",
    "DhtUnreachable",
    "Env",
    "HyperDHT",
    "HyperDhtStatistics",
    "KeyPair",
    "LocalProtocolError",
    "MutablePutResult",
    "MutableRecord",
    "NetError",
    "NoisePayload",
    "PeerNotFound",
    "PeerRecord",
    "PeerRefused",
    "PeerUnreachable",
    "Protomux",
    "PublicKey",
    "RecordRefused",
    "RemoteProtocolError",
    "RequestTimeout",
    "RpcClient",
    "RpcClosed",
    "RpcError",
    "RpcRemoteError",
    "RpcServer",
    "RpcSession",
    "SeqReused",
    "SeqTooLow",
    "Server",
    "Target",
    "hash_topic",
    "system_env",
]

_MODULES = {
    "crypto.primitives": "KeyPair",
    "driver.connection": "Connection",
    "driver.env": "system_env",
    "env": "Env",
    "errors": "ConnectFailed ConnectionLost DhtUnreachable LocalProtocolError NetError"
    " PeerNotFound PeerRefused PeerUnreachable RecordRefused RemoteProtocolError"
    " RequestTimeout RpcClosed RpcError RpcRemoteError SeqReused SeqTooLow",
    "hyperdht": "HyperDHT HyperDhtStatistics MutablePutResult MutableRecord"
    " NoisePayload PUBLIC_BOOTSTRAP PeerRecord RECORD_VALUE_BYTES_MAX Server"
    " hash_topic",
    "identity": "Address PublicKey Target",
    "mux.protomux": "Channel Protomux",
    "rpc.client": "RpcClient",
    "rpc.server": "RpcServer",
    "rpc.session": "RpcSession",
}
_HOMES = {name: home for home, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
