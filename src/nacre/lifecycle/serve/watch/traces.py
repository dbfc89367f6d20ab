"""OpenTelemetry traces: one span per request under the client's `traceparent`, passed on to upstreams; none when off.

Attributes are those of the GenAI semantic conventions (OpenTelemetry, gen_ai.*). No span holds a text or a key.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any

from nacre.lazy import missing, require
from nacre.lifecycle.serve.contract import ASGI, ROUTES, Entry, Receive, Scope, Send
from nacre.lifecycle.serve.watch.config import TracesConfig

_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_OPERATIONS = {"chat": "chat", "completions": "text_completion", "embeddings": "embeddings"}


class Traces:
    """Spans of requests. Off, every method does nothing and imports nothing. `exporter` is for tests."""

    def __init__(self, config: TracesConfig, exporter: Any = None) -> None:
        self._config, self._exporter = config, exporter
        self._provider: Any = None
        self._tracer: Any = None

    def start(self) -> None:
        """Opens the exporter; raises MissingDependency where the extra `otel` is not installed."""
        if not self._config.on:
            return
        if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
            raise missing("opentelemetry")
        sdk, export = require("opentelemetry.sdk.trace"), require("opentelemetry.sdk.trace.export")
        resource = require("opentelemetry.sdk.resources").Resource.create({"service.name": self._config.service})
        exporter = self._exporter if self._exporter is not None else require(_EXPORTER).OTLPSpanExporter()
        self._provider = sdk.TracerProvider(resource=resource)
        self._provider.add_span_processor(export.BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("nacre.gateway")

    def wrap(self, application: ASGI) -> ASGI:
        """The application with a span around each request for a model; itself when off."""
        if not self._config.on:
            return application

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if self._tracer is None or scope["type"] != "http" or scope["path"] not in ROUTES:
                await application(scope, receive, send)
                return
            trace, propagate = require("opentelemetry.trace"), require("opentelemetry.propagate")
            names = {"traceparent", "tracestate"}
            carrier = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"] if k.decode() in names}
            with self._tracer.start_as_current_span(
                f"POST {scope['path']}", context=propagate.extract(carrier), kind=trace.SpanKind.SERVER,
                record_exception=False, set_status_on_exception=False,
            ):  # fmt: skip
                await application(scope, receive, send)

        return traced

    def ended(self, entry: Entry, asked: str) -> None:
        """Puts what is known of a request on the span it runs in. `asked` is its bounded label."""
        if self._tracer is None:
            return
        trace = require("opentelemetry.trace")
        span = trace.get_current_span()
        known = {
            "gen_ai.operation.name": _OPERATIONS.get(entry.route, entry.route), "gen_ai.request.model": asked,
            "gen_ai.response.model": entry.served, "gen_ai.usage.input_tokens": entry.prompt_tokens,
            "gen_ai.usage.output_tokens": entry.completion_tokens, "http.response.status_code": entry.status,
            "nacre.id": entry.id, "nacre.key": entry.key, "nacre.outcome": entry.outcome, "nacre.cached": entry.cached,
            "nacre.masked": entry.masked, "nacre.money": entry.money, "nacre.first_token_s": entry.first_token_s,
        }  # fmt: skip
        span.set_attributes({name: value for name, value in known.items() if value is not None})
        if entry.outcome in ("upstream_error", "cut_short", "failed"):
            span.set_status(trace.StatusCode.ERROR, entry.outcome)

    def client(self) -> dict[str, str]:
        """The headers that pass the trace of the request under way on to an upstream; none when off."""
        headers: dict[str, str] = {}
        if self._config.on:
            require("opentelemetry.propagate").inject(headers)
        return headers

    async def close(self) -> None:
        """Sends what waits; in a thread, since the exporter blocks."""
        if self._provider is not None:
            await asyncio.to_thread(self._provider.shutdown)
            self._provider = self._tracer = None
