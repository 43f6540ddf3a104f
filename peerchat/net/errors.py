"""Every error that the network library raises, as one tree.

NetError
├── LocalProtocolError        our own caller broke a rule; a bug on this side
├── RemoteProtocolError       the peer's bytes break a rule; never trust it further
│   └── DecodeError           bytes that do not parse
├── ConnectionLost            an open connection ended without being asked to
├── ConnectFailed             a connection could not be opened
│   ├── PeerNotFound          nobody on the DHT knows the public key
│   ├── PeerRefused           the peer answered the handshake with an error
│   └── PeerUnreachable       known, but no packet gets through
├── DhtUnreachable            no DHT node answers at all
├── RequestTimeout            one request was not answered in time
├── RecordRefused             no DHT node stores a mutable record, for what it keeps
│   ├── SeqReused             another value is kept under the same seq
│   └── SeqTooLow             a value with a higher seq is kept
└── RpcError                  a remote procedure call failed
    ├── RpcRemoteError        the remote handler threw; carries its message and code
    └── RpcClosed             the channel closed before the answer came
"""

from __future__ import annotations


class NetError(Exception):
    """Base of all errors of ``peerchat.net``."""


class LocalProtocolError(NetError):
    """This side used a protocol machine against its rules."""


class RemoteProtocolError(NetError):
    """The peer sent something that its protocol does not allow."""


class DecodeError(RemoteProtocolError):
    """Foreign bytes that do not parse."""


class ConnectionLost(NetError):
    """A connection ended; ``reason`` is a short word such as ``"timed out"``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConnectFailed(NetError):
    """A connection to a public key could not be opened."""


class PeerNotFound(ConnectFailed):
    """No DHT node knows a way to the public key."""


class PeerRefused(ConnectFailed):
    """The peer answered the handshake, and declined."""


class PeerUnreachable(ConnectFailed):
    """The handshake arrived, but no direct packet gets through."""


class DhtUnreachable(NetError):
    """No bootstrap node and no known node answers."""


class RequestTimeout(NetError):
    """A request was sent, and retried, and not answered."""


class RecordRefused(NetError):
    """DHT nodes keep a mutable record that the new one does not replace."""


class SeqReused(RecordRefused):
    """Another value is kept under the same seq."""


class SeqTooLow(RecordRefused):
    """A value with a higher seq is kept."""


class RpcError(NetError):
    """A remote procedure call did not give a value."""


class RpcRemoteError(RpcError):
    """The remote handler failed; the message is the peer's own, unsanitised."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class RpcClosed(RpcError):
    """The channel or its connection closed before an answer came."""
