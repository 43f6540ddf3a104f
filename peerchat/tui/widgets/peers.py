"""Who serves: one block for each peer, drawn only while the panel can be seen."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from peerchat.api import NodeState, PeerView, Role
from peerchat.closed_text import peer_words
from peerchat.sanitize import display_line
from peerchat.tui.wording import count, missing_role_words, short_key

from .inert import Inert

PEERS_SHOWN_MAX = 40
"""More than a screen; a swarm may announce thousands."""

MODELS_SHOWN_MAX = 3
"""Names under a processor; the model picker lists all."""

_ROLE_ORDER = {Role.GATEWAY: 0, Role.PROCESSOR: 1, Role.AUTH: 2, Role.BRIDGE: 3}


class PeersPanel(Inert):
    """The peers that lookups found, by role."""

    BORDER_TITLE = "Peers"

    def show_state(self, state: NodeState) -> None:
        """Draw the peers of a state."""
        peers = state.peers
        self.border_subtitle = count(len({peer.key for peer in peers}), "key")
        self.update(peers_content(peers))


def peers_content(peers: Sequence[PeerView]) -> Content:
    """The panel's text; a pure function of the peers."""
    lines: list[Content] = []
    missing = missing_role_words(frozenset(p.role for p in peers if p.is_reachable))
    if missing:
        lines.append(Content.styled(missing, "$warning"))
    ordered = sorted(peers, key=lambda peer: (_ROLE_ORDER[peer.role], peer.rtt_s or 0))
    for peer in ordered[:PEERS_SHOWN_MAX]:
        lines.append(_peer_line(peer))
        lines.extend(_state_lines(peer))
        lines.extend(_model_lines(peer))
    hidden = len(ordered) - PEERS_SHOWN_MAX
    if hidden > 0:
        lines.append(Content.styled(f"and {count(hidden, 'more peer')}", "dim"))
    return Content("\n").join(lines)


def _peer_line(peer: PeerView) -> Content:
    mark = ("●", "$success") if peer.is_reachable else ("○", "$error")
    if peer_words(peer):
        mark = ("◌", "$warning")
    return Content.assemble(
        mark,
        f" {peer.role.value:<9} ",
        (f"{short_key(peer.key):<8}", "$secondary"),
        (f" {_round_trip(peer):>7}", "$primary" if peer.is_self else "dim"),
        (f" {_load(peer)}" if peer.slots else "", "$warning" if _full(peer) else "dim"),
    )


def _state_lines(peer: PeerView) -> list[Content]:
    """Why it takes nothing, and until when: the panel is too narrow for both."""
    words = peer_words(peer)
    parts = words.split(", ") if words else []
    return [Content.styled(f"  {part}", "$warning") for part in parts]


def _round_trip(peer: PeerView) -> str:
    if not peer.is_reachable:
        return "gone"
    if peer.is_self:
        return "you"
    if peer.rtt_s is None:
        return ""
    milliseconds = peer.rtt_s * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 1 else "<1 ms"


def _load(peer: PeerView) -> str:
    return f"{peer.busy or 0}/{peer.slots}"


def _full(peer: PeerView) -> bool:
    return bool(peer.slots) and (peer.busy or 0) >= (peer.slots or 0)


def _model_lines(peer: PeerView) -> list[Content]:
    shown = [display_line(name, 28) for name in peer.models[:MODELS_SHOWN_MAX]]
    hidden = len(peer.models) - len(shown)
    if hidden > 0:
        shown.append(f"and {count(hidden, 'more model')}")
    return [Content.styled(f"  {name}", "dim") for name in shown]
