"""Attacks on the wire: injection into paths and headers, smuggled requests, JSON that is too much, foreign pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gateway_kit import Running, config_for, gateway_at, upstream_model
from raw_upstream import RawUpstream, Step, answers, bytes_only, raw_upstream, whole

from nacre.lifecycle.serve.config import Bounds
from nacre.lifecycle.serve.state.keys import KeyStore

Check = Callable[[Running, RawUpstream], Awaitable[None]]
CHAT_AT = "/v1/chat/completions"
SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


def through(folder: Path, check: Check, steps: list[Step] | None = None, **changes: Any) -> None:
    """Runs `check` against a gateway with the model `m` behind a scripted upstream."""

    async def run() -> None:
        async with raw_upstream(steps or [answers()]) as upstream:
            config = replace(config_for(m=upstream_model(upstream.url)), **changes)
            async with gateway_at(folder, config) as running:
                await check(running, upstream)

    asyncio.run(run())


async def raw(running: Running, data: bytes) -> bytes:
    """Everything that comes back for these bytes, until the other side ends or is silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    got = b""
    try:
        writer.write(data)
        while True:
            async with asyncio.timeout(0.5):
                more = await reader.read(65536)
            if not more:
                return got
            got += more
    except (TimeoutError, ConnectionError):
        return got
    finally:
        writer.close()


def post(body: bytes, *headers: bytes, length: bool = True) -> bytes:
    """A chat request with more headers."""
    own = [b"Content-Length: %d" % len(body)] if length else []
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"Host: localhost", *own, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def asked(**more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}).encode()


PATHS = [
    b"/v1/../metrics", b"/v1/models/../../metrics", b"/v1/models/..%2f..%2fmetrics", b"/%2e%2e/metrics", b"//metrics",
    b"/metrics/", b"/metrics%00", b"/./metrics", b"/v1/..;/metrics", b"/metrics?x=1", b"/%6detrics",
    b"http://localhost/metrics", b"http://evil.example/metrics", b"http://127.0.0.1:1/metrics",
]  # fmt: skip


def test_no_spelling_of_a_path_goes_around_the_key(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "gateway.db")
    store.create("a")
    store.close()

    async def check(running: Running, upstream: RawUpstream) -> None:
        for path in PATHS:
            answer = await raw(running, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert answer.split(b" ", 2)[1] in (b"400", b"401", b"404"), (path, answer[:200])
            assert b"nacre_" not in answer
        for path in (
            b"/v1/chat/completions/",
            b"/v1//chat/completions",
            b"/v1/chat%2fcompletions",
            b"/V1/chat/completions",
        ):
            answer = await raw(running, post(asked()).replace(b"/v1/chat/completions", path))
            assert answer.split(b" ", 2)[1] in (b"401", b"404"), (path, answer[:200])
        for line in (
            b"OPTIONS * HTTP/1.1",
            b"CONNECT evil.example:80 HTTP/1.1",
            b"TRACE / HTTP/1.1",
            b"PRI * HTTP/2.0",
        ):
            answer = await raw(running, line + b"\r\nHost: localhost\r\nX-Api-Key: abc\r\n\r\n")
            assert int(answer.split(b" ", 2)[1]) in (400, 404, 405), (line, answer[:200])
            assert b"abc" not in answer
        assert not upstream.heard

    through(tmp_path, check)


BOTH = b"0\r\n\r\n" + SMUGGLED
FRAMING: dict[str, bytes] = {
    "two lengths": post(SMUGGLED, b"Content-Length: 0"),
    "two lengths, the shorter first": post(SMUGGLED, b"Content-Length: 0", b"Content-Length: 44", length=False),
    "a list of lengths": post(SMUGGLED, b"Content-Length: 0, 44", length=False),
    "a signed length": post(SMUGGLED, b"Content-Length: +0", length=False),
    "a negative length": post(SMUGGLED, b"Content-Length: -1", length=False),
    "a hexadecimal length": post(SMUGGLED, b"Content-Length: 0x0", length=False),
    "an empty length": post(SMUGGLED, b"Content-Length:", length=False),
    "a length that overflows": post(SMUGGLED, b"Content-Length: 18446744073709551616", length=False),
    "a space before the colon": post(SMUGGLED, b"Content-Length : 0", length=False),
    "length and chunks": post(BOTH, b"Transfer-Encoding: chunked"),
    "chunks and identity": post(BOTH, b"Transfer-Encoding: chunked, identity", length=False),
    "an unknown coding": post(BOTH, b"Transfer-Encoding: xchunked", length=False),
    "two codings": post(BOTH, b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"),
    "a coding with a tab": post(BOTH, b"Transfer-Encoding:\x0bchunked", length=False),
    "a chunk that overflows": post(b"ffffffffffffffffff\r\n" + SMUGGLED, b"Transfer-Encoding: chunked", length=False),
    "a signed chunk": post(b"-1\r\n" + SMUGGLED, b"Transfer-Encoding: chunked", length=False),
    "a folded header": post(SMUGGLED, b"X: 1\r\n Content-Length: 0", length=False),
    "a bare line feed": post(SMUGGLED, b"X: 1\nContent-Length: 0", length=False),
    "a bare carriage return": post(SMUGGLED, b"X: 1\rContent-Length: 0", length=False),
    "a zero in a header": post(SMUGGLED, b"X: 1\x00", length=False),
}


@pytest.mark.parametrize("name", FRAMING)
def test_no_second_request_is_smuggled_in(tmp_path: Path, name: str) -> None:
    """Whatever the framing says twice or strangely: nothing goes on, and what hides in the body is no request."""

    async def check(running: Running, upstream: RawUpstream) -> None:
        answer = await raw(running, FRAMING[name])
        assert b"nacre_" not in answer, answer
        if answer:
            assert answer.split(b" ", 2)[1] in (b"400", b"411", b"413"), answer[:300]
        assert not upstream.heard

    through(tmp_path, check)


def test_no_header_is_injected_by_names_or_by_an_upstream(tmp_path: Path) -> None:
    evil = "m\r\nSet-Cookie: a=b\r\n\r\n<script>"

    async def check(running: Running, upstream: RawUpstream) -> None:
        for body in (asked(model=evil), asked(user=evil), asked(tools=[{"function": {"name": evil}}])):
            async with running.session.post(running.url + CHAT_AT, data=body) as response:
                assert "Set-Cookie" not in response.headers
        headers = {"X-Request-Id": "a%0d%0aSet-Cookie: a=b", "traceparent": "x" * 500}
        async with running.session.post(running.url + CHAT_AT, data=asked(), headers=headers) as response:
            assert response.headers["x-request-id"] == response.headers["x-nacre-id"]
            assert "Set-Cookie" not in response.headers
            assert "x-evil" not in response.headers
        assert "\n" not in str([one.headers for one in upstream.heard])

    model = json.dumps({"model": evil, "choices": []}).encode()
    reply = whole(200, model, set_cookie="a=b", x_evil="1", x_nacre_model="other", content_type="application/json; é=1")
    through(tmp_path, check, [bytes_only(reply)])


def test_an_answer_is_never_a_page(tmp_path: Path) -> None:
    """JSON that an upstream calls HTML would be run by a browser that opens it."""

    async def check(running: Running, upstream: RawUpstream) -> None:
        status, headers, _ = await running.post()
        assert status == 200
        assert headers["content-type"].startswith("application/json")

    body = b'{"choices": [], "x": "<script>alert(1)</script>"}'
    through(tmp_path, check, [bytes_only(whole(200, body, content_type="text/html"))])


MANY = b'{"model": "m", "messages": [{"role": "user", "content": "x"}], ' + b", ".join(
    b'"k%d": 1' % number for number in range(200_000)
) + b"}"  # fmt: skip
BODIES: dict[str, tuple[bytes, set[int]]] = {
    "deep lists": (b'{"model": "m", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", {400}),
    "deep objects": (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, {400}),
    "not closed": (b'{"model": "m", "messages": ' + b"[" * 1_000_000, {400}),
    "65 levels": (asked(x=json.loads("[" * 65 + "]" * 65)), {400}),
    "NaN": (asked(temperature=float("nan")), {400}),
    "infinity": (asked(temperature=float("inf")), {400}),
    "a number beyond all": (asked().replace(b'"m"', b'"m", "seed": 1e999'), {200, 400}),
    "an integer of many digits": (asked().replace(b'"m"', b'"m", "seed": ' + b"9" * 5000), {200, 400}),
    "a lone surrogate": (asked().replace(b"hi", b"\\ud800"), {400}),
    "no UTF-8": (asked().replace(b"hi", b"\xff\xfe"), {400}),
    "UTF-16": (asked().decode().encode("utf-16"), {400}),
    "many keys": (MANY, {200}),
    "a key twice": (asked().replace(b'"m"', b'"m", "model": "nobody"'), {404}),
    "a zero": (asked().replace(b"hi", b"\\u0000"), {200}),
    "max_tokens of many digits": (asked(max_tokens=10**30), {200, 400}),
    "a negative max_tokens": (asked(max_tokens=-(10**18), n=-5), {200, 400}),
    "n beyond all": (asked(n=10**18), {200, 400}),
    "stream options of another kind": (asked(stream=True, stream_options="x"), {200, 400}),
    "a model that is a list": (asked(model=["m"]), {400}),
    "messages of another kind": (asked(messages=[None, 3, "x", [], {}]), {200, 400}),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_json_that_is_too_much_is_refused_or_sent_on_as_json(tmp_path: Path, name: str) -> None:
    body, expected = BODIES[name]

    async def check(running: Running, upstream: RawUpstream) -> None:
        async with running.session.post(running.url + CHAT_AT, data=body) as response:
            got = await response.read()
        assert response.status in expected, got[:300]
        if response.status != 200:
            assert set(json.loads(got)["error"]) == {"message", "type", "param", "code"}
        for one in upstream.heard:
            json.dumps(one.body, allow_nan=False)
        assert (await running.entry()).outcome in ("ok", "refused")

    through(tmp_path, check, masking={"default": "mask"})


def test_an_answer_nested_deeply_is_no_fault_of_the_gateway(tmp_path: Path) -> None:
    """Also where it is looked through to restore what was masked."""
    deep = b'{"choices": [{"message": {"content": ' + b"[" * 900 + b'"a"' + b"]" * 900 + b"}}]}"

    async def check(running: Running, upstream: RawUpstream) -> None:
        status, _, body = await running.post(messages=[{"role": "user", "content": "mail li.wei@example.com"}])
        assert status in (200, 502), body[:300]

    through(tmp_path, check, [bytes_only(whole(200, deep))], masking={"default": "mask"})


FOREIGN: list[dict[str, str]] = [
    {"Origin": "null"}, {"Origin": "https://evil.example"}, {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://127.0.0.1.evil.example"}, {"Origin": "http://127.0.0.1@evil.example"}, {"Origin": ""},
    {"Origin": "file://"}, {"Host": "localhost.evil.example"}, {"Host": "127.0.0.1.evil.example:8400"},
    {"Host": "evil.example@127.0.0.1"[:12]}, {"Host": "0.0.0.0"}, {"Host": "[::ffff:8.8.8.8]"},
    {"Sec-Fetch-Site": "cross-site"},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FOREIGN)))
def test_another_page_is_refused_and_no_page_is_let_in(tmp_path: Path, number: int) -> None:
    headers = FOREIGN[number]

    async def check(running: Running, upstream: RawUpstream) -> None:
        ways: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "/v1/models", {}), ("GET", "/metrics", {}), ("POST", CHAT_AT, {"data": asked()}),
        ]  # fmt: skip
        for method, path, more in ways:
            async with running.session.request(method, running.url + path, headers=headers, **more) as response:
                assert response.status == 403, (method, path)
                assert not [name for name in response.headers if name.lower().startswith("access-control-")]
        preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        async with running.session.options(running.url + CHAT_AT, headers=preflight) as response:
            assert response.status == 405
            assert not [name for name in response.headers if name.lower().startswith("access-control-")]
        assert not upstream.heard

    through(tmp_path, check)


def test_own_pages_and_no_pages_are_let_in(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        for headers in ({}, {"Origin": "http://localhost:3000"}, {"Host": "[::1]:8400"}, {"Host": "127.0.0.1"},
                        {"Sec-Fetch-Site": "same-origin"}):  # fmt: skip
            async with running.session.post(running.url + CHAT_AT, data=asked(), headers=headers) as response:
                assert response.status == 200, headers

    through(tmp_path, check)


def test_a_key_in_an_address_is_no_key(tmp_path: Path) -> None:
    """It would stand in the logs of every proxy: it is not read, so that nobody gets used to it."""
    store = KeyStore(tmp_path / "gateway.db")
    secret = store.create("a").secret
    store.close()

    async def check(running: Running, upstream: RawUpstream) -> None:
        for name in ("key", "api_key", "access_token", "token"):
            async with running.session.post(f"{running.url}{CHAT_AT}?{name}={secret}", data=asked()) as response:
                assert response.status == 401
                assert secret not in await response.text()
        await running.gateway.parts.ledger.flush()

    through(tmp_path, check)
    files = b"".join(one.read_bytes() for one in tmp_path.iterdir() if one.is_file())
    assert secret.encode() not in files


def test_a_body_that_lies_about_its_length_or_packs_itself(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        for encoding in ("gzip", "br", "deflate", "zstd", "gzip, identity", "x\ty"):
            headers = {"Content-Encoding": encoding}
            async with running.session.post(running.url + CHAT_AT, data=asked(), headers=headers) as response:
                assert response.status == 415
        answer = await raw(
            running, post(asked() + b"GET /metrics HTTP/1.1\r\n\r\n", b"Content-Length: 10", length=False)
        )
        assert answer.split(b" ", 2)[1] == b"400"
        assert b"nacre_" not in answer
        assert not upstream.heard

    through(tmp_path, check, bounds=replace(Bounds(), body_bytes=4096))
