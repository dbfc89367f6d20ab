"""The process: a bound socket, uvicorn with bounded headers and times, and a stop that lets streams end.

uvicorn bounds idle connections (`timeout_keep_alive`) and the backlog; it bounds neither the size of headers with
httptools nor the time they take, so `BoundedProtocol` does (slow-loris).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import ssl
import sys
from asyncio import TimerHandle
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from nacre.errors import UsageError
from nacre.lifecycle.serve.app import Application
from nacre.lifecycle.serve.config import Bounds, Listen, ServeConfig
from nacre.lifecycle.serve.contract import ASGI, Refusal
from nacre.lifecycle.serve.pipeline import Gateway
from nacre.lifecycle.serve.tls import open_tls
from nacre.lifecycle.serve.workers import Crew, Place, stop_time_s

Mount = Callable[[Gateway, ASGI], Mapping[str, ASGI]]
Assemble = Callable[..., Awaitable[Gateway]]  # `place`: of one of several workers, else None
_log = logging.getLogger(__name__)
_LINGER_S = 1.0
_TRICKLE = 1024  # bytes a second that a client has to read at least


class _Gathering:
    """A transport that sends what is written within one turn of the event loop at once: head and body of an answer are
    one packet, and one call of the system of 20 us less."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends soon."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def write_eof(self) -> None:
        """Sends what waits, and the end."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Sends what waits, and closes."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on headers (their bytes, their number, the seconds until they are whole), and on
    clients that do not read their answer, which would otherwise hold their place for ever."""

    bounds = Bounds()
    _timer: TimerHandle | None = None
    _reader: TimerHandle | None = None  # runs while a client has more to read than the buffer takes
    _in_headers = False
    _bytes = 0
    _fed = 0
    _n_headers = 0
    _over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Gathering(transport, self.loop))  # type: ignore[arg-type]
        if len(self.connections) > self.bounds.connections:
            self._refuse(503, "too many connections: try again in a moment", "too_many_connections")
            return
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch_headers()
        self._unwatch_reader()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unwatch_reader()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._timer is None:
            self._watch_headers()
        super().data_received(data)
        if self._in_headers:  # the parser holds back what is not whole: it counts by what was fed
            self._fed += len(data)
            if self._fed > self.bounds.header_bytes:
                self._refuse_headers()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers, self._bytes, self._fed, self._n_headers = True, 0, 0, 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._n_headers += 1
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._unwatch_headers()
        if not self._over:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._over:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._over:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, in OpenAI's shape."""
        if not self._over:
            self._refuse(400, "this is no HTTP request: send HTTP/1.1", "invalid_http")

    def _count(self, more: int) -> None:
        self._bytes += more
        if self._bytes > self.bounds.header_bytes or self._n_headers > self.bounds.headers:
            self._refuse_headers()

    def _refuse_headers(self) -> None:
        if self._over:
            return
        limit = f"{self.bounds.header_bytes:,} bytes or {self.bounds.headers} headers"
        self._refuse(431, f"the headers are more than {limit}: send fewer", "headers_too_large")

    def _watch_headers(self) -> None:
        self._timer = self.loop.call_later(self.bounds.header_s, self._too_slow)

    def _unwatch_headers(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _too_slow(self) -> None:
        self._timer = None
        if self._in_headers:
            self._refuse(408, f"the headers did not arrive within {self.bounds.header_s:g} s", "headers_timeout")
        elif not self.transport.is_closing():
            self.transport.close()

    def _watch_reader(self) -> None:
        waits = self.transport.get_write_buffer_size()
        self._reader = self.loop.call_later(self.bounds.reader_s, self._see_reader, waits)

    def _unwatch_reader(self) -> None:
        timer, self._reader = self._reader, None
        if timer is not None:
            timer.cancel()

    def _see_reader(self, waited: int) -> None:
        """Cuts off a client that took less than a trickle: what it waits for is then told that it left."""
        if waited - self.transport.get_write_buffer_size() < _TRICKLE * self.bounds.reader_s:
            self.transport.abort()
        else:
            self._watch_reader()

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Says why, and closes a moment later: at once, what the client still sends would wipe the answer out."""
        self._over = True
        self._unwatch_headers()
        if self.transport.is_closing():
            return
        body = orjson.dumps(Refusal(status, message, code=code).body())
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)


@dataclass(frozen=True)
class _Way:
    """How clients come in."""

    listener: socket.socket
    tls: ssl.SSLContext | None


class Server(uvicorn.Server):
    """uvicorn, which on SIGTERM or SIGINT lets requests under way end, and then ends with code 0."""

    def __init__(self, config: uvicorn.Config, application: Application, drain_s: float) -> None:
        super().__init__(config)
        self._application, self._drain_s = application, drain_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no new connection, waits for what is under way, and tells what is late that the server stops."""
        for server in self.servers:
            server.close()
        under_way = self._application.n_under_way
        if under_way and not self.force_exit:
            _log.warning("%d under way: waiting up to %g s (Ctrl-C again ends them now)", under_way, self._drain_s)
        late = await self._application.drain(self._drain_s, lambda: self.force_exit)
        if late:
            _log.warning("%d requests were ended with an error event", late)
        await super().shutdown(sockets)
        self._captured_signals.clear()  # it was asked to stop and did: no error


def bind(listen: Listen) -> socket.socket:
    """The listening socket; raises UsageError where the port is taken or the address is not ours."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits it
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((listen.host, listen.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        where = f"{listen.host}:{listen.port}"
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"{where} is in use", remedy=f"stop what listens there, or --port {listen.port + 1}"
            ) from None
        raise UsageError(
            f"{where} cannot be listened on: {error.strerror or error}", remedy="--host 127.0.0.1"
        ) from None
    listener.setblocking(False)
    return listener


def serve(
    config: ServeConfig,
    assemble: Assemble,
    *,
    mount: Mount | None = None,
    started: Callable[[str], None] = lambda url: None,
) -> None:
    """Serves until SIGTERM or SIGINT. Raises NacreError for whatever can be known before the first request.

    `assemble(place=...)` makes the gateway inside the event loop, `mount` what else is served beside it, by path
    prefix; `started` is called with the address. With several workers all of that happens in each of them.
    """
    tls = None if config.listen.tls is None else open_tls(config.listen.tls)
    listener = bind(config.listen)
    host, port = listener.getsockname()[:2]
    url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    run = partial(_run, config, assemble, _Way(listener, tls), mount)
    try:
        if config.listen.workers == 1:
            run(None, lambda: started(url))
        else:
            crew = Crew(
                config.listen.workers,
                run,
                partial(_all_started, config, partial(started, url)),
                stop_time_s(config.bounds.drain_s),
            )
            crew.run(listener)
    finally:
        listener.close()


def _run(
    config: ServeConfig, assemble: Assemble, way: _Way, mount: Mount | None,
    place: Place | None, ready: Callable[[], None],
) -> None:  # fmt: skip
    """One process that serves; as a worker it ends with its parent."""
    factory = uvicorn.Config(Application, loop="uvloop" if sys.platform != "win32" else "asyncio").get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        loop = runner.get_loop()
        if place is not None:
            loop.add_reader(place.life, _parent_gone, loop, place.life)
        runner.run(_serve(config, partial(assemble, place=place), way, mount, ready))


def _parent_gone(loop: asyncio.AbstractEventLoop, life: int) -> None:
    """The other end of the pipe is closed: nobody would end this worker any more, so it ends as on SIGTERM."""
    loop.remove_reader(life)
    os.kill(os.getpid(), signal.SIGTERM)


def _all_started(config: ServeConfig, started: Callable[[], None], pids: Sequence[int]) -> None:
    local = [name for name, model in config.models.items() if model.local is not None]
    if local:
        held = [f"{mib:,.0f} MiB" for pid in pids if (mib := _resident_mib(pid)) is not None]
        _log.warning("each of %d workers holds its own copy of %s (%s)", len(pids), ", ".join(local), ", ".join(held))
    started()


def _resident_mib(pid: int) -> float | None:
    """Memory of a process; None on systems without /proc."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return None


def check(config: ServeConfig, assemble: Assemble) -> None:
    """Opens everything once and closes it again; raises NacreError for what would not start."""
    if config.listen.tls is not None:
        open_tls(config.listen.tls)

    async def once() -> None:
        gateway = await assemble()
        await gateway.start()
        await gateway.close()

    asyncio.run(once())


async def _serve(
    config: ServeConfig,
    assemble: Callable[[], Awaitable[Gateway]],
    way: _Way,
    mount: Mount | None,
    ready: Callable[[], None],
) -> None:
    gateway = await assemble()
    await gateway.start()
    try:
        application = Application(gateway)
        if mount is not None:
            application.mounts.update(mount(gateway, application))
        wrapped = gateway.parts.wrap(application)
        server = Server(_uvicorn(config, wrapped, way.tls), application, config.bounds.drain_s)
        ready()
        await server.serve(sockets=[way.listener])
    finally:
        await gateway.close()


def _uvicorn(config: ServeConfig, application: Any, tls: ssl.SSLContext | None = None) -> uvicorn.Config:
    protocol = type("Protocol", (BoundedProtocol,), {"bounds": config.bounds})
    return uvicorn.Config(
        application, http=protocol, ws="none", lifespan="off", access_log=False, log_config=None, log_level="warning",
        server_header=False, proxy_headers=False, timeout_keep_alive=int(config.bounds.idle_s) or 1,
        timeout_graceful_shutdown=5, ssl_context_factory=None if tls is None else lambda *_: tls,
    )  # fmt: skip
