"""Answers as people keep them: files with a receipt in them, of any form that we write.

What `peerchat ask --json` printed; an answer of the bridge in OpenAI's or Ollama's form
or its own, whole or as the stream that came; or the receipt alone.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from peerchat.api import ApiError, ErrorCode
from peerchat.sanitize import display_line
from peerchat.services.receipt_claims import Recorded

LINES_MAX = 1_000_000
"""An answer of 16 MiB has no more fragments."""

Fields = Mapping[str, object]


def read_recorded(text: str) -> Recorded:
    """What was kept.

    Raises:
        ApiError: there is no receipt in it.
    """
    if not text.strip():
        raise unreadable("it is empty")
    if not text.lstrip().startswith(("{", "[", "data:", "event:", ":")):
        return Recorded(_unpacked(text.strip()))
    reader = _Reader()
    for event in _objects(text):
        reader.take(event)
    return reader.recorded()


def _objects(text: str) -> Iterator[Fields]:
    """JSON objects: one document, one a line, or as server-sent events."""
    whole = _parsed(text)
    if whole is not None:
        yield from _mappings(whole if isinstance(whole, list) else [whole])
        return
    lines = text.splitlines()
    if len(lines) > LINES_MAX:
        raise unreadable("it has too many lines")
    for number, line in enumerate(lines, 1):
        data = line.removeprefix("data:").strip()
        if not data or data == "[DONE]" or line.startswith((":", "event:", "id:")):
            continue
        value = _parsed(data)
        if value is None:
            raise unreadable(f"line {number} is no JSON")
        yield from _mappings([value])


def _parsed(text: str) -> object:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found


def _mappings(values: list[object]) -> Iterator[Fields]:
    return (value for value in values if isinstance(value, dict))


class _Reader:
    """Puts an answer together from its pieces."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._receipt = ""
        self._facts = Recorded(b"")

    def take(self, event: Fields) -> None:
        """The next object."""
        self._take_text(event)
        self._take_facts(event)
        for name in ("usage", "peerchat"):
            self._take_facts(_mapping(event.get(name)))

    def recorded(self) -> Recorded:
        """All of it; raises `ApiError` when no receipt came."""
        if not self._receipt:
            raise unreadable("there is no receipt in it")
        answer = "".join(self._pieces) or None
        return replace(self._facts, receipt=_unpacked(self._receipt), answer=answer)

    def _take_text(self, event: Fields) -> None:
        if event.get("thinking") is True:  # of the bridge's own stream
            return
        choices = event.get("choices")
        choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
        for holder in (event, choice):
            for name in ("text", "response"):
                self._add(holder.get(name))
            for name in ("message", "delta"):
                self._add(_mapping(holder.get(name)).get("content"))

    def _add(self, piece: object) -> None:
        if isinstance(piece, str):
            self._pieces.append(piece)

    def _take_facts(self, event: Fields) -> None:
        self._receipt = _text(event, "receipt") or self._receipt
        was = self._facts
        self._facts = Recorded(
            receipt=b"",
            request_id=_line(event, "requestId", "request_id") or was.request_id,
            peer=_line(event, "peer") or was.peer,
            model=_line(event, "model") or was.model,
            prompt_tokens=_count(
                event, was.prompt_tokens, "prompt_eval_count", "prompt_tokens"
            ),
            answer_tokens=_count(
                event,
                was.answer_tokens,
                "eval_count",
                "completion_tokens",
                "answer_tokens",
            ),
            finish_reason=_line(event, "finish_reason") or was.finish_reason,
            is_continued=was.is_continued or bool(event.get("continued")),
            is_partial=was.is_partial
            or bool(event.get("is_partial") or event.get("partial")),
            starts_at=_count(event, None, "starts_at") or was.starts_at,
        )


def _mapping(value: object) -> Fields:
    return value if isinstance(value, dict) else {}


def _text(event: Fields, name: str) -> str | None:
    value = event.get(name)
    return value if isinstance(value, str) and value else None


def _line(event: Fields, *names: str) -> str | None:
    # Shown beside what was signed, which was made inert in the same way.
    found = (display_line(_text(event, name) or "") for name in names)
    return next(filter(None, found), None)


def _count(event: Fields, otherwise: int | None, *names: str) -> int | None:
    values = (event.get(name) for name in names)
    return next((value for value in values if type(value) is int), otherwise)


def _unpacked(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise unreadable("the receipt is not base64") from None


def unreadable(why: str) -> ApiError:
    """What was given cannot be checked."""
    return ApiError(
        ErrorCode.INVALID_REQUEST,
        f"Nothing can be verified: {why}. Give what peerchat ask --json printed, an "
        "answer of the bridge, or a receipt.",
        status=400,
    )
