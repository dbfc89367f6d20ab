"""A scripted upstream in OpenAI's format that misbehaves on request, and counts what it is sent.

    with scripted([status(429, after=0), reply("hello")]) as upstream:
        ...
    assert len(upstream.requests) == 2

Each request takes the next step of the script; when the script is used up, `default` answers (an echo of the last
message, and vectors of the texts' lengths). A step is one of the functions below.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Received:
    """One request: its path, its parsed body and its headers."""

    path: str
    body: Json
    headers: dict[str, str]


@dataclass
class Sent:
    """What a step sends: a status, headers and bytes; `cut` ends the connection after that many bytes of them."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: int | None = None
    drop: bool = False


Step = Callable[[Received], Sent]


@dataclass
class Upstream:
    """A running scripted server. `requests` are the POSTs it was sent, in order; `busiest` the most at one time."""

    url: str
    script: list[Step]
    default: Step
    requests: list[Received] = field(default_factory=list)
    busiest: int = 0
    _busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, received: Received) -> Step:
        with self._lock:
            self.requests.append(received)
            return self.script.pop(0) if self.script else self.default

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1

    def folder(self, folder: Path, **settings: Any) -> Path:
        """Writes `engine.json` for this upstream into `folder` (patient in attempts, not in seconds); returns it."""
        plain = {"engine": "openai_http", "address": self.url, "model": "scripted", "backoff_s": 0.001}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "engine.json").write_text(json.dumps(plain | settings), encoding="utf-8")
        return folder


# --- steps


def reply(text: str | None, *, model: str = "scripted", finish: str | None = "stop", **message: Any) -> Step:
    """A good chat or text completion. `message` adds fields to the message (`refusal="no"`)."""

    def step(received: Received) -> Sent:
        chat = "messages" in received.body
        said: Json = {"message": {"role": "assistant", "content": text, **message}} if chat else {"text": text}
        if received.body.get("stream"):
            return _stream(text or "", model, finish, chat)
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        choice = {"index": 0, "finish_reason": finish, **said}
        return _json({"id": "x", "model": model, "choices": [choice], "usage": usage})

    return step


def vectors(rows: Sequence[Sequence[Any]] | None = None, *, model: str = "scripted") -> Step:
    """Embeddings as given; by default two dimensions, made of each text's length. NaN is sent as the word NaN."""

    def step(received: Received) -> Sent:
        texts = received.body["input"]
        found = [[float(len(text)), 1.0] for text in texts] if rows is None else rows
        data = [{"object": "embedding", "index": i, "embedding": list(row)} for i, row in enumerate(found)]
        n = sum(map(len, texts))
        return _json({"model": model, "data": data, "usage": {"prompt_tokens": n, "total_tokens": n}})

    return step


def status(code: int, message: str = "scripted", *, after: float | str | None = None, kind: str = "scripted") -> Step:
    """An error in OpenAI's shape; `after` is its Retry-After; a 3xx leads to another address."""
    headers = {} if after is None else {"Retry-After": str(after)}
    if 300 <= code < 400:
        headers["Location"] = "http://127.0.0.1:9/elsewhere"
    body = json.dumps({"error": {"message": message, "type": kind, "code": kind}}).encode()
    return lambda received: Sent(code, body, headers)


def raw(body: bytes | str, code: int = 200) -> Step:
    """Whatever bytes: no JSON, or JSON without the fields that it needs."""
    data = body.encode() if isinstance(body, str) else body
    return lambda received: Sent(code, data)


def late(seconds: float, then: Step) -> Step:
    """`then`, after a while: a client with a shorter timeout has left."""

    def step(received: Received) -> Sent:
        sent = then(received)
        sent.delay_s = seconds
        return sent

    return step


def dropped() -> Step:
    """The connection is reset without an answer."""
    return lambda received: Sent(drop=True)


def cut_short(then: Step, keep: int = 20) -> Step:
    """`then`, of which only `keep` bytes arrive before the connection ends."""

    def step(received: Received) -> Sent:
        sent = then(received)
        sent.cut = keep
        return sent

    return step


def truncated_stream(text: str, pieces: int) -> Step:
    """A stream that ends in good order after `pieces` pieces of `text`, with neither finish_reason nor [DONE]."""

    def step(received: Received) -> Sent:
        whole = _stream(text, "scripted", "stop", "messages" in received.body).body
        events = whole.split(b"\n\n")[:pieces]
        return Sent(200, b"".join(event + b"\n\n" for event in events), {"Content-Type": "text/event-stream"})

    return step


def echo(received: Received) -> Sent:
    """The default: the last message or the prompt again, or vectors."""
    body = received.body
    if "input" in body:
        return vectors(model=str(body.get("model")))(received)
    text = body["messages"][-1]["content"] if "messages" in body else body.get("prompt", "")
    return reply(text, model=str(body.get("model")))(received)


# --- the server


@contextmanager
def scripted(script: Sequence[Step] = (), *, default: Step = echo) -> Iterator[Upstream]:
    """A server on a free loopback port, while the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    upstream = Upstream(f"http://127.0.0.1:{server.server_address[1]}/v1", list(script), default)
    server.upstream = upstream  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send(_json({"object": "list", "data": [{"id": "scripted", "object": "model"}]}))

    def do_POST(self) -> None:
        upstream: Upstream = self.server.upstream  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        received = Received(self.path, body, dict(self.headers.items()))
        with upstream.counted():
            sent = upstream.take(received)(received)
            time.sleep(sent.delay_s)
            try:
                self._send(sent)
            except OSError:  # the client went away
                self.close_connection = True

    def _send(self, sent: Sent) -> None:
        if sent.drop:
            # A reset, not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(sent.status)
        for name, value in ({"Content-Type": "application/json"} | sent.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(sent.body)))
        self.end_headers()
        self.wfile.write(sent.body if sent.cut is None else sent.body[: sent.cut])
        if sent.cut is not None:
            self.close_connection = True


def _json(value: Json) -> Sent:
    return Sent(200, json.dumps(value).encode())


def _stream(text: str, model: str, finish: str | None, chat: bool) -> Sent:
    """Events of two characters each, the end, the usage, [DONE]."""
    head = {"id": "x", "model": model}
    events: list[Any] = []
    for start in range(0, len(text), 2):
        piece = text[start : start + 2]
        said: Json = {"delta": {"content": piece}} if chat else {"text": piece}
        events.append(head | {"choices": [{"index": 0, **said, "finish_reason": None}]})
    last: Json = {"delta": {}} if chat else {"text": ""}
    events.append(head | {"choices": [{"index": 0, **last, "finish_reason": finish}]})
    events.append(head | {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    data = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return Sent(200, data.encode(), {"Content-Type": "text/event-stream"})
