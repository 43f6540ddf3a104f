"""Who was let into the swarm, and the invites that are out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.widgets import Button

from peerchat.api import InviteView, MemberView, Swarms
from peerchat.sanitize import display_line
from peerchat.tui.swarm_wording import invite_row, member_row
from peerchat.tui.wording import Tone, Words, short_key

from .confirm import ConfirmScreen
from .listing import ListingScreen, Row

Entry = MemberView | InviteView


class MembersScreen(ListingScreen[str, Entry]):
    """Enter on a member revokes it, on an invite withdraws it; both ask first.

    Dismissed with ``invite`` when that is what comes next.
    """

    TITLE_WORDS = "Members and invites"
    SUBTITLE_WORDS = "Enter: revoke or withdraw   Esc: back"

    def __init__(self, swarms: Swarms) -> None:
        super().__init__()
        self._swarms = swarms

    def buttons(self) -> Iterable[Button]:
        yield Button("Invite", id="submit", variant="primary")
        yield Button("Back", id="leave")

    def hint(self) -> Words | None:
        if self._rows:
            return None
        return Words("", "Nobody else is in yet. Invite somebody.", Tone.INFO)

    def submitted(self) -> None:
        self.dismiss("invite")

    async def load(self) -> Sequence[Row[Entry]]:
        members = await self._swarms.members()
        invites = await self._swarms.invites()
        rows: list[Row[Entry]] = []
        if members:
            rows.append(Row(f"Members ({len(members)})"))
            rows += [_member(member) for member in members]
        if invites:
            rows.append(Row(f"Invites ({len(invites)})"))
            rows += [_invite(invite) for invite in invites]
        return rows

    def chosen(self, value: Entry) -> None:
        screen = self._revoke(value) if isinstance(value, MemberView) else None
        if isinstance(value, InviteView):
            screen = self._withdraw(value)
        if screen is not None:
            self.app.push_screen(screen, self._confirmed)

    def _confirmed(self, is_done: bool | None) -> None:
        if is_done:
            self.reload()

    def _revoke(self, member: MemberView) -> ConfirmScreen | None:
        if member.is_revoked:
            self.say(Words("", "This one is revoked already.", Tone.INFO))
            return None
        name = display_line(member.name, 40) or short_key(member.peer)
        return ConfirmScreen(
            f"Revoke {name}?",
            f"The peer {short_key(member.peer)} is cut off from the swarm, also in the "
            "middle of an answer. It comes back only by a new invite.",
            "Revoke",
            lambda passphrase: self._swarms.revoke_member(member.peer, passphrase),
            takes_passphrase=True,
        )

    def _withdraw(self, invite: InviteView) -> ConfirmScreen | None:
        if invite.state != "open":
            self.say(Words("", f"This one is {invite.state} already.", Tone.INFO))
            return None
        return ConfirmScreen(
            f"Withdraw the invite {display_line(invite.name, 30)}".rstrip() + "?",
            "It lets nobody in from now on. Whoever used it stays in.",
            "Withdraw",
            lambda passphrase: self._swarms.withdraw_invite(invite.invite_id),
        )


def _member(member: MemberView) -> Row[Entry]:
    name = member.name or short_key(member.peer)
    return Row(
        name,
        member_row(member),
        member,
        is_marked=not member.is_revoked,
        is_dim=member.is_revoked,
    )


def _invite(invite: InviteView) -> Row[Entry]:
    is_open = invite.state == "open"
    return Row(
        invite.name or "for anybody", invite_row(invite), invite, is_dim=not is_open
    )
