"""OpenAI's paths, and what clients of its API may send and get."""

from __future__ import annotations

from collections.abc import Mapping

from .operation import (
    ANYTHING,
    COUNT,
    MODEL,
    NUMBER,
    OPTION,
    POSITIVE,
    PROVENANCE,
    SAID,
    SEED,
    SSE,
    TEXT,
    WHOLE,
    YES_NO,
    Api,
    Operation,
    Schema,
    either,
    listed,
    obj,
    optional,
    ref,
)

_USAGE = obj(
    "prompt_tokens total_tokens",
    prompt_tokens=WHOLE,
    completion_tokens=WHOLE,
    total_tokens=WHOLE,
)
_OPTIONS: Mapping[str, Schema] = {
    "temperature": optional(OPTION),
    "top_p": optional(OPTION),
    "max_tokens": optional(POSITIVE),
    "seed": optional(SEED),
    "stop": optional(either(TEXT, {**listed(TEXT), "maxItems": 16})),
    "presence_penalty": optional(OPTION),
    "frequency_penalty": optional(OPTION),
    "n": {"enum": [1, None]},
    "best_of": {"enum": [1, None]},
    "logprobs": {"enum": [False, None]},
    "stream": optional(YES_NO),
    "stream_options": optional(obj(include_usage=optional(YES_NO))),
}
_TOOL = obj(
    "type function", type={"const": "function"}, function=obj("name", name=TEXT)
)
_CHOSEN = obj(
    "function", function=obj("name", name={**SAID, "maxLength": 64}), type=TEXT
)
_FORMAT = either(
    obj("type", type={"enum": ["text", "json_object"]}),
    obj(
        "type json_schema",
        type={"const": "json_schema"},
        json_schema=obj("schema", schema={**ANYTHING, "minProperties": 1}),
    ),
)
_TOOL_CALL = obj(
    "function",
    id=TEXT,
    type={"const": "function"},
    function=obj("name", name=SAID, arguments=TEXT),
)
_PART = obj("type", type=TEXT, text=TEXT, image_url=either(TEXT, obj(url=TEXT)))


def _answered(kind: str, choice: Schema) -> Schema:
    return obj(
        "id object created model choices usage peerchat",
        id=TEXT,
        object={"const": kind},
        created=WHOLE,
        model=TEXT,
        choices=listed(choice),
        usage=_USAGE,
        peerchat=PROVENANCE,
    )


def _choice(**part: Schema) -> Schema:
    names = " ".join(part)
    reason = {"enum": ["stop", "length", "tool_calls"]}
    return obj(
        f"index finish_reason {names}", index=WHOLE, finish_reason=reason, **part
    )


OPENAI_SCHEMAS: Mapping[str, Schema] = {
    "ChatRequest": obj(
        "model messages",
        model=MODEL,
        messages={**listed(ref("ChatMessage")), "minItems": 1},
        max_completion_tokens=optional(POSITIVE),
        reasoning_effort=optional(TEXT),
        response_format=optional(_FORMAT),
        tools=optional(listed(_TOOL)),
        tool_choice=optional(either({"enum": ["auto", "none", "required"]}, _CHOSEN)),
        **_OPTIONS,
    ),
    "ChatMessage": obj(
        "role",
        role={"enum": ["system", "developer", "user", "assistant", "tool"]},
        content=optional(either(TEXT, listed(_PART))),
        name=optional(TEXT),
        tool_calls=optional(listed(_TOOL_CALL)),
        tool_call_id=optional(TEXT),
    ),
    "ChatCompletion": _answered(
        "chat.completion",
        _choice(
            message=obj(
                "role content",
                role={"const": "assistant"},
                content=optional(TEXT),
                reasoning_content=TEXT,
                tool_calls=listed(_TOOL_CALL),
            )
        ),
    ),
    "CompletionRequest": obj(
        "model prompt",
        model=MODEL,
        prompt=either(SAID, {**listed(SAID), "minItems": 1, "maxItems": 1}),
        suffix=optional(TEXT),
        echo=optional(YES_NO),
        **_OPTIONS,
    ),
    "Completion": _answered("text_completion", _choice(text=TEXT)),
    "EmbeddingRequest": obj(
        "model input",
        model=MODEL,
        input=either(SAID, {**listed(SAID), "minItems": 1, "maxItems": 512}),
        dimensions=optional(COUNT),
        encoding_format=optional({"enum": ["float", "base64"]}),
    ),
    "EmbeddingList": obj(
        "object data model usage",
        object={"const": "list"},
        data=listed(
            obj(
                "object index embedding",
                object={"const": "embedding"},
                index=WHOLE,
                embedding=either(TEXT, listed(NUMBER)),
            )
        ),
        model=TEXT,
        usage=_USAGE,
    ),
    "OpenAiModel": obj(
        "id object created owned_by",
        id=TEXT,
        object={"const": "model"},
        created=WHOLE,
        owned_by=TEXT,
        max_model_len=WHOLE,
    ),
    "OpenAiModels": obj(
        "object data", object={"const": "list"}, data=listed(ref("OpenAiModel"))
    ),
    "OpenAiError": obj(
        "error",
        error=obj(
            "message type param code",
            message=TEXT,
            type=TEXT,
            param=optional(TEXT),
            code=optional(TEXT),
            partial=YES_NO,
        ),
    ),
}

_ASKING = (400, 401, 404, 408, 413, 429, 502, 503, 504)

OPENAI_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "openai_models",
        "GET",
        "/v1/models",
        "The models that the swarm serves, for OpenAI clients.",
        answer="OpenAiModels",
        failures=(503,),
        api=Api.OPENAI,
    ),
    Operation(
        "openai_model",
        "GET",
        "/v1/models/{model}",
        "One of them.",
        answer="OpenAiModel",
        failures=(404, 503),
        parameters={"model": "Its name; slashes may stand in it."},
        api=Api.OPENAI,
    ),
    Operation(
        "openai_chat",
        "POST",
        "/v1/chat/completions",
        "Ask the swarm, with OpenAI's API.",
        answer="ChatCompletion",
        body="ChatRequest",
        failures=_ASKING,
        needs_token=True,
        stream_type=SSE,
        api=Api.OPENAI,
        example='{"model": "llama3.2", "messages": [{"role": "user", '
        '"content": "Why is the sky blue?"}]}',
        details="Text, images as data: URLs, functions, JSON schemas. With stream the "
        "answer comes as server-sent events; a place in the queue comes as a comment. "
        "Thinking is reasoning_content. Closing the connection stops the answer. "
        "Fields that are not listed are ignored.",
    ),
    Operation(
        "openai_completions",
        "POST",
        "/v1/completions",
        "Have the swarm go on with a text, without a chat template.",
        answer="Completion",
        body="CompletionRequest",
        failures=_ASKING,
        needs_token=True,
        stream_type=SSE,
        api=Api.OPENAI,
        example='{"model": "llama3.2", "prompt": "The sky is"}',
    ),
    Operation(
        "openai_embeddings",
        "POST",
        "/v1/embeddings",
        "Vectors of texts.",
        answer="EmbeddingList",
        body="EmbeddingRequest",
        failures=_ASKING,
        needs_token=True,
        api=Api.OPENAI,
        example='{"model": "nomic-embed-text", "input": "The sky is blue."}',
    ),
)
