"""The floor of the gateway's stack: uvicorn with an ASGI application that does nothing else, or only passes on.

    python -m gateway_parts.floor PORT {asgi,aiohttp,line} UPSTREAM_PORT

`asgi` reads the body and answers with the mock's answer from memory; `aiohttp` sends the body on with aiohttp's session
and its answer back, `line` with Nacre's own connections. No key, no limits, no masking, no ledger, no checks: what any
gateway on these pieces pays at least.
"""

from __future__ import annotations

import sys
from typing import Any

import aiohttp
import uvicorn

from gateway_parts.mock import events, whole
from nacre.lifecycle.serve.line import Line, Origin

_HEADERS = [(b"content-type", b"application/json")]
_STREAM_HEADERS = [(b"content-type", b"text/event-stream")]
_WHOLE, _EVENTS = whole(20, 9), events(20, 9)


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answers from memory."""
    if scope["type"] != "http":
        return
    body = await _body(receive)
    if b'"stream":true' in body:
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        for event in _EVENTS:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    length = [*_HEADERS, (b"content-length", b"%d" % len(_WHOLE))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": _WHOLE})


class Own:
    """Sends a body on and its answer back, through Nacre's own connections."""

    def __init__(self, upstream: int) -> None:
        self._origin = Origin.of(f"http://127.0.0.1:{upstream}")
        self._head = self._origin.head("POST", "/v1/chat/completions", {"Content-Type": "application/json"})
        self._line: Line | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await asgi(scope, receive, send)
            return
        body = await _body(receive)
        self._line = self._line or Line({})
        request = self._head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        link = await self._line.ask(self._origin, request, connect_s=5.0, answer_s=60.0)
        if link.headers["content-type"] == "text/event-stream":
            await send({"type": "http.response.start", "status": link.status, "headers": _STREAM_HEADERS})
            while chunk := await link.chunk(60.0):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            answer = b""
        else:
            answer = b"".join([chunk async for chunk in _chunks(link)])
            length = [*_HEADERS, (b"content-length", b"%d" % len(answer))]
            await send({"type": "http.response.start", "status": link.status, "headers": length})
        link.release()
        await send({"type": "http.response.body", "body": answer})


async def _chunks(link: Any) -> Any:
    while chunk := await link.chunk(60.0):
        yield chunk


class Aiohttp:
    """Sends a body on and its answer back, through aiohttp's session."""

    def __init__(self, upstream: int) -> None:
        self._address = f"http://127.0.0.1:{upstream}/v1/chat/completions"
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/healthz":
            await asgi(scope, receive, send)
            return
        body = await _body(receive)
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=512)
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        async with self._session.post(self._address, data=body, headers={"content-type": "application/json"}) as got:
            if got.content_type == "text/event-stream":
                await send({"type": "http.response.start", "status": got.status, "headers": _STREAM_HEADERS})
                while chunk := await got.content.readany():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
                return
            answer = await got.read()
        length = [*_HEADERS, (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    kinds: dict[str, Any] = {"asgi": lambda _: asgi, "aiohttp": Aiohttp, "line": Own}
    application: Any = kinds[sys.argv[2]](int(sys.argv[3]))
    uvicorn.run(
        application, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", ws="none",
        lifespan="off", access_log=False, log_level="warning", server_header=False, proxy_headers=False,
    )  # fmt: skip
