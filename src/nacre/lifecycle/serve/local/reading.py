"""Requests to models of ours: what cannot be done is refused by name, never left out in silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nacre.engine.loopback_wire import Asked, Kind, read_plain
from nacre.engine.openai_wire import Malformed
from nacre.lifecycle.serve.contract import Json, Refusal

_LONGEST_ANSWER = 32_768  # tokens
_CHOICE = frozenset({"model", "stream", "stream_options", "max_tokens", "temperature", "top_p", "stop", "seed"})
_KNOWN: Mapping[Kind, frozenset[str]] = {
    "chat": _CHOICE | {"messages", "max_completion_tokens"},
    "complete": _CHOICE | {"prompt", "echo", "logprobs"},
    "embed": frozenset({"model", "input", "encoding_format", "stream"}),
}
# Who asks and how it is accounted for: nothing that an answer could depend on.
_ABOUT = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier", "store"})
# Settings at the values that ask for nothing.
_IDLE: Mapping[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "presence_penalty": (0,), "frequency_penalty": (0,), "logit_bias": ({},),
    "logprobs": (False,), "echo": (False,), "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],),
    "parallel_tool_calls": (True, False), "response_format": ({"type": "text"},), "modalities": (["text"],),
    "top_logprobs": (0,), "stream": (False,), "stop": ([],), "suffix": ("",),
}  # fmt: skip


def read(kind: Kind, body: Json, default_tokens: int) -> Asked:
    """The request, checked. Raises Refusal (400) naming what this model cannot do or what is malformed."""
    plain = only_known(body, _KNOWN[kind])
    most = plain.get("max_completion_tokens", plain.get("max_tokens"))
    if kind != "embed" and not plain.get("echo"):
        if most is None:
            plain["max_tokens"] = default_tokens if kind == "chat" else 16
        elif isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= _LONGEST_ANSWER:
            raise Refusal(400, f"max_tokens must be a whole number from 1 to {_LONGEST_ANSWER}", param="max_tokens")
    for name in ("temperature", "top_p", "seed"):
        if isinstance(plain.get(name), bool):
            raise Refusal(400, f"{name} must be a number", param=name)
    _check_stream(plain)
    try:
        return read_plain(kind, plain)
    except Malformed as error:
        text = str(error)
        first = text.partition(" ")[0]
        raise Refusal(400, text, param=first if first in body else None) from error


def only_known(body: Json, known: frozenset[str]) -> Json:
    """The fields that mean something; raises Refusal (400) for one that this model cannot honour."""
    plain: Json = {}
    for name, value in body.items():
        if value is None or name in _ABOUT:
            continue
        if name in _IDLE and any(value == one and type(value) is type(one) for one in _IDLE[name]):
            continue
        if name in ("presence_penalty", "frequency_penalty") and value == 0 and not isinstance(value, bool):
            continue
        if name not in known:
            raise Refusal(
                400, f"this model cannot do {name[:64]!r}: leave it out", code="unsupported_parameter", param=name[:64]
            )
        plain[name] = value
    return plain


def texts_of(value: Any, name: str = "input") -> list[str]:
    """The field `name` as texts, none of them empty; raises Refusal (400)."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise Refusal(400, f"{name} must be a text or a list of texts (token ids are not understood)", param=name)
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise Refusal(400, f"text {number} of {name} is empty: leave it out", param=name)
    return list(texts)


def count_of(body: Json, name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most`; raises Refusal (400)."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise Refusal(400, f"{name} must be a whole number from 1 to {most}", param=name)
    return value


def _check_stream(plain: Json) -> None:
    options = plain.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise Refusal(400, "stream_options must be an object", param="stream_options")
    for name, value in (options or {}).items():
        if name not in ("include_usage", "include_obfuscation") or not isinstance(value, bool):
            raise Refusal(400, "stream_options knows include_usage: true or false", param="stream_options")
