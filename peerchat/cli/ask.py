"""`peerchat ask`: one prompt, its answer on standard output."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence

from peerchat.api import Answer, Finished, Fragment, Message, Progress, Usage
from peerchat.sanitize import StreamSanitizer, display_line
from peerchat.settings import Settings

from .live_line import LiveLine
from .options import Invocation
from .output import Output
from .session import open_client, sign_in


async def run_ask(
    settings: Settings, call: Invocation, prompt: str, model: str | None
) -> None:
    """Ask, and print what comes as it comes; Ctrl+C stops the answer on every hop."""
    async with open_client(settings, call) as client:
        await sign_in(client)
        answer = client.ask(prompt, model=model or settings.model or None)
        await print_answer(answer, call.out)


async def print_answer(answer: Answer, out: Output) -> tuple[str, Finished | None]:
    """Print an answer's events; returns its whole text and its end."""
    clean = StreamSanitizer()
    waits = LiveLine(is_wanted=not out.is_json)
    text: list[str] = []
    finished = None
    try:
        async for event in answer:
            if not isinstance(event, Progress):
                waits.clear()
            match event:
                case Fragment(is_thinking=False):
                    text.append(piece := clean.feed(event.text))
                    _print_fragment(out, piece)
                case Progress():
                    _print_progress(out, event, waits)
                case Finished():
                    finished = event
    finally:
        waits.clear()
        text.append(rest := clean.finish())
        _print_fragment(out, rest)
        if not out.is_json and any(text):
            out.fragment("\n")
        await answer.aclose()
    if finished is not None:
        _print_end(out, finished)
    return "".join(text), finished


def _print_fragment(out: Output, text: str) -> None:
    if text and out.is_json:
        out.line("", {"event": "fragment", "text": text})
    elif text:
        out.fragment(text)


def _print_progress(out: Output, event: Progress, waits: LiveLine) -> None:
    if out.is_json:
        fields = {
            "state": event.state,
            "position": event.position,
            "peer": event.peer,
            "estimate_s": event.estimate_s,
            "reason": event.reason,
        }
        out.line("", {"event": "progress", **fields})
    elif event.state == "queued" and event.position:
        about = f", about {event.estimate_s:.0f} s" if event.estimate_s else ""
        waits.show(f"queued at place {event.position}{about}")
    else:
        waits.clear()


def _print_end(out: Output, end: Finished) -> None:
    if out.is_json:
        usage = {name: getattr(end.usage, name) for name in Usage.__slots__}
        receipt = base64.b64encode(end.receipt).decode() or None
        fields = {"usage": usage, "request_id": end.request_id, "receipt": receipt}
        out.line("", {"event": "done", **fields})
    elif sys.stderr.isatty():
        out.note(usage_line(end.usage))


def usage_line(usage: Usage) -> str:
    """What an answer cost, in one line for people."""
    parts = [display_line(usage.model)]
    if usage.answer_tokens is not None:
        parts.append(f"{usage.answer_tokens} tokens")
    if usage.tokens_per_s:
        parts.append(f"{usage.tokens_per_s:.1f} tok/s")
    parts.append(f"{usage.duration_s:.1f} s")
    if usage.peer:
        path = display_line(usage.path, 16)
        how = f" ({path})" if path else ""
        parts.append(f"peer {display_line(usage.peer)[:8]}{how}")
    if usage.continued:
        parts.append(f"continued {usage.continued}x")
    if usage.finish_reason not in ("", "stop"):
        parts.append(display_line(usage.finish_reason))
    return " · ".join(parts)


def as_history(turns: Sequence[tuple[str, str]]) -> tuple[Message, ...]:
    """Prompts and answers as the context of the next prompt."""
    return tuple(
        Message(role, content)
        for prompt, answer in turns
        for role, content in (("user", prompt), ("assistant", answer))
    )
