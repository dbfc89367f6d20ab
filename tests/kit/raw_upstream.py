"""An upstream in OpenAI's format, on asyncio, whose every byte and pause is scripted.

    async with raw_upstream([answers(), dies_after(b"data: 1\\n\\n")]) as upstream:
        ...

Each request takes the next step; when the steps are used up the last one goes on answering.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass
class Heard:
    """One request: its path, its headers in lower case, its body."""

    path: str
    headers: dict[str, str]
    body: Json


@dataclass
class RawUpstream:
    """A running upstream: what it heard, and how many of its answers were given up by the other side."""

    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    abandoned: int = 0
    open: int = 0


@dataclass
class Line:
    """The way back to whoever asked."""

    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """A reset, not an orderly end."""
        held = self.writer.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Step = Callable[[Heard, Line], Awaitable[None]]


def head(status: int = 200, **headers: str) -> bytes:
    """A response's head; underscores in names are dashes."""
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def whole(status: int, body: bytes, **headers: str) -> bytes:
    """A whole response."""
    kind = {"content_type": "application/json"} | headers
    return head(status, content_length=str(len(body)), **kind) + body


def answers(text: str = "hello", model: str = "raw", status: int = 200, **headers: str) -> Step:
    """A good answer in whatever form is asked for."""

    async def step(heard: Heard, line: Line) -> None:
        if status != 200:
            body = json.dumps({"error": {"message": text, "type": "x", "code": "theirs"}}).encode()
            await line.send(whole(status, body, **headers))
        elif heard.path.endswith("/embeddings"):
            texts = heard.body["input"]
            texts = [texts] if isinstance(texts, str) else texts
            data = [{"object": "embedding", "index": i, "embedding": [0.5, 1.0]} for i in range(len(texts))]
            await line.send(
                whole(
                    200,
                    json.dumps(
                        {
                            "object": "list",
                            "model": model,
                            "data": data,
                            "usage": {"prompt_tokens": 2, "total_tokens": 2},
                        }
                    ).encode(),
                )
            )
        elif heard.body.get("stream"):
            await streams(*events(heard, text, model))(heard, line)
        else:
            await line.send(whole(200, json.dumps(completion(heard, text, model)).encode()))

    return step


def completion(heard: Heard, text: str, model: str) -> Json:
    """A chat's answer; with tools asked for, a call of the first."""
    message: Json = {"role": "assistant", "content": text}
    if heard.body.get("tools"):
        name = heard.body["tools"][0]["function"]["name"]
        call = {"id": "call-1", "type": "function", "function": {"name": name, "arguments": '{"city": "上海"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}


def events(heard: Heard, text: str, model: str) -> list[bytes]:
    """The events of a stream, a character each; usage where it is asked for; [DONE]."""
    base = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": model}
    said = [{"delta": {"content": one}, "finish_reason": None} for one in text]
    chunks: list[Json] = [base | {"choices": [{"index": 0, **one}]} for one in said]
    chunks.append(base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (heard.body.get("stream_options") or {}).get("include_usage"):
        chunks.append(base | {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}})
    return [*(f"data: {json.dumps(one, ensure_ascii=False)}\n\n".encode() for one in chunks), b"data: [DONE]\n\n"]


def streams(*pieces: bytes | float, end: str = "orderly") -> Step:
    """Sends pieces as chunks of their own; a number is a pause in seconds. `end`: orderly, reset, closed or never."""

    async def step(heard: Heard, line: Line) -> None:
        await line.send(head(content_type="text/event-stream; charset=utf-8", transfer_encoding="chunked"))
        for piece in pieces:
            if isinstance(piece, bytes):
                await line.send(b"%x\r\n%s\r\n" % (len(piece), piece))
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(piece)
        if end == "orderly":
            await line.send(b"0\r\n\r\n")
        elif end == "reset":
            line.reset()
        elif end == "closed":
            line.writer.close()
        else:
            await line.reader.read()  # until the other side goes

    return step


def bytes_only(*pieces: bytes | float) -> Step:
    """Sends raw bytes, whatever they are, and ends the connection."""

    async def step(heard: Heard, line: Line) -> None:
        for piece in pieces:
            if isinstance(piece, bytes):
                await line.send(piece)
            else:
                await asyncio.sleep(piece)
        line.writer.close()

    return step


def resets() -> Step:
    """Resets the connection before any byte."""

    async def step(heard: Heard, line: Line) -> None:
        line.reset()

    return step


@asynccontextmanager
async def raw_upstream(steps: Sequence[Step] = ()) -> AsyncIterator[RawUpstream]:
    """Runs it on a free port of 127.0.0.1."""
    script, upstream = list(steps) or [answers()], RawUpstream()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        upstream.open += 1
        try:
            while (heard := await _hear(reader)) is not None:
                if heard.path.endswith("/models"):
                    await Line(writer, reader).send(whole(200, b'{"object": "list", "data": []}'))
                    continue
                upstream.heard.append(heard)
                step = script.pop(0) if len(script) > 1 else script[0]
                await step(heard, Line(writer, reader))
        except (OSError, asyncio.IncompleteReadError):
            upstream.abandoned += 1
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            upstream.open -= 1
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield upstream
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _hear(reader: asyncio.StreamReader) -> Heard | None:
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *rest = text.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Heard(first.split()[1], headers, json.loads(body) if body else {})
