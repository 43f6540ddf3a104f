"""The API described: OpenAPI 3.1 for programs, one page of HTML for people."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.metadata import version

from .operation import NDJSON, SSE, TEXT, Api, Operation, Schema, obj
from .operations import FAILURES, OPERATIONS, SCHEMAS

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page needs nothing but its own style."""

TITLE = "peerchat bridge"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto;
       padding: 0 1rem; color-scheme: light dark }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
pre { padding: .8rem; border: 1px solid #8885; border-radius: 6px; overflow-x: auto }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8885 }
dt { float: left; clear: left; width: 4rem; font-weight: 600 }
dd { margin-left: 4rem }
"""


def openapi() -> dict[str, object]:
    """The document at ``/openapi.json``."""
    paths: dict[str, dict[str, object]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(
            operation
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": version("peerchat"),
            "summary": "Language models of a peer-to-peer swarm, over HTTP.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, "Description": {"type": "object"}},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation) -> dict[str, object]:
    described: dict[str, object] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": _responses(operation),
    }
    if operation.details:
        described["description"] = operation.details
    if operation.parameters:
        described["parameters"] = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "description": what,
                "schema": {"type": "string", "minLength": 1},
            }
            for name, what in operation.parameters.items()
        ]
    if operation.needs_token:
        described["security"] = [{"token": []}]
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(operation.body)}},
        }
    return described


def _responses(operation: Operation) -> dict[str, object]:
    schema = _ref(operation.answer) if operation.answer else {"type": "string"}
    content: dict[str, object] = {operation.content_type: {"schema": schema}}
    if operation.stream_type:
        content[operation.stream_type] = {"schema": _STREAMS[operation.stream_type]}
    said = "It went well." if operation.status < 400 else FAILURES[operation.status]
    responses: dict[str, object] = {
        str(operation.status): {"description": said, "content": content}
    }
    for status in operation.failures:
        name = _failure_schema(operation)
        response: dict[str, object] = {
            "description": FAILURES[status],
            "content": {"application/json": {"schema": _ref(name)}},
        }
        if status in (429, 503) and name != "Health":
            response["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
        responses[str(status)] = response
    return responses


_STREAMS: Mapping[str, Schema] = {
    # Of each event.
    SSE: obj(event=TEXT, data=TEXT),
    NDJSON: TEXT,
}


def _failure_schema(operation: Operation) -> str:
    if operation.name == "health":
        return "Health"
    return {
        Api.BRIDGE: "Error",
        Api.OPENAI: "OpenAiError",
        Api.OLLAMA: "OllamaError",
    }[operation.api]


def _ref(name: str) -> dict[str, object]:
    return {"$ref": f"#/components/schemas/{name}"}


def docs_page() -> str:
    """The page at ``/docs``; loads nothing from anywhere."""
    sections = "".join(_section(operation) for operation in OPERATIONS)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{TITLE}'
        '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{TITLE}</h1>"
        "<p>Language models of a peer-to-peer swarm, over HTTP. The same for programs: "
        '<a href="/openapi.json">/openapi.json</a>.</p>'
        f"{sections}</body></html>"
    )


def _section(operation: Operation) -> str:
    parts = [
        f"<h2><code>{operation.method} {operation.path}</code></h2>",
        f"<p>{escape(operation.summary)} {escape(operation.details)}</p>",
    ]
    if operation.method == "POST":
        parts.append(f"<pre>{escape(_example(operation))}</pre>")
    parts.append(f"<dl><dt>{operation.status}</dt><dd>{_fields(operation)}</dd>")
    parts += [
        f"<dt>{status}</dt><dd>{escape(FAILURES[status])}</dd>"
        for status in operation.failures
    ]
    return "".join([*parts, "</dl>"])


def _fields(operation: Operation) -> str:
    if not operation.answer or operation.answer not in SCHEMAS:
        return f"<code>{escape(operation.content_type)}</code>"
    properties = SCHEMAS[operation.answer].get("properties", {})
    assert isinstance(properties, dict)
    return ", ".join(f"<code>{escape(name)}</code>" for name in properties)


def _example(operation: Operation) -> str:
    lines = [f"curl http://127.0.0.1:3000{operation.path}"]
    if operation.needs_token:
        lines.append('  -H "Authorization: Bearer $TOKEN"')
    if operation.body:
        lines.append(f"  -d '{operation.example}'")
    else:
        lines[0] += " -X POST"
    return " \\\n".join(lines)
