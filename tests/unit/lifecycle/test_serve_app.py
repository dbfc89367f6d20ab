"""The gateway towards its clients: errors in OpenAI's shape, bounds, keys, scopes, ids, headers, foreign pages."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientTimeout
from gateway_kit import Running, config_for, gateway_at, upstream_model
from raw_upstream import RawUpstream, Step, answers, bytes_only, raw_upstream, streams

from nacre.lifecycle.serve.config import Bounds, KeysConfig, ServeConfig
from nacre.lifecycle.serve.contract import Allowance
from nacre.lifecycle.serve.state.keys import KeyStore
from nacre.lifecycle.serve.wire import header_value, read_json, shown_id

Check = Callable[[Running, RawUpstream], Awaitable[None]]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def through(folder: Path, check: Check, steps: list[Step] | None = None, **changes: Any) -> None:
    """Runs `check` against a gateway with the models `m` and `中文模型` behind one upstream."""

    async def run() -> None:
        async with raw_upstream(steps or [answers()]) as upstream:
            models = {"m": upstream_model(upstream.url), "中文模型": upstream_model(upstream.url)}
            config: ServeConfig = replace(config_for(**models), **changes)
            async with gateway_at(folder, config) as running:
                await check(running, upstream)

    asyncio.run(run())


async def ask(running: Running, method: str, path: str, **options: Any) -> tuple[int, dict[str, str], Any]:
    """Status, headers in lower case and parsed body of one request."""
    async with running.session.request(method, running.url + path, **options) as response:
        body = await response.read()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return response.status, headers, json.loads(body) if body else None


CHAT_AT = "/v1/chat/completions"
REFUSED: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("GET", "/v1/chat/completions", {}, 405, "use_post"),
    ("POST", "/v1/models", {"json": {}}, 405, "use_get"),
    ("GET", "/v1/chat/completion", {}, 404, "no_such_path"),
    ("GET", "/../../etc/passwd", {}, 404, "no_such_path"),
    ("POST", CHAT_AT, {"data": b"nonsense"}, 400, "invalid_json"),
    ("POST", CHAT_AT, {"data": b"[]"}, 400, "invalid_json"),
    ("POST", CHAT_AT, {"data": b'{"model": "\\ud800"}'}, 400, "invalid_json"),
    ("POST", CHAT_AT, {"json": {}}, 400, "invalid_field"),
    ("POST", CHAT_AT, {"json": CHAT | {"model": 3}}, 400, "invalid_field"),
    ("POST", CHAT_AT, {"json": CHAT | {"stream": "yes"}}, 400, "invalid_field"),
    ("POST", CHAT_AT, {"json": CHAT | {"messages": []}}, 400, "invalid_field"),
    ("POST", "/v1/embeddings", {"json": {"model": "m"}}, 400, "invalid_field"),
    ("POST", "/v1/search", {"json": {"model": "m", "query": "x"}}, 400, "unsupported"),
    ("POST", CHAT_AT, {"json": CHAT | {"model": "mm"}}, 404, "model_not_found"),
    ("POST", CHAT_AT, {"data": b"x" * 5000}, 413, "body_too_large"),
    ("POST", CHAT_AT, {"data": b"{}", "headers": {"Content-Encoding": "gzip"}}, 415, "unsupported_encoding"),
    ("POST", CHAT_AT, {"json": CHAT | {"x": [[[[[[[[[[[[1]]]]]]]]]]]]}}, 400, "nested_too_deep"),
    ("POST", CHAT_AT, {"json": CHAT, "headers": {"Origin": "https://evil.example"}}, 403, "foreign_origin"),
    ("POST", CHAT_AT, {"json": CHAT, "headers": {"Host": "evil.example"}}, 403, "foreign_origin"),
    ("GET", "/v1/models", {"headers": {"Host": "evil.example:80"}}, 403, "foreign_origin"),
]  # fmt: skip


def test_every_refusal_has_openais_shape_and_says_what_to_change(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        for method, path, options, status, code in REFUSED:
            got, headers, body = await ask(running, method, path, **options)
            error = body["error"]
            assert (got, error["code"]) == (status, code), (method, path, body)
            assert set(body) == {"error"}
            assert set(error) == {"message", "type", "param", "code"}
            assert headers["content-type"] == "application/json"
            assert headers["x-request-id"].startswith("req-")
            assert ("allow" in headers) == (status == 405)
        assert not upstream.heard

    through(tmp_path, check, bounds=replace(Bounds(), body_bytes=4096, nesting=8))


def test_an_unknown_model_names_the_closest_and_its_name_is_in_no_ledger(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        _, _, body = await ask(running, "POST", "/v1/chat/completions", json=CHAT | {"model": "中文模形"})
        assert "'中文模型'" in body["error"]["message"]
        assert (await running.entry()).asked == ""

    through(tmp_path, check)


def test_models_are_listed_and_the_pages_of_the_process_answer(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        _, _, body = await ask(running, "GET", "/v1/models")
        assert [one["id"] for one in body["data"]] == ["m", "中文模型"]
        assert (await ask(running, "GET", "/v1/models/m"))[2]["id"] == "m"
        assert (await ask(running, "GET", "/v1/models/n"))[0] == 404
        assert (await ask(running, "GET", "/healthz"))[2] == {"status": "ok"}
        assert (await ask(running, "GET", "/readyz"))[2]["status"] == "ready"
        _, _, body = await ask(running, "GET", "/openapi.json")
        assert set(body["paths"]) >= {"/v1/chat/completions", "/v1/search", "/readyz"}
        assert (await ask(running, "HEAD", "/healthz"))[2] is None
        async with running.session.get(running.url + "/metrics") as response:
            assert "nacre_upstream_up" in await response.text()
        _, headers, _ = await running.post(model="中文模型")
        assert headers["x-nacre-model"] == "%E4%B8%AD%E6%96%87%E6%A8%A1%E5%9E%8B"

    through(tmp_path, check)


def test_keys_open_what_they_cover_and_nothing_else(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "gateway.db")
    narrow = store.create("narrow", models=("n*",)).secret
    wide = store.create("wide", allowance=Allowance(requests_per_minute=1)).secret
    admin = store.create("admin", is_admin=True).secret

    async def check(running: Running, upstream: RawUpstream) -> None:
        async def chat(**headers: str) -> tuple[int, dict[str, str], Any]:
            return await ask(running, "POST", "/v1/chat/completions", json=CHAT, headers=headers)

        status, headers, body = await chat()
        assert (status, body["error"]["code"], headers["www-authenticate"]) == (401, "missing_api_key", "Bearer")
        assert (await chat(Authorization="Bearer wrong"))[2]["error"]["code"] == "invalid_api_key"
        assert (await chat(Authorization=f"Basic {wide}"))[0] == 401
        assert (await chat(Authorization=f"Bearer {narrow}"))[2]["error"]["code"] == "model_not_found"
        assert (await chat(Authorization=f"Bearer {wide}"))[0] == 200
        status, headers, body = await chat(Authorization=f"bearer {wide}")
        assert (status, body["error"]["type"]) == (429, "rate_limit_error")
        assert int(headers["retry-after"]) >= 1
        listed = await ask(running, "GET", "/v1/models", headers={"Authorization": f"Bearer {narrow}"})
        assert listed[2]["data"] == []
        assert (await ask(running, "GET", "/v1/models"))[0] == 401
        assert (await ask(running, "GET", "/metrics"))[0] == 401
        assert (await ask(running, "GET", "/metrics", headers={"Authorization": f"Bearer {wide}"}))[0] == 403
        async with running.session.get(running.url + "/metrics", headers={"X-Api-Key": admin}) as response:
            assert response.status == 200
        await asyncio.to_thread(store.revoke, "narrow")
        assert (await chat(Authorization=f"Bearer {narrow}"))[2]["error"]["code"] == "key_revoked"
        assert len(upstream.heard) == 1

    through(tmp_path, check)
    store.close()


def test_a_strangers_body_is_not_read(tmp_path: Path) -> None:
    KeyStore(tmp_path / "gateway.db").create("a")

    async def check(running: Running, upstream: RawUpstream) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        writer.close()

    through(tmp_path, check)


def test_ids_come_back_and_are_never_the_ledgers(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        seen = set()
        for given in ("abc-1", "abc-1", "a b", "x" * 65, "<script>", ""):
            _, headers, _ = await ask(
                running, "POST", "/v1/chat/completions", json=CHAT, headers={"X-Request-Id": given}
            )
            assert headers["x-request-id"] == (given if given == "abc-1" else headers["x-nacre-id"])
            seen.add(headers["x-nacre-id"])
        assert len(seen) == 6
        assert {one.id for one in running.entries} == seen
        assert {one.headers["x-request-id"] for one in upstream.heard} == seen

    through(tmp_path, check)


def test_no_header_can_be_injected() -> None:
    assert header_value("a\r\nSet-Cookie: x") == "a%0D%0ASet-Cookie: x"
    assert header_value("模型 100%") == "%E6%A8%A1%E5%9E%8B 100%25"
    assert header_value("100%") == "100%"
    assert shown_id({"x-request-id": "a\r\nb"}, "ours") == "ours"


def test_what_is_sent_on_has_each_field_once(tmp_path: Path) -> None:
    """A body with two models would be checked for one and answered by the other."""

    async def check(running: Running, upstream: RawUpstream) -> None:
        body = b'{"model": "dear", "model": "m", "messages": [{"role": "user", "content": "hi"}]}'
        async with running.session.post(running.url + "/v1/chat/completions", data=body) as response:
            assert response.status == 200
        assert upstream.heard[0].body["model"] == "raw"

    through(tmp_path, check)


def test_deep_json_is_counted_only_where_it_can_be_deep() -> None:
    assert read_json(b'{"a": "[[[[[["}', 2) == {"a": "[[[[[["}
    assert read_json(b'{"a": [1], "b": [2], "c": [3]}', 2)["c"] == [3]


def test_a_full_server_refuses_and_says_when_to_come_again(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        first = asyncio.create_task(running.post(stream=True))
        async with asyncio.timeout(5):
            while not upstream.heard:
                await asyncio.sleep(0.01)
        status, headers, body = await running.post()
        assert (status, json.loads(body)["error"]["code"], headers["retry-after"]) == (429, "server_busy", "1")
        assert (await first)[0] == 200

    through(
        tmp_path, check, [streams(b"data: {}\n\n", 0.4, b"data: [DONE]\n\n")], bounds=replace(Bounds(), in_flight=1)
    )


def test_a_fault_of_ours_shows_no_traceback_and_is_logged_with_its_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        async def broken(call: object) -> None:
            raise RuntimeError("secret detail")

        running.gateway.table.backends["m"].answer = broken  # type: ignore[method-assign, assignment]
        with caplog.at_level(logging.ERROR):
            status, headers, body = await running.post()
        assert (status, json.loads(body)["error"]["code"]) == (500, "internal_error")
        assert b"secret detail" not in body
        assert headers["x-nacre-id"] in caplog.text
        entry = await running.entry()
        assert (entry.outcome, entry.status) == ("failed", 500)

    through(tmp_path, check)


def test_texts_are_in_no_log_and_no_ledger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = "marmalade"

    async def check(running: Running, upstream: RawUpstream) -> None:
        with caplog.at_level(logging.DEBUG):
            for body in ({}, {"stream": True}, {"model": secret}, {"temperature": secret}):
                await running.post(**{"messages": [{"role": "user", "content": secret}]} | body)
            await ask(running, "POST", "/v1/chat/completions", data=f'{{"{secret}'.encode())
        assert secret not in caplog.text
        assert secret not in str(running.entries)
        await running.gateway.parts.ledger.flush()

    through(tmp_path, check, [bytes_only(b"garbage"), answers(), answers()])
    assert secret.encode() not in b"".join(one.read_bytes() for one in tmp_path.iterdir() if one.is_file())


def test_personal_data_goes_out_masked_and_comes_back(tmp_path: Path) -> None:
    async def echo(heard: Any, line: Any) -> None:
        await answers(heard.body["messages"][0]["content"])(heard, line)

    async def check(running: Running, upstream: RawUpstream) -> None:
        for stream in (False, True):
            said = [{"role": "user", "content": "mail li.wei@example.com"}]
            _, _, body = await running.post(messages=said, stream=stream)
            assert "li.wei" not in str(upstream.heard[-1].body)
            text = body.decode()
            if stream:
                chunks = [json.loads(one[6:]) for one in text.strip().split("\n\n") if one[6:] != "[DONE]"]
                text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)
            assert "li.wei@example.com" in text
            assert (await running.entry()).masked == 1

    through(tmp_path, check, [echo], masking={"default": "mask"})


def test_keys_can_be_required_on_loopback(tmp_path: Path) -> None:
    KeyStore(tmp_path / "gateway.db").create("a")

    async def check(running: Running, upstream: RawUpstream) -> None:
        assert (await running.post())[0] == 401

    through(tmp_path, check, keys=KeysConfig(required=True))


def test_leaving_early_and_a_restart_do_not_get_round_a_budget(tmp_path: Path) -> None:
    """An answer that nobody waited for may be billed: a key's budget is charged as estimated, also after a restart."""

    async def run() -> None:
        keys = KeyStore(tmp_path / "gateway.db")
        secret = keys.create("poor", allowance=Allowance(tokens=700)).secret
        keys.close()
        hello = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 500}
        async with raw_upstream([bytes_only(30.0), answers()]) as upstream:
            config = config_for(m=upstream_model(upstream.url))
            headers = {"authorization": f"Bearer {secret}"}
            async with gateway_at(tmp_path, config) as running:
                with pytest.raises(TimeoutError):
                    await ask(running, "POST", CHAT_AT, json=hello, headers=headers, timeout=ClientTimeout(0.3))
                entry = await running.entry()
                assert (entry.outcome, entry.prompt_tokens, entry.money) == ("client_left", None, None)
                assert entry.estimated_tokens is not None
                assert 500 <= entry.estimated_tokens < 700
            async with gateway_at(tmp_path, config) as running:
                status, _, body = await ask(running, "POST", CHAT_AT, json=hello, headers=headers)
        assert (status, body["error"]["code"]) == (402, "budget_tokens")

    asyncio.run(run())


def test_readiness_names_no_model_to_a_name_that_was_made_to_lead_here(tmp_path: Path) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        running.gateway.health.down["m"] = "it does not answer"
        assert (await ask(running, "GET", "/readyz"))[2]["down"] == {"m": "it does not answer"}
        for headers in ({"host": "evil.example:8400"}, {"origin": "https://evil.example"}):
            status, _, body = await ask(running, "GET", "/readyz", headers=headers)
            assert (status, body) == (200, {"status": "ready"})

    through(tmp_path, check)
