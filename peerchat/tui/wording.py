"""Words for states and failures: what happened, and what to do about it.

Pure functions from `api` values to text, so that every screen says the same thing
about the same trouble and a test can read all of it without an app.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from peerchat.api import ApiError, ErrorCode, NodeState, Phase, Role, Usage
from peerchat.sanitize import display_line

KEY_SHOWN_CHARS = 8
"""Enough of a public key to tell a few hundred peers apart at a glance."""


class Tone(enum.StrEnum):
    """How loud a piece of text is; a CSS class of the widget that shows it."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Words:
    """A headline and one line of advice."""

    title: str
    advice: str = ""
    tone: Tone = Tone.ERROR


_START_PROCESSOR = "On a machine with a model run: peerchat serve --role processor"
_START_ALL = "Start one with: peerchat serve --role all"

_BY_CODE: dict[ErrorCode, Words] = {
    ErrorCode.INVALID_REQUEST: Words("The request was refused", "Change it, try again"),
    ErrorCode.UNAUTHORIZED: Words(
        "Not logged in any more", "Log in again with /login; your prompt is kept"
    ),
    ErrorCode.FORBIDDEN: Words("Not allowed"),
    ErrorCode.CONFLICT: Words(
        "This account exists already", "Log in with it, or register another address"
    ),
    ErrorCode.RATE_LIMITED: Words(
        "Limit reached", "Your prompt waits and goes out by itself", Tone.WARNING
    ),
    ErrorCode.NO_AUTH: Words("No auth peer answers", _START_ALL),
    ErrorCode.NO_GATEWAY: Words("No gateway answers", _START_ALL),
    ErrorCode.NO_PROCESSOR: Words("No processor answers", _START_PROCESSOR),
    ErrorCode.BUSY: Words(
        "No processor is free", "Try again later with F5", Tone.WARNING
    ),
    ErrorCode.ENGINE_DOWN: Words(
        "The engine is down", "Start it (ollama serve), then try again with F5"
    ),
    ErrorCode.ENGINE_FAILED: Words(
        "The engine failed", "Try again with F5, or pick another model with /models"
    ),
    ErrorCode.MODEL_MISSING: Words(
        "Nobody serves this model", "Pick one that is served with /models"
    ),
    ErrorCode.PEER_LOST: Words("The peer went away", "Try again with F5"),
    ErrorCode.TIMEOUT: Words("No answer in time", "Try again with F5"),
    ErrorCode.DHT_UNREACHABLE: Words(
        "The network cannot be reached", "Check the connection; it is tried again"
    ),
    ErrorCode.STORE_FAILED: Words(
        "The store failed", "Free disk space or repair the file; see: peerchat doctor"
    ),
    ErrorCode.STOPPED: Words("Stopped", "", Tone.INFO),
    ErrorCode.INTERNAL: Words(
        "peerchat failed inside", "Try again with F5; if it stays: peerchat doctor"
    ),
}


def failure_words(error: ApiError) -> Words:
    """What an error means to the person at the keyboard.

    The error's own message comes first, since it knows the case; the advice of the
    table follows unless the message says the same.
    """
    words = _BY_CODE[error.code]
    message = display_line(error.message).strip()
    told = message.removeprefix(words.title).lstrip(" .:")
    if not told or told == words.advice:
        return words
    is_advised = words.advice in told or not words.advice
    advice = told if is_advised else f"{told}. {words.advice}"
    return Words(words.title, advice.replace("..", "."), words.tone)


def login_words(error: ApiError, *, is_register: bool = False) -> Words:
    """Like `failure_words`, where 401 means that what was typed does not fit."""
    is_refused = error.code in (ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN)
    if is_refused and is_register:
        message = display_line(error.message).strip()
        return Words("No account was made", message or "Check what you typed")
    if error.code is ErrorCode.UNAUTHORIZED:
        return Words(
            "Wrong email or password",
            "Check both; a new account is made with Register",
        )
    if error.code is ErrorCode.RATE_LIMITED:
        wait_s = error.retry_after_s or 0
        advice = f"Try again in {wait_s} s" if wait_s else "Try again in a while"
        return Words("Too many attempts", advice, Tone.WARNING)
    return failure_words(error)


_PHASE_WORDS: dict[Phase, str] = {
    Phase.STARTING: "starting",
    Phase.CONNECTING: "connecting",
    Phase.READY: "ready",
    Phase.OFFLINE: "offline, retrying",
    Phase.FAILED: "cannot run",
    Phase.CLOSED: "closed",
}


def phase_words(phase: Phase) -> str:
    """One or two words for the status line."""
    return _PHASE_WORDS[phase]


def state_notice(state: NodeState, waiting: int) -> Words | None:
    """What stands between the user and an answer now; None when nothing does.

    Args:
        waiting: prompts in the queue.
    """
    kept = f" {count(waiting, 'prompt')} kept until then." if waiting else ""
    problem = display_line(state.problem)
    if state.phase in (Phase.STARTING, Phase.CONNECTING):
        if not waiting:
            return None
        return Words("Connecting…", f"{kept.strip()}", Tone.INFO)
    if state.phase is Phase.OFFLINE:
        where = f"{problem}. " if problem else ""
        return Words(
            "Offline: the DHT cannot be reached",
            f"{where}Check the network or --bootstrap; it is tried again.{kept}",
            Tone.WARNING,
        )
    if state.phase is Phase.FAILED:
        return Words(
            "peerchat cannot run",
            f"{problem or 'No reason was given'}. Run: peerchat doctor",
        )
    if state.phase is Phase.READY and state.account is None and state.mode != "solo":
        return Words("Not logged in", f"Log in or register: /login.{kept}", Tone.INFO)
    return None


def limit_notice(seconds_left: float, waiting: int) -> Words:
    """The limit's countdown; the seconds are those until the prompt goes out."""
    seconds = max(1, math.ceil(seconds_left))
    queued = f"{count(waiting, 'prompt')} will go out by itself then"
    return Words(
        f"Limit reached: {seconds} s left",
        f"{queued}; Esc takes it back." if waiting else "Then you can ask again.",
        Tone.WARNING,
    )


def missing_role_words(roles: frozenset[Role]) -> str:
    """What the peers panel says when nobody serves a role that an answer needs."""
    if Role.GATEWAY not in roles:
        return "no gateway found yet"
    if Role.PROCESSOR not in roles:
        return "no processor found yet"
    return ""


def short_key(key: str) -> str:
    """The first characters of a public key in hex."""
    return display_line(key)[:KEY_SHOWN_CHARS]


def count(number: int, noun: str) -> str:
    """``1 prompt``, ``2 prompts``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def usage_words(usage: Usage) -> str:
    """One line: model, tokens, rate, seconds, who served it; unknown parts left out."""
    parts = [display_line(usage.model)]
    if usage.answer_tokens is not None:
        parts.append(count(usage.answer_tokens, "token"))
    if usage.tokens_per_s is not None:
        parts.append(f"{usage.tokens_per_s:.1f} tok/s")
    parts.append(f"{usage.duration_s:.1f} s")
    if usage.peer:
        path = display_line(usage.path, 16)
        how = f" ({path})" if path else ""
        parts.append(f"peer {short_key(usage.peer)}{how}")
    if usage.continued:
        parts.append(f"continued by {count(usage.continued, 'other peer')}")
    if usage.finish_reason == "length":
        parts.append("cut at the length limit")
    return " · ".join(part for part in parts if part)
