"""Why a peer takes nothing new, in a few words, for logs, commands and the app."""

from __future__ import annotations

import math

from .api import Closed, ClosedReason, PeerView, Role

TOLD_S_MAX = 7 * 86_400
"""No peer of ours tells more than two days; another one may tell any figure."""

_WORDS = {
    ClosedReason.PAUSED: "paused by its owner",
    ClosedReason.HOURS: "outside its hours",
    ClosedReason.SPENT: "out of tokens for today",
}


def reason_words(reason: ClosedReason) -> str:
    """Such as ``outside its hours``."""
    return _WORDS[reason]


def closed_words(closed: Closed) -> str:
    """The same, and when it opens."""
    words = reason_words(closed.reason)
    if closed.opens_in_s is None:
        return words
    return f"{words}, opens in {wait_words(closed.opens_in_s)}"


def peer_words(peer: PeerView) -> str:
    """Why a peer that answers does not do its work; empty when it does."""
    if peer.closed is not None:
        return closed_words(peer.closed)
    if peer.is_well or not peer.is_reachable:
        return ""
    return "its engine is down" if peer.role is Role.PROCESSOR else "not well"


def wait_words(wait_s: float) -> str:
    """Such as ``40 s``, ``5 min`` or ``3 h 20 min``, rounded up."""
    if wait_s > TOLD_S_MAX:
        return f"more than {TOLD_S_MAX // 86_400} days"
    if wait_s <= 60:
        return f"{max(1, math.ceil(wait_s))} s"
    hours, minutes = divmod(math.ceil(wait_s / 60), 60)
    parts = (f"{hours} h" if hours else "", f"{minutes} min" if minutes else "")
    return " ".join(part for part in parts if part)
