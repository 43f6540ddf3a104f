"""What ``peerchat/stream`` needs of a connection: less than `peerchat.net` gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Channel(Protocol):
    """A Protomux channel."""

    @property
    def is_closed(self) -> bool: ...

    def open(self, handshake: bytes = b"") -> None: ...

    def send(self, type: int, payload: bytes) -> bool: ...  # noqa: A002

    def close(self) -> None: ...


class Mux(Protocol):
    """Protomux over one connection."""

    def create_channel(
        self,
        protocol: str,
        id: bytes | None = None,  # noqa: A002
        *,
        on_open: Callable[[bytes], None] | None = None,
        on_message: Callable[[int, bytes], None] | None = None,
        on_close: Callable[[bool], None] | None = None,
    ) -> Channel | None: ...

    def pair(
        self,
        protocol: str,
        id: bytes | None,  # noqa: A002
        notify: Callable[[bytes | None], None],
    ) -> None: ...


class Connection(Protocol):
    """An encrypted connection between two known keys."""

    @property
    def public_key(self) -> bytes: ...

    @property
    def remote_public_key(self) -> bytes: ...

    @property
    def mux(self) -> Mux: ...


class Session(Protocol):
    """A pooled connection; while held it does not linger out."""

    @property
    def connection(self) -> Connection: ...

    def hold(self) -> None: ...

    def release(self) -> None: ...
