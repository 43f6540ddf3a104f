"""`peerchat verify`: whether an answer is what its processor signed, claim by claim."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from peerchat.api import ApiError, ErrorCode, PromptRequest
from peerchat.net.errors import DecodeError
from peerchat.net.identity import PublicKey
from peerchat.sanitize import display_line
from peerchat.services.receipt_claims import (
    Claim,
    Recorded,
    Verdict,
    claims_of,
    time_text,
)
from peerchat.services.receipts import Receipt, open_receipt_untrusted
from peerchat.services.signers import Signers
from peerchat.settings import Settings

from .asked import requests_of_body, requests_of_prompt
from .options import Invocation
from .output import Output
from .recorded import read_recorded, unreadable
from .session import open_node

INPUT_CHARS_MAX = 64 * 1024 * 1024
"""Far above any answer with its JSON."""


@dataclass(frozen=True, slots=True)
class Given:
    """The files that a command names; ``-`` is standard input."""

    answer: str
    prompt: str | None = None
    request: str | None = None

    @property
    def problem(self) -> str:
        """Why they cannot all be read; empty when they can."""
        if self.prompt is not None and self.request is not None:
            return "give --prompt or --request, not both"
        if [self.answer, self.prompt, self.request].count("-") > 1:
            return "only one file can be standard input"
        return ""

    def requests(self) -> list[PromptRequest]:
        """What was asked; empty when it was not given."""
        if self.prompt is not None:
            return requests_of_prompt(_read(self.prompt))
        return [] if self.request is None else requests_of_body(_read(self.request))


async def run_verify(settings: Settings, call: Invocation, given: Given) -> None:
    """Print each claim, and what became of it.

    Raises:
        ApiError: one does not hold, or there is nothing to check.
    """
    recorded, requests = read_recorded(_read(given.answer)), given.requests()
    try:
        receipt = open_receipt_untrusted(recorded.receipt)
    except DecodeError as error:
        raise unreadable(str(error)) from error
    claims = claims_of(receipt, recorded, requests, time.time())
    claims.append(await _signer(settings, call, receipt))
    _print(call.out, receipt, recorded, claims)
    if failed := [one.name for one in claims if one.verdict is Verdict.FAILS]:
        raise ApiError(
            ErrorCode.INVALID_REQUEST,
            f"The answer is not what was signed, or not by whom it should be: "
            f"{', '.join(failed)}.",
            status=400,
        )


async def _signer(settings: Settings, call: Invocation, receipt: Receipt) -> Claim:
    signers, key = Signers(settings), PublicKey(receipt.key)
    at_s = receipt.statement.finished_at_ms / 1000
    if (claim := await signers.known(key, at_s)) is not None:
        return claim
    try:
        async with open_node(settings, call) as node:
            return await signers.met(node.swarm, key)
    except ApiError as error:
        return signers.unmet(display_line(error.message.rstrip(".")))


def _print(
    out: Output, receipt: Receipt, recorded: Recorded, claims: list[Claim]
) -> None:
    verdicts = {one.name: one.verdict for one in claims}
    said = receipt.statement
    for claim in claims:
        out.line(f"{claim.verdict:<11}  {claim.name:<13}  {claim.says}")
    fields: dict[str, object] = {
        "valid": Verdict.FAILS not in verdicts.values(),
        "peer": receipt.key.hex(),
        "request_id": said.request_id,
        "model": said.model,
        "prompt_tokens": said.prompt_tokens,
        "answer_tokens": said.answer_tokens,
        "finish_reason": said.finish_reason,
        "finished_at": time_text(receipt),
        "request_hash": said.request_hash.hex(),
        "answer_hash": said.answer_hash.hex(),
        "prefix_chars": said.prefix_chars,
        "is_partial": recorded.is_partial,
        "is_answer_checked": verdicts["answer"] is not Verdict.UNCHECKED,
        "claims": [
            {"claim": one.name, "verdict": one.verdict, "says": one.says}
            for one in claims
        ],
    }
    if out.is_json:
        out.line("", fields)


def _read(path: str) -> str:
    if path == "-":
        text = sys.stdin.read(INPUT_CHARS_MAX + 1)
    else:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            text = file.read(INPUT_CHARS_MAX + 1)
    if len(text) > INPUT_CHARS_MAX:
        raise unreadable(f"{path} is too long")
    return text
