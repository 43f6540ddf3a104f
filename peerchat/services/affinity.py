"""Which processor has seen the beginning of a conversation: its engine may have it
in its cache, and need not read it again.

Only a hint: texts are hashed by length and beginning, so that a long history takes no
time, and a wrong hint costs nothing but the work that is saved otherwise.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator

from peerchat.api import PromptRequest

KEPT_MAX = 4096
"""Conversations that are remembered; 150 bytes each."""

TURNS_LOOKED_AT = 8
"""What was served goes on two turns later; what is edited, further back."""

CHARS_HASHED = 512


class Affinity:
    """Remembers who answered what; the oldest is forgotten first."""

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._holders: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._holders)

    def note(self, request: PromptRequest, holder: bytes) -> None:
        """A processor has read this conversation, prompt included."""
        *_, key = _beginnings(request)
        self._holders[key] = holder
        self._holders.move_to_end(key)
        while len(self._holders) > self._kept_max:
            self._holders.popitem(last=False)

    def holder(self, request: PromptRequest) -> bytes | None:
        """Who read the longest beginning of it that anybody is known to have read."""
        newest_first = list(_beginnings(request))[::-1][:TURNS_LOOKED_AT]
        for key in newest_first:
            if key in self._holders:
                return self._holders[key]
        return None

    def forget(self, holder: bytes) -> None:
        """The processor is gone, and so is what it had read."""
        for key in [key for key, one in self._holders.items() if one == holder]:
            del self._holders[key]


def _beginnings(request: PromptRequest) -> Iterator[bytes]:
    """A hash of each beginning of the conversation, the shortest first."""
    key = b""
    for turn in request.history:
        key = _step(key, turn.role, turn.content)
        yield key
    if request.prompt or not request.history:
        yield _step(key, "user", request.prompt)


def _step(before: bytes, role: str, content: str) -> bytes:
    text = f"{role}\0{len(content)}\0{content[:CHARS_HASHED]}"
    data = before + text.encode("utf-8", "replace")
    return hashlib.blake2b(data, digest_size=16).digest()
