"""Scripted private swarms for `peerchat.testing.node.ScriptedNode`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from peerchat.api import (
    ApiError,
    ErrorCode,
    InvitePreview,
    InviteView,
    MemberView,
    SwarmView,
)

ROOT_KEY = "5a3e90c1" * 8
UNTIL_S = 1_893_456_000
"""2030-01-01 00:00 UTC."""

LINE = "peerchat:" + "iQWxhYmFzdGVy0NoaXBzMjAyNg_-" * 14
"""As long as an invite is, and as little to read."""

LAB = SwarmView(
    "lab", False, True, True, ("processor",), not_after_s=UNTIL_S, root=ROOT_KEY
)
FAMILY = SwarmView("family", False, False, False, (), UNTIL_S, "c0ffee11" * 8)

MEMBERS = (
    MemberView("21d6c8ff" * 8, "Ada's laptop", ("processor",), "01" * 16, UNTIL_S),
    MemberView("e94bd310" * 8, "workstation", ("gateway", "auth"), "02" * 16, UNTIL_S),
    MemberView("b05e7742" * 8, "old phone", (), "03" * 16, UNTIL_S, is_revoked=True),
)

INVITES = (
    InviteView("a1" * 16, "Grace", ("processor",), 1, UNTIL_S, "open"),
    InviteView("b2" * 16, "", (), 0, UNTIL_S, "used"),
)


@dataclass(eq=False)
class ScriptedSwarms:
    """An `api.Swarms` whose outcomes the test decides.

    Attributes:
        enter: called with the swarm that is gone into, None for solo.
        error: raised by whatever is called next, once.
        gate: when set, slow calls wait for it.
        passphrase: of the root key; empty: not locked.
    """

    enter: Callable[[SwarmView | None], None] = lambda view: None
    known: list[SwarmView] = field(default_factory=list)
    given: list[InviteView] = field(default_factory=lambda: list(INVITES))
    let_in: list[MemberView] = field(default_factory=lambda: list(MEMBERS))
    error: ApiError | None = None
    gate: asyncio.Event | None = None
    passphrase: str = ""
    calls: list[tuple[str, object]] = field(default_factory=list)

    async def swarms(self) -> Sequence[SwarmView]:
        return tuple(self.known)

    async def create_swarm(self, name: str, passphrase: str = "") -> SwarmView:
        await self._called("create", (name, passphrase))
        view = dataclasses.replace(LAB, name=name)
        return self._go(view)

    async def read_invite(self, line: str) -> InvitePreview:
        if not line.startswith("peerchat:") or len(line) < len(LINE):
            raise ApiError(
                ErrorCode.INVALID_REQUEST, "This is not a whole invite", status=400
            )
        return InvitePreview(FAMILY.name, FAMILY.root, UNTIL_S)

    async def join_swarm(self, line: str) -> SwarmView:
        await self._called("join", line)
        return self._go(FAMILY)

    async def use_swarm(self, name: str) -> None:
        await self._called("use", name)
        found = next((view for view in self.known if view.name == name), None)
        if name and found is None:
            raise ApiError(
                ErrorCode.INVALID_REQUEST, f"There is no swarm {name} here", status=404
            )
        self.enter(found)

    async def invite(
        self,
        *,
        roles: Sequence[str] = (),
        uses: int = 1,
        expires_s: float = 24 * 3600.0,
        name: str = "",
    ) -> str:
        await self._called("invite", (tuple(roles), uses, expires_s, name))
        return LINE

    async def invites(self) -> Sequence[InviteView]:
        return tuple(self.given)

    async def withdraw_invite(self, invite_id: str) -> None:
        await self._called("withdraw", invite_id)
        self.given = [
            dataclasses.replace(invite, state="withdrawn")
            if invite.invite_id == invite_id
            else invite
            for invite in self.given
        ]

    async def members(self) -> Sequence[MemberView]:
        return tuple(self.let_in)

    async def revoke_member(self, peer: str, passphrase: str = "") -> None:
        await self._called("revoke", (peer, passphrase))
        if passphrase != self.passphrase:
            raise ApiError(ErrorCode.UNAUTHORIZED, "The root key is locked", status=401)
        self.let_in = [
            dataclasses.replace(member, is_revoked=True)
            if member.peer == peer
            else member
            for member in self.let_in
        ]

    async def _called(self, what: str, how: object) -> None:
        self.calls.append((what, how))
        if self.gate is not None:
            await self.gate.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error

    def _go(self, view: SwarmView) -> SwarmView:
        self.known = [known for known in self.known if known.name != view.name]
        self.known.append(view)
        self.enter(view)
        return view
