"""What a receipt claims, each held against what somebody kept of the answer. No I/O.

A receipt that opens has a signature that holds. Whether the rest of what stands beside
it is what was signed is said claim by claim, so that a doubter sees what was checked,
and what was not.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from peerchat.api import PromptRequest
from peerchat.model_names import is_same_model

from .receipts import Receipt, request_hash

CLOCK_SKEW_S = 120
"""A processor's clock may be ahead by so much, as with certificates."""


class Verdict(enum.StrEnum):
    """What became of a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that is said of an answer."""

    name: str
    verdict: Verdict
    says: str
    """For people, in one line."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An answer as somebody kept it; None is what was not kept."""

    receipt: bytes
    answer: str | None = None
    request_id: str | None = None
    peer: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    finish_reason: str | None = None
    is_continued: bool = False
    """Several processors gave it, one after the other."""
    is_partial: bool = False
    """It lacks its end."""
    starts_at: int = 0
    """Where it begins in the whole answer, of which the asker may have given a part;
    below 0: so much of what was asked stands before it."""


def claims_of(
    receipt: Receipt,
    recorded: Recorded,
    requests: Sequence[PromptRequest],
    now_s: float,
) -> list[Claim]:
    """All but who the signer is.

    Args:
        receipt: what was signed.
        recorded: what stands beside it.
        requests: what was asked; several are ways to read the same words. Empty: it was
            not given.
        now_s: Unix time.
    """
    return [
        Claim("signature", Verdict.HOLDS, f"by {receipt.key.hex()}"),
        _answer(receipt, recorded, requests),
        _request(receipt, requests),
        *_words(receipt, recorded),
        *_tokens(receipt, recorded),
        _time(receipt, now_s),
    ]


def _answer(
    receipt: Receipt, recorded: Recorded, requests: Sequence[PromptRequest]
) -> Claim:
    text = recorded.answer
    if text is None:
        return _unchecked("answer", "its text was not given")
    starts = {0, recorded.starts_at, *(len(one.prefix) for one in requests)}
    begin = receipt.begin_in(text, starts)
    if begin is None:
        return _fails("answer", "another text was signed")
    repeated = max(0, -recorded.starts_at)
    text, begin = text[repeated:], max(0, begin - repeated)
    says = f"all {len(text)} characters"
    if begin:
        says = (
            f"the last {len(text) - begin} of {len(text)} characters; another "
            "processor said those before and left no receipt of them"
        )
    if repeated:
        says += (
            f"; the {repeated} before them are told to be of the request, and nobody "
            "signed them"
        )
    if recorded.is_partial:
        says += "; the answer lacks its end"
    return _holds("answer", says)


def _request(receipt: Receipt, requests: Sequence[PromptRequest]) -> Claim:
    if not requests:
        return _unchecked("request", "give it with --prompt FILE or --request FILE")
    hashes = map(request_hash, requests)
    if receipt.statement.request_hash in hashes:
        return _holds("request", "what was asked is what was given")
    return _fails(
        "request",
        "something else was asked; earlier turns of a chat count too: --request FILE",
    )


def _words(receipt: Receipt, recorded: Recorded) -> Iterator[Claim]:
    signed = receipt.statement
    yield _same("request id", signed.request_id, recorded.request_id)
    yield _same("peer", receipt.key.hex(), recorded.peer)
    model = recorded.model
    if model and is_same_model(model, signed.model):
        model = signed.model
    yield _same("model", signed.model, model)
    yield _same("end", signed.finish_reason, recorded.finish_reason)


def _tokens(receipt: Receipt, recorded: Recorded) -> Iterator[Claim]:
    signed = receipt.statement
    yield _same_count("prompt tokens", signed.prompt_tokens, recorded.prompt_tokens)
    own, shown = signed.answer_tokens, recorded.answer_tokens
    if recorded.is_continued and own is not None and shown is not None and own <= shown:
        # The parts before are counted by whoever went on, and signed by nobody.
        yield _holds("answer tokens", f"{own} of {shown}: those of the last part")
    else:
        yield _same_count("answer tokens", own, shown)


def _time(receipt: Receipt, now_s: float) -> Claim:
    finished_s = receipt.statement.finished_at_ms / 1000
    if finished_s > now_s + CLOCK_SKEW_S:
        return _fails("time", f"{time_text(receipt)}, which is yet to come")
    return _holds("time", time_text(receipt))


def time_text(receipt: Receipt) -> str:
    """When the answer ended, by the processor's clock."""
    finished_s = receipt.statement.finished_at_ms / 1000
    try:
        when = datetime.fromtimestamp(finished_s, UTC)
    except (OverflowError, ValueError, OSError):
        return "no time that there is"
    return when.isoformat(timespec="seconds")


def _same(name: str, signed: str, shown: str | None) -> Claim:
    if shown is None:
        return _unchecked(name, f"{signed} was signed")
    if signed != shown:
        return _fails(name, f"{shown} is shown, {signed} was signed")
    return _holds(name, signed)


def _same_count(name: str, signed: int | None, shown: int | None) -> Claim:
    # Some formats have 0, or nothing, for what nobody counted.
    if not signed and not shown:
        return _unchecked(name, "nobody counted them")
    says = "nothing" if signed is None else str(signed)
    return _same(name, says, None if shown is None else str(shown))


def _holds(name: str, says: str) -> Claim:
    return Claim(name, Verdict.HOLDS, says)


def _fails(name: str, says: str) -> Claim:
    return Claim(name, Verdict.FAILS, says)


def _unchecked(name: str, says: str) -> Claim:
    return Claim(name, Verdict.UNCHECKED, says)
