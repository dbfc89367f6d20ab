"""The line per request, and traces: what they hold and what they never hold."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nacre.errors import ConfigError
from nacre.lifecycle.serve.contract import Entry, Receive, Scope, Send
from nacre.lifecycle.serve.watch.config import LogConfig, TracesConfig, WatchConfig
from nacre.lifecycle.serve.watch.logs import RequestLog
from nacre.lifecycle.serve.watch.traces import Traces
from nacre.lifecycle.serve.watch.watch import Watch

ENTRY = Entry("r1", 1.5, "k1", "chat", "mini", "mini", "ok", 200, 12, 30, "upstream", 42, 0.25, 0.2, 0.05)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_one_line_per_request_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"

    async def run() -> None:
        watch = Watch(WatchConfig(log=LogConfig(to=str(path))), ["mini", "模型"])
        await watch.start()
        for number in range(100):
            watch.ended(replace(ENTRY, id=f"r{number}"))
        watch.ended(replace(ENTRY, asked="模型"))
        await watch.close()

    asyncio.run(run())
    found = lines(path)
    assert [one["id"] for one in found[:100]] == [f"r{number}" for number in range(100)]
    assert found[0]["money"] == 0.25
    assert found[0]["outcome"] == "ok"
    assert found[100]["asked"] == "模型"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_client_typed_as_a_model_is_not_logged(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"

    async def run() -> None:
        watch = Watch(WatchConfig(log=LogConfig(to=str(path))), ["mini"])
        await watch.start()
        watch.ended(replace(ENTRY, asked='sk-secret"\n{"id": "forged"}', served=None, outcome="refused"))
        await watch.close()

    asyncio.run(run())
    assert "sk-secret" not in path.read_text()
    assert [one["asked"] for one in lines(path)] == ["other"]


def test_a_log_that_was_renamed_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"

    async def run() -> None:
        log = RequestLog(LogConfig(to=str(path)))
        log.ended(ENTRY, "mini")
        await log.flush()
        path.rename(tmp_path / "requests.1")
        log.ended(replace(ENTRY, id="r2"), "mini")
        await log.close()

    asyncio.run(run())
    assert [one["id"] for one in lines(path)] == ["r2"]


def test_lines_that_cannot_be_written_are_counted(tmp_path: Path) -> None:
    async def run() -> tuple[int, int]:
        log = RequestLog(LogConfig(to=str(tmp_path / "gone" / "requests.jsonl"), queue=2))
        for _ in range(5):
            log.ended(ENTRY, "mini")
        over = log.dropped
        await log.close()
        return over, log.dropped

    assert asyncio.run(run()) == (3, 5)


def test_a_log_that_cannot_be_written_is_said_at_start(tmp_path: Path) -> None:
    log = RequestLog(LogConfig(to=str(tmp_path / "gone" / "requests.jsonl")))
    with pytest.raises(ConfigError, match="cannot be written"):
        asyncio.run(log.start())


def test_none_keeps_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log = RequestLog(LogConfig(to="none"))
    log.ended(ENTRY, "mini")
    asyncio.run(log.close())
    assert capsys.readouterr() == ("", "")


# --- traces


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    return None


def test_off_the_application_is_itself() -> None:
    traces = Traces(TracesConfig())
    traces.start()
    traces.ended(ENTRY, "mini")
    assert traces.wrap(_nothing) is _nothing
    assert traces.client() == {}


def test_a_span_continues_the_clients_trace_and_holds_no_text() -> None:
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    traces = Traces(TracesConfig(on=True), exporter)
    headers: dict[str, str] = {}

    async def application(_scope: Scope, _receive: Receive, _send: Send) -> None:
        from opentelemetry.propagate import inject

        inject(headers)
        traces.ended(replace(ENTRY, outcome="cut_short"), "mini")

    async def run() -> None:
        traces.start()
        trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        sent = [(b"traceparent", trace), (b"authorization", b"Bearer sk-secret")]
        scope = {"type": "http", "path": "/v1/chat/completions", "headers": sent}
        await traces.wrap(application)(scope, None, None)  # type: ignore[arg-type]
        await traces.wrap(application)({"type": "http", "path": "/healthz", "headers": []}, None, None)  # type: ignore[arg-type]
        await traces.close()

    asyncio.run(run())
    [span] = exporter.get_finished_spans()
    assert format(span.context.trace_id, "032x") == "0af7651916cd43dd8448eb211c80319c"
    assert format(span.parent.span_id, "016x") == "b7ad6b7169203331"
    assert span.attributes["gen_ai.usage.output_tokens"] == 30
    assert not span.status.is_ok
    assert "sk-secret" not in span.to_json()


def test_no_handle_stays_open(tmp_path: Path) -> None:
    async def run() -> int:
        log = RequestLog(LogConfig(to=str(tmp_path / "a.jsonl")))
        await log.start()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            log.ended(ENTRY, "mini")
            await log.flush()
        grown = len(os.listdir("/proc/self/fd")) - before
        await log.close()
        return grown

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system has no /proc")
    assert asyncio.run(run()) <= 0
