"""`nacre serve` as a process of its own, with real clients; killed and stopped under load."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest
from raw_upstream import answers, streams
from served_process import refused, served, upstream_beside

from nacre.lifecycle.serve.state.ledger import StoredLedger

HELLO: list[Any] = [{"role": "user", "content": "你好"}]


def test_the_openai_client_works_unchanged(tmp_path: Path) -> None:
    with upstream_beside(answers("你好！")) as upstream, served(tmp_path, f"{upstream.url}#raw") as (process, url):
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        assert client.models.list().data[0].id == "raw"
        answer = client.chat.completions.with_raw_response.create(model="raw", messages=HELLO)
        assert answer.headers["x-nacre-model"] == "raw"
        assert answer.parse().choices[0].message.content == "你好！"
        pieces = client.chat.completions.create(model="raw", messages=HELLO, stream=True)
        assert "".join(one.choices[0].delta.content or "" for one in pieces) == "你好！"
        tools: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
        called = client.chat.completions.create(model="raw", messages=HELLO, tools=tools).choices[0].message.tool_calls
        assert called is not None
        assert json.loads(called[0].function.arguments) == {"city": "上海"}  # type: ignore[union-attr]
        assert client.embeddings.create(model="raw", input=["a", "b"]).data[1].embedding == [0.5, 1.0]
        with pytest.raises(openai.NotFoundError, match="did you mean 'raw'"):
            client.chat.completions.create(model="rwa", messages=HELLO)
        asyncio.run(_async_client(url))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


async def _async_client(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        several = [client.chat.completions.create(model="raw", messages=HELLO) for _ in range(8)]
        assert [one.choices[0].message.content for one in await asyncio.gather(*several)] == ["你好！"] * 8
        text = ""
        async for piece in await client.chat.completions.create(model="raw", messages=HELLO, stream=True):
            text += piece.choices[0].delta.content or ""
        assert text == "你好！"


def test_a_stream_that_dies_is_an_error_for_the_client(tmp_path: Path) -> None:
    dies = streams(b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n', end="reset")
    with upstream_beside(dies) as upstream, served(tmp_path, f"{upstream.url}#raw") as (_, url):
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        with pytest.raises(openai.APIError, match="middle of its answer"):
            list(client.chat.completions.create(model="raw", messages=HELLO, stream=True))


def test_killed_under_load_the_ledger_has_every_answered_request(tmp_path: Path) -> None:
    with upstream_beside(answers("hi")) as upstream, served(tmp_path, f"{upstream.url}#raw") as (process, url):
        answered: list[str] = []

        def ask() -> None:
            body = json.dumps({"model": "raw", "messages": HELLO}).encode()
            try:
                while True:
                    with urllib.request.urlopen(f"{url}/chat/completions", body, timeout=10) as reply:
                        reply.read()
                        answered.append(reply.headers["x-nacre-id"])
            except OSError:  # killed
                return

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answered) < 60:
            assert any(thread.is_alive() for thread in threads)
            threads[0].join(0.05)
        process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join(20)
    serve = tmp_path / "serve"
    ledger = StoredLedger(serve / "gateway.db", journal=serve)
    asyncio.run(ledger.close())
    ledger = StoredLedger(serve / "gateway.db", journal=serve)
    entered = {row[0] for row in ledger._reading.rows("SELECT id FROM entries")}
    asyncio.run(ledger.close())
    missing = set(answered) - entered
    assert not missing, f"{len(missing)} of {len(answered)}"


def test_what_cannot_start_says_so_and_ends_with_2(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("models:\n  a:\n    upstrem: {address: http://127.0.0.1:1/v1}\n")
    said = refused(tmp_path, str(bad))
    assert "line 3" in said
    assert "did you mean 'upstream'" in said
    assert "nacre serve keys create" in refused(tmp_path, "http://127.0.0.1:1/v1#m", "--host", "0.0.0.0", "--port", "0")
    assert "NO_KEY" in refused(tmp_path, "http://127.0.0.1:1/v1?key_variable=NO_KEY#m", "--port", "0")
    assert "nothing-here" in refused(tmp_path, "nothing-here", "--port", "0")
