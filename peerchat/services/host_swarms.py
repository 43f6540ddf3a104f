"""The private swarms of a home, as the app sees them."""

from __future__ import annotations

from collections.abc import Sequence

from peerchat.api import (
    ApiError,
    ErrorCode,
    InvitePreview,
    InviteView,
    MemberView,
    SwarmView,
)


class HostSwarms:
    """An `api.Swarms`."""

    async def swarms(self) -> Sequence[SwarmView]:
        """Every swarm that this home belongs to."""
        raise _not_yet()

    async def create_swarm(self, name: str, passphrase: str = "") -> SwarmView:
        """Make a swarm that this home owns, and go into it."""
        raise _not_yet()

    async def read_invite(self, line: str) -> InvitePreview:
        """Read an invite without using it or asking anybody."""
        raise _not_yet()

    async def join_swarm(self, line: str) -> SwarmView:
        """Redeem an invite, and go into its swarm."""
        raise _not_yet()

    async def use_swarm(self, name: str) -> None:
        """Leave what runs now and join another one; empty: solo."""
        raise _not_yet()

    async def invite(
        self,
        *,
        roles: Sequence[str] = (),
        uses: int = 1,
        expires_s: float = 24 * 3600.0,
        name: str = "",
    ) -> str:
        """One line that lets somebody in."""
        raise _not_yet()

    async def invites(self) -> Sequence[InviteView]:
        """What this home gave out."""
        raise _not_yet()

    async def withdraw_invite(self, invite_id: str) -> None:
        """Refuse an invite from now on."""
        raise _not_yet()

    async def members(self) -> Sequence[MemberView]:
        """The peers that this home certified."""
        raise _not_yet()

    async def revoke_member(self, peer: str, passphrase: str = "") -> None:
        """Cut a peer off, now and for good; needs the root key."""
        raise _not_yet()


def _not_yet() -> ApiError:
    return ApiError(
        ErrorCode.INVALID_REQUEST, "Private swarms are not available yet.", status=501
    )
