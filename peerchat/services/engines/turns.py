"""What engines need of a request's messages: roles, images, arguments of calls."""

from __future__ import annotations

import json
from collections.abc import Sequence

from peerchat.api import ApiError, Message, PromptRequest

from .base import COMPLETION, EMBED, IMAGES, JSON, PREFIX, TOOLS, invalid_request

NAMES_TOLD = 5
"""Of models to choose from, in one line."""

ROLES = frozenset({"system", "user", "assistant", "tool"})

_CANNOT = {
    COMPLETION: "take raw prompts",
    TOOLS: "call functions",
    IMAGES: "see images",
    JSON: "keep to a JSON schema",
    PREFIX: "go on with a begun answer",
    EMBED: "embed texts",
}

_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


def turns_of(request: PromptRequest) -> list[Message]:
    """All messages: the history, the prompt, and what was already answered.

    Raises:
        ApiError: INVALID_REQUEST for a role that does not exist, or for an image that
            is none.
    """
    turns = list(request.history)
    if request.prompt or request.images:
        turns.append(Message("user", request.prompt, images=request.images))
    for turn in turns:
        if turn.role not in ROLES:
            raise invalid_request(
                f"Unknown role {turn.role[:32]!r} in the history; use system, user, "
                "assistant or tool."
            )
        for image in turn.images:
            image_kind(image)
    if request.prefix:
        turns.append(Message("assistant", request.prefix))
    return turns


def needs_of(request: PromptRequest) -> frozenset[str]:
    """What a model has to be capable of for this request."""
    needs = {
        COMPLETION: request.is_raw,
        TOOLS: bool(request.tools),
        IMAGES: has_images(request),
        JSON: request.response_format is not None,
        PREFIX: bool(request.prefix),
        EMBED: bool(request.inputs),
    }
    return frozenset(word for word, is_needed in needs.items() if is_needed)


def check_needs(request: PromptRequest, capabilities: frozenset[str], who: str) -> None:
    """Refuse plainly what cannot be done, rather than answer something else."""
    missing = sorted(needs_of(request) - capabilities)
    if missing:
        raise invalid_request(
            f"{who} cannot {' or '.join(_CANNOT[one] for one in missing)}; choose "
            "another model."
        )


def embeds_only(model: str, chats: Sequence[str]) -> ApiError:
    """A model for vectors was asked to chat."""
    return invalid_request(
        f"The model {model} makes embeddings only (/v1/embeddings, /api/embed); "
        f"{_instead('a chat', chats)}."
    )


def cannot_embed(model: str, embedders: Sequence[str]) -> ApiError:
    """A model that chats was asked for vectors."""
    return invalid_request(
        f"The model {model} cannot embed texts; {_instead('an embedding', embedders)}."
    )


def _instead(kind: str, names: Sequence[str]) -> str:
    if not names:
        return f"there is no {kind.partition(' ')[2]} model here"
    return f"choose {kind} model: {', '.join(names[:NAMES_TOLD])}"


def has_images(request: PromptRequest) -> bool:
    """Whether there is something to look at."""
    return bool(request.images) or any(turn.images for turn in request.history)


def image_kind(data: bytes) -> str:
    """The media type, by the first bytes."""
    for head, kind in _KINDS:
        if data.startswith(head) and (kind != "image/webp" or data[8:12] == b"WEBP"):
            return kind
    raise invalid_request("An image must be a PNG, JPEG, GIF or WebP file.")


def arguments_of(text: str) -> dict[str, object]:
    """The arguments of a call as an object; what is none counts as empty."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
