"""The process: slow and oversized headers, a port in use, a stop that lets streams end."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gateway_kit import PATIENCE, Running, config_for, gateway_at, upstream_model
from raw_upstream import RawUpstream, Step, answers, raw_upstream, streams

from nacre.errors import UsageError
from nacre.lifecycle.serve.config import Bounds, Listen
from nacre.lifecycle.serve.server import bind

Check = Callable[[Running, RawUpstream], Awaitable[None]]
TIGHT = replace(Bounds(), header_bytes=2000, headers=20, header_s=0.3, body_s=0.3, idle_s=1.0, drain_s=0.4)


def through(folder: Path, check: Check, steps: list[Step] | None = None, **bounds: Any) -> None:
    async def run() -> None:
        async with raw_upstream(steps or [answers()]) as upstream:
            model = upstream_model(upstream.url, timeouts=replace(PATIENCE, between_s=30.0, total_s=60.0))
            config = replace(config_for(m=model), bounds=replace(TIGHT, **bounds))
            async with gateway_at(folder, config) as running:
                await check(running, upstream)

    asyncio.run(run())


async def raw(running: Running, *pieces: bytes | float) -> bytes:
    """Everything that comes back for raw bytes with pauses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        for piece in pieces:
            if isinstance(piece, bytes):
                writer.write(piece)
            else:
                await asyncio.sleep(piece)
        async with asyncio.timeout(8):
            return await reader.read()
    except ConnectionError:
        return b"reset"
    finally:
        writer.close()


def error_of(answer: bytes) -> tuple[int, str]:
    """Status and code of an answer in OpenAI's shape."""
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(body)["error"]["code"]


GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


def test_headers_are_bounded_in_bytes_number_and_time(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        assert error_of(await raw(running, GET + b"X: " + b"a" * 3000 + b"\r\n\r\n")) == (431, "headers_too_large")
        assert error_of(await raw(running, GET + b"X: 1\r\n" * 30 + b"\r\n")) == (431, "headers_too_large")
        assert error_of(await raw(running, b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n")) == (431, "headers_too_large")
        assert error_of(await raw(running, GET)) == (408, "headers_timeout")
        slowly = [piece for _ in range(8) for piece in (b"X: 1\r\n", 0.1)]
        assert error_of(await raw(running, GET, *slowly)) == (408, "headers_timeout")
        assert await raw(running) == b""  # a connection without a request is closed
        assert error_of(await raw(running, b"\x16\x03\x01 nonsense\r\n\r\n")) == (400, "invalid_http")

    through(tmp_path, check)


def test_a_header_that_never_ends_is_not_kept(tmp_path: Path) -> None:
    """What the parser holds back of an unfinished header counts as well."""

    async def check(running: Running, upstream: RawUpstream) -> None:
        pieces = [piece for _ in range(20) for piece in (b"a" * 500, 0.01)]
        answer = await raw(running, GET + b"X: ", *pieces)
        assert answer == b"reset" or error_of(answer) == (431, "headers_too_large")

    through(tmp_path, check, header_s=30.0)


def test_bodies_are_wanted_with_a_length_and_in_time(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        assert error_of(await raw(running, POST + b"\r\n")) == (411, "length_required")
        assert error_of(await raw(running, POST + b"Content-Length: 9\r\n\r\n{")) == (408, "body_timeout")
        chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        assert error_of(await raw(running, chunked + b"1\r\n{\r\n")) == (408, "body_timeout")
        assert error_of(await raw(running, chunked + b"2\r\n{}\r\n0\r\n\r\n"))[0] == 400
        many = b"5000\r\n" + b"x" * 0x5000 + b"\r\n"
        assert error_of(await raw(running, chunked + many + b"0\r\n\r\n")) == (413, "body_too_large")

    through(tmp_path, check, body_bytes=4096)


def test_two_lengths_are_no_request(tmp_path: Path) -> None:
    """Request smuggling: a length and chunks at once."""

    async def check(running: Running, upstream: RawUpstream) -> None:
        both = POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n"
        answer = await raw(running, both)
        assert error_of(answer)[0] == 400
        assert b"nacre_" not in answer
        assert not upstream.heard

    through(tmp_path, check)


def test_an_idle_connection_is_kept_for_a_while_and_then_closed(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        answer = await raw(running, GET + b"\r\n", 0.5, GET + b"\r\n")
        assert answer.count(b"HTTP/1.1 200") == 2

    through(tmp_path, check)


def test_a_stop_lets_streams_end_and_takes_nothing_new(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        stream = asyncio.create_task(running.post(stream=True))
        async with asyncio.timeout(5):
            while not upstream.heard:
                await asyncio.sleep(0.01)
        running.server.should_exit = True
        async with asyncio.timeout(5):
            while not running.application.stopping:
                await asyncio.sleep(0.01)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", running.port)
        _, _, got = await stream
        assert got.endswith(b"data: [DONE]\n\n")
        assert (await running.entry()).outcome == "ok"

    through(tmp_path, check, [streams(b"data: {}\n\n", 0.5, b"data: [DONE]\n\n")], drain_s=10.0)


def test_what_does_not_end_in_time_gets_an_error_event(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        stream = asyncio.create_task(running.post(stream=True))
        async with asyncio.timeout(5):
            while not upstream.heard:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        running.server.should_exit = True
        async with asyncio.timeout(8):
            _, _, got = await stream
        assert b'"stopping"' in got
        assert b"[DONE]" not in got
        entry = await running.entry()
        assert (entry.outcome, entry.status) == ("cut_short", 503)

    through(tmp_path, check, [streams(b"data: {}\n\n", end="never")])


def test_a_port_in_use_is_told_at_once() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port} is in use"):
            bind(Listen(port=port))
    with pytest.raises(UsageError, match="cannot be listened on"):
        bind(Listen(host="203.0.113.7", port=0))
