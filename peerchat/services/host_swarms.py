"""The private swarms of a home, as the app sees them.

Everything runs on the node's loop. What is done in the swarm that the node is in uses
its DHT; joining another one takes a DHT node of its own for as long as that lasts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from peerchat.api import (
    ApiError,
    ErrorCode,
    InvitePreview,
    InviteView,
    MemberView,
    SwarmView,
)
from peerchat.settings import Settings

if TYPE_CHECKING:
    from .dht_face import Dht
    from .node_runtime import NodeRuntime
    from .private_swarms import PrivateSwarms

T = TypeVar("T")


class SwitchingHost(Protocol):
    """What is needed of `NodeHost`."""

    @property
    def settings(self) -> Settings:
        """Those of the swarm that the node is in."""

    @property
    def runtime(self) -> NodeRuntime | None:
        """The node, once it runs."""

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the node's loop, from the app's."""

    async def switch(self, swarm: str) -> None:
        """On the node's loop: go into a private swarm, or solo; ApiError when that
        fails."""


class HostSwarms:
    """An `api.Swarms`."""

    def __init__(self, host: SwitchingHost) -> None:
        self._host = host

    async def swarms(self) -> Sequence[SwarmView]:
        """Every swarm that this home belongs to."""

        async def work() -> Sequence[SwarmView]:
            return self._front().swarms()

        return await self._host.call(work())

    async def create_swarm(self, name: str, passphrase: str = "") -> SwarmView:
        """Make a swarm that this home owns, and go into it."""

        async def work() -> SwarmView:
            settings = self._host.settings
            front = self._front()
            made = await front.create(name, passphrase, settings.bootstrap or ())
            await self._host.switch(made.name)
            return front.view(made.name)

        return await self._host.call(work())

    async def read_invite(self, line: str) -> InvitePreview:
        """Read an invite without using it or asking anybody."""

        async def work() -> InvitePreview:
            return self._front().read_invite(line)

        return await self._host.call(work())

    async def join_swarm(self, line: str) -> SwarmView:
        """Redeem an invite, and go into its swarm."""

        async def work() -> SwarmView:
            front = self._front()
            joined = await front.join(line)
            await self._host.switch(joined.name)
            return front.view(joined.name)

        return await self._host.call(work())

    async def use_swarm(self, name: str) -> None:
        """Leave what runs now and join another one; empty: solo."""

        async def work() -> None:
            self._front().use(name)
            await self._host.switch(name)

        await self._host.call(work())

    async def invite(
        self,
        *,
        roles: Sequence[str] = (),
        uses: int = 1,
        expires_s: float = 24 * 3600.0,
        name: str = "",
    ) -> str:
        """One line that lets somebody in."""

        async def work() -> str:
            line, _ = await self._front().invite(
                self._current(), roles=roles, uses=uses, expires_s=expires_s, label=name
            )
            return line

        return await self._host.call(work())

    async def invites(self) -> Sequence[InviteView]:
        """What this home gave out."""

        async def work() -> Sequence[InviteView]:
            return await self._front().invites(self._current())

        return await self._host.call(work())

    async def withdraw_invite(self, invite_id: str) -> None:
        """Refuse an invite from now on."""

        async def work() -> None:
            await self._front().uninvite(self._current(), invite_id)

        await self._host.call(work())

    async def members(self) -> Sequence[MemberView]:
        """The peers that this home certified."""

        async def work() -> Sequence[MemberView]:
            return await self._front().members(self._current())

        return await self._host.call(work())

    async def revoke_member(self, peer: str, passphrase: str = "") -> None:
        """Cut a peer off, now and for good; needs the root key."""

        async def work() -> None:
            await self._front(is_inside=True).revoke(self._current(), peer, passphrase)
            runtime = self._host.runtime
            if runtime is not None and runtime.trust is not None:
                await runtime.trust.refresh()

        await self._host.call(work())

    def _front(self, *, is_inside: bool = False) -> PrivateSwarms:
        """All that the command line does, too.

        Args:
            is_inside: what is done concerns the swarm that the node is in.
        """
        from .private_swarms import PrivateSwarms

        return PrivateSwarms(
            self._host.settings, open_dht=self._running_dht if is_inside else None
        )

    def _current(self) -> str:
        name = self._host.settings.swarm
        if not name:
            raise ApiError(
                ErrorCode.INVALID_REQUEST,
                "This needs a private swarm: create one, or join one, first.",
                status=400,
            )
        return name

    @asynccontextmanager
    async def _running_dht(self, _bootstrap: Sequence[str]) -> AsyncIterator[Dht]:
        runtime = self._host.runtime
        if runtime is None:
            raise ApiError(
                ErrorCode.DHT_UNREACHABLE,
                "The network is not reached yet; try again in a moment.",
                status=503,
            )
        yield runtime.dht
