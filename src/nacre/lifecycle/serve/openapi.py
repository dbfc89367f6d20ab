"""What the gateway serves, as an OpenAPI 3.1 document.

The gateway checks what it reads itself; other fields go on to the model, which refuses what it does not take.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import nacre
from nacre.lifecycle.serve.contract import Json

_TEXTS: Json = {
    "description": "A text or several; where the model takes them, tokens",
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"type": "array", "items": {"type": "integer"}, "minItems": 1},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "minItems": 1}, "minItems": 1},
    ],
}
_WRITING: Json = {
    "stream": {"type": ["boolean", "null"]},
    "stream_options": {"type": ["object", "null"], "properties": {"include_usage": {"type": "boolean"}}},
    "max_tokens": {"type": ["integer", "null"], "minimum": 1},
    "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
    "top_p": {"type": ["number", "null"]},
    "seed": {"type": ["integer", "null"]},
    "stop": {"type": ["string", "array", "null"], "items": {"type": "string"}},
}
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_MODEL: Json = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "served_by"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "served_by": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    },
}
_MODELS: Json = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _MODEL}},
}
_READINESS: Json = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"enum": ["ready", "not ready"]},
        "down": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
_HEALTH: Json = {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}}
_OBJECT: Json = {"type": "object"}
_TEXT: Json = {"type": "string"}
_ANSWER_HEADERS = {
    "x-nacre-model": "The model that answered, percent-encoded where it is not ASCII",
    "x-nacre-id": "The id in ledger and log",
}
_REFUSED = {
    "400": "The request, or what it asks of this model, is wrong",
    "401": "The key is missing, unknown, expired or revoked",
    "402": "The key's budget is used up",
    "403": "The key may not do this, or another page's script asks",
    "404": "No such model, or this key may not use it",
    "405": "Another method",
    "408": "The body came too slowly",
    "411": "No Content-Length",
    "413": "The body is too large",
    "415": "The body is compressed",
    "422": "What the upstream will not process",
    "429": "A rate, the server or the upstream is at its limit",
    "431": "The headers are too many or too large",
    "500": "A fault of the gateway or of the upstream",
    "502": "The upstream failed",
    "503": "The server stops, or the upstream is away",
    "504": "The upstream took too long",
}


@cache
def document() -> Json:
    """The whole document; made once."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Nacre gateway", "version": nacre.__version__},
        "security": [{"key": []}, {}],
        "paths": {
            "/v1/chat/completions": _post(
                "An answer to messages", _body(["messages"], messages=_messages(), **_chat())
            ),
            "/v1/completions": _post("The continuation of a text", _body(["prompt"], prompt=_TEXTS, **_WRITING)),
            "/v1/embeddings": _post("A vector per text", _body(["input"], input=_TEXTS)),
            "/v1/classify": _post("A class per text", _body(["input"], input=_TEXTS, top_k=_count())),
            "/v1/search": _post("Passages of an index", _body(["query"], **_search())),
            "/v1/models": _get("The models that this key may ask for", _MODELS),
            "/v1/models/{model}": _get("One model", _MODEL, parameter="model"),
            "/healthz": _get("Whether the process lives", _HEALTH, free=True),
            "/readyz": _ready(_get("Whether it can answer", _READINESS, free=True)),
            "/metrics": _get("Metrics for Prometheus (an administrator's key)", _TEXT, kind="text/plain"),
            "/openapi.json": _get("This document", _OBJECT, free=True),
        },
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _body(required: list[str], **properties: Any) -> Json:
    model = {"type": "string", "minLength": 1, "description": "A name of GET /v1/models"}
    return {"type": "object", "required": ["model", *required], "properties": {"model": model, **properties}}


def _messages() -> Json:
    return {"type": "array", "minItems": 1, "items": {"type": "object"}}


def _chat() -> Json:
    return {
        **_WRITING,
        "max_completion_tokens": {"type": ["integer", "null"], "minimum": 1},
        "tools": {"type": ["array", "null"], "items": {"type": "object"}},
        "response_format": {"type": ["object", "null"]},
    }


def _search() -> Json:
    values = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    return {
        "query": {"type": "string"},
        "limit": _count(),
        "filter": {"type": ["object", "null"], "additionalProperties": values, "description": "Field to its values"},
        "mode": {"enum": ["auto", "lexical", "dense", "hybrid"]},
    }


def _count() -> Json:
    return {"type": ["integer", "null"], "minimum": 1}


def _post(summary: str, schema: Json) -> Json:
    """An answer is the model's, passed on as it came: a JSON object, or events where a stream was asked for."""
    answers: Json = {"application/json": {"schema": _OBJECT}}
    if "stream" in schema["properties"]:
        answers["text/event-stream"] = {}
    headers = {name: {"description": text, "schema": _TEXT} for name, text in _ANSWER_HEADERS.items()}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": {
                "200": {"description": "The answer", "headers": headers, "content": answers}, **_refusals(_REFUSED),
            },
        }
    }  # fmt: skip


def _get(
    summary: str, answer: Json, *, parameter: str | None = None, free: bool = False, kind: str = "application/json"
) -> Json:
    refused = {code: _REFUSED[code] for code in ("401", "403", "404", "405", "431", "500", "503")}
    found = {"description": summary, "content": {kind: {"schema": answer}}}
    one: Json = {"summary": summary, "responses": {"200": found, **_refusals(refused)}}
    if free:
        one["security"] = []
    if parameter:
        one["parameters"] = [
            {"name": parameter, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        ]
    return {"get": one}


def _ready(path: Json) -> Json:
    """503 says what 200 says: nothing can answer, or the server stops."""
    content = path["get"]["responses"]["200"]["content"]
    path["get"]["responses"]["503"] = {"description": "It cannot answer", "content": content}
    return path


def _refusals(codes: dict[str, str]) -> Json:
    schema = {"$ref": "#/components/schemas/Error"}
    return {
        code: {"description": text, "content": {"application/json": {"schema": schema}}} for code, text in codes.items()
    }
