"""Which processor a request goes to: the one whose first token is expected soonest.

Among those that are about as good, two are drawn by lot and the less loaded one is
taken (Mitzenmacher 2001): several gateways that see the same figures, a second old, do
not all run to the same peer. A processor that holds the conversation's beginning is
taken when it is not much slower. Pure: chance comes as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peerchat.net.identity import PublicKey

NEAR_EQUAL = 1.2
HOLDER_MAY_BE_SLOWER = 1.3

FIRST_TOKEN_S = 0.05
"""What any engine needs before its first token; less differs by chance only."""

READ_TOKENS_PER_S = 400.0
"""How fast a prompt is read, where nobody measured it."""

READS_FASTER = 10.0
"""Than it writes: what engines on one machine show, between 5 and 30."""

Draw = Callable[[int], int]
"""A whole number from 0 to below what is given, by chance."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a choice needs to know of a processor that has the model."""

    key: PublicKey
    slots: int
    occupied: int
    """Slots in use, by anybody."""
    waiting: int = 0
    """Requests in its own queue; ours have none."""
    rtt_s: float = 0.0
    load_s: float = 0.0
    """To get the model into memory; 0 when it is there."""
    tokens_per_s: float | None = None
    """That it writes with the model."""
    answer_s: float = 10.0
    """An answer takes there, on average."""

    @property
    def share(self) -> float:
        """Of its slots that are in use."""
        return self.occupied / max(1, self.slots)

    def first_token_s(self, prompt_tokens: float) -> float:
        """Expected time from now to the first token."""
        reads = READ_TOKENS_PER_S
        if self.tokens_per_s:
            reads = self.tokens_per_s * READS_FASTER
        own_s = FIRST_TOKEN_S + self.rtt_s + self.load_s + prompt_tokens / reads
        ahead = max(0, self.occupied + self.waiting - self.slots + 1)
        wait_s = ahead * self.answer_s / max(1, self.slots)
        # Requests that run at once share one machine.
        return own_s * (1 + min(self.share, 1.0)) + wait_s


@dataclass(frozen=True, slots=True)
class Choice:
    """Who was taken, and why."""

    key: PublicKey
    expected_s: float
    reason: str


def choose(
    candidates: Sequence[Candidate],
    prompt_tokens: float,
    draw: Draw,
    holder: bytes | None = None,
    others: int = 0,
) -> Choice:
    """Take one of the candidates; there is at least one.

    Args:
        candidates: who has a free slot.
        prompt_tokens: to read.
        draw: chance.
        holder: of the conversation's beginning.
        others: that have the model, and are busy, closed or failed it already.
    """
    if len(candidates) == 1:
        (one,) = candidates
        reason = "the only free one" if others else "the only one"
        return Choice(one.key, one.first_token_s(prompt_tokens), reason)
    ranked = sorted(
        ((one.first_token_s(prompt_tokens), one) for one in candidates),
        key=lambda pair: pair[0],
    )
    best_s = ranked[0][0]
    for expected_s, one in ranked:
        is_holder = holder is not None and one.key == holder
        if is_holder and expected_s <= best_s * HOLDER_MAY_BE_SLOWER:
            return Choice(one.key, expected_s, "knows the conversation")
    near = [pair for pair in ranked if pair[0] <= best_s * NEAR_EQUAL]
    expected_s, one = _less_loaded(near, draw)
    return Choice(one.key, expected_s, _reason(one, len(candidates)))


def _less_loaded(
    near: Sequence[tuple[float, Candidate]], draw: Draw
) -> tuple[float, Candidate]:
    if len(near) == 1:
        return near[0]
    first = draw(len(near))
    second = (first + 1 + draw(len(near) - 1)) % len(near)
    pair = (near[first], near[second])
    return min(pair, key=lambda one: one[1].share)


def _reason(one: Candidate, among: int) -> str:
    is_idle = "idle" if not one.occupied else f"{one.occupied} of {one.slots} busy"
    return f"soonest of {among}, {is_idle}"
