"""Clients and upstreams that are slow, endless or silent on purpose: memory is bounded, and everything ends."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gateway_kit import PATIENCE, Running, config_for, gateway_at, upstream_model
from raw_upstream import Heard, Line, RawUpstream, Step, answers, bytes_only, head, raw_upstream, whole

from nacre.lifecycle.serve.config import Bounds

Check = Callable[[Running, RawUpstream], Awaitable[None]]
TIGHT = replace(Bounds(), header_s=0.4, body_s=0.5, idle_s=1.0, reader_s=0.5)
BODY = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(BODY)
MIB = 2**20


def through(folder: Path, check: Check, steps: list[Step], **timeouts: float) -> None:
    """Runs `check` against a gateway with the model `m` behind a scripted upstream, little patience everywhere."""

    async def run() -> None:
        async with raw_upstream(steps) as upstream:
            model = upstream_model(upstream.url, timeouts=replace(PATIENCE, **timeouts), reply_bytes=MIB)
            async with gateway_at(folder, replace(config_for(m=model), bounds=TIGHT)) as running:
                await check(running, upstream)

    asyncio.run(run())


async def nothing_left(running: Running) -> None:
    """Nothing is under way, and no connection is open, within some seconds."""
    async with asyncio.timeout(8):
        while running.application._under_way or running.server.server_state.connections:
            await asyncio.sleep(0.05)


def endless(piece: bytes, sent: list[int], first: bytes) -> Step:
    """Sends pieces for ever, as fast as they are taken; counts their bytes."""

    async def step(heard: Heard, line: Line) -> None:
        await line.send(first)
        while True:
            await line.send(piece)
            sent[0] += len(piece)
            await asyncio.sleep(0)

    return step


EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 60_000 + b'"}}]}\n\n'
STREAM = head(content_type="text/event-stream")


def test_a_client_that_never_reads_costs_bounded_memory_and_ends(tmp_path: Path) -> None:
    """Back pressure reaches the upstream, and the call's time ends the rest."""
    sent = [0]

    async def check(running: Running, upstream: RawUpstream) -> None:
        tracemalloc.start()
        _, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**10)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(POST + BODY)
        await asyncio.sleep(1.0)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        first = sent[0]
        assert 0 < first < 48 * MIB
        assert held < 48 * MIB
        async with asyncio.timeout(8):
            while running.application._under_way:
                await asyncio.sleep(0.05)
        assert (await running.entry()).outcome == "client_left"
        writer.close()
        await nothing_left(running)

    through(tmp_path, check, [endless(EVENT, sent, STREAM)], total_s=60.0)


def test_clients_that_never_read_do_not_hold_up_a_stop(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        writers = []
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**10)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(POST + BODY)
            writers.append(writer)
        async with asyncio.timeout(8):
            while len(running.application._under_way) < 3:
                await asyncio.sleep(0.05)
            assert await running.application.drain(0.2) == 3
        assert not running.application._under_way
        for writer in writers:
            writer.close()

    through(tmp_path, check, [endless(EVENT, [0], STREAM)], total_s=60.0)


def test_a_stop_can_be_hurried(tmp_path: Path) -> None:
    """Ctrl-C, and Ctrl-C again: what is under way is ended long before its time."""

    async def check(running: Running, upstream: RawUpstream) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(POST + BODY)
        async with asyncio.timeout(8):
            while not running.application.n_under_way:
                await asyncio.sleep(0.01)
            looks = iter((False, True))
            assert await running.application.drain(3600.0, lambda: next(looks)) == 1
        writer.close()

    through(tmp_path, check, [endless(EVENT, [0], STREAM)], total_s=60.0)


def test_many_slow_writers_end_and_others_are_answered_meanwhile(tmp_path: Path) -> None:
    """Slow-loris: on the request line, on headers, on a body; a letter at a time does not help."""

    async def slowly(running: Running, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        try:
            async with asyncio.timeout(6):
                for letter in data:
                    writer.write(bytes([letter]))
                    await asyncio.sleep(0.05)
                    if reader.at_eof():
                        break
                return await reader.read()
        except ConnectionError:
            return b"reset"
        finally:
            writer.close()

    async def check(running: Running, upstream: RawUpstream) -> None:
        slow = [b"POST /v1/chat/completions HTTP/1.1\r\nHost:", POST[:-4] + b"\r\nX-Slow: 1\r\n"]
        tasks = [asyncio.create_task(slowly(running, one)) for one in slow * 20]
        fast = POST + b""
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(fast + BODY[:5])
        for _ in range(10):
            assert (await running.post())[0] == 200
        got = await asyncio.gather(*tasks)
        assert all(one == b"reset" or one.split(b" ", 2)[1] == b"408" for one in got), set(got)
        async with asyncio.timeout(5):
            assert (await reader.readline()).split()[1] == b"408"
        writer.close()
        await nothing_left_but(running)

    async def nothing_left_but(running: Running) -> None:
        await running.session.close()
        await nothing_left(running)

    through(tmp_path, check, [answers()])


def test_an_answer_without_an_end_is_cut_at_its_bound(tmp_path: Path) -> None:
    sent = [0]

    async def check(running: Running, upstream: RawUpstream) -> None:
        status, _, body = await running.post()
        assert (status, json.loads(body)["error"]["code"]) == (502, "bad_answer")
        assert sent[0] < 16 * MIB

    through(tmp_path, check, [endless(b"x" * 60_000, sent, head(content_type="application/json"))])


@pytest.mark.parametrize("line", [b"X-More: " + b"y" * 500 + b"\r\n", b"y" * 500, b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_headers_without_an_end_are_cut_at_their_bound(tmp_path: Path, line: bytes) -> None:
    """Many headers, one long one, interim answers for ever."""
    sent = [0]

    async def check(running: Running, upstream: RawUpstream) -> None:
        status, _, body = await running.post()
        assert (status, json.loads(body)["error"]["code"]) == (502, "no_answer")
        assert sent[0] < 16 * MIB

    first = b"" if line.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\nX: "
    through(tmp_path, check, [endless(line * 50, sent, first)])


def test_an_event_without_an_end_passes_in_pieces(tmp_path: Path) -> None:
    """And is not collected."""
    sent = [0]

    async def check(running: Running, upstream: RawUpstream) -> None:
        tracemalloc.start()
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        got = 0
        async with running.session.post(running.url + "/v1/chat/completions", json=body) as response:
            while got < 64 * MIB:
                got += len(await response.content.readany())
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 32 * MIB

    through(tmp_path, check, [endless(b"y" * 60_000, sent, STREAM + b"data: ")], total_s=60.0)


BOMB = gzip.compress(b"\0" * (64 * MIB))
BOMBS: dict[str, tuple[bytes, bool]] = {
    "an answer": (whole(200, BOMB, content_encoding="gzip"), False),
    "a stream": (whole(200, BOMB, content_encoding="gzip", content_type="text/event-stream"), True),
    "an error": (whole(500, BOMB, content_encoding="gzip"), False),
    "a refusal": (whole(400, BOMB, content_encoding="deflate"), False),
    "an answer in a coding of the transfer": (
        head(content_type="application/json", transfer_encoding="gzip, chunked") + b"%x\r\n" % len(BOMB) + BOMB
        + b"\r\n0\r\n\r\n", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_nothing_an_upstream_packed_is_unpacked(tmp_path: Path, name: str) -> None:
    data, stream = BOMBS[name]

    async def check(running: Running, upstream: RawUpstream) -> None:
        tracemalloc.start()
        status, _, body = await running.post(stream=stream)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert status == {"an error": 500, "a refusal": 400}.get(name, 502)
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
        assert len(body) < 4096
        assert most < 16 * MIB

    through(tmp_path, check, [bytes_only(data)])


def test_two_answers_to_one_request_are_nobodys(tmp_path: Path) -> None:
    """An upstream that answers twice: what is left over is not the answer to the next request."""
    first = whole(200, b'{"choices": [], "x": "first"}')
    second = whole(200, b'{"choices": [], "x": "second"}')

    async def twice(heard: Heard, line: Line) -> None:
        await line.send(first + second)

    async def late(heard: Heard, line: Line) -> None:
        await line.send(first)
        await asyncio.sleep(0.1)
        await line.send(second)

    async def check(running: Running, upstream: RawUpstream) -> None:
        for _ in range(2):
            status, _, body = await running.post()
            assert status == 502 or body == b'{"choices": [], "x": "first"}', body
            await asyncio.sleep(0.3)
        for _ in range(4):
            status, _, body = await running.post()
            assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, "hello")

    through(tmp_path, check, [twice, late, answers()])
