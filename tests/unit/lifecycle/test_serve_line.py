"""Connections to upstreams: what is kept, what is closed, and every way in which an answer can end."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from nacre.lifecycle.serve.line import CannotConnect, ConnectTimeout, Line, Origin
from nacre.lifecycle.serve.link import Link, NoAnswer

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def heard(reader: asyncio.StreamReader) -> bytes:
    """The head of one request, which has no body."""
    return await reader.readuntil(b"\r\n\r\n")


@asynccontextmanager
async def server(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serves each connection until the block ends; gives the port."""
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await serve(reader, writer)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for writer in writers:
            writer.close()


def says(*answers: bytes, end: bool = False) -> Serve:
    """Answers the requests of every connection in turn."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await heard(reader)
            writer.write(answer)
        await writer.drain()
        if end:
            writer.close()
        else:
            await reader.read()

    return serve


async def ask(line: Line, origin: Origin, seconds: float = 5.0) -> tuple[Link, bytes]:
    """One request and its whole answer; the link is released."""
    request = origin.head("GET", "/x", {}) + b"\r\n"
    link = await line.ask(origin, request, connect_s=5.0, answer_s=seconds)
    body = b""
    try:
        while chunk := await link.chunk(seconds):
            body += chunk
    finally:
        link.release()
    return link, body


def with_line(port_of: Serve, check: Callable[[Line, Origin], Awaitable[None]], connections: int = 512) -> None:
    async def run() -> None:
        line = Line({}, connections=connections)
        try:
            async with server(port_of) as port:
                await check(line, Origin.of(f"http://127.0.0.1:{port}"))
        finally:
            await line.close()

    asyncio.run(run())


def test_a_connection_is_kept_and_used_again() -> None:
    async def check(line: Line, origin: Origin) -> None:
        first, body = await ask(line, origin)
        second, _ = await ask(line, origin)
        assert (body, first is second) == (b"hi", True)

    with_line(says(WHOLE, WHOLE), check)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        WHOLE + WHOLE,  # one answer more than was asked for
    ],
)
def test_a_connection_that_cannot_be_used_again_is_not(answer: bytes) -> None:
    async def check(line: Line, origin: Origin) -> None:
        first, body = await ask(line, origin)
        await asyncio.sleep(0.05)
        second, _ = await ask(line, origin)
        assert (body, first is second) == (b"hi", False)

    with_line(says(answer), check)


def test_a_connection_that_the_other_end_closed_is_not_used_again() -> None:
    async def check(line: Line, origin: Origin) -> None:
        first, _ = await ask(line, origin)
        await asyncio.sleep(0.05)
        assert (await ask(line, origin))[0] is not first

    with_line(says(WHOLE, end=True), check)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3\r\n yo\r\n0\r\nX: y\r\n\r\n", b"hi yo"),
        (b"HTTP/1.1 100 Continue\r\nX: interim\r\n\r\nHTTP/1.1 103 Early\r\n\r\n" + WHOLE, b"hi"),
        (b"HTTP/1.1 204 No\r\n\r\n", b""),
    ],
)
def test_every_form_of_a_body_is_read_to_its_end(answer: bytes, body: bytes) -> None:
    async def check(line: Line, origin: Origin) -> None:
        link, got = await ask(line, origin)
        assert (got, "x" in link.headers) == (body, False)

    with_line(says(answer, end=True), check)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhi",
        b"nothing of HTTP\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 70_000,
    ],
)
def test_an_answer_that_is_cut_or_none_is_an_error_and_its_connection_is_gone(answer: bytes) -> None:
    async def check(line: Line, origin: Origin) -> None:
        with pytest.raises(OSError) as failed:
            await ask(line, origin)
        assert not isinstance(failed.value, TimeoutError)
        assert not line._idle
        assert line._free._value == 512

    with_line(says(answer, end=True), check)


def test_silence_ends_in_a_timeout_and_frees_the_place() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def check(line: Line, origin: Origin) -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await ask(line, origin, seconds=0.05)
        assert line._free._value == 1

    with_line(silent, check, connections=1)


def test_no_more_connections_than_allowed_and_those_that_wait_come_in_turn() -> None:
    running = most = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running, most
        while True:
            await heard(reader)
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            writer.write(WHOLE)

    async def check(line: Line, origin: Origin) -> None:
        found = await asyncio.gather(*(ask(line, origin) for _ in range(12)))
        assert [body for _, body in found] == [b"hi"] * 12
        assert most == 3

    with_line(slow, check, connections=3)


def test_who_does_not_read_makes_the_other_end_wait() -> None:
    sent = 0

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await heard(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 64_000)
            await writer.drain()
            sent += 64_000

    async def check(line: Line, origin: Origin) -> None:
        link = await line.ask(origin, origin.head("GET", "/", {}) + b"\r\n", connect_s=5.0, answer_s=5.0)
        await asyncio.sleep(0.3)
        stopped_at = sent
        assert stopped_at < 32_000_000
        got = 0
        while chunk := await link.chunk(5.0):
            got += len(chunk)
        assert got == 64_000_000
        link.release()

    with_line(floods, check)


def test_a_client_that_gives_up_closes_the_connection() -> None:
    async def check(line: Line, origin: Origin) -> None:
        task = asyncio.create_task(ask(line, origin))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not line._links
        assert line._free._value == 512

    with_line(says(b""), check)


def test_nobody_there_a_private_name_and_a_header_that_ends_its_line() -> None:
    async def run() -> None:
        line = Line({})
        with pytest.raises(CannotConnect) as refused:
            await ask(line, Origin.of("http://127.0.0.1:9"))
        assert isinstance(refused.value.why, ConnectionRefusedError)
        with pytest.raises((CannotConnect, ConnectTimeout), match="not public"):
            await ask(line, Origin.of("http://10.1.2.3"))
        with pytest.raises(ValueError, match="control"):
            Origin.of("http://127.0.0.1").head("GET", "/", {"X": "a\r\nY: b"})
        await line.close()
        assert line._free._value == 512

    asyncio.run(run())


def test_what_is_idle_for_too_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nacre.lifecycle.serve.line._KEPT_S", 0.05)

    async def check(line: Line, origin: Origin) -> None:
        await ask(line, origin)
        assert len(line._links) == 1
        await asyncio.sleep(0.3)
        assert not line._links
        assert not line._idle

    with_line(says(WHOLE), check)


# --- TLS and proxies


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for `localhost`, and the certificate that it signed itself."""
    key, made = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", made, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    return context, made


@pytest.mark.parametrize("by_proxy", [False, True])
def test_tls_is_verified_with_and_without_a_proxy(
    tmp_path: Path, by_proxy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, made = certificate(tmp_path)
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await heard(reader))
        port = int(asked[-1].split(b" ")[1].rpartition(b":")[2])
        behind, onward = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_pump(reader, onward), _pump(behind, writer))
        finally:
            onward.close()

    async def run() -> None:
        async with server(says(WHOLE, WHOLE), context) as port, server(proxy) as near:
            by = f"http://me:p%40ss@127.0.0.1:{near}" if by_proxy else None
            origin = Origin.of(f"https://localhost:{port}", by)
            stranger = Line({})
            with pytest.raises(CannotConnect) as failed:
                await ask(stranger, origin)
            assert isinstance(failed.value.why, ssl.SSLCertVerificationError)
            await stranger.close()
            monkeypatch.setenv("SSL_CERT_FILE", str(made))
            line = Line({})
            first, body = await ask(line, origin)
            assert (body, (await ask(line, origin))[0] is first) == (b"hi", True)
            await line.close()
            if by_proxy:
                assert asked[-1].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % port)
                assert b"Proxy-Authorization: Basic bWU6cEBzcw==" in asked[-1]

    asyncio.run(run())


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()


def test_a_plain_request_is_told_the_proxy_whole_and_a_refusing_one_is_an_error() -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await heard(reader))
        refuses = asked[-1].startswith(b"CONNECT")
        writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n" if refuses else WHOLE)
        await reader.read()

    async def run() -> None:
        async with server(proxy) as near:
            line, by = Line({}), f"http://127.0.0.1:{near}"
            assert (await ask(line, Origin.of("http://far.example/v1", by)))[1] == b"hi"
            assert asked[0].startswith(b"GET http://far.example/x HTTP/1.1\r\nHost: far.example\r\n")
            with pytest.raises(CannotConnect, match="407"):
                await ask(line, Origin.of("https://far.example/v1", by))
            await line.close()
            assert line._free._value == 512

    asyncio.run(run())


def test_an_answer_may_not_be_awaited_on_a_closed_line() -> None:
    async def check(line: Line, origin: Origin) -> None:
        task = asyncio.create_task(ask(line, origin))
        await asyncio.sleep(0.05)
        await line.close()
        with pytest.raises(NoAnswer):
            await asyncio.wait_for(task, 2)

    with_line(says(b""), check)
