"""The table of paths: routes, OpenAPI and the page of documents all come from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Schema = Mapping[str, object]


def _object(required: str = "", **properties: Schema) -> Schema:
    schema: dict[str, object] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required.split()
    return schema


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_YES_NO: Schema = {"type": "boolean"}

SCHEMAS: Mapping[str, Schema] = {
    "Credentials": _object(
        "email password",
        email={"type": "string", "format": "email"},
        password={"type": "string", "minLength": 8},
    ),
    "Registered": _object(
        "success status message email",
        success=_YES_NO,
        status=_WHOLE,
        message=_TEXT,
        email=_TEXT,
    ),
    "LoggedIn": _object(
        "success status email key",
        success=_YES_NO,
        status=_WHOLE,
        email=_TEXT,
        key={"type": "string", "description": "The session token, for 24 hours."},
    ),
    "Question": {
        **_object(
            query={"type": "string", "description": "The prompt."},
            prompt={"type": "string", "description": "The same, if query is absent."},
            model=_TEXT,
            options={"type": "object"},
        ),
        "anyOf": [{"required": ["query"]}, {"required": ["prompt"]}],
    },
    "Answer": _object(
        "prompt response processed_at requestId rateLimitInfo",
        prompt=_TEXT,
        response=_TEXT,
        processed_at={"type": "string", "format": "date-time"},
        requestId=_TEXT,
        rateLimitInfo={"anyOf": [_ref("RateLimit"), {"type": "null"}]},
    ),
    "RateLimit": _object(
        "remainingRequests maxRequests nextResetInSeconds windowDurationMinutes",
        remainingRequests=_WHOLE,
        maxRequests=_WHOLE,
        nextResetInSeconds=_WHOLE,
        windowDurationMinutes={"type": "number"},
    ),
    "Verified": _object(
        "valid email rateLimitInfo",
        valid=_YES_NO,
        email=_TEXT,
        rateLimitInfo={"anyOf": [_ref("RateLimit"), {"type": "null"}]},
    ),
    "Token": _object("success token", success=_YES_NO, token=_TEXT),
    "Health": _object(
        "status timestamp service gateway message",
        status={"type": "string", "enum": ["healthy", "unhealthy"]},
        timestamp={"type": "string", "format": "date-time"},
        service=_TEXT,
        gateway=_YES_NO,
        message=_TEXT,
    ),
    "Models": _object(
        "models",
        models={
            "type": "array",
            "items": _object(
                "name",
                name=_TEXT,
                engine=_TEXT,
                peers={"type": "array", "items": _TEXT},
                context_tokens={"type": ["integer", "null"]},
            ),
        },
    ),
    "Error": _object(
        "error",
        error=_object("message type code", message=_TEXT, type=_TEXT, code=_TEXT),
        success={"type": "boolean", "const": False},
        status=_WHOLE,
        message=_TEXT,
        retryAfter=_WHOLE,
        rateLimitInfo=_ref("RateLimit"),
        requestId=_TEXT,
    ),
}

FAILURES: Mapping[int, str] = {
    400: "The request is malformed.",
    401: "The token or the password is missing, wrong or expired.",
    409: "The account exists.",
    413: "The body is over 1 MiB.",
    429: "The limit is reached; Retry-After says for how many seconds.",
    502: "A peer failed or was lost.",
    503: "Nobody is there to serve this now.",
    504: "A peer did not answer in time.",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One path and what it does; ``name`` is the method of `handlers.Handlers`."""

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
    streams: bool = False
    details: str = field(default="")


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "register",
        "POST",
        "/register",
        "Make an account.",
        answer="Registered",
        body="Credentials",
        status=201,
        failures=(400, 409, 413, 502, 503),
        is_node_path=True,
    ),
    Operation(
        "login",
        "POST",
        "/login",
        "Get a session token for an account.",
        answer="LoggedIn",
        body="Credentials",
        failures=(400, 401, 413, 429, 502, 503),
        is_node_path=True,
    ),
    Operation(
        "inference",
        "POST",
        "/inference",
        "Ask the swarm.",
        answer="Answer",
        body="Question",
        failures=(400, 401, 413, 429, 502, 503, 504),
        needs_token=True,
        is_node_path=True,
        streams=True,
        details="With Accept: text/event-stream the answer comes as server-sent "
        "events: progress, fragment (text, and thinking when it is not the answer "
        "itself), then one done (requestId, usage, rateLimitInfo) or one error. "
        "Closing the connection stops the answer.",
    ),
    Operation(
        "verify_session",
        "POST",
        "/verify-session",
        "Tell whose a token is, and what is left of the limit.",
        answer="Verified",
        failures=(401, 502, 503),
        needs_token=True,
        is_node_path=True,
    ),
    Operation(
        "get_api_token",
        "POST",
        "/get-api-token",
        "Confirm the caller's own token.",
        answer="Token",
        failures=(401, 502, 503),
        needs_token=True,
        is_node_path=True,
        details="Never gives a token to a caller who sent none.",
    ),
    Operation(
        "models",
        "GET",
        "/models",
        "The models that the swarm serves.",
        answer="Models",
        failures=(503,),
    ),
    Operation(
        "health",
        "GET",
        "/health",
        "Whether a gateway can be reached.",
        answer="Health",
        failures=(503,),
        is_node_path=True,
    ),
    Operation(
        "metrics",
        "GET",
        "/metrics",
        "Figures for Prometheus.",
        content_type="text/plain",
    ),
    Operation(
        "openapi",
        "GET",
        "/openapi.json",
        "This description, for programs.",
        answer="Description",
    ),
    Operation(
        "docs",
        "GET",
        "/docs",
        "This description, for people.",
        content_type="text/html",
    ),
)
