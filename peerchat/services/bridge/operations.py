"""The table of paths: routes, OpenAPI and the page of documents all come from it."""

from __future__ import annotations

from collections.abc import Mapping

from .operation import Api, Operation, Schema
from .operations_bridge import BRIDGE_OPERATIONS, BRIDGE_SCHEMAS
from .operations_ollama import OLLAMA_OPERATIONS, OLLAMA_SCHEMAS
from .operations_openai import OPENAI_OPERATIONS, OPENAI_SCHEMAS

FAILURES: Mapping[int, str] = {
    400: "The request is malformed.",
    401: "The token or the password is missing, wrong or expired.",
    409: "The account exists.",
    403: "This is not done here.",
    404: "There is no such model.",
    408: "The body did not arrive in time.",
    413: "The body is over 1 MiB, or 12 MiB where it may hold images.",
    429: "The limit is reached; Retry-After says for how many seconds.",
    502: "A peer failed or was lost.",
    503: "Nobody is there to serve this now.",
    504: "A peer did not answer in time.",
}

SCHEMAS: Mapping[str, Schema] = {
    **BRIDGE_SCHEMAS,
    **OPENAI_SCHEMAS,
    **OLLAMA_SCHEMAS,
}

OPERATIONS: tuple[Operation, ...] = (
    *BRIDGE_OPERATIONS,
    *OPENAI_OPERATIONS,
    *OLLAMA_OPERATIONS,
)


def api_of(path: str) -> Api:
    """Whose manners a path has that nobody serves."""
    if path.startswith("/v1/"):
        return Api.OPENAI
    return Api.OLLAMA if path.startswith("/api/") else Api.BRIDGE
