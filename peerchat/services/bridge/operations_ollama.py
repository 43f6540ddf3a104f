"""Ollama's paths, and what clients of its API may send and get."""

from __future__ import annotations

from collections.abc import Mapping

from .operation import (
    ANYTHING,
    COUNT,
    MODEL,
    NDJSON,
    NUMBER,
    PROVENANCE,
    SAID,
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

_ASKED: Mapping[str, Schema] = {
    "stream": optional(YES_NO),
    "format": optional(
        either({"enum": ["json", ""]}, {**ANYTHING, "minProperties": 1})
    ),
    "options": optional(ANYTHING),
    "think": optional(either(YES_NO, {"enum": ["high", "medium", "low", "max", ""]})),
    "keep_alive": {},
}
_FIGURES: Mapping[str, Schema] = {
    "done": YES_NO,
    "done_reason": {"enum": ["stop", "length", "load", "unload"]},
    "total_duration": WHOLE,
    "load_duration": WHOLE,
    "prompt_eval_count": WHOLE,
    "prompt_eval_duration": WHOLE,
    "eval_count": WHOLE,
    "eval_duration": WHOLE,
    "peerchat": PROVENANCE,
}
_CALL = obj("function", id=TEXT, function=obj("name", name=SAID, arguments=ANYTHING))
_NAMED = obj("model", model=MODEL)
_DETAILS = obj(
    "format family families parameter_size quantization_level",
    parent_model=TEXT,
    format=TEXT,
    family=TEXT,
    families=listed(TEXT),
    parameter_size=TEXT,
    quantization_level=TEXT,
)
_ENTRY: Mapping[str, Schema] = {
    "name": TEXT,
    "model": TEXT,
    "size": WHOLE,
    "digest": TEXT,
    "details": _DETAILS,
}
_IMAGES = optional(listed(TEXT))

OLLAMA_SCHEMAS: Mapping[str, Schema] = {
    "OllamaChatRequest": obj(
        "model",
        model=MODEL,
        messages=optional(listed(ref("OllamaMessage"))),
        tools=optional(listed(obj("function", function=obj("name", name=SAID)))),
        **_ASKED,
    ),
    "OllamaMessage": obj(
        "role",
        role={"enum": ["system", "user", "assistant", "tool"]},
        content=optional(TEXT),
        images=_IMAGES,
        tool_calls=optional(listed(_CALL)),
        tool_name=optional(TEXT),
    ),
    "OllamaChat": obj(
        "model created_at message done",
        model=TEXT,
        created_at=TEXT,
        message=obj(
            "role content",
            role={"const": "assistant"},
            content=TEXT,
            thinking=TEXT,
            tool_calls=listed(_CALL),
        ),
        **_FIGURES,
    ),
    "OllamaGenerateRequest": obj(
        "model",
        model=MODEL,
        prompt=optional(TEXT),
        suffix=optional(TEXT),
        system=optional(TEXT),
        images=_IMAGES,
        raw=optional(YES_NO),
        context=optional({**listed(WHOLE), "maxItems": 0}),
        **_ASKED,
    ),
    "OllamaGenerated": obj(
        "model created_at response done",
        model=TEXT,
        created_at=TEXT,
        response=TEXT,
        thinking=TEXT,
        **_FIGURES,
    ),
    "OllamaEmbedRequest": obj(
        "model",
        model=MODEL,
        input=either(TEXT, {**listed(TEXT), "maxItems": 512}),
        dimensions=optional(COUNT),
        truncate=optional(YES_NO),
        options=optional(ANYTHING),
    ),
    "OllamaEmbedded": obj(
        "model embeddings",
        model=TEXT,
        embeddings=listed(listed(NUMBER)),
        total_duration=WHOLE,
        prompt_eval_count=WHOLE,
    ),
    "OllamaEmbeddingsRequest": obj("model", model=MODEL, prompt=optional(TEXT)),
    "OllamaEmbedding": obj("embedding", embedding=listed(NUMBER)),
    "OllamaModelName": _NAMED,
    "OllamaModels": obj(
        "models",
        models=listed(
            obj(
                "name model modified_at size digest details",
                modified_at=TEXT,
                capabilities=listed(TEXT),
                **_ENTRY,
            )
        ),
    ),
    "OllamaRunning": obj(
        "models",
        models=listed(
            obj(
                "name model size digest details expires_at size_vram",
                expires_at=TEXT,
                size_vram=WHOLE,
                context_length=WHOLE,
                **_ENTRY,
            )
        ),
    ),
    "OllamaShown": obj(
        "details model_info capabilities",
        modelfile=TEXT,
        parameters=TEXT,
        template=TEXT,
        details=_DETAILS,
        model_info=ANYTHING,
        capabilities=listed(TEXT),
        modified_at=TEXT,
    ),
    "OllamaVersion": obj("version", version=TEXT),
    "OllamaError": obj("error", error=TEXT),
}

_ASKING = (400, 401, 404, 408, 413, 429, 502, 503, 504)


def _asking(
    name: str, summary: str, body: str, answer: str, example: str, details: str = ""
) -> Operation:
    return Operation(
        f"ollama_{name}",
        "POST",
        f"/api/{name}",
        summary,
        answer=answer,
        body=body,
        failures=_ASKING,
        needs_token=True,
        stream_type=NDJSON if name in ("chat", "generate") else "",
        api=Api.OLLAMA,
        example=example,
        details=details,
    )


def _reading(
    name: str, summary: str, answer: str, *, has_head: bool = False
) -> Operation:
    return Operation(
        f"ollama_{name}",
        "GET",
        f"/api/{name}",
        summary,
        answer=answer,
        failures=() if name == "version" else (503,),
        has_head=has_head,
        api=Api.OLLAMA,
    )


def _refused(method: str, path: str) -> Operation:
    return Operation(
        f"ollama_{path}",
        method,
        f"/api/{path}",
        "Refused: a swarm's models are its processors' own.",
        answer="OllamaError",
        status=403,
        api=Api.OLLAMA,
        handler="ollama_refused",
    )


OLLAMA_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "ollama_root",
        "GET",
        "/",
        "“Ollama is running”, for Ollama's clients.",
        content_type="text/plain",
        has_head=True,
        api=Api.OLLAMA,
    ),
    _asking(
        "chat",
        "Ask the swarm, with Ollama's API.",
        "OllamaChatRequest",
        "OllamaChat",
        '{"model": "llama3.2", "messages": [{"role": "user", "content": "Hello"}]}',
        "One JSON object a line, unless stream is false. Without messages nothing is "
        "asked. Of options temperature, top_p, top_k, min_p, seed, stop, num_predict "
        "and the penalties count; the others, and keep_alive, are ignored. On its own "
        "port (--ollama-port) a caller of this machine needs no token.",
    ),
    _asking(
        "generate",
        "Ask with a single prompt.",
        "OllamaGenerateRequest",
        "OllamaGenerated",
        '{"model": "llama3.2", "prompt": "Why is the sky blue?"}',
    ),
    _asking(
        "embed",
        "Vectors of texts.",
        "OllamaEmbedRequest",
        "OllamaEmbedded",
        '{"model": "nomic-embed-text", "input": ["The sky is blue."]}',
    ),
    _asking(
        "embeddings",
        "A vector of one text, in the older form.",
        "OllamaEmbeddingsRequest",
        "OllamaEmbedding",
        '{"model": "nomic-embed-text", "prompt": "The sky is blue."}',
    ),
    _reading(
        "tags", "The models that the swarm serves.", "OllamaModels", has_head=True
    ),
    _reading("ps", "The models that a processor has in memory.", "OllamaRunning"),
    _reading(
        "version", "Which of Ollama's APIs this is.", "OllamaVersion", has_head=True
    ),
    Operation(
        "ollama_show",
        "POST",
        "/api/show",
        "What is known of a model.",
        answer="OllamaShown",
        body="OllamaModelName",
        failures=(400, 404, 408, 413, 503),
        api=Api.OLLAMA,
        example='{"model": "llama3.2"}',
    ),
    _refused("POST", "pull"),
    _refused("POST", "push"),
    _refused("POST", "create"),
    _refused("POST", "copy"),
    _refused("DELETE", "delete"),
)
