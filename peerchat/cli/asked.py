"""What was asked, as people keep it: a prompt, or a request to the bridge."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from peerchat.api import ApiError, ErrorCode, PromptRequest
from peerchat.services.bridge import ollama_request, openai_request
from peerchat.services.bridge.asking import Asked

Body = Mapping[str, object]


def requests_of_prompt(text: str) -> list[PromptRequest]:
    """A prompt as it stands, and with and without the newline at the end of a file."""
    short = text.rstrip("\n")
    return [PromptRequest(one, "") for one in (text, short, f"{short}\n")]


def requests_of_body(text: str) -> list[PromptRequest]:
    """All that a body can mean; which API it was for does not stand in it.

    Raises:
        ApiError: it is a request of no API.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise _refused("it is no JSON") from None
    if not isinstance(body, dict):
        raise _refused("it is no JSON object")
    found, problem = [], "it has neither messages nor a prompt"
    for read in _readers(body):
        try:
            found += read({"model": "any", **body})
        except ApiError as error:
            problem = error.message.rstrip(".")
    if not found:
        raise _refused(problem)
    return found


def _readers(body: Body) -> list[Callable[[Body], list[PromptRequest]]]:
    if body.get("messages"):
        return [
            lambda one: [_asked(openai_request.chat_of(one))],
            lambda one: [_asked(ollama_request.chat_of(one))],
        ]
    if "input" in body:
        return [_inputs]
    if body.get("prompt") or body.get("query"):
        return [
            lambda one: [_asked(openai_request.completion_of(one))],
            lambda one: [_asked(ollama_request.generate_of(one))],
            _plain,
        ]
    return []


def _asked(asked: Asked) -> PromptRequest:
    return PromptRequest(
        asked.prompt,
        "",
        history=asked.history,
        images=asked.images,
        tools=asked.tools,
        response_format=asked.response_format,
        prefix=asked.prefix,
        is_raw=asked.is_raw,
        suffix=asked.suffix,
    )


def _plain(body: Body) -> list[PromptRequest]:
    """Of ``/inference``."""
    prompt = body.get("query") or body.get("prompt")
    return [PromptRequest(prompt, "")] if isinstance(prompt, str) else []


def _inputs(body: Body) -> list[PromptRequest]:
    """Texts to embed."""
    given = body["input"]
    inputs = [given] if isinstance(given, str) else given
    if not isinstance(inputs, list) or not all(isinstance(one, str) for one in inputs):
        raise _refused("input is neither a text nor a list of texts")
    return [PromptRequest("", "", inputs=tuple(inputs))]


def _refused(why: str) -> ApiError:
    return ApiError(
        ErrorCode.INVALID_REQUEST,
        f"The request cannot be read: {why}. Give the JSON body that was sent to the "
        "bridge, or the prompt alone with --prompt.",
        status=400,
    )
