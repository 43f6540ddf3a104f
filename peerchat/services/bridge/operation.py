"""What one path of the bridge is, for the routes and for the documents."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

Schema = Mapping[str, object]

TEXT: Schema = {"type": "string"}
SAID: Schema = {"type": "string", "minLength": 1, "pattern": "\\S"}
"""A text with something in it."""
MODEL: Schema = {**SAID, "maxLength": 256}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
SEED: Schema = {"type": "integer", "minimum": -(2**53), "maximum": 2**53}
OPTION: Schema = {"type": "number", "minimum": -(2**53), "maximum": 2**53}
POSITIVE: Schema = {"type": "integer", "minimum": 1, "maximum": 2**53}
COUNT: Schema = {"type": "integer", "minimum": 1, "maximum": 8192}
YES_NO: Schema = {"type": "boolean"}
ANYTHING: Schema = {"type": "object"}


def obj(required: str = "", **properties: Schema) -> Schema:
    """An object with these fields, and maybe others."""
    schema: dict[str, object] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required.split()
    return schema


def ref(name: str) -> Schema:
    """One of the named schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def listed(items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": items}


def either(*schemas: Schema) -> Schema:
    """One of these."""
    return {"anyOf": list(schemas)}


def optional(schema: Schema) -> Schema:
    """This or null, which counts as left out."""
    return either(schema, {"type": "null"})


PROVENANCE: Schema = obj(
    "request_id peer model finish_reason continued",
    request_id=TEXT,
    peer={**TEXT, "description": "The public key of the processor that ended it."},
    model={**TEXT, "description": "Its full name at the processor."},
    finish_reason={**TEXT, "description": "As it was signed."},
    prompt_tokens=WHOLE,
    answer_tokens=WHOLE,
    continued={**WHOLE, "description": "How often another processor went on."},
    receipt={**TEXT, "description": "Signed; `peerchat verify` reads it. Base64."},
    starts_at={
        **WHOLE,
        "description": "Where in the whole answer the text here begins; 0 if absent.",
    },
)
"""The field ``peerchat`` of answers."""


class Api(enum.StrEnum):
    """Whose manners a path has."""

    BRIDGE = "peerchat"
    OPENAI = "OpenAI"
    OLLAMA = "Ollama"


SSE = "text/event-stream"
NDJSON = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Operation:
    """One path and what it does; ``name`` is the method of the API's handlers."""

    name: str
    method: str
    path: str
    summary: str
    answer: str = ""
    """A schema; empty for what is no JSON."""
    body: str = ""
    failures: tuple[int, ...] = ()
    status: int = 200
    content_type: str = "application/json"
    needs_token: bool = False
    is_node_path: bool = False
    """The Node.js bridge has it too; errors carry the fields that it sends."""
    stream_type: str = ""
    """Of an answer that comes in pieces."""
    api: Api = Api.BRIDGE
    handler: str = ""
    """Where it is not the name."""
    has_head: bool = False
    """HEAD is answered too."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Parts of the path, and what each is."""
    example: str = ""
    """A body, for the page."""
    details: str = field(default="")
