"""What the gateway does with upstreams: bytes as they came, and every way in which an upstream can fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gateway_kit import PATIENCE, Running, config_for, gateway_at, upstream_model
from raw_upstream import (
    Heard,
    RawUpstream,
    Step,
    answers,
    bytes_only,
    events,
    head,
    raw_upstream,
    resets,
    streams,
    whole,
)

from nacre.engine.prices import Prices
from nacre.errors import ConfigError, UsageError
from nacre.lifecycle.serve.config import ServeConfig
from nacre.lifecycle.serve.upstream import Upstream, line_for

Check = Callable[[Running, RawUpstream], Awaitable[None]]


def through(folder: Path, steps: list[Step], check: Check, **changes: Any) -> None:
    """Runs `check` against a gateway with one model `m` behind a scripted upstream."""

    async def run() -> None:
        async with (
            raw_upstream(steps) as upstream,
            gateway_at(folder, config_for(m=upstream_model(upstream.url, **changes))) as running,
        ):
            await check(running, upstream)

    asyncio.run(run())


def test_an_answer_leaves_as_it_came_and_names_who_gave_it(tmp_path: Path) -> None:
    body = b'{ "id":"x",  "model": "theirs", "choices":[], "usage":{"prompt_tokens":7,"completion_tokens":3} ,"e":1e3}'

    async def check(running: Running, upstream: RawUpstream) -> None:
        status, headers, got = await running.post(temperature=0.5, seed=12345678901234567)
        assert (status, got) == (200, body)
        assert headers["x-nacre-model"] == "m"
        assert upstream.heard[0].body["model"] == "raw"
        assert upstream.heard[0].body["seed"] == 12345678901234567
        entry = await running.entry()
        assert (entry.prompt_tokens, entry.completion_tokens, entry.counted_by) == (7, 3, "upstream")
        assert (entry.outcome, entry.served, entry.money) == ("ok", "m", None)

    through(tmp_path, [bytes_only(whole(200, body))], check)


def test_a_stream_leaves_byte_for_byte_save_the_usage_nobody_asked_for(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        status, headers, got = await running.post(stream=True)
        asked = Heard("", {}, {"stream_options": {"include_usage": True}})
        every = events(asked, "你好", "raw")
        assert status == 200
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert got == b"".join(one for one in every if b'"usage"' not in one)
        assert upstream.heard[0].body["stream_options"] == {"include_usage": True}
        entry = await running.entry()
        assert (entry.prompt_tokens, entry.completion_tokens, entry.outcome) == (7, 3, "ok")
        assert entry.first_token_s is not None
        _, _, got = await running.post(stream=True, stream_options={"include_usage": True})
        assert got == b"".join(every)

    through(tmp_path, [answers("你好")], check)


@pytest.mark.parametrize("cut", [1, 2, 3, 7])
def test_events_cut_anywhere_come_out_the_same(tmp_path: Path, cut: int) -> None:
    data = b': comment\r\n\r\nevent: x\r\ndata: {"a": 1}\r\n\r\n' + b"data: [DONE]\n\n"
    pieces = [data[start : start + cut] for start in range(0, len(data), cut)]

    async def check(running: Running, upstream: RawUpstream) -> None:
        _, _, got = await running.post(stream=True)
        assert got == data
        assert (await running.entry()).outcome == "ok"

    through(tmp_path, [streams(*pieces)], check)


def test_a_huge_event_passes_in_pieces(tmp_path: Path) -> None:
    data = b'data: {"choices":[{"delta":{"content":"' + b"x" * 3_000_000 + b'"}}]}\n\ndata: [DONE]\n\n'

    async def check(running: Running, upstream: RawUpstream) -> None:
        _, _, got = await running.post(stream=True)
        assert got == data
        assert (await running.entry()).outcome == "ok"

    through(tmp_path, [streams(data)], check)


@pytest.mark.parametrize("end", ["reset", "closed", "orderly"])
def test_a_stream_that_dies_ends_with_an_error_event(tmp_path: Path, end: str) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        status, _, got = await running.post(stream=True)
        assert status == 200
        assert b"[DONE]" not in got
        last = got.strip().split(b"\n\n")[-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "cut_short"
        entry = await running.entry()
        assert (entry.outcome, entry.prompt_tokens, entry.money) == ("cut_short", None, None)

    piece = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n'
    through(tmp_path, [streams(piece, b'data: {"cho', end=end)], check)


def test_a_stream_that_falls_silent_ends_with_an_error_event(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        _, _, got = await running.post(stream=True)
        assert b'"stalled"' in got
        assert b"[DONE]" not in got
        assert (await running.entry()).outcome == "cut_short"

    times = replace(PATIENCE, between_s=0.1)
    through(tmp_path, [streams(b"data: {}\n\n", end="never")], check, timeouts=times)


def test_an_error_event_of_the_upstream_is_passed_on_once(tmp_path: Path) -> None:
    data = b'data: {"error": {"message": "overloaded"}}\n\n'

    async def check(running: Running, upstream: RawUpstream) -> None:
        _, _, got = await running.post(stream=True)
        assert got == data
        assert (await running.entry()).outcome == "cut_short"

    through(tmp_path, [streams(data)], check)


BAD: dict[str, tuple[Step, int, str]] = {
    "reset": (resets(), 502, "no_answer"),
    "closed": (bytes_only(), 502, "no_answer"),
    "slow": (bytes_only(0.5), 504, "first_byte_timeout"),
    "not http": (bytes_only(b"\x00\x01 nonsense\r\n\r\n"), 502, "no_answer"),
    "not json": (bytes_only(whole(200, b"<html>")), 502, "bad_answer"),
    "a list": (bytes_only(whole(200, b"[]")), 502, "bad_answer"),
    "cut": (bytes_only(head(content_length="100") + b"{"), 502, "cut_short"),
    "too long": (bytes_only(whole(200, b"[" + b"1," * 5000 + b"1]")), 502, "bad_answer"),
    "packed": (bytes_only(whole(200, b"x", content_encoding="gzip")), 502, "bad_answer"),
    "redirect": (bytes_only(whole(307, b"", location="http://169.254.169.254/")), 502, "upstream_redirect"),
    "key": (bytes_only(whole(401, b'{"error":{"message":"bad key sk-secret"}}')), 502, "upstream_key"),
    "500": (answers("broken", status=500), 500, "theirs"),
    "503": (answers("busy", status=503, retry_after="7"), 503, "theirs"),
    "429": (answers("slow down", status=429, retry_after="7"), 429, "theirs"),
    "400": (answers("too long", status=400), 400, "theirs"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_fails_before_the_first_byte_is_an_error_in_openais_shape(tmp_path: Path, name: str) -> None:
    step, status, code = BAD[name]

    async def check(running: Running, upstream: RawUpstream) -> None:
        got, headers, body = await running.post()
        error = json.loads(body)["error"]
        assert (got, error["code"]) == (status, code)
        assert set(error) == {"message", "type", "param", "code"}
        assert "sk-secret" not in error["message"]
        assert upstream.url not in error["message"]
        assert headers.get("retry-after") == ("7" if name in ("503", "429") else None)
        entry = await running.entry()
        outcome = "refused" if name == "400" else "upstream_error"  # a bad request is the client's
        assert (entry.outcome, entry.status, entry.money) == (outcome, status, 0.0)

    times = replace(PATIENCE, first_byte_s=0.2)
    through(tmp_path, [step], check, timeouts=times, reply_bytes=10_000)


def test_nobody_listens(tmp_path: Path) -> None:
    async def run() -> None:
        async with raw_upstream() as upstream:
            url = upstream.url
        async with gateway_at(tmp_path, config_for(m=upstream_model(url))) as running:
            status, _, body = await running.post()
            assert status == 502
            assert "nobody listens" in json.loads(body)["error"]["message"]

    asyncio.run(run())


def test_a_client_that_leaves_ends_the_upstreams_work(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        response = await running.session.post(running.url + "/v1/chat/completions", json=body)
        await response.content.readany()
        response.close()
        assert (await running.entry()).outcome == "client_left"
        async with asyncio.timeout(5):
            while upstream.open > 1:  # the asking after health may keep one
                await asyncio.sleep(0.01)

    through(tmp_path, [streams(b"data: {}\n\n", end="never")], check, timeouts=replace(PATIENCE, between_s=30.0))


def test_a_client_that_leaves_before_the_answer_ends_the_upstreams_work(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await running.post()
        entry = await running.entry()
        assert (entry.outcome, entry.status, entry.money) == ("client_left", 499, None)

    through(tmp_path, [bytes_only(30.0)], check, timeouts=replace(PATIENCE, first_byte_s=30.0))


def routed(first: str, second: str, **changes: Any) -> ServeConfig:
    models = {"a": upstream_model(first, **changes), "b": upstream_model(second)}
    return replace(config_for(**models), routes={"m": ("a", "b")})


def test_failover_only_where_declared_and_before_the_first_byte(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            raw_upstream([answers(status=503), resets(), answers(status=400)]) as first,
            raw_upstream() as second,
            gateway_at(tmp_path, routed(first.url, second.url)) as running,
        ):
            for _ in range(2):
                status, headers, _ = await running.post()
                assert (status, headers["x-nacre-model"], headers["x-nacre-failover"]) == (200, "b", "a,b")
            assert (await running.post())[0] == 400  # a bad request is bad everywhere
            assert (await running.post(model="a"))[0] == 400  # no route, no other model
            assert len(second.heard) == 2
            assert [one.served for one in running.entries] == ["b", "b", None, None]

    asyncio.run(run())


def test_no_failover_once_a_byte_is_out(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            raw_upstream([streams(b"data: {}\n\n", end="reset")]) as first,
            raw_upstream() as second,
            gateway_at(tmp_path, routed(first.url, second.url)) as running,
        ):
            _, headers, got = await running.post(stream=True)
            assert headers["x-nacre-model"] == "a"
            assert b'"cut_short"' in got
            assert not second.heard

    asyncio.run(run())


def test_a_model_without_the_ability_is_passed_over_in_a_route_and_refused_alone(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]

    async def run() -> None:
        async with (
            raw_upstream() as first,
            raw_upstream() as second,
            gateway_at(tmp_path, routed(first.url, second.url, abilities=("chat",))) as running,
        ):
            assert (await running.post(tools=tools))[1]["x-nacre-failover"] == "a,b"
            for field, value in (("tools", tools), ("response_format", {"type": "json_object"}), ("stream", True)):
                status, _, body = await running.post(model="a", **{field: value})
                assert (status, json.loads(body)["error"]["param"]) == (400, field)
            status, _, body = await running.post("/v1/embeddings", model="a", input="x")
            assert status == 400
            assert not first.heard

    asyncio.run(run())


def test_money_is_what_the_upstream_counted(tmp_path: Path) -> None:
    async def run() -> None:
        async with raw_upstream() as upstream:
            model = replace(upstream_model(upstream.url), price=Prices(1.0, 10.0))
            async with gateway_at(tmp_path, config_for(m=model)) as running:
                await running.post()
                assert (await running.entry()).money == pytest.approx((7 + 30) / 1e6)

    asyncio.run(run())


def test_a_key_comes_from_its_variable_and_is_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UP_KEY", "sk-secret-1")

    async def check(running: Running, upstream: RawUpstream) -> None:
        status, headers, body = await running.post()
        assert status == 400
        assert "sk-secret" not in str(headers) + body.decode()
        assert upstream.heard[0].headers["authorization"] == "Bearer sk-secret-1"
        assert "sk-secret" not in repr(running.gateway.table.backends)

    through(tmp_path, [answers("you sent sk-secret-1", status=400)], check, key_variable="UP_KEY")
    monkeypatch.delenv("UP_KEY")
    with pytest.raises(UsageError, match="UP_KEY"):
        through(tmp_path, [answers()], check, key_variable="UP_KEY")


def test_a_key_does_not_travel_over_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UP_KEY", "sk-secret-1")
    config = upstream_model("http://api.example.com/v1", key_variable="UP_KEY").upstream
    assert config is not None
    with pytest.raises(ConfigError, match="plain http"):
        asyncio.run(Upstream("m", config, line_for({"m": config})).start())
