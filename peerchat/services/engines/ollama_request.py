"""A prompt as Ollama's chat and generate endpoints take it (ollama/docs/api.md)."""

from __future__ import annotations

from base64 import b64encode

from peerchat.api import Message, PromptRequest

from .options import EngineOptions
from .turns import arguments_of, turns_of

Body = dict[str, object]


def chat_body(model: str, request: PromptRequest, options: EngineOptions) -> Body:
    """For ``/api/chat``. A begun answer is a last message of the assistant, which
    Ollama goes on with; it has thought by then and does not begin to again."""
    messages = [_message(turn) for turn in turns_of(request)]
    think = options.think
    if request.prefix:
        think = False
        if request.prefix_thinking:
            messages[-1]["thinking"] = request.prefix_thinking
    body: Body = {"model": model, "messages": messages, "stream": True}
    if request.tools and options.tool_choice != "none":
        body["tools"] = list(request.tools)
    return body | _common(request, options, think)


def raw_body(model: str, request: PromptRequest, options: EngineOptions) -> Body:
    """For ``/api/generate``. Only without ``raw`` does Ollama fill a gap, by the
    template that the model has for that."""
    body: Body = {
        "model": model,
        "prompt": request.prompt + request.prefix,
        "stream": True,
    }
    if request.suffix:
        body["suffix"] = request.suffix
    else:
        body["raw"] = True
    return body | _common(request, options, options.think)


def _common(
    request: PromptRequest, options: EngineOptions, think: bool | str | None
) -> Body:
    body: Body = {"options": ollama_options(options)}
    if request.response_format is not None:
        body["format"] = request.response_format
    if think is not None:
        body["think"] = think
    return body


def ollama_options(options: EngineOptions) -> Body:
    """What was asked for, by Ollama's names."""
    asked = {
        "num_predict": options.num_predict,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "min_p": options.min_p,
        "seed": options.seed,
        "stop": options.stop,
        "repeat_penalty": options.repeat_penalty,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _message(turn: Message) -> Body:
    message: Body = {"role": turn.role, "content": turn.content}
    if turn.images:
        message["images"] = [b64encode(image).decode() for image in turn.images]
    if turn.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.call_id,
                "function": {
                    "name": call.name,
                    "arguments": arguments_of(call.arguments),
                },
            }
            for call in turn.tool_calls
        ]
    if turn.tool_name:
        message["tool_name"] = turn.tool_name
    if turn.tool_call_id:
        message["tool_call_id"] = turn.tool_call_id
    return message
