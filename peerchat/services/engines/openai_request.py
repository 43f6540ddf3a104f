"""A prompt as OpenAI's API takes it, and as its many imitations do.

Also what llama.cpp's own functions take, which speak the same JSON
(llama.cpp/tools/server/README.md).
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

from peerchat.api import Message, PromptRequest

from .base import invalid_request
from .options import EngineOptions
from .turns import image_kind, turns_of

Body = dict[str, object]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server understands beyond OpenAI's own words."""

    is_llama: bool = False
    """llama.cpp: it can be stopped while it reads the prompt, by telling how far it
    is; other servers may refuse a word that they do not know."""


def chat_body(
    model: str, request: PromptRequest, options: EngineOptions, dialect: Dialect
) -> Body:
    """For ``/chat/completions``.

    A begun answer is a last message of the assistant. vLLM wants to be told that it is
    to go on with it; llama.cpp wants that a model does not begin to think again.
    """
    body: Body = {
        "model": model,
        "messages": [_message(turn) for turn in turns_of(request)],
        "max_tokens": options.num_predict,
    }
    template: Body = {}
    if options.think is False:
        template["enable_thinking"] = False
    elif isinstance(options.think, str):
        body["reasoning_effort"] = options.think
    if request.prefix:
        body["continue_final_message"] = True
        body["add_generation_prompt"] = False
        template["enable_thinking"] = False
    if template:
        body["chat_template_kwargs"] = template
    if request.tools:
        body["tools"] = list(request.tools)
        if options.tool_choice is not None:
            body["tool_choice"] = _tool_choice(options.tool_choice)
    return body | _common(request, options, dialect)


def raw_body(
    model: str, request: PromptRequest, options: EngineOptions, dialect: Dialect
) -> Body:
    """For ``/completions``."""
    body: Body = {
        "model": model,
        "prompt": request.prompt + request.prefix,
        "max_tokens": options.num_predict,
    }
    if request.suffix:
        if dialect.is_llama:
            raise invalid_request("This engine fills no gaps; leave the suffix out.")
        body["suffix"] = request.suffix
    return body | _common(request, options, dialect)


def _common(request: PromptRequest, options: EngineOptions, dialect: Dialect) -> Body:
    asked: Body = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "min_p": options.min_p,
        "seed": options.seed,
        "stop": options.stop,
        "repeat_penalty": options.repeat_penalty,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "response_format": _format(request.response_format),
    }
    body = {name: value for name, value in asked.items() if value is not None}
    if dialect.is_llama:
        body["return_progress"] = True
    return body | {"stream": True, "stream_options": {"include_usage": True}}


def _format(wanted: object) -> Body | None:
    if wanted is None:
        return None
    if isinstance(wanted, str):
        return {"type": "json_object"}
    schema: Body = {"name": "answer", "schema": wanted, "strict": True}
    return {"type": "json_schema", "json_schema": schema}


def _tool_choice(choice: str) -> object:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _message(turn: Message) -> Body:
    message: Body = {"role": turn.role, "content": turn.content}
    if turn.images:
        texts = [{"type": "text", "text": turn.content}] if turn.content else []
        message["content"] = [*texts, *(_image(image) for image in turn.images)]
    if turn.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in turn.tool_calls
        ]
    if turn.role == "tool":
        message["tool_call_id"] = turn.tool_call_id
        if turn.tool_name:
            message["name"] = turn.tool_name
    return message


def _image(data: bytes) -> Body:
    url = f"data:{image_kind(data)};base64,{b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
