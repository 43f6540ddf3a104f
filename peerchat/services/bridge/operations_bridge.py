"""The bridge's own paths; those of the Node.js bridge are among them."""

from __future__ import annotations

from collections.abc import Mapping

from .operation import PROVENANCE, SSE, TEXT, WHOLE, YES_NO, Operation, Schema, obj, ref

BRIDGE_SCHEMAS: Mapping[str, Schema] = {
    "Credentials": obj(
        "email password",
        email={"type": "string", "format": "email"},
        password={"type": "string", "minLength": 8},
    ),
    "Registered": obj(
        "success status message email",
        success=YES_NO,
        status=WHOLE,
        message=TEXT,
        email=TEXT,
    ),
    "LoggedIn": obj(
        "success status email key",
        success=YES_NO,
        status=WHOLE,
        email=TEXT,
        key={"type": "string", "description": "The session token, for 24 hours."},
    ),
    "Question": {
        **obj(
            query={"type": "string", "description": "The prompt."},
            prompt={"type": "string", "description": "The same, if query is absent."},
            model=TEXT,
            options={"type": "object"},
        ),
        "anyOf": [{"required": ["query"]}, {"required": ["prompt"]}],
    },
    "Answer": obj(
        "prompt response processed_at requestId rateLimitInfo peerchat",
        prompt=TEXT,
        response=TEXT,
        processed_at={"type": "string", "format": "date-time"},
        requestId=TEXT,
        rateLimitInfo={"anyOf": [ref("RateLimit"), {"type": "null"}]},
        peerchat=PROVENANCE,
    ),
    "RateLimit": obj(
        "remainingRequests maxRequests nextResetInSeconds windowDurationMinutes",
        remainingRequests=WHOLE,
        maxRequests=WHOLE,
        nextResetInSeconds=WHOLE,
        windowDurationMinutes={"type": "number"},
    ),
    "Verified": obj(
        "valid email rateLimitInfo",
        valid=YES_NO,
        email=TEXT,
        rateLimitInfo={"anyOf": [ref("RateLimit"), {"type": "null"}]},
    ),
    "Token": obj("success token", success=YES_NO, token=TEXT),
    "Health": obj(
        "status timestamp service gateway message",
        status={"type": "string", "enum": ["healthy", "unhealthy"]},
        timestamp={"type": "string", "format": "date-time"},
        service=TEXT,
        gateway=YES_NO,
        message=TEXT,
    ),
    "Models": obj(
        "models",
        models={
            "type": "array",
            "items": obj(
                "name",
                name=TEXT,
                engine=TEXT,
                peers={"type": "array", "items": TEXT},
                context_tokens={"type": ["integer", "null"]},
            ),
        },
    ),
    "Error": obj(
        "error",
        error=obj("message type code", message=TEXT, type=TEXT, code=TEXT),
        success={"type": "boolean", "const": False},
        status=WHOLE,
        message=TEXT,
        retryAfter=WHOLE,
        rateLimitInfo=ref("RateLimit"),
        requestId=TEXT,
    ),
}

BRIDGE_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "register",
        "POST",
        "/register",
        "Make an account.",
        answer="Registered",
        body="Credentials",
        example='{"email": "ann@example.org", "password": "…"}',
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
        example='{"email": "ann@example.org", "password": "…"}',
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
        example='{"query": "Why is the sky blue?"}',
        failures=(400, 401, 413, 429, 502, 503, 504),
        needs_token=True,
        is_node_path=True,
        stream_type=SSE,
        details="With Accept: text/event-stream the answer comes as server-sent "
        "events: progress, fragment (text, and thinking when it is not the answer "
        "itself), then one done (requestId, usage, rateLimitInfo, peerchat) or one "
        "error. Closing the connection stops the answer.",
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
        has_head=True,
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
