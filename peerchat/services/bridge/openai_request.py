"""OpenAI's requests as what gateways are asked.

The fields are those of platform.openai.com/docs/api-reference (chat, completions); what
is not here is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping

from .asking import Asked, of_messages
from .errors import invalid
from .fields import Body, flag, mapping, model_name, number, objects, stops, text
from .openai_messages import messages_of

_LONGEST = ("max_tokens", "max_completion_tokens")
_WHOLE = ("seed", *_LONGEST)
_FLOAT = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
EFFORTS = ("none", "minimal", "low", "medium", "high")


def chat_of(body: Body) -> Asked:
    """``POST /v1/chat/completions``; raises `ApiError` (400) for what is wrong."""
    check_common(body)
    turns = messages_of(objects(body, "messages"))
    tools, choice = _tools(body)
    options = _options(body)
    if choice:
        options["tool_choice"] = choice
    asked = Asked(
        model=model_name(body),
        options=options,
        tools=tools,
        response_format=_format(mapping(body, "response_format")),
    )
    return of_messages(turns, asked)


def completion_of(body: Body) -> Asked:
    """``POST /v1/completions``: the text goes on as it stands."""
    check_common(body)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        (prompt,) = prompt
    if not isinstance(prompt, str) or not prompt:
        raise invalid(
            "prompt must be one text that is not empty: neither several nor tokens."
        )
    return Asked(
        prompt,
        model_name(body),
        options=_options(body),
        is_raw=True,
        suffix=text(body, "suffix"),
    )


def check_common(body: Body) -> None:
    """Refuse what would change the answer's shape in a way that nobody serves."""
    for name in ("n", "best_of"):
        count = body.get(name)
        if count is not None and (isinstance(count, bool) or count != 1):
            raise invalid(f"{name} must be 1: one answer a request.")
    logprobs = body.get("logprobs")
    is_wanted = logprobs is not None and logprobs is not False  # 0 wants one
    if is_wanted or body.get("top_logprobs"):
        raise invalid("logprobs are not served: engines do not tell them; leave out.")
    if body.get("functions"):
        raise invalid("functions is the older form and not served: send tools.")
    if not model_name(body):
        raise invalid("model is required; GET /v1/models lists those that are served.")


def is_stream(body: Body) -> bool:
    """Whether the answer is wanted in pieces."""
    return flag(body, "stream", default=False)


def echo_of(body: Body) -> str:
    """What ``/v1/completions`` gives back before its answer."""
    is_wanted = flag(body, "echo", default=False)
    return completion_of(body).prompt if is_wanted else ""


def wants_usage(body: Body) -> bool:
    """Whether the stream ends with what it cost."""
    return flag(mapping(body, "stream_options"), "include_usage", default=False)


def _options(body: Body) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in (*_WHOLE, *_FLOAT):
        value = body.get(name)
        if value is not None:
            found[name] = checked = number(name, value, is_whole=name in _WHOLE)
            if name in _LONGEST and checked < 1:
                raise invalid(f"{name} must be at least 1.")
    longest = found.pop("max_completion_tokens", None)
    if longest is not None:
        found["max_tokens"] = longest
    if body.get("stop") is not None and (ends := stops("stop", body["stop"])):
        found["stop"] = ends
    effort = text(body, "reasoning_effort")
    if effort in EFFORTS:
        found["reasoning_effort"] = "low" if effort == "minimal" else effort
    return found


def _tools(body: Body) -> tuple[tuple[Mapping[str, object], ...], str]:
    """The functions, and which of them: empty leaves it to the model."""
    tools = tuple(objects(body, "tools"))
    for tool in tools:
        function = tool.get("function")
        is_named = isinstance(function, dict) and isinstance(function.get("name"), str)
        if tool.get("type") != "function" or not is_named:
            raise invalid('Each of tools must be {"type": "function", "function": …}.')
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        choice = mapping(choice, "function").get("name")
        if not isinstance(choice, str) or not 0 < len(choice) <= 64:
            raise invalid("tool_choice must name a function of tools.")
        if choice not in (mapping(tool, "function").get("name") for tool in tools):
            raise invalid(f"tool_choice names {choice!r}, which is not among tools.")
        return tools, choice
    if choice not in (None, "auto", "none", "required"):
        raise invalid("tool_choice must be auto, none, required or a function.")
    if choice == "none":
        return (), ""
    if choice == "required" and not tools:
        raise invalid("tool_choice is required, and there are no tools to choose from.")
    return tools, "required" if choice == "required" else ""


def _format(wanted: Mapping[str, object]) -> Mapping[str, object] | str | None:
    match wanted.get("type", "text"):
        case "text":
            return None
        case "json_object":
            return "json"
        case "json_schema":
            schema = mapping(mapping(wanted, "json_schema"), "schema")
            if not schema:
                raise invalid("response_format.json_schema.schema must be a schema.")
            return schema
    raise invalid("response_format.type must be text, json_object or json_schema.")
