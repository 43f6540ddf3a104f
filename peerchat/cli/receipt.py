"""`peerchat verify` and `peerchat trace`: who gave an answer, and how it came."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from peerchat.api import ApiError, ErrorCode, Hop
from peerchat.sanitize import display_line
from peerchat.settings import Settings

from .options import Invocation
from .output import Output
from .session import open_client, sign_in

INPUT_BYTES_MAX = 64 * 1024 * 1024
"""Far above any answer with its JSON."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What `peerchat ask --json` printed, or a receipt alone."""

    receipt: bytes
    answer: str | None
    """None: only the receipt is known."""


def run_verify(path: str, out: Output) -> None:
    """Check a receipt, and that it is of the answer that stands beside it.

    Raises:
        ApiError: it does not hold.
    """
    from peerchat.net.errors import DecodeError
    from peerchat.services.receipts import open_receipt_untrusted

    recorded = read_recorded(_read(path))
    try:
        receipt = open_receipt_untrusted(recorded.receipt)
    except DecodeError as error:
        raise _refused(str(error)) from error
    if recorded.answer is not None and not receipt.is_of(recorded.answer):
        raise _refused("it was signed for another answer")
    said = receipt.statement
    when = datetime.fromtimestamp(said.finished_at_ms / 1000, UTC)
    fields: dict[str, object] = {
        "valid": True,
        "peer": receipt.key.hex(),
        "request_id": said.request_id,
        "model": said.model,
        "prompt_tokens": said.prompt_tokens,
        "answer_tokens": said.answer_tokens,
        "finish_reason": said.finish_reason,
        "finished_at": when.isoformat(timespec="seconds"),
        "request_hash": said.request_hash.hex(),
        "answer_hash": said.answer_hash.hex(),
        "prefix_chars": said.prefix_chars,
        "is_answer_checked": recorded.answer is not None,
    }
    if out.is_json:
        out.line("", fields)
        return
    for name, value in fields.items():
        if value not in (None, 0):
            out.line(f"{name.replace('_', ' '):<17} {value}")


def read_recorded(text: str) -> Recorded:
    """A receipt in base64, or the lines of `peerchat ask --json`.

    Raises:
        ApiError: there is no receipt in it.
    """
    if not text.lstrip().startswith("{"):
        return Recorded(_unpacked(text.strip()), None)
    pieces: list[str] = []
    receipt = ""
    for line in filter(str.strip, text.splitlines()):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            raise _refused("a line of the file is no JSON") from None
        if not isinstance(event, dict):
            continue
        if event.get("event") == "fragment":
            pieces.append(str(event.get("text", "")))
        receipt = str(event.get("receipt") or receipt)
    if not receipt:
        raise _refused("there is no receipt in it")
    return Recorded(_unpacked(receipt), "".join(pieces) if pieces else None)


async def run_trace(settings: Settings, call: Invocation, request_id: str) -> None:
    """Print each hop of one of the caller's last requests."""
    async with open_client(settings, call) as client:
        await sign_in(client)
        for hop in await client.trace(request_id):
            call.out.line(hop_line(hop), hop_fields(hop))


def hop_line(hop: Hop) -> str:
    """One hop for people."""
    peer = display_line(hop.peer)[:8] or "-"
    return (
        f"{hop.at_s:9.3f} s  {hop.role:<9} {hop.what:<10} {peer:<8}  {hop.detail}"
    ).rstrip()


def hop_fields(hop: Hop) -> dict[str, object]:
    """One hop for programs."""
    return {
        "at_s": hop.at_s,
        "role": hop.role,
        "what": hop.what,
        "peer": hop.peer,
        "detail": hop.detail,
    }


def _read(path: str) -> str:
    if path == "-":
        return sys.stdin.read(INPUT_BYTES_MAX)
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        return file.read(INPUT_BYTES_MAX)


def _unpacked(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise _refused("the receipt is not base64") from None


def _refused(why: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_REQUEST, f"The receipt does not hold: {why}.")
