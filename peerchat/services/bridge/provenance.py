"""What an answer says of itself beside its API's own words: the object ``peerchat``.

Clients of OpenAI and Ollama skip it. A body saved with it is what `peerchat verify`
reads.
"""

from __future__ import annotations

import base64

from peerchat.api import Finished
from peerchat.logs import request_id

KEY = "peerchat"


def provenance(end: Finished, *, starts_at: int = 0) -> dict[str, object]:
    """The object under its key, to be joined to an answer or to its last piece.

    Args:
        end: of the answer.
        starts_at: the place in the whole answer where the text that is told begins: not
            0 where the caller gave the beginning, below 0 where more stands before it.
    """
    usage = end.usage
    told: dict[str, object] = {
        "request_id": end.request_id or request_id.get(),
        "peer": usage.peer,
        "model": usage.model,
        "finish_reason": usage.finish_reason,
        "continued": usage.continued,
    }
    for name in ("prompt_tokens", "answer_tokens"):
        if (count := getattr(usage, name)) is not None:
            told[name] = count
    if end.receipt:
        told["receipt"] = base64.b64encode(end.receipt).decode()
    if starts_at:
        told["starts_at"] = starts_at
    return {KEY: told}
