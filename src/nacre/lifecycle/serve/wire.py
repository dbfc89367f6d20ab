"""HTTP as the gateway reads and writes it: bounded bodies, JSON of bounded depth, headers without injection."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from nacre.lifecycle.serve import errors
from nacre.lifecycle.serve.contract import Json, Receive, Refusal, Scope, Send

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNSAFE = re.compile(r"[^\x20-\x7e]")
EVENT_STREAM = "text/event-stream"
_ALLOW = {"use_post": "POST", "use_get": "GET, HEAD"}


class ClientLeft(Exception):
    """The client closed its connection before its answer was whole."""


def headers_of(scope: Scope) -> dict[str, str]:
    """Header names in lower case to values; of a repeated one the first counts."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return found


def new_id() -> str:
    """A request id that nobody can guess or choose."""
    return f"req-{secrets.token_hex(12)}"


def shown_id(headers: Mapping[str, str], ours: str) -> str:
    """The id that the client sees: its own where it gave a plain one, else ours."""
    given = headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else ours


def header_value(text: str) -> str:
    """A text as a header's value: what is not printable ASCII is percent-encoded, line ends first of all."""
    return _UNSAFE.sub(lambda match: quote(match[0]), text.replace("%", "%25")) if _UNSAFE.search(text) else text


async def read_body(receive: Receive, headers: Mapping[str, str], limit: int, seconds: float) -> bytes:
    """The whole body; raises Refusal for none, one over `limit` bytes, a compressed one, one slower than `seconds`."""
    length = headers.get("content-length")
    if length is None and "transfer-encoding" not in headers:
        raise errors.no_length()
    if length is not None and (not length.isdecimal() or int(length) > limit):
        raise errors.too_large(limit)
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", ""):
        raise errors.packed(encoding)
    message = await _within(receive, seconds)
    if not message.get("more_body"):
        return bytes(_bounded(message.get("body", b""), limit))
    try:
        async with asyncio.timeout(seconds):
            return await _collect(receive, bytearray(message.get("body", b"")), limit)
    except TimeoutError:
        raise errors.slow_body(seconds) from None


async def _within(receive: Receive, seconds: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
    except TimeoutError:
        raise errors.slow_body(seconds) from None
    if message["type"] == "http.disconnect":
        raise ClientLeft
    return message


async def _collect(receive: Receive, body: bytearray, limit: int) -> bytes:
    while True:
        _bounded(body, limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(_bounded(body, limit))


def _bounded(body: Any, limit: int) -> Any:
    if len(body) > limit:
        raise errors.too_large(limit)
    return body


def read_json(raw: bytes, nesting: int) -> Json:
    """The JSON object of a body. Duplicate keys: the last counts, and only it is sent on."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise errors.no_json(f"line {error.lineno}, column {error.colno}") from None
    if not isinstance(value, dict):
        raise errors.no_json("it is something else")
    if raw.count(b"{") + raw.count(b"[") > nesting and _depth_exceeds(value, nesting):
        raise errors.too_deep(nesting)
    return value


def _depth_exceeds(value: Any, limit: int) -> bool:
    """Whether JSON is nested deeper than `limit`; level by level, so that nothing recurses."""
    level = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for one in level:
            inner += one.values() if isinstance(one, dict) else one
        level = [one for one in inner if isinstance(one, dict | list)]
        if not level:
            return False
    return True


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI wants them, nothing in them that ends a line."""
    return [(name.lower().encode("ascii"), header_value(value).encode("ascii")) for name, value in headers.items()]


async def send_body(send: Send, status: int, body: bytes, headers: Mapping[str, str], *, bare: bool = False) -> None:
    """A whole answer. `bare` sends the headers alone, as HEAD wants."""
    every = [(b"content-length", b"%d" % len(body)), *raw_headers({"content-type": "application/json", **headers})]
    await send({"type": "http.response.start", "status": status, "headers": every})
    await send({"type": "http.response.body", "body": b"" if bare else body})


async def send_json(send: Send, status: int, value: Any, headers: Mapping[str, str], *, bare: bool = False) -> None:
    """A whole answer in JSON."""
    await send_body(send, status, orjson.dumps(value), headers, bare=bare)


async def send_refusal(send: Send, refusal: Refusal, headers: Mapping[str, str]) -> None:
    """A refusal in OpenAI's shape, with Retry-After where it is known."""
    await send_json(send, refusal.status, refusal.body(), {**headers, **refusal_headers(refusal)})


def refusal_headers(refusal: Refusal) -> dict[str, str]:
    """What a status asks for beside its body."""
    found = {}
    if refusal.retry_after is not None:
        found["retry-after"] = str(max(1, round(refusal.retry_after + 0.499)))
    if refusal.status == 401:
        found["www-authenticate"] = "Bearer"
    if refusal.code in _ALLOW:
        found["allow"] = _ALLOW[refusal.code]
    if refusal.status in (408, 411, 413):  # the rest of the body is not read
        found["connection"] = "close"
    return found


def error_event(refusal: Refusal) -> bytes:
    """A refusal as a server-sent event, for a stream that has begun."""
    return b"data: " + orjson.dumps(refusal.body()) + b"\n\n"
