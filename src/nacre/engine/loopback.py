"""A small server on this machine that exposes any engine as an OpenAI-compatible address, while a `with` block lasts.

`/v1/chat/completions` and `/v1/completions` (both streaming; the latter echoes with log-probabilities),
`/v1/embeddings`, `/v1/models`. For tests and measurements; serving to others is the gateway's task.
"""

from __future__ import annotations

import hmac
import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from nacre.engine.base import BaseEngine
from nacre.engine.loopback_wire import Asked, Refused, answer_json, chunk_json, embedding_json, read_request, score_json
from nacre.engine.protocol import EngineError, Generation
from nacre.errors import InputError, NacreError

_log = logging.getLogger(__name__)
LARGEST_BODY = 32 * 2**20
_JOIN_S = 10.0
Json = dict[str, Any]


@dataclass(frozen=True)
class Address:
    """Where the engine answers: `url` is the base address (ending in /v1), `model` the name to ask for."""

    url: str
    model: str


@contextmanager
def serve(engine: BaseEngine, *, model: str, key: str | None = None, port: int = 0) -> Iterator[Address]:
    """Serves `engine` as `model` on 127.0.0.1, on a free port unless one is given, to whoever has `key` (None: to all).

    The server, its connections and its threads end with the block; the engine stays open.
    """
    server = _Server(engine, model, key, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Address(f"http://127.0.0.1:{server.server_address[1]}/v1", model)
    finally:
        server.shutdown()
        server.end_connections()
        server.server_close()
        thread.join(_JOIN_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine: BaseEngine, model: str, key: str | None, port: int) -> None:
        self.engine, self.model, self.key = engine, model, key
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._connecting = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread per connection, remembered so that it can be ended."""
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        with self._connecting:
            self._connections = {one: held for one, held in self._connections.items() if one.is_alive()}
            self._connections[thread] = request
            thread.start()

    def end_connections(self) -> None:
        """Closes what is still open and waits for its threads."""
        with self._connecting:
            held = dict(self._connections)
        for connection in held.values():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in held:
            thread.join(_JOIN_S)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event; anything else is logged."""
        _log.debug("a loopback connection failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)

    def do_GET(self) -> None:
        if self._allowed():
            listed = {"id": self.server.model, "object": "model", "created": 0, "owned_by": "nacre"}
            if self.path == "/v1/models":
                self._send(200, {"object": "list", "data": [listed]})
            elif self.path == f"/v1/models/{self.server.model}":
                self._send(200, listed)
            else:
                self._refuse(Refused(404, f"there is no {self.path}", "not_found"))

    def do_POST(self) -> None:
        body = self._body()
        if body is None or not self._allowed():
            return
        try:
            self._answer(read_request(self.path, body, self.server.model))
        except Refused as refused:
            self._refuse(refused)
        except InputError as error:
            self._refuse(Refused(400, str(error), "invalid_request_error"))
        except NacreError as error:
            status = error.status if isinstance(error, EngineError) and error.status else 500
            self._refuse(Refused(status, str(error), "engine_error"))
        except OSError:
            self.close_connection = True  # the client went away
        except Exception as error:  # noqa: BLE001 - the outermost frame: a fault of the engine must not look like a hang
            _log.exception("the engine failed")
            self._refuse(Refused(500, f"{type(error).__name__}: {error}", "engine_error"))

    # --- requests

    def _body(self) -> bytes | None:
        """The request's body; None where it was refused."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.close_connection = True
            self._refuse(Refused(411, "a request needs a Content-Length", "invalid_request_error"))
            return None
        if int(length) > LARGEST_BODY:
            self.close_connection = True
            left = min(int(length), 4 * LARGEST_BODY)  # a client listens only once it has sent
            while left and (read := len(self.rfile.read(min(65536, left)))):
                left -= read
            self._refuse(Refused(413, f"the body is larger than {LARGEST_BODY:,} bytes", "invalid_request_error"))
            return None
        return self.rfile.read(int(length))

    def _allowed(self) -> bool:
        key = self.server.key
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if key is None or hmac.compare_digest(given.encode(), key.encode()):
            return True
        self._refuse(Refused(401, "the key is missing or wrong", "invalid_api_key"))
        return False

    def _answer(self, asked: Asked) -> None:
        engine = self.server.engine
        if asked.kind == "embed":
            self._send(200, embedding_json(asked, engine.embed(asked.texts)))
        elif asked.echo:
            self._send(200, score_json(asked, engine))
        elif asked.stream:
            self._stream(asked)
        else:
            found = engine.generate(asked.prompts, asked.how)
            self._send(200, answer_json(asked, found, f"nacre-{uuid.uuid4().hex}", int(time.time())))

    def _stream(self, asked: Asked) -> None:
        """Server-sent events; the status goes out with the first piece, so that an early error is an error."""
        name, when, begun = f"nacre-{uuid.uuid4().hex}", int(time.time()), False

        def begin() -> None:
            nonlocal begun
            if not begun:
                begun = True
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream; charset=utf-8")
                self.send_header("Cache-Control", "no-store")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()

        def piece(_: int, text: str) -> None:
            begin()
            self._event(json.dumps(chunk_json(asked, name, when, text), ensure_ascii=False))

        try:
            answer: Generation = self.server.engine.generate(asked.prompts, asked.how, on_token=piece)[0]
        except NacreError as error:
            if not begun:
                raise
            self._event(json.dumps({"error": {"message": str(error), "type": "engine_error"}}))
            self.wfile.write(b"0\r\n\r\n")
            return
        begin()
        self._event(json.dumps(chunk_json(asked, name, when, "", answer)))
        if asked.stream_usage:
            self._event(json.dumps(chunk_json(asked, name, when, None, answer)))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    # --- replies

    def _event(self, data: str) -> None:
        payload = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(payload), payload))
        self.wfile.flush()

    def _refuse(self, refused: Refused) -> None:
        self._send(refused.status, {"error": {"message": str(refused), "type": refused.kind, "code": refused.kind}})

    def _send(self, status: int, value: Json) -> None:
        data = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
